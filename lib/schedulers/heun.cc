// Heun's method of second order: a step is tried, the slope where it ends is averaged with the first, and the
// step is made anew. Source: arXiv 2206.00364, algorithm 1.
#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>

#include <array>
#include <utility>

#include "schedulers/sigmas.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 4> kHeunBetaSchedules{"linear", "scaled_linear", "squaredcos_cap_v2",
                                                             "exp"};

// Evaluations: at level 0; at 1 to correct the step, at 1 to make the next, and so on; the last step ends at
// 0 and is not corrected. history: empty before a step's first evaluation; then its slope and its sample.
class Heun final : public Scheduler {
 public:
  Heun(SchedulerFacts facts, DiscreteOptions options)
      : Scheduler(std::move(facts)), options_(std::move(options)) {}

  at::Tensor ScaleInput(const at::Tensor& x, int64_t k) const override {
    return ExplodingInput(x, sigmas()[k]);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource&,
                  SamplerState& state) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(timesteps().size()), "no such step");
    const float sigma = sigmas()[k];
    at::Tensor sample = ExplodingSample(options_.prediction(), sigma, x, MeanChannels(model_output, x));
    if (options_.clip_sample)
      sample = at::clamp(sample, -options_.clip_sample_range, options_.clip_sample_range);
    const at::Tensor slope = (x - sample) / sigma;
    if (state.history.empty()) {
      state.history = {slope, x};
      return x + slope * (sigmas()[k + 1] - sigma);
    }
    const std::vector<at::Tensor> tried = std::exchange(state.history, {});
    return tried[1] + (tried[0] + slope) / 2 * (sigma - sigmas()[k - 1]);
  }

 private:
  const DiscreteOptions options_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions d{.beta_start = 0.00085, .beta_end = 0.012, .timestep_spacing = "linspace"};
  ReadDiscrete(options, {.beta_schedules = kHeunBetaSchedules, .clips = true}, d);
  LevelOptions o;
  ReadLevelSpacing(options, o);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(const Levels levels, ExplodingLevels(options, d, o));

  SchedulerFacts facts = options.Facts(d.num_train_timesteps, static_cast<int64_t>(levels.timesteps.size()));
  facts.order = 2;
  facts.init_noise_sigma = ExplodingInitSigma(d, levels.sigmas);
  for (size_t k = 0; k < levels.timesteps.size(); ++k) {
    const float sigma = levels.sigmas[k];
    TEMPERA_TRY(
        CheckFiniteLevel(options, static_cast<int64_t>(k), levels.sigmas, std::array{1 / sigma, sigma}));
    for (int evaluation = k == 0 ? 1 : 0; evaluation < 2; ++evaluation) {
      facts.timesteps.push_back(levels.timesteps[k]);
      facts.sigmas.push_back(sigma);
      facts.mixes.push_back({1, sigma});
    }
  }
  facts.sigmas.push_back(levels.sigmas.back());
  return std::make_shared<const Heun>(std::move(facts), std::move(d));
}

}  // namespace

extern const SchedulerRow kHeun{
    .name = "heun",
    .class_name = "HeunDiscreteScheduler",
    .summary = "Heun's method in noise levels: second order, two evaluations a step.",
    .default_steps = 25,
    .takes = {.spacing = true},
    .create = &Create,
};

}  // namespace tempera
