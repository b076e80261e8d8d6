// DPM-Solver and DPM-Solver++, multistep: orders 1 to 3, deterministic or with noise. Sources: arXiv
// 2206.00927, arXiv 2211.01095.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/float_math.h"
#include "schedulers/sigmas.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 4> kKnown{"epsilon", "sample", "v_prediction", "flow_prediction"};
constexpr std::array<std::string_view, 4> kAlgorithms{"dpmsolver", "dpmsolver++", "sde-dpmsolver",
                                                      "sde-dpmsolver++"};
constexpr std::array<std::string_view, 2> kSolverTypes{"midpoint", "heun"};
constexpr std::array<std::string_view, 1> kShiftTypes{"exponential"};
constexpr int64_t kMaxOrder = 3;

struct DpmOptions {
  int64_t solver_order = 2;
  std::string algorithm_type = "dpmsolver++";
  std::string solver_type = "midpoint";
  bool lower_order_final = true;
  bool euler_at_final = false;
  std::optional<std::string> variance_type;
  double lambda_min_clipped = 0;
  ShiftOptions shift;

  bool data() const { return algorithm_type.ends_with("++"); }  // works on x_0, else on the noise
  bool stochastic() const { return algorithm_type.starts_with("sde"); }
  bool learned() const { return variance_type && variance_type->starts_with("learned"); }
};

// One step: (this) x * x + sum of outputs[i] * (the output i evaluations ago) + noise * (a draw).
struct Update {
  float x = 0, noise = 0;
  std::array<float, kMaxOrder> outputs{};

  std::array<float, kMaxOrder + 2> values() const { return {x, noise, outputs[0], outputs[1], outputs[2]}; }
};

// The step from level s to t without its differences, and what the first and second differences of the
// outputs are multiplied by. h: how far lambda goes. Each is written as diffusers writes it: in float, 1 -
// exp(-h) and the like lose digits, and the same ones must be lost.
struct Expansion {
  Update first;
  float midpoint, heun, second;
};

Expansion Expand(const std::string& algorithm, const Level& t, const Level& s, float h) {
  Expansion e{};
  float& d0 = e.first.outputs[0];
  if (algorithm == "dpmsolver++") {
    const float less = Exp(-h) - 1;
    e.first.x = t.sigma / s.sigma;
    d0 = -(t.alpha * less);
    e.midpoint = -0.5f * (t.alpha * less);
    e.heun = t.alpha * (less / h + 1);
    e.second = -(t.alpha * ((less + h) / (h * h) - 0.5f));
  } else if (algorithm == "dpmsolver") {
    const float more = Exp(h) - 1;
    e.first.x = t.alpha / s.alpha;
    d0 = -(t.sigma * more);
    e.midpoint = -0.5f * (t.sigma * more);
    e.heun = -(t.sigma * (more / h - 1));
    e.second = -(t.sigma * ((more - h) / (h * h) - 0.5f));
  } else if (algorithm == "sde-dpmsolver++") {
    const float less = 1 - Exp(-2 * h);
    e.first.x = t.sigma / s.sigma * Exp(-h);
    d0 = t.alpha * less;
    e.first.noise = t.sigma * std::sqrt(less);
    e.midpoint = 0.5f * (t.alpha * less);
    e.heun = t.alpha * (less / (-2 * h) + 1);
    e.second = t.alpha * ((less - 2 * h) / (2 * h * (2 * h)) - 0.5f);
  } else {
    const float more = Exp(h) - 1;
    e.first.x = t.alpha / s.alpha;
    d0 = -2 * (t.sigma * more);
    e.first.noise = t.sigma * std::sqrt(Exp(2 * h) - 1);
    e.midpoint = -(t.sigma * more);
    e.heun = -2 * (t.sigma * (more / h - 1));
  }
  return e;
}

// Order `order` from level k to k + 1.
Update UpdateOf(const DpmOptions& o, const std::vector<Level>& levels, int64_t k, int64_t order) {
  const Level &t = levels[k + 1], &s0 = levels[k];
  const float h = t.lambda - s0.lambda;
  const Expansion e = Expand(o.algorithm_type, t, s0, h);
  Update u = e.first;
  if (order == 1) return u;
  const double r0 = (s0.lambda - levels[k - 1].lambda) / h;
  // p, q: of the first differences D0 = (m0 - m1) / r0 and D1 = (m1 - m2) / r1.
  double p = o.solver_type == "midpoint" && order == 2 ? e.midpoint : e.heun;
  double q = 0, r1 = 1;
  if (order == 3) {
    r1 = (levels[k - 1].lambda - levels[k - 2].lambda) / h;
    q = -(p * r0 + e.second) / (r0 + r1);
    p -= q;
  }
  u.outputs[0] = static_cast<float>(u.outputs[0] + p / r0);
  u.outputs[1] = static_cast<float>(q / r1 - p / r0);
  u.outputs[2] = static_cast<float>(-q / r1);
  return u;
}

// history: the last outputs, as x_0 or noise, newest last; at most solver_order - 1 between steps.
class DpmSolver final : public Scheduler {
 public:
  using Orders = std::array<Update, kMaxOrder>;

  DpmSolver(SchedulerFacts facts, DiscreteOptions discrete, DpmOptions options, std::vector<Orders> updates)
      : Scheduler(std::move(facts)),
        discrete_(std::move(discrete)),
        options_(std::move(options)),
        updates_(std::move(updates)) {}

  Status CheckOutput(int64_t channels, int64_t output_channels) const override {
    if (options_.learned()) return CheckLearnedVariance(*options_.variance_type, channels, output_channels);
    return Scheduler::CheckOutput(channels, output_channels);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState& state) const override {
    const auto steps = static_cast<int64_t>(updates_.size());
    TEMPERA_CHECK(k >= 0 && k < steps, "no such step");
    auto& history = state.history;
    const auto past = static_cast<int64_t>(history.size());
    history.push_back(Converted(MeanChannels(model_output, x), k, x));
    const int64_t order = std::min(OrderAt(options_, k, steps, EndsAtZero()), past + 1);
    const Update& u = updates_[k][order - 1];
    at::Tensor next = x * u.x;
    for (int64_t i = 0; i < order; ++i) next = next + history[past - i] * u.outputs[i];
    if (options_.stochastic()) next = next + noise.Randn(x.sizes()).to(x.device()) * u.noise;
    if (past + 1 == options_.solver_order) history.erase(history.begin());
    return next;
  }

  // The order of step k where there are outputs enough: the last steps take less on request, the step to
  // level 0 always does.
  static int64_t OrderAt(const DpmOptions& o, int64_t k, int64_t steps, bool ends_at_zero) {
    constexpr int64_t kFewSteps = 15;
    const bool lower = o.lower_order_final && steps < kFewSteps;
    if (k == steps - 1 && (o.euler_at_final || lower || ends_at_zero)) return 1;
    if (k == steps - 2 && lower) return std::min<int64_t>(o.solver_order, 2);
    return o.solver_order;
  }

 private:
  bool EndsAtZero() const { return sigmas().back() == 0; }

  at::Tensor Converted(const at::Tensor& output, int64_t k, const at::Tensor& x) const {
    const float signal = facts_.mixes[k].signal, scale = facts_.mixes[k].noise;
    if (options_.data()) return PredictSample(discrete_, signal, scale, x, output);
    const at::Tensor noise = PredictNoise(discrete_, signal, scale, x, output);
    if (!discrete_.thresholding) return noise;
    return (x - Threshold(discrete_, (x - noise * scale) / signal) * signal) / scale;
  }

  const DiscreteOptions discrete_;
  const DpmOptions options_;
  const std::vector<Orders> updates_;
};

// Levels of flow matching: evenly spaced, then shifted.
Result<Levels> FlowLevels(const Options& options, const DiscreteOptions& d, bool ends_at_zero,
                          const ShiftOptions& shift, float least) {
  TEMPERA_ASSIGN(const int64_t steps, options.Steps(d.num_train_timesteps));
  TEMPERA_ASSIGN(ShiftOptions moved, WithMu(options, shift));
  moved.dynamic = false;  // the factor is known now
  const auto train = static_cast<double>(d.num_train_timesteps);
  const std::vector<double> signals = Linspace(1, 1 / train, steps + 1);
  std::vector<double> sigmas;
  for (int64_t k = 0; k < steps; ++k) sigmas.push_back(1 - signals[steps - k]);
  Levels levels;
  for (const double sigma : ShiftedLevels(sigmas, moved)) {
    levels.timesteps.push_back(std::trunc(sigma * train));
    levels.sigmas.push_back(static_cast<float>(sigma));
  }
  levels.sigmas.push_back(ends_at_zero ? 0 : least);
  return levels;
}

// Timesteps whose lambda = log(alpha / sigma) lies below the least are left out.
int64_t TimestepsAbove(double lambda_min, const std::vector<float>& alphas) {
  if (std::isinf(lambda_min)) return static_cast<int64_t>(alphas.size());
  const auto least = static_cast<float>(lambda_min);
  int64_t below = 0;
  for (const float alpha : alphas)
    if (Log(std::sqrt(alpha)) - Log(std::sqrt(1 - alpha)) < least) ++below;
  return static_cast<int64_t>(alphas.size()) - below;
}

void Read(Options& options, DiscreteOptions& d, LevelOptions& l, DpmOptions& o) {
  ReadDiscrete(options, {.predictions = kKnown, .thresholds = true, .rescales = true}, d);
  ReadLevelSpacing(options, l, /*lu=*/true);
  ReadFinalSigma(options, l);
  options.Get("solver_order", o.solver_order);
  options.Check(o.solver_order >= 1 && o.solver_order <= kMaxOrder, "solver_order", o.solver_order, "1 to ",
                kMaxOrder);
  options.GetWord("algorithm_type", o.algorithm_type, kAlgorithms, {"deis"});
  options.GetWord("solver_type", o.solver_type, kSolverTypes, {"logrho", "bh1", "bh2"});
  options.Check(o.algorithm_type != "sde-dpmsolver" || o.solver_order < 3, "solver_order", o.solver_order,
                "1 or 2 with algorithm_type sde-dpmsolver");
  options.Check(o.data() || !l.ends_at_zero, "final_sigmas_type", "zero", "sigma_min with algorithm_type ",
                o.algorithm_type);
  options.Get("lower_order_final", o.lower_order_final);
  options.Get("euler_at_final", o.euler_at_final);
  options.GetUnboundedBelow("lambda_min_clipped", o.lambda_min_clipped);
  options.Get("variance_type", o.variance_type);
  if (o.variance_type)
    options.Check(
        std::find(kVarianceTypes.begin(), kVarianceTypes.end(), *o.variance_type) != kVarianceTypes.end(),
        "variance_type", *o.variance_type, "one of ", Joined(kVarianceTypes));
  ReadFlow(options, d, kShiftTypes, l, o.shift);
  options.Check(!l.flow || l.spacing == LevelSpacing::kTimesteps, "use_flow_sigmas", "true",
                "it without use_karras_sigmas and the like");
  options.Check(d.prediction() != Prediction::kFlow || o.data(), "prediction_type", d.prediction_type,
                "another with algorithm_type ", o.algorithm_type);
}

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions d{.timestep_spacing = "linspace"};
  LevelOptions l;
  DpmOptions o;
  Read(options, d, l, o);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(std::vector<float> alphas, AlphasCumprod(d, request.label));
  const int64_t below = TimestepsAbove(o.lambda_min_clipped, alphas);
  const LevelTable table(d, std::move(alphas));
  // So diffusers has it: under this beta schedule fractions are cut off instead.
  const bool rounds = d.beta_schedule != "squaredcos_cap_v2";
  TEMPERA_ASSIGN(Levels levels,
                 l.flow ? FlowLevels(options, d, l.ends_at_zero, o.shift, table.least())
                        : PreservingLevels(options, d, l, table, {.below = below, .rounds = rounds}));

  const auto steps = static_cast<int64_t>(levels.timesteps.size());
  TEMPERA_ASSIGN(const int64_t asked, options.Steps(d.num_train_timesteps));
  SchedulerFacts facts = options.Facts(d.num_train_timesteps, asked);
  std::vector<Level> at;
  for (const float sigma : levels.sigmas) at.push_back(LevelOf(sigma, l.flow));
  std::vector<DpmSolver::Orders> updates(steps);
  for (int64_t k = 0; k < steps; ++k) {
    facts.mixes.push_back({at[k].alpha, at[k].sigma});
    const int64_t most = std::min(DpmSolver::OrderAt(o, k, steps, l.ends_at_zero), k + 1);
    for (int64_t order = 1; order <= most; ++order) {
      updates[k][order - 1] = UpdateOf(o, at, k, order);
      TEMPERA_TRY(CheckFiniteLevel(options, k, levels.sigmas, updates[k][order - 1].values()));
    }
  }
  facts.timesteps = std::move(levels.timesteps);
  facts.sigmas = std::move(levels.sigmas);
  return std::make_shared<const DpmSolver>(std::move(facts), std::move(d), std::move(o), std::move(updates));
}

}  // namespace

extern const SchedulerRow kDpmSolver{
    .name = "dpmsolver++",
    .class_name = "DPMSolverMultistepScheduler",
    .summary = "DPM-Solver++ and DPM-Solver, multistep: few steps, orders 1 to 3, with noise or without.",
    .default_steps = 20,
    .takes = {.spacing = true, .mu = true},
    .create = &Create,
};

}  // namespace tempera
