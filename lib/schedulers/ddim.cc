// DDIM. Source: arXiv 2010.02502, equations (12) and (16).
#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"

namespace tempera {
namespace {

// All in float, as diffusers computes them on float tensors.
struct Coefficients {
  SchedulerFacts::Mix at;  // the step
  float mean;              // of x_0: sqrt(alpha') with alpha' at the step that comes next
  float direction;         // of the predicted noise: sqrt(1 - alpha' - sigma^2)
  float sigma;             // of the noise that is drawn
};

class Ddim final : public Scheduler {
 public:
  Ddim(SchedulerFacts facts, DiscreteOptions options, std::vector<Coefficients> coefficients)
      : Scheduler(std::move(facts)), options_(std::move(options)), coefficients_(std::move(coefficients)) {}

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(coefficients_.size()), "no such step");
    const Coefficients& c = coefficients_[k];
    const at::Tensor output = MeanChannels(model_output, x);
    const at::Tensor sample = PredictSample(options_, c.at.signal, c.at.noise, x, output);
    const at::Tensor mean = sample * c.mean;
    // The noise follows from the output as it came, before x_0 is clamped.
    const at::Tensor next = mean + PredictNoise(options_, c.at.signal, c.at.noise, x, output) * c.direction;
    if (eta() == 0) return next;
    return next + noise.Randn(x.sizes()).to(x.device()) * c.sigma;
  }

 private:
  const DiscreteOptions options_;
  const std::vector<Coefficients> coefficients_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions o{.clip_sample = true};
  ReadDiscrete(options, {.clips = true, .thresholds = true, .rescales = true}, o);
  bool set_alpha_to_one = true;
  options.Get("set_alpha_to_one", set_alpha_to_one);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(std::vector<double> timesteps,
                 SpacedTimesteps(options, o, {.below = o.num_train_timesteps}));
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(o, request.label));

  const double eta = request.eta.value_or(0);
  const auto steps = static_cast<int64_t>(timesteps.size()), gap = o.num_train_timesteps / steps;
  SchedulerFacts facts = options.Facts(o.num_train_timesteps, steps);
  facts.eta = eta;
  std::vector<Coefficients> coefficients;
  for (const double tau : timesteps) {
    const auto t = static_cast<int64_t>(tau);
    // The next timestep by the even gap, even where the spacing is uneven: so diffusers computes it.
    const float alpha = alphas[t];
    const float next = t >= gap ? alphas[t - gap] : set_alpha_to_one ? 1.0f : alphas[0];
    const float variance = ((1 - next) / (1 - alpha)) * (1 - alpha / next);
    const float sigma = static_cast<float>(eta) * std::sqrt(variance);
    float rest = 1 - next - sigma * sigma;
    if (rest < 0) {
      // Up to eta 1 it is not negative but for rounding.
      if (eta > 1)
        return InvalidArgument("eta: more noise than timestep ", t, " has room for, got ", eta,
                               ", want at most 1");
      rest = 0;
    }
    const Coefficients c{MixOf(alpha), std::sqrt(next), std::sqrt(rest), sigma};
    TEMPERA_TRY(CheckFiniteStep(o, request.label, t, alpha, std::array{c.mean, c.direction, c.sigma}));
    facts.mixes.push_back(c.at);
    coefficients.push_back(c);
  }
  facts.timesteps = std::move(timesteps);
  return std::make_shared<const Ddim>(std::move(facts), std::move(o), std::move(coefficients));
}

}  // namespace

extern const SchedulerRow kDdim{
    .name = "ddim",
    .class_name = "DDIMScheduler",
    .summary = "Denoising diffusion implicit models: few steps, deterministic at eta 0.",
    .default_steps = 50,
    .takes = {.eta = true, .spacing = true},
    .create = &Create,
};

}  // namespace tempera
