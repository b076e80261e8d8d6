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

// Gaussian noise equal to torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)), draw after
// draw. One lane only. A copy has its own state: what a parked generation must keep.
class NoiseSource {
 public:
  explicit NoiseSource(uint64_t seed);
  NoiseSource(const NoiseSource& other);
  NoiseSource& operator=(const NoiseSource& other);
  NoiseSource(NoiseSource&&) noexcept = default;
  NoiseSource& operator=(NoiseSource&&) noexcept = default;

  // f32 on the CPU, contiguous: the order of draws is the order in memory. REQUIRES: no negative size.
  at::Tensor Randn(at::IntArrayRef shape);

 private:
  at::Generator generator_;
};

// What a multi-step sampler remembers between steps; belongs to one generation. Begins empty at step 0; the
// method says what stands where. Counters are not kept: they follow from k.
struct SamplerState {
  std::vector<at::Tensor> history;
};

// One sampler with its schedule fixed. Immutable, shared by lanes.
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // The timestep of each network evaluation in order, noisiest first: step k sees timesteps()[k]. A method
  // that evaluates the network twice a step has an entry for each.
  const std::vector<double>& timesteps() const { return timesteps_; }
  // The start is standard normal noise times this.
  virtual double init_noise_sigma() const { return 1.0; }

  // Whether the network's output suits a sample of `channels`: it has as many, or twice as many where the
  // second half describes the variance. InvalidArgument names the option that asks for the other count. Ask
  // once, before Step.
  virtual Status CheckOutput(int64_t channels, int64_t output_channels) const;
  // What the network sees at step k. x: [B, C, ...] f32.
  virtual at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const;
  // The sample of step k + 1 from the network's output at step k. Draws noise only where the method does, in
  // the order that diffusers draws it.
  //   model_output  [B, C, ...] f32, or [B, 2C, ...]: a method without a learned variance leaves the second
  //   half aside x             [B, C, ...] f32, on the same device
  // REQUIRES: 0 <= k < timesteps().size(), shapes that CheckOutput accepts.
  virtual at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                          SamplerState& state) const = 0;

  // Name in the table: "ddim".
  const std::string& name() const { return name_; }
  int64_t train_timesteps() const { return train_timesteps_; }
  double eta() const { return eta_; }
  // Every option with its value, as in scheduler_config.json: what stands in the manifest. Given back to
  // CreateScheduler it makes the same sampler.
  const Json& config() const { return config_; }

 protected:
  std::string name_;
  std::vector<double> timesteps_;
  int64_t train_timesteps_ = 1000;
  double eta_ = 0;
  Json config_;
};

struct SchedulerRequest {
  Json config;                                            // the model's scheduler_config.json
  std::string label = "scheduler/scheduler_config.json";  // names the configuration in errors
  // A row's name; the model's own class when unset. A scheduler named here takes what the model's
  // configuration shares with it and its own defaults for the rest, as diffusers' from_config does.
  std::optional<std::string> name = {};
  std::optional<int64_t> steps = {};        // 1..num_train_timesteps; the row's default when unset
  std::optional<double> eta = {};           // finite, >= 0; schedulers without it take 0 only
  std::optional<std::string> spacing = {};  // overrides timestep_spacing
};

// InvalidArgument names the option, its value and what is wanted. Options that no scheduler has are errors
// when the class is the model's own; those of other classes are left aside (published configurations carry
// them along).
Result<std::shared_ptr<const Scheduler>> CreateScheduler(const SchedulerRequest& request);

// One row a method.
struct SchedulerRow {
  const char* name;        // in requests: "ddim"
  const char* class_name;  // in scheduler_config.json: "DDIMScheduler"
  const char* summary;
  int64_t default_steps;  // fewer where the model was trained on fewer timesteps
  Result<std::shared_ptr<const Scheduler>> (*create)(const SchedulerRow& row,
                                                     const SchedulerRequest& request);
};
const std::vector<SchedulerRow>& Schedulers();

}  // namespace tempera
