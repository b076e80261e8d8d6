// DDPM: ancestral sampling. Source: arXiv 2006.11239, equations (6), (7) and (15); learned variance: arXiv
// 2102.09672.
#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/sqrt.h>

#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"
#include "schedulers/float_math.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 5> kDdpmBetaSchedules{"linear", "scaled_linear", "squaredcos_cap_v2",
                                                             "laplace", "sigmoid"};

// All in float, as diffusers computes them on float tensors.
struct Coefficients {
  SchedulerFacts::Mix at;  // the step
  float of_sample, of_x;   // the posterior's mean is of_sample * x_0 + of_x * x
  float sigma;             // of the noise, for a fixed variance
  float min_log, max_log;  // logarithms of the posterior's variance and of beta: the ends of a learned range
};

class Ddpm final : public Scheduler {
 public:
  Ddpm(SchedulerFacts facts, DiscreteOptions options, std::string variance_type,
       std::vector<Coefficients> coefficients)
      : Scheduler(std::move(facts)),
        options_(std::move(options)),
        variance_type_(std::move(variance_type)),
        coefficients_(std::move(coefficients)) {}

  Status CheckOutput(int64_t channels, int64_t output_channels) const override {
    if (Learned()) return CheckLearnedVariance(variance_type_, channels, output_channels);
    return Scheduler::CheckOutput(channels, output_channels);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(coefficients_.size()), "no such step");
    const Coefficients& c = coefficients_[k];
    const at::Tensor sample =
        PredictSample(options_, c.at.signal, c.at.noise, x, MeanChannels(model_output, x));
    const at::Tensor mean = sample * c.of_sample + x * c.of_x;
    if (timesteps()[k] == 0) return mean;
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
  Options options(row, request);
  DiscreteOptions o{.clip_sample = true};
  ReadDiscrete(options,
               {.beta_schedules = kDdpmBetaSchedules, .clips = true, .thresholds = true, .rescales = true},
               o);
  std::string variance_type = "fixed_small";
  options.GetWord("variance_type", variance_type, kVarianceTypes);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(std::vector<double> timesteps,
                 SpacedTimesteps(options, o, {.below = o.num_train_timesteps}));
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(o, request.label));

  SchedulerFacts facts = options.Facts(o.num_train_timesteps, static_cast<int64_t>(timesteps.size()));
  std::vector<Coefficients> coefficients;
  for (size_t k = 0; k < timesteps.size(); ++k) {
    const auto t = static_cast<int64_t>(timesteps[k]);
    const float alpha = alphas[t];
    const float next = k + 1 < timesteps.size() ? alphas[static_cast<int64_t>(timesteps[k + 1])] : 1.0f;
    const float step_alpha = alpha / next;  // of the jump from this step to the next
    const float step_beta = 1 - step_alpha;
    // The posterior's variance, kept above 0 for its logarithm.
    const float posterior = std::max((1 - next) / (1 - alpha) * step_beta, 1e-20f);

    Coefficients c{};
    c.at = MixOf(alpha);
    c.of_sample = (std::sqrt(next) * step_beta) / (1 - alpha);
    c.of_x = std::sqrt(step_alpha) * (1 - next) / (1 - alpha);
    if (variance_type == "fixed_small") c.sigma = std::sqrt(posterior);
    if (variance_type == "fixed_small_log") c.sigma = Exp(Log(posterior) * 0.5f);
    if (variance_type == "fixed_large") c.sigma = std::sqrt(step_beta);
    // diffusers takes the square root of this logarithm, which is no number; the logarithm's meaning is taken
    // here.
    if (variance_type == "fixed_large_log") c.sigma = Exp(Log(step_beta) * 0.5f);
    if (variance_type == "learned_range") {
      c.min_log = Log(posterior);
      c.max_log = Log(step_beta);
    }
    TEMPERA_TRY(CheckFiniteStep(o, request.label, t, alpha,
                                std::array{c.of_sample, c.of_x, c.sigma, c.min_log, c.max_log}));
    facts.mixes.push_back(c.at);
    coefficients.push_back(c);
  }
  facts.timesteps = std::move(timesteps);
  return std::make_shared<const Ddpm>(std::move(facts), std::move(o), std::move(variance_type),
                                      std::move(coefficients));
}

}  // namespace

extern const SchedulerRow kDdpm{
    .name = "ddpm",
    .class_name = "DDPMScheduler",
    .summary = "Denoising diffusion probabilistic models: ancestral sampling, many steps.",
    .default_steps = 1000,
    .takes = {.spacing = true},
    .create = &Create,
};

}  // namespace tempera
