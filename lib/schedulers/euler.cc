// Euler's method on the probability-flow equation in noise levels. Source: arXiv 2206.00364, section 3.
#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>
#include <utility>

#include "schedulers/float_math.h"
#include "schedulers/sigmas.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 2> kInterpolations{"linear", "log_linear"};
constexpr std::array<std::string_view, 2> kTimestepTypes{"discrete", "continuous"};

class Euler final : public Scheduler {
 public:
  Euler(SchedulerFacts facts, Prediction prediction) : Scheduler(std::move(facts)), prediction_(prediction) {}

  at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const override {
    return ExplodingInput(x, sigmas()[k]);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource&,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(timesteps().size()), "no such step");
    const float sigma = sigmas()[k];
    const at::Tensor sample = ExplodingSample(prediction_, sigma, x, MeanChannels(model_output, x));
    return x + (x - sample) / sigma * (sigmas()[k + 1] - sigma);
  }

 private:
  const Prediction prediction_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions d{.timestep_spacing = "linspace"};
  ReadDiscrete(options, {.rescales = true}, d);
  LevelOptions o;
  ReadLevelSpacing(options, o);
  ReadFinalSigma(options, o);
  std::string interpolation = "linear", timestep_type = "discrete";
  options.GetWord("interpolation_type", interpolation, kInterpolations);
  options.GetWord("timestep_type", timestep_type, kTimestepTypes);
  TEMPERA_TRY(options.Finish());
  o.log_linear = interpolation == "log_linear";
  TEMPERA_ASSIGN(Levels levels, ExplodingLevels(options, d, o));

  SchedulerFacts facts = options.Facts(d.num_train_timesteps, static_cast<int64_t>(levels.timesteps.size()));
  if (timestep_type == "continuous" && d.prediction() == Prediction::kV) {
    levels.timesteps.clear();
    for (size_t k = 0; k + 1 < levels.sigmas.size(); ++k)
      levels.timesteps.push_back(0.25f * Log(levels.sigmas[k]));
  }
  facts.init_noise_sigma = ExplodingInitSigma(d, levels.sigmas);
  for (size_t k = 0; k < levels.timesteps.size(); ++k) {
    const float sigma = levels.sigmas[k];
    TEMPERA_TRY(CheckFiniteLevel(options, static_cast<int64_t>(k), levels.sigmas,
                                 std::array{1 / sigma, sigma, levels.sigmas[k + 1]}));
    facts.mixes.push_back({1, sigma});
  }
  facts.timesteps = std::move(levels.timesteps);
  facts.sigmas = std::move(levels.sigmas);
  return std::make_shared<const Euler>(std::move(facts), d.prediction());
}

}  // namespace

extern const SchedulerRow kEuler{
    .name = "euler",
    .class_name = "EulerDiscreteScheduler",
    .summary = "Euler's method in noise levels: deterministic, one evaluation a step.",
    .default_steps = 50,
    .takes = {.spacing = true},
    .create = &Create,
};

}  // namespace tempera
