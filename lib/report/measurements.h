// measurements.json: what varies from run to run: times, machine, the job's names. Never hashed into an
// artifact.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

inline constexpr int kMeasurementsVersion = 1;

struct JobFacts {
  std::string id;
  std::string name;
  std::map<std::string, std::string> labels;
  std::string started, finished;  // RFC 3339, UTC
};

struct MachineFacts {
  std::string cpu;               // as the processor names itself
  std::string instruction_sets;  // those that were tried and work: "avx2 avx512 vnni"
  std::string system;            // operating system
  int64_t cpus = 0;              // that the process may use
  int64_t memory_bytes = 0;
  int64_t threads = 0;  // lanes of the job
};

struct StageTime {
  std::string name;  // "calibrate", "blocks" ...
  double seconds = 0;
};

// One network evaluation of a denoising step.
struct StepTime {
  std::string subject;  // "full_precision" or "quantized"
  int64_t batch = 1;
  int64_t threads = 1;
  int64_t runs = 0;         // measured, after warm-up
  double milliseconds = 0;  // median for the whole batch
};

struct Measurements {
  int version = kMeasurementsVersion;
  JobFacts job;
  MachineFacts machine;
  std::map<std::string, std::string> software;  // name -> version: the program itself, LibTorch, compiler ...
  std::vector<StageTime> stages;                // in the order they ran
  std::vector<StepTime> steps;
  std::optional<int64_t> full_precision_resident_bytes;  // held in memory by the loaded model
  std::optional<int64_t> quantized_resident_bytes;       // by the loaded artifact
};

// As for Evaluation: every field stands there, errors name `label` and the field.
Json ToJson(const Measurements& measurements);
Result<Measurements> MeasurementsFromJson(const Json& json, const std::string& label);
Status CheckMeasurements(const Measurements& measurements, const std::string& label);

}  // namespace tempera
