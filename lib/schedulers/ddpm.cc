// DDPM: ancestral sampling. Source: arXiv 2006.11239, equations (6), (7) and (15); learned variance: arXiv
// 2102.09672.
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/item.h>
#include <ATen/ops/log.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sqrt.h>

#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 5> kBetaSchedules{"linear", "scaled_linear", "squaredcos_cap_v2",
                                                         "laplace", "sigmoid"};
constexpr std::array<std::string_view, 6> kVarianceTypes{
    "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"};

// All in float, as diffusers computes them on float tensors.
struct Coefficients {
  float alpha;             // cumulative, at the step
  float of_sample, of_x;   // the posterior's mean is of_sample * x_0 + of_x * x
  float sigma;             // of the noise, for a fixed variance
  float min_log, max_log;  // logarithms of the posterior's variance and of beta: the ends of a learned range
};

// LibTorch's own exp and log: their last bit may differ from libm's.
float Log(float v) { return at::log(at::scalar_tensor(v, at::kFloat)).item<float>(); }
float ExpHalf(float v) { return at::exp(at::scalar_tensor(v, at::kFloat) * 0.5).item<float>(); }

class Ddpm final : public Scheduler {
 public:
  Ddpm(const SchedulerRow& row, DiscreteOptions options, Json config, std::string variance_type,
       const std::vector<int64_t>& timesteps, std::vector<Coefficients> coefficients)
      : options_(std::move(options)),
        variance_type_(std::move(variance_type)),
        coefficients_(std::move(coefficients)) {
    name_ = row.name;
    timesteps_.assign(timesteps.begin(), timesteps.end());
    train_timesteps_ = options_.num_train_timesteps;
    config_ = std::move(config);
  }

  Status CheckOutput(int64_t channels, int64_t output_channels) const override {
    if (Learned() && output_channels != 2 * channels)
      return InvalidArgument("variance_type: ", variance_type_, " does not fit the network, got ",
                             output_channels, " channels, want ", 2 * channels);
    return Scheduler::CheckOutput(channels, output_channels);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(coefficients_.size()), "no such step");
    const Coefficients& c = coefficients_[k];
    const at::Tensor sample = PredictSample(options_, c.alpha, x, MeanChannels(model_output, x));
    const at::Tensor mean = sample * c.of_sample + x * c.of_x;
    if (timesteps_[k] == 0) return mean;
    const at::Tensor draw = noise.Randn(x.sizes()).to(x.device());
    if (!Learned()) return mean + draw * c.sigma;
    return mean + LearnedSigma(c, model_output.narrow(1, x.size(1), x.size(1))) * draw;
  }

 private:
  bool Learned() const { return variance_type_ == "learned" || variance_type_ == "learned_range"; }

  // predicted: the variance, or its logarithm's place between min_log (-1) and max_log (1).
  at::Tensor LearnedSigma(const Coefficients& c, const at::Tensor& predicted) const {
    if (variance_type_ == "learned") return at::sqrt(predicted);
    const at::Tensor share = (predicted + 1) / 2;
    return at::exp((share * c.max_log + (1 - share) * c.min_log) * 0.5);
  }

  const DiscreteOptions options_;
  const std::string variance_type_;
  const std::vector<Coefficients> coefficients_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  if (request.eta.value_or(0) != 0)
    return InvalidArgument("eta: ", row.name, " has a noise of its own, got ", *request.eta, ", want 0");
  Fields fields(request.config, request.label);
  TEMPERA_ASSIGN(const DiscreteOptions options, ReadDiscrete(fields, request, kBetaSchedules));
  std::string variance_type = "fixed_small";
  fields.Get("variance_type", variance_type);
  TEMPERA_TRY(FinishOptions(fields, row, request));
  TEMPERA_TRY(CheckWord(request.label, "variance_type", variance_type, kVarianceTypes));
  TEMPERA_ASSIGN(const std::vector<int64_t> timesteps, DiscreteTimesteps(options, row, request));
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(options, request.label));

  std::vector<Coefficients> coefficients;
  for (size_t k = 0; k < timesteps.size(); ++k) {
    const float alpha = alphas[timesteps[k]];
    const float next = k + 1 < timesteps.size() ? alphas[timesteps[k + 1]] : 1.0f;
    const float step_alpha = alpha / next;  // of the jump from this step to the next
    const float step_beta = 1 - step_alpha;
    // The posterior's variance, kept above 0 for its logarithm.
    const float posterior = std::max((1 - next) / (1 - alpha) * step_beta, 1e-20f);

    Coefficients c{};
    c.alpha = alpha;
    c.of_sample = (std::sqrt(next) * step_beta) / (1 - alpha);
    c.of_x = std::sqrt(step_alpha) * (1 - next) / (1 - alpha);
    if (variance_type == "fixed_small") c.sigma = std::sqrt(posterior);
    if (variance_type == "fixed_small_log") c.sigma = ExpHalf(Log(posterior));
    if (variance_type == "fixed_large") c.sigma = std::sqrt(step_beta);
    // diffusers takes the square root of this logarithm, which is no number; the logarithm's meaning is taken
    // here.
    if (variance_type == "fixed_large_log") c.sigma = ExpHalf(Log(step_beta));
    if (variance_type == "learned_range") {
      c.min_log = Log(posterior);
      c.max_log = Log(step_beta);
    }
    TEMPERA_TRY(CheckFiniteStep(options, request.label, timesteps[k], alpha,
                                std::array{c.of_sample, c.of_x, c.sigma, c.min_log, c.max_log}));
    coefficients.push_back(c);
  }
  Json config = options.ToJson(row.class_name);
  config["variance_type"] = variance_type;
  return std::make_shared<const Ddpm>(row, options, std::move(config), std::move(variance_type), timesteps,
                                      std::move(coefficients));
}

}  // namespace

extern const SchedulerRow kDdpm{
    .name = "ddpm",
    .class_name = "DDPMScheduler",
    .summary = "Denoising diffusion probabilistic models: ancestral sampling, many steps.",
    .default_steps = 1000,
    .create = &Create,
};

}  // namespace tempera
