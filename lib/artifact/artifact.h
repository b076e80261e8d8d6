// The artifact folder: manifest.json and the files it names. Content-addressed: the id is the SHA-256 of the
// manifest. docs/artifact_format.md describes the files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/json.h"
#include "base/status.h"

namespace tempera {

inline constexpr int kArtifactVersion = 1;

// Files with fixed names. The manifest names the tensors and the evaluation where present; the last four are
// not hashed into it.
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kWeightsFile[] = "weights.safetensors";  // codes, scales, zero points, float leftovers
inline constexpr char kTablesFile[] = "tables.safetensors";    // activation ranges per step, feature cache
inline constexpr char kReferenceFile[] =
    "reference.safetensors";  // full-precision temporal features (or layers)
inline constexpr char kEvaluationFile[] = "evaluation.json";
inline constexpr char kMeasurementsFile[] = "measurements.json";  // varies from run to run: not hashed
inline constexpr char kReportJsonFile[] = "report.json";          // made from evaluation and measurements
inline constexpr char kReportHtmlFile[] = "report.html";
inline constexpr char kDigestsFile[] = "digests.json";  // of the three above, so that damage to them is found

struct FileEntry {
  std::string sha256;
  int64_t bytes = 0;
};

// manifest.json. Holds nothing that varies from run to run.
struct Manifest {
  int version = kArtifactVersion;
  std::string source_name;    // last component of the model's folder
  std::string source_sha256;  // identity of the model's configs and weights
  Json spec;                  // the resolved QuantSpec
  Json schedule;              // scheduler, its config, steps, eta, timesteps
  Json model;                 // pipeline class, denoiser config, input geometry, classes
  Json slots;      // the table of what is quantized: per slot name, role, unit, bits, format, state
  Json baseline;   // calibration error curve: temporal-feature error per step and block group
  Json libraries;  // tool and library versions
  std::map<std::string, FileEntry> files;

  std::string Text() const;  // canonical JSON, the bytes that are hashed
  std::string Id() const;    // 64 hexadecimal digits
  static Result<Manifest> Parse(std::string_view text, std::string_view label);
};

bool IsArtifactId(std::string_view text);

// digests.json: size and SHA-256 of the files that vary from run to run. Canonical JSON.
std::string DigestsText(const std::map<std::string, FileEntry>& files);
// The same of a folder; empty where it has no such file. DataLoss if it is damaged.
Result<std::map<std::string, FileEntry>> ReadDigests(const std::filesystem::path& folder,
                                                     std::string_view label);

// Reads `folder`/manifest.json, checks that its SHA-256 is `id` (when not empty), that every file which it or
// digests.json names is there with its size and digest, and that no path leaves the folder. DataLoss names
// the file, what was found and what was wanted.
Result<Manifest> VerifyArtifact(const CallScope& scope, const std::filesystem::path& folder,
                                const std::string& id);

}  // namespace tempera
