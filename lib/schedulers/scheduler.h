// Samplers: the schedule of timesteps and one denoising step, as rows of a table.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// Gaussian noise equal to torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)), draw after draw.
// One lane only. Copyable state: what a parked generation must keep.
class NoiseSource {
 public:
  explicit NoiseSource(uint64_t seed);
  at::Tensor Randn(at::IntArrayRef shape);  // f32 on the CPU

 private:
  at::Generator generator_;
};

// What a multi-step sampler remembers between steps; belongs to one generation.
struct SamplerState {
  std::vector<at::Tensor> history;
};

// One sampler with its schedule fixed. Immutable, shared by lanes.
class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // The timestep of each network evaluation in order, noisiest first: step k sees timesteps()[k].
  const std::vector<double>& timesteps() const { return timesteps_; }
  // The start is standard normal noise times this.
  virtual double init_noise_sigma() const { return 1.0; }
  // What the network sees at step k. x: [B, C, H, W] f32.
  virtual at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const;
  // The sample of step k + 1 from the network's output at step k. Draws noise only where the method does, in the order
  // that diffusers draws it. model_output has x's shape, or 2C channels for a learned variance.
  virtual at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                          SamplerState& state) const = 0;
  // Name in the table: "ddim".
  const std::string& name() const { return name_; }
  int64_t train_timesteps() const { return train_timesteps_; }
  double eta() const { return eta_; }
  // Every option with its value, as in scheduler_config.json: what stands in the manifest.
  const Json& config() const { return config_; }

 protected:
  std::string name_;
  std::vector<double> timesteps_;
  int64_t train_timesteps_ = 1000;
  double eta_ = 0;
  Json config_;
};

struct SchedulerRequest {
  Json config;                         // the model's scheduler_config.json
  std::string label = "scheduler/scheduler_config.json";
  std::optional<std::string> name;     // a row's name; the model's own class when unset. A scheduler named here takes what the model's configuration shares with it, as diffusers' from_config does
  std::optional<int64_t> steps;        // 1..num_train_timesteps; the row's default when unset
  std::optional<double> eta;           // finite, >= 0; rejected by schedulers without it (unless 0)
  std::optional<std::string> spacing;  // overrides timestep_spacing
};

// InvalidArgument names the option, its value and what is wanted; options that the class does not have are errors that
// name them when the class is the model's own.
Result<std::shared_ptr<const Scheduler>> CreateScheduler(const SchedulerRequest& request);

// One row a method.
struct SchedulerRow {
  const char* name;        // in requests: "ddim"
  const char* class_name;  // in scheduler_config.json: "DDIMScheduler"
  const char* summary;
  int64_t default_steps;
  Result<std::shared_ptr<const Scheduler>> (*create)(const SchedulerRequest& request);
};
const std::vector<SchedulerRow>& Schedulers();

}  // namespace tempera
