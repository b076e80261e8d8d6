// What samplers on a discrete training schedule share: options, betas, timesteps, the prediction of x_0.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "schedulers/scheduler.h"

namespace tempera {

// What the network's output stands for: the noise, x_0, or v = sqrt(a) noise - sqrt(1 - a) x_0.
enum class Prediction { kEpsilon, kSample, kV };

// Names and defaults are diffusers'.
struct DiscreteOptions {
  int64_t num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  std::string beta_schedule = "linear";
  std::optional<std::vector<double>> trained_betas;  // instead of the three above
  bool rescale_betas_zero_snr = false;  // shifts the betas so that the last timestep is pure noise
  std::string prediction_type = "epsilon";
  bool clip_sample = true;  // clamps x_0; thresholding goes before it
  double clip_sample_range = 1.0;
  bool thresholding = false;  // clamps each row's x_0 at a quantile of its magnitudes
  double dynamic_thresholding_ratio = 0.995;
  double sample_max_value = 1.0;
  std::string timestep_spacing = "leading";
  int64_t steps_offset = 0;  // used by "leading" alone

  Prediction prediction() const;
  Json ToJson(const char* class_name) const;
};

// True if the request's scheduler is the class that the configuration names.
bool IsOwnClass(const SchedulerRow& row, const SchedulerRequest& request);

// Reads the options of the request's configuration, the request's spacing on top, and checks every value.
// `beta_schedules`: the words that the class knows.
Result<DiscreteOptions> ReadDiscrete(Fields& fields, const SchedulerRequest& request,
                                     std::span<const std::string_view> beta_schedules);
// Call when a class has read its own options: leaves aside what other classes own and refuses what none does.
Status FinishOptions(Fields& fields, const SchedulerRow& row, const SchedulerRequest& request);

// InvalidArgument "<label>: <key> is wrong, got "<value>", want one of <words>" unless `value` is one of
// `words`.
Status CheckWord(const std::string& label, const char* key, const std::string& value,
                 std::span<const std::string_view> words);

// prod_{s <= t} (1 - beta[s]) for t in [0, T): [T] f32 on the CPU, T = num_train_timesteps. With the same
// bits as diffusers. Betas outside of [0, 1] are InvalidArgument.
Result<std::vector<float>> AlphasCumprod(const DiscreteOptions& options, const std::string& label);

// `steps` timesteps, noisiest first, strictly decreasing, within [0, T).
Result<std::vector<int64_t>> DiscreteTimesteps(const DiscreteOptions& options, const SchedulerRow& row,
                                               const SchedulerRequest& request);

// x_0 from the network's output, clamped as the options say. Shapes [B, C, ...] f32; alpha: the cumulative
// product.
at::Tensor PredictSample(const DiscreteOptions& options, float alpha, const at::Tensor& x,
                         const at::Tensor& output);

// The first half of the channels where the network gives twice as many as x has.
at::Tensor MeanChannels(const at::Tensor& output, const at::Tensor& x);

// InvalidArgument when a step at timestep t has no finite value: `values` are its coefficients.
Status CheckFiniteStep(const DiscreteOptions& options, const std::string& label, int64_t t, float alpha,
                       std::span<const float> values);

}  // namespace tempera
