// Data-parallel AdamW with an exponential moving average, resumable to the bit of its state file.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/executors.h"
#include "base/status.h"

namespace tempera::zoo {

struct TrainerOptions {
  double learning_rate = 1e-3;  // after warm-up
  double decay_part = 1;        // of total_steps, the last ones: by half a cosine down to a twentieth
  int64_t warmup_steps = 200;
  int64_t total_steps = 10000;
  double weight_decay = 0.0;
  double ema_decay = 0.9995;  // reached by (1 + n) / (10 + n)
  double clip_norm = 1.0;     // of the whole gradient
  int shards = 2;             // a step's batch is cut into so many, whatever the number of threads
};

// Thread-compatible; shards of a step run on the lanes.
class Trainer {
 public:
  Trainer(std::map<std::string, at::Tensor> parameters, const TrainerOptions& options, Lanes& lanes);

  // One step. `loss(shard)` builds the scalar loss of a shard; the step's loss is the mean over shards.
  Result<double> Step(const std::function<at::Tensor(int shard)>& loss);

  int64_t step() const { return step_; }
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }
  const std::map<std::string, at::Tensor>& ema() const { return ema_; }
  const TrainerOptions& options() const { return options_; }

  // Parameters, moments, average, step and `extra` (the loss curve) in one safetensors file, written at once.
  Status Save(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& extra) const;
  // NotFound if there is none.
  Result<std::map<std::string, at::Tensor>> Load(const std::filesystem::path& file);

 private:
  std::map<std::string, at::Tensor> parameters_, first_, second_, ema_;
  TrainerOptions options_;
  Lanes& lanes_;
  int64_t step_ = 0;
};

// What Run does beside the steps.
struct Course {
  std::filesystem::path state;  // file
  int64_t batch = 0;            // pictures of a step, all shards together
  double save_seconds = 240;    // between two checkpoints, at most
  // The loss of a shard must depend on step and shard alone: then a resumed run is the run that was never
  // stopped.
  std::function<at::Tensor(int64_t step, int shard)> loss;
  std::function<Status()> publish;  // after each checkpoint
};

// Goes on from the state file, where there is one, until total_steps or SIGINT or SIGTERM, and saves then
// too. Prints a line every 50 steps and keeps these lines' losses in the state as "extra/curve".
Status Run(Trainer& trainer, const Course& course);

// Writes tensors as one safetensors file, as f32 or f16.
Status SaveTensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors,
                   bool half = false);

}  // namespace tempera::zoo
