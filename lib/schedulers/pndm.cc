// PNDM: pseudo linear multi-step method (PLMS), begun by Runge-Kutta steps or, with skip_prk_steps, by one
// corrected step. Source: arXiv 2202.09778, equations (9), (12), (13) and algorithm 2.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 2> kKnown{"epsilon", "v_prediction"};
constexpr int64_t kRungeKutta = 12;  // evaluations of the first three steps, four each

// A move between two timesteps by equation (9): of_x * x - of_output * (the noise). For a network that gives
// v the noise is signal * v + noise * x.
struct Move {
  float of_x, of_output;
  SchedulerFacts::Mix at;
};

Move MoveBetween(float from, float to) {
  const float divisor = from * std::sqrt(1 - to) + std::sqrt(from * (1 - from) * to);
  return {std::sqrt(to / from), (to - from) / divisor, MixOf(from)};
}

struct Moves {
  Move ahead;
  Move again;  // what the second evaluation of a run without Runge-Kutta makes: the first move anew
};

// What stands where in a state's history.
enum : size_t {
  kBegin,    // the sample that the present step began with
  kSum,      // the weighted outputs of a Runge-Kutta step so far
  kOutputs,  // from here the last outputs, at most four, newest last
};

class Pndm final : public Scheduler {
 public:
  Pndm(SchedulerFacts facts, Prediction prediction, bool runge_kutta, std::vector<Moves> moves)
      : Scheduler(std::move(facts)),
        prediction_(prediction),
        runge_kutta_(runge_kutta),
        moves_(std::move(moves)) {}

  Result<int64_t> FirstStep(double strength) const override {
    if (runge_kutta_ && strength < 1)
      return InvalidArgument("strength: pndm with skip_prk_steps false begins at pure noise alone, got ",
                             strength, ", want 1");
    return Scheduler::FirstStep(strength);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource&,
                  SamplerState& state) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(moves_.size()), "no such step");
    auto& history = state.history;
    if (history.empty()) {
      state.first = k;
      history.resize(kOutputs);
    }
    const at::Tensor output = MeanChannels(model_output, x);
    const Moves& moves = moves_[k];
    if (runge_kutta_ && k < kRungeKutta) {
      const int64_t stage = k % 4;
      const at::Tensor weighted = output * (stage == 0 || stage == 3 ? 1.0 / 6 : 1.0 / 3);
      history[kSum] = stage == 0 ? weighted : history[kSum] + weighted;
      if (stage == 0) {
        history[kBegin] = x;
        history.push_back(output);
      }
      return Apply(moves.ahead, history[kBegin], stage == 3 ? history[kSum] : output);
    }
    // Where a run begins in the middle of the schedule, its second evaluation corrects the first all the
    // same: diffusers counts evaluations, not timesteps.
    const int64_t count = k - *state.first;
    if (count == 1) return Apply(moves.again, history[kBegin], (output + history[kOutputs]) / 2);
    if (count == 0) history[kBegin] = x;
    if (history.size() == kOutputs + 4) history.erase(history.begin() + kOutputs);
    history.push_back(output);
    return Apply(moves.ahead, x, Extrapolated(history));
  }

 private:
  at::Tensor Apply(const Move& move, const at::Tensor& x, const at::Tensor& output) const {
    const at::Tensor noise =
        prediction_ == Prediction::kV ? output * move.at.signal + x * move.at.noise : output;
    return x * move.of_x - noise * move.of_output;
  }

  // Adams-Bashforth of as many orders as there are outputs, up to four.
  static at::Tensor Extrapolated(const std::vector<at::Tensor>& history) {
    const auto ago = [&](size_t n) { return history[history.size() - 1 - n]; };
    switch (history.size() - kOutputs) {
      case 1:
        return ago(0);
      case 2:
        return (ago(0) * 3 - ago(1)) / 2;
      case 3:
        return (ago(0) * 23 - ago(1) * 16 + ago(2) * 5) / 12;
      default:
        return (ago(0) * 55 - ago(1) * 59 + ago(2) * 37 - ago(3) * 9) * (1.0 / 24);
    }
  }

  const Prediction prediction_;
  const bool runge_kutta_;
  const std::vector<Moves> moves_;
};

// The timesteps of three Runge-Kutta steps, noisiest first: at the step's begin, twice halfway, at its end.
// `even`: the timesteps of all steps.
std::vector<double> RungeKuttaTimesteps(const std::vector<double>& even, double half) {
  std::vector<double> timesteps;
  for (int step = 0; step < 3; ++step)
    timesteps.insert(timesteps.end(),
                     {even[step], even[step + 1] + half, even[step + 1] + half, even[step + 1]});
  return timesteps;
}

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Options options(row, request);
  DiscreteOptions o;
  ReadDiscrete(options, {.predictions = kKnown}, o);
  bool skip_prk_steps = false, set_alpha_to_one = false;
  options.Get("skip_prk_steps", skip_prk_steps);
  options.Get("set_alpha_to_one", set_alpha_to_one);
  TEMPERA_TRY(options.Finish());
  TEMPERA_ASSIGN(const std::vector<double> even,
                 SpacedTimesteps(options, o, {.below = o.num_train_timesteps}));
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(o, request.label));
  const auto steps = static_cast<int64_t>(even.size());
  if (!skip_prk_steps && steps < 4)
    return InvalidArgument("steps: got ", steps, ", pndm with skip_prk_steps false wants at least 4");

  SchedulerFacts facts = options.Facts(o.num_train_timesteps, steps);
  const int64_t gap = o.num_train_timesteps / steps, half = gap / 2;
  if (!skip_prk_steps) {
    facts.timesteps = RungeKuttaTimesteps(even, static_cast<double>(half));
    facts.timesteps.insert(facts.timesteps.end(), even.begin() + 3, even.end());
  } else {
    facts.timesteps = even;
    if (steps > 1) facts.timesteps.insert(facts.timesteps.begin() + 1, even[1]);
  }
  // Below timestep 0 lies x_0 itself, or what the first timestep says; none lies beyond the last.
  const auto alpha = [&](int64_t t) {
    if (t < 0) return set_alpha_to_one ? 1.0f : alphas[0];
    return alphas[std::min(t, o.num_train_timesteps - 1)];
  };
  std::vector<Moves> moves;
  for (size_t k = 0; k < facts.timesteps.size(); ++k) {
    const auto t = static_cast<int64_t>(facts.timesteps[k]);
    Moves m{};
    if (!skip_prk_steps && k < kRungeKutta) {
      const auto begin = static_cast<int64_t>(facts.timesteps[k / 4 * 4]);
      m.ahead = MoveBetween(alpha(begin), alpha(k % 2 == 0 ? t - half : t));
    } else {
      m.ahead = MoveBetween(alpha(t), alpha(t - gap));
      m.again = MoveBetween(alpha(t + gap), alpha(t));
    }
    TEMPERA_TRY(CheckFiniteStep(
        o, request.label, t, alphas[t],
        std::array{m.ahead.of_x, m.ahead.of_output, m.again.of_x, m.again.of_output, m.ahead.at.noise}));
    facts.mixes.push_back(MixOf(alphas[t]));
    moves.push_back(m);
  }
  return std::make_shared<const Pndm>(std::move(facts), o.prediction(), !skip_prk_steps, std::move(moves));
}

}  // namespace

extern const SchedulerRow kPndm{
    .name = "pndm",
    .class_name = "PNDMScheduler",
    .summary = "Pseudo numerical methods (PLMS): fourth order from past outputs, deterministic.",
    .default_steps = 50,
    .takes = {.spacing = true},
    .create = &Create,
};

}  // namespace tempera
