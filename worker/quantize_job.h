// Runs one quantize job from model folder to published artifact, stage by stage. No LibTorch, gRPC or SQLite
// here.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/call.h"
#include "base/executors.h"
#include "base/json.h"
#include "base/status.h"
#include "quant/spec.h"

namespace tempera {

struct JobProgress {
  std::string stage;  // "calibrate", "scales", "temporal", "blocks", "ranges", "cache", "select", "pack",
                      // "evaluate", "compare", "publish"
  std::string unit;   // block in work, or empty
  int64_t done = 0;   // units done in this stage
  int64_t total = 0;
  double fraction = 0;      // of the whole job, 0..1, never decreasing
  double eta_seconds = -1;  // -1: not known yet
};

struct QuantizeJobInput {
  std::string job_id;
  QuantSpec spec;
  std::filesystem::path model_folder;  // resolved, under a served root
  std::filesystem::path
      work_folder;  // checkpoints of this job and the artifact while it is made; survives a crash
  Json notes;       // job name, labels, times: go to measurements.json
};

struct QuantizeJobOutput {
  std::string artifact_id;
  std::filesystem::path folder;  // inside work_folder: complete, verified, ready to publish
};

// Resumes from the checkpoints in work_folder when they are of the same model, spec and build; damaged ones
// are discarded. The artifact id depends on model, spec and build alone: not on threads, interruptions or the
// job's name. Cancel is checked at each block and iteration.
Result<QuantizeJobOutput> RunQuantizeJob(const CallScope& scope, const QuantizeJobInput& input, Lanes& lanes,
                                         const std::function<void(const JobProgress&)>& progress);

}  // namespace tempera
