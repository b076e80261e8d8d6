// Samplers: the schedule of timesteps and one denoising step, as rows of a table.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
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

// What a multi-step sampler remembers between steps; belongs to one generation. Begins empty, at whichever
// step the run begins; the method says what stands where.
struct SamplerState {
  std::vector<at::Tensor> history;
  std::optional<int64_t> first;  // the step that the run began with, where the method counts from it
};

// What every sampler says of itself.
struct SchedulerFacts {
  std::string name = {};
  Json config = {};
  int64_t train_timesteps = 1000;
  int64_t steps = 0;  // as asked for; there may be more timesteps, one an evaluation
  int64_t order = 1;  // network evaluations a step
  double eta = 0;
  double init_noise_sigma = 1;
  std::vector<double> timesteps = {};
  std::vector<float> sigmas = {};
  // A sample at evaluation k is signal * x_0 + noise * (standard normal noise).
  struct Mix {
    float signal, noise;
  };
  std::vector<Mix> mixes = {};  // one an evaluation
};

// One sampler with its schedule fixed. Immutable, shared by lanes.
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // The timestep of each network evaluation in order, noisiest first: step k sees timesteps()[k]. A method
  // that evaluates the network twice a step has an entry for each; some are fractions.
  const std::vector<double>& timesteps() const { return facts_.timesteps; }
  // How many steps were asked for: give it back to make the same schedule.
  int64_t steps() const { return facts_.steps; }
  // The noise level at each evaluation and at the end, as diffusers' `sigmas`; empty where the method keeps
  // to cumulative alphas.
  const std::vector<float>& sigmas() const { return facts_.sigmas; }
  // The start is standard normal noise times this.
  double init_noise_sigma() const { return facts_.init_noise_sigma; }

  // Where a run that changes a given sample begins, as diffusers' image-to-image pipelines have it: the first
  // evaluation of the last `strength` of the steps. InvalidArgument unless strength is above 0 and at most 1
  // and leaves a step, or where the method can begin at 0 alone.
  virtual Result<int64_t> FirstStep(double strength) const;
  // The sample with the noise of evaluation k: what such a run begins with. sample, noise: [B, C, ...] f32.
  // REQUIRES: 0 <= k < timesteps().size().
  at::Tensor AddNoise(const at::Tensor& sample, const at::Tensor& noise, int64_t k) const;

  // Whether the network's output suits a sample of `channels`: it has as many, or twice as many where the
  // second half describes the variance. InvalidArgument names the option that asks for the other count. Ask
  // once, before Step.
  virtual Status CheckOutput(int64_t channels, int64_t output_channels) const;
  // What the network sees at step k. x: [B, C, ...] f32.
  virtual at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const;
  // The sample of step k + 1 from the network's output at step k. Draws noise only where the method does, in
  // the order that diffusers draws it.
  //
  //   model_output  [B, C, ...] f32, or [B, 2C, ...] (a method without a learned variance leaves the second
  //                 half aside)
  //   x             [B, C, ...] f32, on the same device
  //
  // REQUIRES: 0 <= k < timesteps().size(), shapes that CheckOutput accepts; k one more than at the last call
  // with this state, or, where that is empty, 0 or what FirstStep says.
  virtual at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                          SamplerState& state) const = 0;

  // Name in the table: "ddim".
  const std::string& name() const { return facts_.name; }
  int64_t train_timesteps() const { return facts_.train_timesteps; }
  double eta() const { return facts_.eta; }
  // Every option with its value, as in scheduler_config.json: what stands in the manifest. Given back to
  // CreateScheduler it makes the same sampler.
  const Json& config() const { return facts_.config; }

 protected:
  explicit Scheduler(SchedulerFacts facts) : facts_(std::move(facts)) {}
  // Steps before a run of this strength, 0 < strength <= 1.
  virtual int64_t SkippedSteps(double strength) const;

  const SchedulerFacts facts_;
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
  // An object that overrides options of the configuration, by the same names.
  Json options = {};
  // How far use_dynamic_shifting moves the schedule: follows from the picture's size, and some schedules need
  // it. Left aside where that option is false.
  std::optional<double> mu = {};
  // Noise levels to use instead of evenly spaced ones, before they are shifted: strictly decreasing within
  // (0, 1], as many as `steps`, which may be left unset.
  std::optional<std::vector<double>> sigmas = {};
};

// InvalidArgument names the option, its value and what is wanted; also where the scheduler cannot run what
// the model predicts. Options that no scheduler has are errors when the class is the model's own, those of
// other classes are left aside (published configurations carry them along); the request's own options must be
// the scheduler's.
Result<std::shared_ptr<const Scheduler>> CreateScheduler(const SchedulerRequest& request);

// One row a method.
struct SchedulerRow {
  const char* name;        // in requests: "ddim"
  const char* class_name;  // in scheduler_config.json: "DDIMScheduler"
  const char* summary;
  int64_t default_steps;  // fewer where the model was trained on fewer timesteps
  // The fields of a request that mean something to it; others are refused.
  struct Takes {
    bool eta = false, spacing = false, mu = false, sigmas = false;
  } takes = {};
  Result<std::shared_ptr<const Scheduler>> (*create)(const SchedulerRow& row,
                                                     const SchedulerRequest& request);
};
const std::vector<SchedulerRow>& Schedulers();

}  // namespace tempera
