#include "schedulers/sigmas.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linspace.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "schedulers/float_math.h"

namespace tempera {
namespace {

// log of a value as numpy gives it for floats.
float RoundedLog(float v) { return static_cast<float>(std::log(static_cast<double>(v))); }

std::vector<float> ToFloats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

template <typename Float>
std::vector<double> ShiftedIn(const std::vector<double>& levels, const ShiftOptions& o) {
  const auto factor = static_cast<Float>(o.factor), less_one = static_cast<Float>(o.factor - 1);
  std::vector<Float> moved;
  for (const double level : levels) {
    const auto v = static_cast<Float>(level);
    moved.push_back(o.dynamic ? factor / (factor + (1 / v - 1)) : factor * v / (1 + less_one * v));
  }
  if (o.terminal.value_or(0) != 0) {
    const Float stretch = (1 - moved.back()) / static_cast<Float>(1 - *o.terminal);
    for (Float& v : moved) v = 1 - (1 - v) / stretch;
  }
  return {moved.begin(), moved.end()};
}

}  // namespace

void ReadLevelSpacing(Options& options, LevelOptions& o, bool lu) {
  const auto read = [&](const char* key, LevelSpacing spacing) {
    bool use = false;
    options.Get(key, use);
    options.Check(!use || o.spacing == LevelSpacing::kTimesteps, key, "true",
                  "one of the use_..._sigmas options alone");
    if (use) o.spacing = spacing;
  };
  read("use_karras_sigmas", LevelSpacing::kKarras);
  read("use_exponential_sigmas", LevelSpacing::kExponential);
  read("use_beta_sigmas", LevelSpacing::kBeta);
  if (lu) read("use_lu_lambdas", LevelSpacing::kLu);
  const auto end = [&](const char* key, std::optional<double>& value) {
    options.Get(key, value);
    if (value) options.Check(*value > 0 && std::isfinite(*value), key, *value, "a positive number");
  };
  end("sigma_min", o.sigma_min);
  end("sigma_max", o.sigma_max);
  if (o.sigma_min && o.sigma_max)
    options.Check(*o.sigma_min < *o.sigma_max, "sigma_min", *o.sigma_min, "less than sigma_max (",
                  *o.sigma_max, ")");
}

void ReadFinalSigma(Options& options, LevelOptions& o) {
  constexpr std::array<std::string_view, 2> kWords{"zero", "sigma_min"};
  std::string word = "zero";
  options.GetWord("final_sigmas_type", word, kWords);
  o.ends_at_zero = word == "zero";
}

double BetaQuantile(double p) {
  constexpr double kA = 0.6;
  if (p > 0.5) return 1 - BetaQuantile(1 - p);  // the distribution is symmetric
  const double beta = std::tgamma(kA) * std::tgamma(kA) / std::tgamma(2 * kA);
  // The distribution function up to x <= 0.5, over x^a / (a beta): sum of a (1 - a)_n / (n! (a + n)) x^n. All
  // terms are positive and shrink faster than 2^-n.
  const auto tail = [](double x) {
    double sum = 1, term = 1;
    for (int n = 1; term > 1e-17; ++n) {
      term *= (n - kA) / n * x;
      sum += term * kA / (kA + n);
    }
    return sum;
  };
  // Newton in y = x^a, in which the function is nearly straight.
  const double want = p * kA * beta;
  double y = want;
  for (int i = 0; i < 8; ++i) {
    const double x = std::pow(y, 1 / kA);
    y -= (y * tail(x) - want) * std::pow(1 - x, 1 - kA);
  }
  return std::pow(y, 1 / kA);
}

Result<std::vector<double>> SpacedLevels(const Options& options, const LevelOptions& o, double most,
                                         double least, int64_t count) {
  if (o.spacing != LevelSpacing::kLu) {
    least = o.sigma_min.value_or(least);
    most = o.sigma_max.value_or(most);
  }
  if (count > 1 && !(least < most))
    return InvalidArgument(options.label(), ": sigma_min and sigma_max leave no room for levels, got ", least,
                           " to ", most, ", want a range that rises");
  std::vector<double> levels = Linspace(0, 1, count);  // from most to least
  const auto between = [&](double first, double last, auto level) {
    for (double& v : levels) v = level(first + v * (last - first));
  };
  switch (o.spacing) {
    case LevelSpacing::kTimesteps:
      TEMPERA_CHECK(false, "levels are not spaced");
      break;
    case LevelSpacing::kKarras: {
      constexpr double kRho = 7;
      between(std::pow(most, 1 / kRho), std::pow(least, 1 / kRho),
              [](double v) { return std::pow(v, kRho); });
      break;
    }
    case LevelSpacing::kExponential:
      levels = Linspace(std::log(most), std::log(least), count);
      for (double& v : levels) v = std::exp(v);
      break;
    case LevelSpacing::kBeta:
      for (double& v : levels) v = least + BetaQuantile(1 - v) * (most - least);
      break;
    case LevelSpacing::kLu:  // as the exponential, but from logarithms in float
      between(RoundedLog(static_cast<float>(most)), RoundedLog(static_cast<float>(least)),
              [](double v) { return std::exp(v); });
      break;
  }
  return levels;
}

void ReadShift(Options& options, const char* key, std::span<const std::string_view> types, ShiftOptions& o) {
  options.Get(key, o.factor);
  options.Check(o.factor > 0 && std::isfinite(o.factor), key, o.factor, "a positive number");
  options.Get("use_dynamic_shifting", o.dynamic);
  options.GetWord("time_shift_type", o.type, types);
}

void ReadTerminal(Options& options, ShiftOptions& o) {
  options.Get("shift_terminal", o.terminal);
  if (o.terminal)
    options.Check(*o.terminal >= 0 && *o.terminal < 1, "shift_terminal", *o.terminal, "0 to less than 1");
}

Result<ShiftOptions> WithMu(const Options& options, ShiftOptions o) {
  if (!o.dynamic) return o;
  const std::optional<double>& mu = options.request().mu;
  if (!mu) return InvalidArgument("mu: is missing, use_dynamic_shifting needs it");
  o.factor = o.type == "linear" ? *mu : std::exp(*mu);
  if (!(o.factor > 0 && std::isfinite(o.factor)))
    return InvalidArgument("mu: got ", *mu, ", want one that shifts by a positive number");
  return o;
}

std::vector<double> ShiftedLevels(const std::vector<double>& levels, const ShiftOptions& o, bool in_float) {
  return in_float ? ShiftedIn<float>(levels, o) : ShiftedIn<double>(levels, o);
}

void ReadFlow(Options& options, const DiscreteOptions& d, std::span<const std::string_view> types,
              LevelOptions& l, ShiftOptions& o) {
  options.Get("use_flow_sigmas", l.flow);
  ReadShift(options, "flow_shift", types, o);
  options.Check(d.prediction() != Prediction::kFlow || l.flow, "use_flow_sigmas", "false",
                "true with prediction_type flow_prediction");
}

LevelTable::LevelTable(const DiscreteOptions& o, std::vector<float> alphas) {
  if (o.rescale_betas_zero_snr) alphas.back() = 0x1p-24f;
  for (const float alpha : alphas) {
    sigmas_.push_back(std::sqrt((1 - alpha) / alpha));
    logs_.push_back(RoundedLog(sigmas_.back()));
  }
}

double LevelTable::At(double timestep) const {
  const auto last = static_cast<double>(sigmas_.size() - 1);
  if (timestep >= last) return sigmas_.back();
  const auto low = static_cast<size_t>(timestep);
  const double slope = static_cast<double>(sigmas_[low + 1]) - sigmas_[low];
  return slope * (timestep - static_cast<double>(low)) + sigmas_[low];
}

double LevelTable::TimestepOf(double sigma) const {
  const double log = std::log(std::max(sigma, 1e-10));
  // The last timestep whose level is not above; levels of trained betas need not rise.
  size_t low = 0;
  for (size_t t = 0; t < logs_.size(); ++t)
    if (log - logs_[t] >= 0) low = t;
  if (logs_.size() == 1) return 0;
  low = std::min(low, logs_.size() - 2);
  const double below = logs_[low], above = logs_[low + 1];
  const double share = std::clamp((below - log) / (below - above), 0.0, 1.0);
  return (1 - share) * static_cast<double>(low) + share * static_cast<double>(low + 1);
}

Result<Levels> ExplodingLevels(const Options& options, const DiscreteOptions& d, const LevelOptions& o) {
  TEMPERA_ASSIGN(std::vector<float> alphas, AlphasCumprod(d, options.label()));
  const LevelTable table(d, std::move(alphas));
  TEMPERA_ASSIGN(std::vector<double> timesteps,
                 SpacedTimesteps(options, d, {.below = d.num_train_timesteps, .fractions = true}));
  const auto steps = static_cast<int64_t>(timesteps.size());
  std::vector<double> sigmas;
  if (o.log_linear) {
    // One more than there are steps, so that the last step ends at the least.
    const at::Tensor even =
        at::exp(at::linspace(RoundedLog(table.most()), RoundedLog(table.least()), steps + 1, at::kFloat));
    const float* data = even.const_data_ptr<float>();
    sigmas.assign(data, data + even.numel());
  } else {
    for (const double t : timesteps) sigmas.push_back(table.At(t));
  }
  if (o.spacing != LevelSpacing::kTimesteps) {
    TEMPERA_ASSIGN(sigmas, SpacedLevels(options, o, sigmas.front(), sigmas.back(), steps));
    for (int64_t k = 0; k < steps; ++k) timesteps[k] = static_cast<float>(table.TimestepOf(sigmas[k]));
  }
  sigmas.push_back(o.ends_at_zero ? 0 : table.least());
  return Levels{std::move(timesteps), ToFloats(sigmas)};
}

at::Tensor ExplodingSample(Prediction prediction, float sigma, const at::Tensor& x,
                           const at::Tensor& output) {
  if (prediction == Prediction::kSample) return output;
  if (prediction == Prediction::kEpsilon) return x - output * sigma;
  TEMPERA_CHECK(prediction == Prediction::kV, "prediction");
  const float square = sigma * sigma + 1;
  return output * (-sigma / std::sqrt(square)) + x / square;
}

double ExplodingInitSigma(const DiscreteOptions& d, const std::vector<float>& sigmas) {
  const float most = *std::max_element(sigmas.begin(), sigmas.end());
  return d.timestep_spacing == "leading" ? std::sqrt(most * most + 1) : most;
}

at::Tensor ExplodingInput(const at::Tensor& x, float sigma) { return x / std::sqrt(sigma * sigma + 1); }

Result<Levels> PreservingLevels(const Options& options, const DiscreteOptions& d, const LevelOptions& o,
                                const LevelTable& table, const PreservingRules& rules) {
  std::vector<double> timesteps, sigmas;
  if (o.spacing == LevelSpacing::kTimesteps) {
    TEMPERA_ASSIGN(timesteps, SpacedTimesteps(options, d, {.below = rules.below, .one_more = true}));
    for (const double t : timesteps) sigmas.push_back(table.At(t));
  } else {
    TEMPERA_ASSIGN(const int64_t steps, options.Steps(d.num_train_timesteps));
    TEMPERA_ASSIGN(sigmas, SpacedLevels(options, o, table.most(), table.least(), steps));
    const bool round = rules.rounds && (o.spacing == LevelSpacing::kKarras || o.spacing == LevelSpacing::kLu);
    for (const double sigma : sigmas) {
      const double t = table.TimestepOf(sigma);
      timesteps.push_back(round ? std::nearbyint(t) : std::trunc(t));
    }
  }
  const bool own = rules.ends_at_own_least && o.spacing != LevelSpacing::kTimesteps;
  sigmas.push_back(o.ends_at_zero ? 0 : own ? sigmas.back() : table.least());
  return Levels{std::move(timesteps), ToFloats(sigmas)};
}

Level LevelOf(float sigma, bool flow) {
  Level level{};
  level.alpha = flow ? 1 - sigma : 1 / std::sqrt(sigma * sigma + 1);
  level.sigma = flow ? sigma : sigma * level.alpha;
  level.lambda = Log(level.alpha) - Log(level.sigma);
  return level;
}

Status CheckFiniteLevel(const Options& options, int64_t k, std::span<const float> sigmas,
                        std::span<const float> values) {
  const bool to_zero = std::isfinite(sigmas[k]) && sigmas[k + 1] == 0;
  for (const float value : values)
    if (!std::isfinite(value))
      return InvalidArgument(options.label(), ": the noise levels give no finite step ", k, ", got ",
                             sigmas[k], " to ", sigmas[k + 1], ", want ",
                             to_zero ? "final_sigmas_type sigma_min" : "levels that fall");
  return OkStatus();
}

}  // namespace tempera
