// UniPC: a multistep predictor and, when the next output is there, a corrector of one order more that costs
// no evaluation. Source: arXiv 2302.04867.
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
constexpr std::array<std::string_view, 2> kSolverTypes{"bh1", "bh2"};
constexpr std::array<std::string_view, 2> kShiftTypes{"exponential", "linear"};
constexpr int64_t kMaxOrder = 6;

struct UniOptions {
  int64_t solver_order = 2;
  std::string solver_type = "bh2";
  bool predict_x0 = true;  // works on x_0, else on the noise
  bool lower_order_final = true;
  std::vector<int64_t> disable_corrector;  // steps whose result is not corrected
  ShiftOptions shift;
};

// A step: (this) x * x + sum of outputs[i] * (the output i evaluations before the step) + arrived * (the
// output at its end, for the corrector).
struct Update {
  float x = 0, arrived = 0;
  std::array<float, kMaxOrder> outputs{};
};

// Solves the n x n system a x = b by elimination with the largest pivot; nothing finite if it is singular.
template <size_t kMost>
void Solve(std::array<std::array<float, kMost>, kMost>& a, std::array<float, kMost>& b, size_t n) {
  for (size_t c = 0; c < n; ++c) {
    size_t pivot = c;
    for (size_t r = c + 1; r < n; ++r)
      if (std::fabs(a[r][c]) > std::fabs(a[pivot][c])) pivot = r;
    std::swap(a[c], a[pivot]);
    std::swap(b[c], b[pivot]);
    for (size_t r = c + 1; r < n; ++r) {
      const float share = a[r][c] / a[c][c];
      for (size_t i = c; i < n; ++i) a[r][i] -= share * a[c][i];
      b[r] -= share * b[c];
    }
  }
  for (size_t c = n; c-- > 0;) {
    for (size_t i = c + 1; i < n; ++i) b[c] -= a[c][i] * b[i];
    b[c] /= a[c][c];
  }
}

// Order `order` from level k to k + 1, in float as diffusers has it. The weights of the differences
// (m_i - m_0) / r_i solve sum_i r_i^(j - 1) rho_i = b_j; the corrector has one more, of the output where the
// step ends, with r = 1.
Update UpdateOf(const UniOptions& o, const std::vector<Level>& levels, int64_t k, int64_t order,
                bool corrects) {
  const Level &t = levels[k + 1], &s0 = levels[k];
  const float h = t.lambda - s0.lambda;
  const float hh = o.predict_x0 ? -h : h;
  const float phi_1 = Expm1(hh);
  const float bh = o.solver_type == "bh1" ? hh : phi_1;
  const float scale = o.predict_x0 ? t.alpha : t.sigma;

  Update u;
  u.x = o.predict_x0 ? t.sigma / s0.sigma : t.alpha / s0.alpha;
  u.outputs[0] = -(scale * phi_1);
  const auto unknowns = static_cast<size_t>(corrects ? order : order - 1);
  if (unknowns == 0) return u;

  std::array<float, kMaxOrder> r{}, rho{};
  for (int64_t i = 1; i < order; ++i) r[i - 1] = (levels[k - i].lambda - s0.lambda) / h;
  r[order - 1] = 1;
  std::array<std::array<float, kMaxOrder>, kMaxOrder> power{};
  float phi = phi_1 / hh - 1, factorial = 1;
  for (size_t j = 0; j < unknowns; ++j) {
    for (size_t i = 0; i < unknowns; ++i) power[j][i] = j == 0 ? 1 : power[j - 1][i] * r[i];
    rho[j] = phi * factorial / bh;
    factorial *= static_cast<float>(j + 2);
    phi = phi / hh - 1 / factorial;
  }
  if (unknowns == 1) {
    rho[0] = 0.5f;  // as the equations have it up to a term of higher order
  } else {
    Solve(power, rho, unknowns);
  }
  double of_first = u.outputs[0];
  const float weight = scale * bh;
  for (int64_t i = 1; i < order; ++i) {
    const double share = static_cast<double>(weight) * rho[i - 1] / r[i - 1];
    u.outputs[i] = static_cast<float>(-share);
    of_first += share;
  }
  if (corrects) {
    u.arrived = -(weight * rho[order - 1]);
    of_first -= u.arrived;
  }
  u.outputs[0] = static_cast<float>(of_first);
  return u;
}

struct StepUpdates {
  std::array<Update, kMaxOrder> predict, correct;  // by order - 1
};

// history: the sample that the last step began with, then the last outputs, as x_0 or noise, newest last; at
// most solver_order of them.
class UniPc final : public Scheduler {
 public:
  UniPc(SchedulerFacts facts, DiscreteOptions discrete, UniOptions options, std::vector<StepUpdates> updates)
      : Scheduler(std::move(facts)),
        discrete_(std::move(discrete)),
        options_(std::move(options)),
        updates_(std::move(updates)) {}

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource&,
                  SamplerState& state) const override {
    const auto steps = static_cast<int64_t>(updates_.size());
    TEMPERA_CHECK(k >= 0 && k < steps, "no such step");
    auto& history = state.history;
    const at::Tensor output = MeanChannels(model_output, x);
    const float signal = facts_.mixes[k].signal, scale = facts_.mixes[k].noise;
    const at::Tensor converted = options_.predict_x0 ? PredictSample(discrete_, signal, scale, x, output)
                                                     : PredictNoise(discrete_, signal, scale, x, output);
    at::Tensor sample = x;
    if (history.empty()) {
      history.push_back(x);
    } else {
      if (Corrects(k - 1)) {
        const int64_t order = std::min(OrderAt(options_, k - 1, steps), Outputs(history));
        const Update& u = updates_[k - 1].correct[order - 1];
        sample = Apply(u, order, history[0], history) + converted * u.arrived;
      }
      history[0] = sample;
    }
    if (Outputs(history) == options_.solver_order) history.erase(history.begin() + 1);
    history.push_back(converted);
    const int64_t order = std::min(OrderAt(options_, k, steps), Outputs(history));
    return Apply(updates_[k].predict[order - 1], order, sample, history);
  }

  // The order of step k where there are outputs enough.
  static int64_t OrderAt(const UniOptions& o, int64_t k, int64_t steps) {
    return o.lower_order_final ? std::min(o.solver_order, steps - k) : o.solver_order;
  }

 private:
  static int64_t Outputs(const std::vector<at::Tensor>& history) {
    return static_cast<int64_t>(history.size()) - 1;
  }

  bool Corrects(int64_t k) const {
    const auto& off = options_.disable_corrector;
    return std::find(off.begin(), off.end(), k) == off.end();
  }

  static at::Tensor Apply(const Update& u, int64_t order, const at::Tensor& x,
                          const std::vector<at::Tensor>& history) {
    at::Tensor next = x * u.x;
    for (int64_t i = 0; i < order; ++i) next = next + history[history.size() - 1 - i] * u.outputs[i];
    return next;
  }

  const DiscreteOptions discrete_;
  const UniOptions options_;
  const std::vector<StepUpdates> updates_;
};

// Levels of flow matching: evenly spaced, shifted, and stretched to end at shift_terminal.
Result<Levels> FlowLevels(const Options& options, const DiscreteOptions& d, const LevelOptions& l,
                          const LevelTable& table, const UniOptions& o) {
  TEMPERA_ASSIGN(const int64_t steps, options.Steps(d.num_train_timesteps));
  const auto train = static_cast<double>(d.num_train_timesteps);
  std::vector<double> sigmas;
  if (l.spacing == LevelSpacing::kKarras) {
    TEMPERA_ASSIGN(sigmas, SpacedLevels(options, l, table.most(), table.least(), steps));
    for (double& v : sigmas) v = v / (v + 1);
  } else {
    TEMPERA_ASSIGN(const ShiftOptions moved, WithMu(options, o.shift));
    sigmas = Linspace(1, 1 / train, steps + 1);
    sigmas.pop_back();
    sigmas = ShiftedLevels(sigmas, moved);
    constexpr double kLeast = 1e-6;  // of x_0 in the noisiest sample, for it is divided by
    if (std::fabs(sigmas[0] - 1) < kLeast) sigmas[0] -= kLeast;
  }
  Levels levels;
  for (const double v : sigmas) {
    levels.timesteps.push_back(std::trunc(v * train));
    levels.sigmas.push_back(static_cast<float>(v));
  }
  levels.sigmas.push_back(l.ends_at_zero ? 0 : levels.sigmas.back());
  return levels;
}

void Read(Options& options, DiscreteOptions& d, LevelOptions& l, UniOptions& o) {
  ReadDiscrete(options, {.predictions = kKnown, .thresholds = true, .rescales = true}, d);
  ReadLevelSpacing(options, l);
  ReadFinalSigma(options, l);
  options.Get("solver_order", o.solver_order);
  options.Check(o.solver_order >= 1 && o.solver_order <= kMaxOrder, "solver_order", o.solver_order, "1 to ",
                kMaxOrder);
  options.GetWord("solver_type", o.solver_type, kSolverTypes, {"midpoint", "heun", "logrho"});
  options.Get("predict_x0", o.predict_x0);
  options.Get("lower_order_final", o.lower_order_final);
  options.Get("disable_corrector", o.disable_corrector);
  options.GetNothing("solver_p");
  ReadFlow(options, d, kShiftTypes, l, o.shift);
  ReadTerminal(options, o.shift);
  if (o.shift.terminal)
    options.Check(l.flow, "shift_terminal", *o.shift.terminal, "none without use_flow_sigmas");
  options.Check(!l.flow || l.spacing == LevelSpacing::kTimesteps || l.spacing == LevelSpacing::kKarras,
                "use_flow_sigmas", "true", "it without use_exponential_sigmas and use_beta_sigmas");
  options.Check(d.prediction() != Prediction::kFlow || o.predict_x0, "predict_x0", "false",
                "true with prediction_type flow_prediction");
}

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions d{.timestep_spacing = "linspace"};
  LevelOptions l;
  UniOptions o;
  Read(options, d, l, o);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(std::vector<float> alphas, AlphasCumprod(d, request.label));
  const LevelTable table(d, std::move(alphas));
  TEMPERA_ASSIGN(Levels levels,
                 l.flow ? FlowLevels(options, d, l, table, o)
                        : PreservingLevels(options, d, l, table,
                                           {.below = d.num_train_timesteps, .ends_at_own_least = true}));

  const auto steps = static_cast<int64_t>(levels.timesteps.size());
  SchedulerFacts facts = options.Facts(d.num_train_timesteps, steps);
  std::vector<Level> at;
  for (const float sigma : levels.sigmas) at.push_back(LevelOf(sigma, l.flow));
  std::vector<StepUpdates> updates(steps);
  for (int64_t k = 0; k < steps; ++k) {
    facts.mixes.push_back({at[k].alpha, at[k].sigma});
    const int64_t most = std::min(UniPc::OrderAt(o, k, steps), k + 1);
    for (int64_t order = 1; order <= most; ++order)
      for (const bool corrects : {false, true}) {
        if (corrects && k == steps - 1) break;  // no output comes where the last step ends
        Update& u = (corrects ? updates[k].correct : updates[k].predict)[order - 1];
        u = UpdateOf(o, at, k, order, corrects);
        TEMPERA_TRY(CheckFiniteLevel(options, k, levels.sigmas, u.outputs));
        TEMPERA_TRY(CheckFiniteLevel(options, k, levels.sigmas, std::array{u.x, u.arrived}));
      }
  }
  facts.timesteps = std::move(levels.timesteps);
  facts.sigmas = std::move(levels.sigmas);
  return std::make_shared<const UniPc>(std::move(facts), std::move(d), std::move(o), std::move(updates));
}

}  // namespace

extern const SchedulerRow kUniPc{
    .name = "unipc",
    .class_name = "UniPCMultistepScheduler",
    .summary = "UniPC: multistep predictor and corrector, few steps, deterministic.",
    .default_steps = 20,
    .takes = {.spacing = true, .mu = true},
    .create = &Create,
};

}  // namespace tempera
