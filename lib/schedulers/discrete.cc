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

constexpr std::array<std::string_view, 3> kPredictions{"epsilon", "sample", "v_prediction"};
constexpr std::array<std::string_view, 3> kSpacings{"leading", "trailing", "linspace"};

// Options of the schedulers that diffusers takes for interchangeable, and of its early versions; meaningless
// here.
constexpr std::initializer_list<const char*> kOptionsOfOthers{"algorithm_type",
                                                              "disable_corrector",
                                                              "euler_at_final",
                                                              "final_sigmas_type",
                                                              "flow_shift",
                                                              "interpolation_type",
                                                              "lambda_min_clipped",
                                                              "lower_order_final",
                                                              "predict_x0",
                                                              "rho",
                                                              "set_alpha_to_one",
                                                              "shift_terminal",
                                                              "sigma_data",
                                                              "sigma_max",
                                                              "sigma_min",
                                                              "sigma_schedule",
                                                              "skip_prk_steps",
                                                              "solver_order",
                                                              "solver_p",
                                                              "solver_type",
                                                              "tensor_format",
                                                              "time_shift_type",
                                                              "timestep_type",
                                                              "timestep_values",
                                                              "use_beta_sigmas",
                                                              "use_dynamic_shifting",
                                                              "use_exponential_sigmas",
                                                              "use_flow_sigmas",
                                                              "use_karras_sigmas",
                                                              "use_lu_lambdas",
                                                              "variance_type"};

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

Status CheckOptions(const DiscreteOptions& o, const std::string& label,
                    std::span<const std::string_view> beta_schedules) {
  const auto wrong = [&](const char* key, const auto& got, const auto&... want) {
    return InvalidArgument(label, ": ", key, " is wrong, got ", got, ", want ", want...);
  };
  if (o.num_train_timesteps < 1 || o.num_train_timesteps > kMaxTrainTimesteps)
    return wrong("num_train_timesteps", o.num_train_timesteps, "1 to ", kMaxTrainTimesteps);
  if (o.trained_betas) {
    const int64_t size = static_cast<int64_t>(o.trained_betas->size());
    if (size < o.num_train_timesteps || size > kMaxTrainTimesteps)
      return wrong("trained_betas", Cat(size, " values"), "num_train_timesteps (", o.num_train_timesteps,
                   ")");
  } else {
    TEMPERA_TRY(CheckWord(label, "beta_schedule", o.beta_schedule, beta_schedules));
    // linspace of LibTorch throws where a bound does not fit a float.
    if (!(o.beta_start >= 0 && o.beta_start <= 1)) return wrong("beta_start", o.beta_start, "0 to 1");
    if (!(o.beta_end >= 0 && o.beta_end <= 1)) return wrong("beta_end", o.beta_end, "0 to 1");
  }
  TEMPERA_TRY(CheckWord(label, "prediction_type", o.prediction_type, kPredictions));
  if (!PositiveFloat(o.clip_sample_range))
    return wrong("clip_sample_range", o.clip_sample_range, "a positive float");
  if (!(o.dynamic_thresholding_ratio >= 0 && o.dynamic_thresholding_ratio <= 1))
    return wrong("dynamic_thresholding_ratio", o.dynamic_thresholding_ratio, "0 to 1");
  if (!PositiveFloat(o.sample_max_value))
    return wrong("sample_max_value", o.sample_max_value, "a positive float");
  if (o.steps_offset < 0 || o.steps_offset >= o.num_train_timesteps)
    return wrong("steps_offset", o.steps_offset, "0 to ", o.num_train_timesteps - 1);
  return OkStatus();
}

at::Tensor Threshold(const DiscreteOptions& o, const at::Tensor& sample) {
  const at::Tensor rows = sample.reshape({sample.size(0), -1});
  at::Tensor limit = at::quantile(at::abs(rows), o.dynamic_thresholding_ratio, 1);
  limit = at::clamp(limit, 1.0, o.sample_max_value).unsqueeze(1);
  return (at::clamp(rows, -limit, limit) / limit).reshape(sample.sizes());
}

}  // namespace

Prediction DiscreteOptions::prediction() const {
  if (prediction_type == "sample") return Prediction::kSample;
  return prediction_type == "v_prediction" ? Prediction::kV : Prediction::kEpsilon;
}

Json DiscreteOptions::ToJson(const char* class_name) const {
  return {{"_class_name", class_name},
          {"num_train_timesteps", num_train_timesteps},
          {"beta_start", beta_start},
          {"beta_end", beta_end},
          {"beta_schedule", beta_schedule},
          {"trained_betas", trained_betas ? Json(*trained_betas) : Json()},
          {"rescale_betas_zero_snr", rescale_betas_zero_snr},
          {"prediction_type", prediction_type},
          {"clip_sample", clip_sample},
          {"clip_sample_range", clip_sample_range},
          {"thresholding", thresholding},
          {"dynamic_thresholding_ratio", dynamic_thresholding_ratio},
          {"sample_max_value", sample_max_value},
          {"timestep_spacing", timestep_spacing},
          {"steps_offset", steps_offset}};
}

bool IsOwnClass(const SchedulerRow& row, const SchedulerRequest& request) {
  const auto it = request.config.find("_class_name");
  return it == request.config.end() || *it == row.class_name;
}

Status CheckWord(const std::string& label, const char* key, const std::string& value,
                 std::span<const std::string_view> words) {
  std::string all;
  for (std::string_view word : words) {
    if (value == word) return OkStatus();
    all += all.empty() ? "" : ", ";
    all += word;
  }
  return InvalidArgument(label, ": ", key, " is wrong, got \"", value, "\", want one of ", all);
}

Result<DiscreteOptions> ReadDiscrete(Fields& fields, const SchedulerRequest& request,
                                     std::span<const std::string_view> beta_schedules) {
  DiscreteOptions o;
  fields.Get("num_train_timesteps", o.num_train_timesteps);
  fields.Get("beta_start", o.beta_start);
  fields.Get("beta_end", o.beta_end);
  fields.Get("beta_schedule", o.beta_schedule);
  fields.Get("trained_betas", o.trained_betas);
  fields.Get("rescale_betas_zero_snr", o.rescale_betas_zero_snr);
  fields.Get("prediction_type", o.prediction_type);
  fields.Get("clip_sample", o.clip_sample);
  fields.Get("clip_sample_range", o.clip_sample_range);
  fields.Get("thresholding", o.thresholding);
  fields.Get("dynamic_thresholding_ratio", o.dynamic_thresholding_ratio);
  fields.Get("sample_max_value", o.sample_max_value);
  fields.Get("timestep_spacing", o.timestep_spacing);
  fields.Get("steps_offset", o.steps_offset);
  TEMPERA_TRY(fields.status());
  if (request.spacing) {
    o.timestep_spacing = *request.spacing;
    if (std::find(kSpacings.begin(), kSpacings.end(), *request.spacing) == kSpacings.end())
      return InvalidArgument("spacing: got \"", *request.spacing,
                             "\", want one of leading, trailing, linspace");
  }
  TEMPERA_TRY(CheckWord(request.label, "timestep_spacing", o.timestep_spacing, kSpacings));
  TEMPERA_TRY(CheckOptions(o, request.label, beta_schedules));
  return o;
}

Status FinishOptions(Fields& fields, const SchedulerRow& row, const SchedulerRequest& request) {
  if (!IsOwnClass(row, request)) return fields.status();
  // Early versions could say here that the network predicts x_0; now prediction_type does.
  bool predict_epsilon = true;
  if (fields.Get("predict_epsilon", predict_epsilon) && !predict_epsilon)
    fields.Fail("predict_epsilon", "is not supported, got false, want prediction_type \"sample\" instead");
  fields.Ignore(kOptionsOfOthers);
  for (const auto& [key, value] : request.config.items())
    if (key.starts_with('_')) fields.Ignore({key.c_str()});
  return fields.Finish();
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

Result<std::vector<int64_t>> DiscreteTimesteps(const DiscreteOptions& o, const SchedulerRow& row,
                                               const SchedulerRequest& request) {
  const int64_t train = o.num_train_timesteps;
  const int64_t steps = request.steps.value_or(std::min(row.default_steps, train));
  if (steps < 1 || steps > train)
    return InvalidArgument("steps: got ", steps, ", want 1 to the model's ", train, " training timesteps");
  const double t = static_cast<double>(train), n = static_cast<double>(steps);
  std::vector<int64_t> timesteps(steps);
  if (o.timestep_spacing == "leading") {
    for (int64_t k = 0; k < steps; ++k) timesteps[k] = (steps - 1 - k) * (train / steps) + o.steps_offset;
  } else if (o.timestep_spacing == "trailing") {
    // The spacing that float addition gives, as numpy.arange(T, 0, -T / n) has it, decides where a half is
    // rounded. For some n arange has an entry too many (timestep -1); it is no step.
    const double delta = (t - t / n) - t;
    for (int64_t k = 0; k < steps; ++k)
      timesteps[k] = static_cast<int64_t>(std::nearbyint(t + static_cast<double>(k) * delta)) - 1;
  } else {
    // numpy.linspace(0, T - 1, n), whose single point is 0.
    const double delta = steps == 1 ? 0 : (t - 1) / (n - 1);
    for (int64_t k = 0; k < steps; ++k)
      timesteps[k] = static_cast<int64_t>(std::nearbyint(static_cast<double>(steps - 1 - k) * delta));
    if (steps > 1) timesteps[0] = train - 1;
  }
  if (timesteps[0] >= train)
    return InvalidArgument(request.label, ": steps_offset does not fit ", steps, " steps, got ",
                           o.steps_offset, ", want at most ", train - 1 - (timesteps[0] - o.steps_offset));
  for (int64_t k = 0; k < steps; ++k)
    TEMPERA_CHECK(timesteps[k] >= 0 && (k == 0 || timesteps[k] < timesteps[k - 1]), "timesteps");
  return timesteps;
}

at::Tensor PredictSample(const DiscreteOptions& o, float alpha, const at::Tensor& x,
                         const at::Tensor& output) {
  const float root = std::sqrt(alpha), noise_root = std::sqrt(1 - alpha);
  at::Tensor sample = output;
  if (o.prediction() == Prediction::kEpsilon) sample = (x - output * noise_root) / root;
  if (o.prediction() == Prediction::kV) sample = x * root - output * noise_root;
  if (o.thresholding) return Threshold(o, sample);
  if (o.clip_sample) return at::clamp(sample, -o.clip_sample_range, o.clip_sample_range);
  return sample;
}

at::Tensor MeanChannels(const at::Tensor& output, const at::Tensor& x) {
  const at::Tensor mean = output.size(1) == x.size(1) ? output : output.narrow(1, 0, x.size(1));
  TEMPERA_CHECK(mean.sizes() == x.sizes(), "the network's output does not fit the sample");
  return mean;
}

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
