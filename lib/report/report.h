// The quality report of an artifact: report.json for programs, report.html for people.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "report/evaluation.h"
#include "report/measurements.h"

namespace tempera {

// What the figures say in words, and how the artifact's own method stands against each other one.
struct Verdict {
  // How near the pictures are, by the mean PSNR: from 40 dB "the same", from 30 "nearly the same", from 20
  // "similar", below "other". kNone: no pictures were painted.
  enum class Pictures { kNone, kSame, kNearlySame, kSimilar, kOther };
  Pictures pictures = Pictures::kNone;
  std::string headline;                // one sentence
  std::vector<std::string> sentences;  // the figures behind it
  double size_ratio = 0;               // bytes that serve / bytes of full precision
  double temporal_error = 0;           // mean over steps
  int64_t mismatches = 0;              // steps where time is mistaken
  std::optional<double> speedup;  // full precision's step time / the quantized one's, least batch measured

  struct Comparison {
    std::string method;
    std::optional<Interval> psnr_gain_db;        // own minus other, paired by picture
    std::optional<double> temporal_error_ratio;  // own / other; unset where the other's is 0
  };
  std::vector<Comparison> comparisons;  // one a method but the first
};
// REQUIRES: both are checked.
Verdict Judge(const Evaluation& evaluation, const Measurements& measurements);

struct Report {
  std::string json;  // report.json: artifact, verdict, evaluation and measurements in one object
  std::string html;  // report.html: one page that needs nothing beside it, its pictures included
};

// Reads the sample pictures (PNG, each at most 16 MiB, 64 MiB together) from the artifact's folder. The same
// input gives the same bytes. Errors name the file or field: what CheckEvaluation and CheckMeasurements
// refuse, a picture that is missing or no PNG.
Result<Report> BuildReport(const std::string& artifact_id, const Evaluation& evaluation,
                           const Measurements& measurements, const std::filesystem::path& artifact_folder);

}  // namespace tempera
