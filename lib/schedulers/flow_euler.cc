// Euler's method for flow matching: x = (1 - sigma) x_0 + sigma noise, the network gives dx/dsigma. Sources:
// arXiv 2210.02747; the shift of the levels: arXiv 2403.03206, equation (23).
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/sigmas.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 1> kKnown{"flow_prediction"};
constexpr std::array<std::string_view, 2> kShiftTypes{"exponential", "linear"};

class FlowEuler final : public Scheduler {
 public:
  FlowEuler(SchedulerFacts facts, bool stochastic) : Scheduler(std::move(facts)), stochastic_(stochastic) {}

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(timesteps().size()), "no such step");
    const at::Tensor output = MeanChannels(model_output, x);
    const float sigma = sigmas()[k], next = sigmas()[k + 1];
    if (!stochastic_) return x + output * (next - sigma);
    const at::Tensor sample = x - output * sigma;
    return sample * (1 - next) + noise.Randn(x.sizes()).to(x.device()) * next;
  }

 private:
  // Rounded down, where the pipelines of other models round up.
  int64_t SkippedSteps(double strength) const override {
    const auto steps = static_cast<double>(facts_.steps);
    return static_cast<int64_t>(steps - steps * strength);
  }

  const bool stochastic_;
};

Status CheckGiven(const std::vector<double>& sigmas, int64_t steps) {
  if (sigmas.empty() || static_cast<int64_t>(sigmas.size()) != steps)
    return InvalidArgument("sigmas: got ", sigmas.size(), " levels, want one for each of ",
                           std::max<int64_t>(steps, 1), " steps");
  for (size_t k = 0; k < sigmas.size(); ++k)
    if (!(sigmas[k] > 0 && sigmas[k] <= 1 && (k == 0 || sigmas[k] < sigmas[k - 1])))
      return InvalidArgument("sigmas: level ", k, " is wrong, got ", sigmas[k],
                             ", want levels that fall strictly, above 0 and at most 1");
  return OkStatus();
}

// The schedule's own levels: from the noisiest training timestep to the cleanest, which `shift` has moved
// once already. In float.
std::vector<double> OwnLevels(int64_t train, double factor, bool dynamic, int64_t steps) {
  const auto level = [&](int64_t t) {
    const float v = static_cast<float>(t) / static_cast<float>(train);
    if (dynamic) return v;
    return static_cast<float>(factor) * v / (1 + static_cast<float>(factor - 1) * v);
  };
  const auto scale = static_cast<double>(train);
  std::vector<double> levels = Linspace(level(train) * scale, level(1) * scale, steps);
  for (double& v : levels) v /= scale;
  return levels;
}

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  int64_t train = 1000;
  ReadTrainTimesteps(options, train);
  std::string prediction;
  options.GetPrediction(prediction, kKnown);
  ShiftOptions shift;
  ReadShift(options, "shift", kShiftTypes, shift);
  ReadTerminal(options, shift);
  bool invert = false, stochastic = false;
  options.Get("invert_sigmas", invert);
  options.Get("stochastic_sampling", stochastic);
  LevelOptions o;
  ReadLevelSpacing(options, o);
  // From these pipelines compute mu.
  double base_shift = 0.5, max_shift = 1.15;
  int64_t base_image_seq_len = 256, max_image_seq_len = 4096;
  options.Get("base_shift", base_shift);
  options.Get("max_shift", max_shift);
  options.Get("base_image_seq_len", base_image_seq_len);
  options.Get("max_image_seq_len", max_image_seq_len);
  TEMPERA_TRY(options.Finish());

  std::vector<double> levels;
  if (request.sigmas) {
    levels = *request.sigmas;
    TEMPERA_TRY(CheckGiven(levels, request.steps.value_or(static_cast<int64_t>(levels.size()))));
  } else {
    TEMPERA_ASSIGN(const int64_t own, options.Steps(train));
    levels = OwnLevels(train, shift.factor, shift.dynamic, own);
  }
  const auto steps = static_cast<int64_t>(levels.size());
  TEMPERA_ASSIGN(const ShiftOptions moved, WithMu(options, shift));
  levels = ShiftedLevels(levels, moved, /*in_float=*/request.sigmas.has_value());
  if (o.spacing != LevelSpacing::kTimesteps) {
    TEMPERA_ASSIGN(levels, SpacedLevels(options, o, levels.front(), levels.back(), steps));
  }

  SchedulerFacts facts = options.Facts(train, steps);
  for (const double level : levels) {
    auto sigma = static_cast<float>(level);
    if (invert) sigma = 1 - sigma;
    facts.sigmas.push_back(sigma);
    facts.timesteps.push_back(sigma * static_cast<float>(train));
    facts.mixes.push_back({1 - sigma, sigma});
  }
  facts.sigmas.push_back(invert ? 1.0f : 0.0f);
  for (int64_t k = 0; k < steps; ++k)
    TEMPERA_TRY(CheckFiniteLevel(options, k, facts.sigmas, std::array{facts.sigmas[k]}));
  return std::make_shared<const FlowEuler>(std::move(facts), stochastic);
}

}  // namespace

extern const SchedulerRow kFlowEuler{
    .name = "flow_euler",
    .class_name = "FlowMatchEulerDiscreteScheduler",
    .summary = "Euler's method for flow matching, shifted towards noise for large pictures.",
    .default_steps = 28,
    .takes = {.mu = true, .sigmas = true},
    .create = &Create,
};

}  // namespace tempera
