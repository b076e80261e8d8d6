// Noise levels: sigma = sqrt((1 - a) / a) with a the cumulative alpha. What the samplers step through that
// think in them: Euler, Heun, DPM-Solver, UniPC and, with levels of its own, flow matching.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "schedulers/discrete.h"
#include "schedulers/options.h"

namespace tempera {

// How levels lie between the largest and the least; kTimesteps: where the timesteps put them.
enum class LevelSpacing { kTimesteps, kKarras, kExponential, kBeta, kLu };

// Names and defaults are diffusers'.
struct LevelOptions {
  LevelSpacing spacing = LevelSpacing::kTimesteps;
  std::optional<double> sigma_min, sigma_max;  // the ends; where unset, those of the training schedule
  bool log_linear = false;                     // interpolation_type: evenly in the logarithm
  bool ends_at_zero = true;                    // final_sigmas_type, else at the least level
  bool flow = false;                           // use_flow_sigmas: x = (1 - sigma) x_0 + sigma noise
};

// use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, of which one may be true, and the ends. `lu`:
// use_lu_lambdas too.
void ReadLevelSpacing(Options& options, LevelOptions& o, bool lu = false);
// final_sigmas_type.
void ReadFinalSigma(Options& options, LevelOptions& o);

// `count` levels from `most` down to `least`, or between the ends that the options name; InvalidArgument
// unless these fall. Sources: Karras, arXiv 2206.00364, equation (5), rho 7; exponential: evenly in the
// logarithm; beta: quantiles of Beta(0.6, 0.6), arXiv 2407.12173.
Result<std::vector<double>> SpacedLevels(const Options& options, const LevelOptions& o, double most,
                                         double least, int64_t count);

// The p-quantile of Beta(0.6, 0.6), p in [0, 1].
double BetaQuantile(double p);

// The level of every training timestep.
class LevelTable {
 public:
  // `alphas`: AlphasCumprod. The last one of a schedule rescaled to zero SNR stands for 2^-24, for its level
  // would be infinite.
  LevelTable(const DiscreteOptions& o, std::vector<float> alphas);

  // Between timesteps on a straight line, as numpy.interp.
  double At(double timestep) const;
  // The timestep of a level, on a straight line in the logarithm: a fraction within [0, T - 1].
  double TimestepOf(double sigma) const;
  float least() const { return sigmas_.front(); }
  float most() const { return sigmas_.back(); }

 private:
  std::vector<float> sigmas_, logs_;
};

// How the levels of flow matching are moved towards noise.
struct ShiftOptions {
  double factor = 1;                    // sigma -> factor sigma / (1 + (factor - 1) sigma)
  bool dynamic = false;                 // use_dynamic_shifting: the factor follows from the request's mu
  std::string type = "exponential";     // time_shift_type: exp(mu), or "linear", mu itself
  std::optional<double> terminal = {};  // shift_terminal: where the least level is put, those above stretched
};
// `key`: what the class calls the factor. `types`: the words that it knows.
void ReadShift(Options& options, const char* key, std::span<const std::string_view> types, ShiftOptions& o);
// shift_terminal.
void ReadTerminal(Options& options, ShiftOptions& o);
// With the factor that mu gives, where that is asked for. InvalidArgument names mu.
Result<ShiftOptions> WithMu(const Options& options, ShiftOptions o);
// `in_float`: as diffusers computes with levels that are given, not its own.
std::vector<double> ShiftedLevels(const std::vector<double>& levels, const ShiftOptions& o,
                                  bool in_float = false);

// use_flow_sigmas and flow_shift, and what goes with them, of a sampler that knows other levels too.
void ReadFlow(Options& options, const DiscreteOptions& d, std::span<const std::string_view> types,
              LevelOptions& l, ShiftOptions& o);

// One timestep for each level but the last, which is where the last step ends.
struct Levels {
  std::vector<double> timesteps;
  std::vector<float> sigmas;
};

// Levels of a sampler whose sample is x_0 + sigma * noise: Euler's and Heun's.
Result<Levels> ExplodingLevels(const Options& options, const DiscreteOptions& d, const LevelOptions& o);

// x_0 from the network's output, x as the sampler holds it: x_0 + sigma * noise. Nothing is clamped.
at::Tensor ExplodingSample(Prediction prediction, float sigma, const at::Tensor& x, const at::Tensor& output);

// 1 for samplers that begin at the level itself; sqrt(sigma^2 + 1) where "leading" begins below pure noise.
double ExplodingInitSigma(const DiscreteOptions& d, const std::vector<float>& sigmas);

// What the network of such a sampler sees: x / sqrt(sigma^2 + 1).
at::Tensor ExplodingInput(const at::Tensor& x, float sigma);

struct PreservingRules {
  int64_t below = 0;               // timesteps lie below it
  bool rounds = true;              // timesteps of Karras and Lu levels; others lose their fraction
  bool ends_at_own_least = false;  // where not at zero: the least spaced level, not the table's
};
// Levels of a sampler that keeps the sample's variance: DPM-Solver's and UniPC's.
Result<Levels> PreservingLevels(const Options& options, const DiscreteOptions& d, const LevelOptions& o,
                                const LevelTable& table, const PreservingRules& rules);

// x = alpha * x_0 + sigma * noise; lambda: log(alpha / sigma). In float, as diffusers computes them.
struct Level {
  float alpha, sigma, lambda;
};
Level LevelOf(float sigma, bool flow);

// InvalidArgument unless the coefficients of step k are finite.
Status CheckFiniteLevel(const Options& options, int64_t k, std::span<const float> sigmas,
                        std::span<const float> values);

}  // namespace tempera
