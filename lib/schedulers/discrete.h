// What samplers on a discrete training schedule share: options, betas, timesteps, the predictions of x_0 and
// of the noise.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "schedulers/options.h"

namespace tempera {

// What the network's output stands for: the noise, x_0, v = sqrt(a) noise - sqrt(1 - a) x_0, or noise - x_0.
enum class Prediction { kEpsilon, kSample, kV, kFlow };

// The words that most classes know.
inline constexpr std::array<std::string_view, 3> kBetaSchedules{"linear", "scaled_linear",
                                                                "squaredcos_cap_v2"};
inline constexpr std::array<std::string_view, 3> kPredictions{"epsilon", "sample", "v_prediction"};
inline constexpr std::array<std::string_view, 6> kVarianceTypes{
    "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"};
inline constexpr std::array<std::string_view, 3> kSpacings{"leading", "trailing", "linspace"};

// Names and defaults are diffusers'.
struct DiscreteOptions {
  int64_t num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  std::string beta_schedule = "linear";
  std::optional<std::vector<double>> trained_betas = {};  // instead of the three above
  bool rescale_betas_zero_snr = false;  // shifts the betas so that the last timestep is pure noise
  std::string prediction_type = "epsilon";
  bool clip_sample = false;  // clamps x_0; thresholding goes before it
  double clip_sample_range = 1.0;
  bool thresholding = false;  // clamps each row's x_0 at a quantile of its magnitudes
  double dynamic_thresholding_ratio = 0.995;
  double sample_max_value = 1.0;
  std::string timestep_spacing = "leading";
  int64_t steps_offset = 0;  // used by "leading" alone

  Prediction prediction() const;
};

// Which of them a class knows.
struct DiscreteClass {
  std::span<const std::string_view> beta_schedules = kBetaSchedules;
  std::span<const std::string_view> predictions = kPredictions;
  bool clips = false;       // clip_sample, clip_sample_range
  bool thresholds = false;  // thresholding, dynamic_thresholding_ratio, sample_max_value
  bool rescales = false;    // rescale_betas_zero_snr
  bool spaces = true;       // timestep_spacing, steps_offset
};

void ReadTrainTimesteps(Options& options, int64_t& num_train_timesteps);
// Reads and checks what the class knows; `o` comes with the class's defaults.
void ReadDiscrete(Options& options, const DiscreteClass& known, DiscreteOptions& o);

// prod_{s <= t} (1 - beta[s]) for t in [0, T): [T] f32 on the CPU, T = num_train_timesteps. With the same
// bits as diffusers. Betas outside of [0, 1] are InvalidArgument.
Result<std::vector<float>> AlphasCumprod(const DiscreteOptions& o, const std::string& label);

// numpy.linspace: `count` values, the first and last as given.
std::vector<double> Linspace(double first, double last, int64_t count);

// How a class spaces its timesteps.
struct Spacing {
  int64_t below = 0;       // they lie below it; num_train_timesteps, or less where the noisiest are left out
  bool fractions = false;  // "linspace" gives floats, not integers
  bool one_more = false;   // spaced for one step more, whose timestep, the least, is then left out
};

// One timestep a step, noisiest first, strictly decreasing, within [0, T). "trailing" gives fewer than asked
// for where `below` leaves the noisiest out.
Result<std::vector<double>> SpacedTimesteps(const Options& options, const DiscreteOptions& o,
                                            const Spacing& spacing);

// x_0 from the network's output, clamped as the options say. x = signal * x_0 + noise_scale * noise.
// Shapes [B, C, ...] f32.
at::Tensor PredictSample(const DiscreteOptions& o, float signal, float noise_scale, const at::Tensor& x,
                         const at::Tensor& output);
// The noise likewise, nothing clamped. REQUIRES: not Prediction::kFlow.
at::Tensor PredictNoise(const DiscreteOptions& o, float signal, float noise_scale, const at::Tensor& x,
                        const at::Tensor& output);
// x_0 clamped at a quantile of each row's magnitudes and scaled to [-1, 1].
at::Tensor Threshold(const DiscreteOptions& o, const at::Tensor& sample);

// The first half of the channels where the network gives twice as many as x has.
at::Tensor MeanChannels(const at::Tensor& output, const at::Tensor& x);
// InvalidArgument unless the network gives the second half that a learned variance needs.
Status CheckLearnedVariance(const std::string& variance_type, int64_t channels, int64_t output_channels);

// sqrt(alpha), sqrt(1 - alpha).
SchedulerFacts::Mix MixOf(float alpha);

// InvalidArgument when a step at timestep t has no finite value: `values` are its coefficients.
Status CheckFiniteStep(const DiscreteOptions& o, const std::string& label, int64_t t, float alpha,
                       std::span<const float> values);

}  // namespace tempera
