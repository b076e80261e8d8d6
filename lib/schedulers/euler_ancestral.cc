// Euler's method with noise added anew at each step. Source: ancestral sampling of arXiv 2006.11239 in noise
// levels; the split into a step down and noise up follows from equal variances.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/sigmas.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 2> kKnown{"epsilon", "v_prediction"};

class EulerAncestral final : public Scheduler {
 public:
  EulerAncestral(SchedulerFacts facts, Prediction prediction)
      : Scheduler(std::move(facts)), prediction_(prediction) {}

  at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const override {
    return ExplodingInput(x, sigmas()[k]);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(timesteps().size()), "no such step");
    const float from = sigmas()[k], to = sigmas()[k + 1];
    const float up = std::sqrt(to * to * (from * from - to * to) / (from * from));
    const float down = std::sqrt(std::max(to * to - up * up, 0.0f));  // below 0 by rounding alone
    const at::Tensor sample = ExplodingSample(prediction_, from, x, MeanChannels(model_output, x));
    const at::Tensor next = x + (x - sample) / from * (down - from);
    return next + noise.Randn(x.sizes()).to(x.device()) * up;
  }

 private:
  const Prediction prediction_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions d{.timestep_spacing = "linspace"};
  ReadDiscrete(options, {.predictions = kKnown, .rescales = true}, d);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(Levels levels, ExplodingLevels(options, d, {}));

  SchedulerFacts facts = options.Facts(d.num_train_timesteps, static_cast<int64_t>(levels.timesteps.size()));
  facts.init_noise_sigma = ExplodingInitSigma(d, levels.sigmas);
  for (size_t k = 0; k < levels.timesteps.size(); ++k) {
    const float from = levels.sigmas[k], to = levels.sigmas[k + 1];
    TEMPERA_TRY(
        CheckFiniteLevel(options, static_cast<int64_t>(k), levels.sigmas,
                         std::array{1 / (from * from), from * from, std::sqrt(from * from - to * to)}));
    facts.mixes.push_back({1, from});
  }
  facts.timesteps = std::move(levels.timesteps);
  facts.sigmas = std::move(levels.sigmas);
  return std::make_shared<const EulerAncestral>(std::move(facts), d.prediction());
}

}  // namespace

extern const SchedulerRow kEulerA{
    .name = "euler_a",
    .class_name = "EulerAncestralDiscreteScheduler",
    .summary = "Euler's method with new noise at each step.",
    .default_steps = 50,
    .takes = {.spacing = true},
    .create = &Create,
};

}  // namespace tempera
