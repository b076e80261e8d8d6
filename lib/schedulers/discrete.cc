#include "schedulers/discrete.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/quantile.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <numbers>

namespace tempera {
namespace {

// Bounds the tables' memory; published models have 1000 or 4000.
constexpr int64_t kMaxTrainTimesteps = 1'000'000;

// beta[i] = 1 - f((i + 1) / T) / f(i / T), at most 0.999.
std::vector<float> BetasFromAlphaBar(int64_t count, double (*alpha_bar)(double)) {
  std::vector<float> betas(count);
  for (int64_t i = 0; i < count; ++i) {
    const double t1 = static_cast<double>(i) / static_cast<double>(count);
    const double t2 = static_cast<double>(i + 1) / static_cast<double>(count);
    betas[i] = static_cast<float>(std::min(1 - alpha_bar(t2) / alpha_bar(t1), 0.999));
  }
  return betas;
}

double CosineAlphaBar(double t) {
  const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
  return c * c;
}

double ExponentialAlphaBar(double t) { return std::exp(t * -12.0); }

double LaplaceAlphaBar(double t) {
  const double lambda = -0.5 * std::copysign(1.0, 0.5 - t) * std::log(1 - 2 * std::fabs(0.5 - t) + 1e-6);
  const double snr = std::exp(lambda);
  return std::sqrt(snr / (1 + snr));
}

std::vector<float> Floats(const at::Tensor& row) {
  const float* data = row.const_data_ptr<float>();
  return {data, data + row.numel()};
}

std::vector<float> Betas(const DiscreteOptions& o) {
  const int64_t count = o.num_train_timesteps;
  if (o.trained_betas) return {o.trained_betas->begin(), o.trained_betas->end()};
  if (o.beta_schedule == "linear") return Floats(at::linspace(o.beta_start, o.beta_end, count, at::kFloat));
  if (o.beta_schedule == "scaled_linear") {
    const double first = std::pow(o.beta_start, 0.5), last = std::pow(o.beta_end, 0.5);
    const at::Tensor root = at::linspace(first, last, count, at::kFloat);
    return Floats(root * root);
  }
  if (o.beta_schedule == "squaredcos_cap_v2") return BetasFromAlphaBar(count, &CosineAlphaBar);
  if (o.beta_schedule == "exp") return BetasFromAlphaBar(count, &ExponentialAlphaBar);
  if (o.beta_schedule == "laplace") return BetasFromAlphaBar(count, &LaplaceAlphaBar);
  TEMPERA_CHECK(o.beta_schedule == "sigmoid", o.beta_schedule);
  const at::Tensor ramp = at::sigmoid(at::linspace(-6, 6, count, at::kFloat));
  return Floats(ramp * (o.beta_end - o.beta_start) + o.beta_start);
}

// Rounded to float after each factor, multiplied in double: as LibTorch's cumprod on the CPU.
std::vector<float> ProductOfAlphas(const std::vector<float>& betas) {
  std::vector<float> product(betas.size());
  double sum = 1;
  for (size_t t = 0; t < betas.size(); ++t) product[t] = static_cast<float>(sum *= 1 - betas[t]);
  return product;
}

// sqrt(alphas_cumprod) is shifted to end at 0 and scaled to keep its start. Source: arXiv 2305.08891,
// algorithm 1. Roots are exactly rounded here; LibTorch's vector roots differ from one processor to another.
std::vector<float> RescaleZeroTerminalSnr(const std::vector<float>& betas) {
  std::vector<float> bar = ProductOfAlphas(betas);
  for (float& value : bar) value = std::sqrt(value);
  const float first = bar.front(), last = bar.back();
  const float scale = first / (first - last);
  for (float& value : bar) {
    value = (value - last) * scale;
    value *= value;
  }
  std::vector<float> rescaled(betas.size());
  for (size_t t = 0; t < betas.size(); ++t) rescaled[t] = 1 - (t == 0 ? bar[0] : bar[t] / bar[t - 1]);
  return rescaled;
}

bool PositiveFloat(double v) { return v > 0 && v <= FLT_MAX; }

}  // namespace

Prediction DiscreteOptions::prediction() const {
  if (prediction_type == "sample") return Prediction::kSample;
  if (prediction_type == "flow_prediction") return Prediction::kFlow;
  return prediction_type == "v_prediction" ? Prediction::kV : Prediction::kEpsilon;
}

void ReadTrainTimesteps(Options& options, int64_t& num_train_timesteps) {
  options.Get("num_train_timesteps", num_train_timesteps);
  options.Check(num_train_timesteps >= 1 && num_train_timesteps <= kMaxTrainTimesteps, "num_train_timesteps",
                num_train_timesteps, "1 to ", kMaxTrainTimesteps);
}

void ReadDiscrete(Options& options, const DiscreteClass& known, DiscreteOptions& o) {
  ReadTrainTimesteps(options, o.num_train_timesteps);
  const int64_t train = o.num_train_timesteps;
  options.Get("beta_start", o.beta_start);
  options.Get("beta_end", o.beta_end);
  options.Get("trained_betas", o.trained_betas);
  if (o.trained_betas) {
    options.Get("beta_schedule", o.beta_schedule);
    const auto size = static_cast<int64_t>(o.trained_betas->size());
    options.Check(size >= train && size <= kMaxTrainTimesteps, "trained_betas", Cat(size, " values"),
                  "num_train_timesteps (", train, ")");
  } else {
    options.GetWord("beta_schedule", o.beta_schedule, known.beta_schedules);
    // linspace of LibTorch throws where a bound does not fit a float.
    options.Check(o.beta_start >= 0 && o.beta_start <= 1, "beta_start", o.beta_start, "0 to 1");
    options.Check(o.beta_end >= 0 && o.beta_end <= 1, "beta_end", o.beta_end, "0 to 1");
  }
  options.GetPrediction(o.prediction_type, known.predictions);
  if (known.rescales) options.Get("rescale_betas_zero_snr", o.rescale_betas_zero_snr);
  if (known.clips) {
    options.Get("clip_sample", o.clip_sample);
    options.Get("clip_sample_range", o.clip_sample_range);
    options.Check(PositiveFloat(o.clip_sample_range), "clip_sample_range", o.clip_sample_range,
                  "a positive float");
  }
  if (known.thresholds) {
    options.Get("thresholding", o.thresholding);
    options.Get("dynamic_thresholding_ratio", o.dynamic_thresholding_ratio);
    options.Check(o.dynamic_thresholding_ratio >= 0 && o.dynamic_thresholding_ratio <= 1,
                  "dynamic_thresholding_ratio", o.dynamic_thresholding_ratio, "0 to 1");
    options.Get("sample_max_value", o.sample_max_value);
    options.Check(PositiveFloat(o.sample_max_value), "sample_max_value", o.sample_max_value,
                  "a positive float");
  }
  if (known.spaces) {
    options.GetWord("timestep_spacing", o.timestep_spacing, kSpacings);
    options.Get("steps_offset", o.steps_offset);
    options.Check(o.steps_offset >= 0 && o.steps_offset < train, "steps_offset", o.steps_offset, "0 to ",
                  train - 1);
  }
}

Result<std::vector<float>> AlphasCumprod(const DiscreteOptions& o, const std::string& label) {
  std::vector<float> betas = Betas(o);
  if (o.rescale_betas_zero_snr) betas = RescaleZeroTerminalSnr(betas);
  const float least = o.rescale_betas_zero_snr ? -1e-6f : 0;  // 1 - (a quotient near 1) can round below 0
  for (size_t t = 0; t < betas.size(); ++t)
    if (!(betas[t] >= least && betas[t] <= 1))
      return InvalidArgument(label, ": ", o.rescale_betas_zero_snr ? "rescaled " : "",
                             o.trained_betas ? "trained_betas" : "betas", " are wrong, got ", betas[t],
                             " at timestep ", t, ", want 0 to 1");
  std::vector<float> product = ProductOfAlphas(betas);
  product.resize(o.num_train_timesteps);
  return product;
}

std::vector<double> Linspace(double first, double last, int64_t count) {
  const double delta = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0;
  std::vector<double> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<double>(i) * delta + first;
  if (count > 1) values.back() = last;
  return values;
}

Result<std::vector<double>> SpacedTimesteps(const Options& options, const DiscreteOptions& o,
                                            const Spacing& spacing) {
  const int64_t train = o.num_train_timesteps, below = spacing.below;
  TEMPERA_ASSIGN(const int64_t steps, options.Steps(train));
  const int64_t points = steps + (spacing.one_more ? 1 : 0);
  std::vector<double> timesteps;
  if (o.timestep_spacing == "leading") {
    for (int64_t k = 0; k < steps; ++k)
      timesteps.push_back(static_cast<double>((points - 1 - k) * (below / points) + o.steps_offset));
  } else if (o.timestep_spacing == "trailing") {
    // The spacing that float addition gives, as numpy.arange(T, 0, -T / n) has it, decides where a half is
    // rounded. For some n arange has an entry too many (timestep -1); it is no step.
    const auto first = static_cast<double>(below);
    const double delta = (first - static_cast<double>(train) / static_cast<double>(steps)) - first;
    for (int64_t k = 0; k < steps; ++k) {
      const double t = std::nearbyint(first + static_cast<double>(k) * delta) - 1;
      if (t >= 0) timesteps.push_back(t);
    }
  } else {
    const std::vector<double> even = Linspace(0, static_cast<double>(below - 1), points);
    for (int64_t k = 0; k < steps; ++k) {
      const double t = even[points - 1 - k];
      timesteps.push_back(spacing.fractions ? static_cast<float>(t) : std::nearbyint(t));
    }
  }
  if (timesteps[0] >= static_cast<double>(train))
    return InvalidArgument(options.label(), ": steps_offset does not fit ", steps, " steps, got ",
                           o.steps_offset, ", want at most ",
                           static_cast<double>(train - 1 + o.steps_offset) - timesteps[0]);
  for (size_t k = 1; k < timesteps.size(); ++k)
    if (!(timesteps[k] < timesteps[k - 1]))
      return InvalidArgument("steps: got ", steps, ", want fewer: timestep_spacing ", o.timestep_spacing,
                             " has no room for them below timestep ", below);
  return timesteps;
}

at::Tensor PredictSample(const DiscreteOptions& o, float signal, float noise_scale, const at::Tensor& x,
                         const at::Tensor& output) {
  at::Tensor sample = output;
  if (o.prediction() == Prediction::kEpsilon) sample = (x - output * noise_scale) / signal;
  if (o.prediction() == Prediction::kV) sample = x * signal - output * noise_scale;
  if (o.prediction() == Prediction::kFlow) sample = x - output * noise_scale;
  if (o.thresholding) return Threshold(o, sample);
  if (o.clip_sample) return at::clamp(sample, -o.clip_sample_range, o.clip_sample_range);
  return sample;
}

at::Tensor PredictNoise(const DiscreteOptions& o, float signal, float noise_scale, const at::Tensor& x,
                        const at::Tensor& output) {
  TEMPERA_CHECK(o.prediction() != Prediction::kFlow, o.prediction_type);
  if (o.prediction() == Prediction::kSample) return (x - output * signal) / noise_scale;
  if (o.prediction() == Prediction::kV) return output * signal + x * noise_scale;
  return output;
}

at::Tensor Threshold(const DiscreteOptions& o, const at::Tensor& sample) {
  const at::Tensor rows = sample.reshape({sample.size(0), -1});
  at::Tensor limit = at::quantile(at::abs(rows), o.dynamic_thresholding_ratio, 1);
  limit = at::clamp(limit, 1.0, o.sample_max_value).unsqueeze(1);
  return (at::clamp(rows, -limit, limit) / limit).reshape(sample.sizes());
}

at::Tensor MeanChannels(const at::Tensor& output, const at::Tensor& x) {
  const at::Tensor mean = output.size(1) == x.size(1) ? output : output.narrow(1, 0, x.size(1));
  TEMPERA_CHECK(mean.sizes() == x.sizes(), "the network's output does not fit the sample");
  return mean;
}

Status CheckLearnedVariance(const std::string& variance_type, int64_t channels, int64_t output_channels) {
  if (output_channels == 2 * channels) return OkStatus();
  return InvalidArgument("variance_type: ", variance_type, " does not fit the network, got ", output_channels,
                         " channels, want ", 2 * channels);
}

SchedulerFacts::Mix MixOf(float alpha) { return {std::sqrt(alpha), std::sqrt(1 - alpha)}; }

Status CheckFiniteStep(const DiscreteOptions& o, const std::string& label, int64_t t, float alpha,
                       std::span<const float> values) {
  bool finite = true;
  for (float value : values) finite = finite && std::isfinite(value);
  // x_0 from the noise divides by sqrt(alpha); only a clamp makes something finite of it.
  if (o.prediction() == Prediction::kEpsilon && alpha == 0 && !o.clip_sample && !o.thresholding)
    finite = false;
  if (finite) return OkStatus();
  return InvalidArgument(label, ": the betas give no finite step at timestep ", t, " with prediction_type ",
                         o.prediction_type, ", got a cumulative alpha of ", alpha,
                         ", want one above 0 and below 1");
}

}  // namespace tempera
