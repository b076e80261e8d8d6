// Sampling of latent consistency models: each step jumps to x_0 and adds noise anew. Sources: arXiv
// 2310.04378; the weights of the jump: arXiv 2303.01469, appendix C.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"

namespace tempera {
namespace {

constexpr double kSigmaData = 0.5;

struct Coefficients {
  SchedulerFacts::Mix at, next;  // the step, the one that follows
  float skip, out;               // of x and of the predicted x_0 in the jump
};

class Lcm final : public Scheduler {
 public:
  Lcm(SchedulerFacts facts, DiscreteOptions options, std::vector<Coefficients> coefficients)
      : Scheduler(std::move(facts)), options_(std::move(options)), coefficients_(std::move(coefficients)) {}

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    const auto steps = static_cast<int64_t>(coefficients_.size());
    TEMPERA_CHECK(k >= 0 && k < steps, "no such step");
    const Coefficients& c = coefficients_[k];
    const at::Tensor sample =
        PredictSample(options_, c.at.signal, c.at.noise, x, MeanChannels(model_output, x));
    const at::Tensor jump = sample * c.out + x * c.skip;
    if (k == steps - 1) return jump;
    return jump * c.next.signal + noise.Randn(x.sizes()).to(x.device()) * c.next.noise;
  }

 private:
  const DiscreteOptions options_;
  const std::vector<Coefficients> coefficients_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions o{.beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = "scaled_linear"};
  ReadDiscrete(options, {.clips = true, .thresholds = true, .rescales = true, .spaces = false}, o);
  int64_t original = 50;  // steps of the solver that the model was distilled from; these are some of them
  options.Get("original_inference_steps", original);
  options.Check(original >= 1 && original <= o.num_train_timesteps, "original_inference_steps", original,
                "1 to ", o.num_train_timesteps);
  double scaling = 10;
  options.Get("timestep_scaling", scaling);
  options.Check(std::isfinite(scaling), "timestep_scaling", scaling, "a finite number");
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(const int64_t steps, options.Steps(o.num_train_timesteps));
  if (steps > original)
    return InvalidArgument("steps: got ", steps, ", want 1 to original_inference_steps (", original, ")");
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(o, request.label));

  SchedulerFacts facts = options.Facts(o.num_train_timesteps, steps);
  const double apart = static_cast<double>(original) / static_cast<double>(steps);
  for (int64_t k = 0; k < steps; ++k) {
    const auto skipped = static_cast<int64_t>(static_cast<double>(k) * apart);
    facts.timesteps.push_back(
        static_cast<double>((original - skipped) * (o.num_train_timesteps / original) - 1));
  }
  std::vector<Coefficients> coefficients;
  for (int64_t k = 0; k < steps; ++k) {
    const auto t = static_cast<int64_t>(facts.timesteps[k]);
    const auto next = static_cast<int64_t>(facts.timesteps[std::min(k + 1, steps - 1)]);
    const float scaled = static_cast<float>(t) * static_cast<float>(scaling);
    constexpr auto kSquare = static_cast<float>(kSigmaData * kSigmaData);
    const float sum = scaled * scaled + kSquare;
    const Coefficients c{MixOf(alphas[t]), MixOf(alphas[next]), kSquare / sum, scaled / std::sqrt(sum)};
    TEMPERA_TRY(
        CheckFiniteStep(o, request.label, t, alphas[t], std::array{c.at.noise, c.next.noise, c.skip, c.out}));
    facts.mixes.push_back(c.at);
    coefficients.push_back(c);
  }
  return std::make_shared<const Lcm>(std::move(facts), std::move(o), std::move(coefficients));
}

}  // namespace

extern const SchedulerRow kLcm{
    .name = "lcm",
    .class_name = "LCMScheduler",
    .summary = "For latent consistency models: a few steps, new noise at each.",
    .default_steps = 4,
    .create = &Create,
};

}  // namespace tempera
