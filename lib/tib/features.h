// Temporal features of a schedule: the table emb[k, c, i], its quantized cache, and the error between two
// tables.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "base/status.h"
#include "models/family.h"
#include "nn/context.h"

namespace tempera {

// emb[k, c, i] for every step k, condition c and feature i. A condition is a class of a class-conditional
// model, or one of a list of prompts where time depends on the prompt; where it depends on nothing else there
// is one condition.
struct FeatureTable {
  int64_t steps = 0, classes = 1;
  std::vector<at::Tensor> features;  // [i]: [K, C, N_i] f32
  int64_t multiplications = 0;       // of the time layers that made it, where layers did
};

// Where a timestep stands among those that were calibrated.
struct StepPlace {
  int64_t own = -1;                 // the calibrated step of the same timestep; -1: there is none
  std::array<int64_t, 2> ranges{};  // steps whose activation ranges it takes: its own, or its neighbours
};
// One a timestep that is wanted. Equal lists have each step at its own place. A timestep beyond the
// calibrated ones has one neighbour. REQUIRES: `calibrated` is not empty.
std::vector<StepPlace> PlaceSteps(const std::vector<double>& calibrated, const std::vector<double>& wanted);

// What time may depend on, of all conditions that a network has by itself: its classes, or nothing.
nn::Conditioning OwnConditions(const Denoiser& network);
// A context of the rows k * C + c of a table, C = the rows of `conditions`, at least 1.
nn::ForwardContext TableContext(const Denoiser& network, const std::vector<double>& timesteps,
                                const nn::Conditioning& conditions, const std::vector<int64_t>& rows);
// The rows of step k; all of them.
std::vector<int64_t> RowsOfStep(const nn::Conditioning& conditions, int64_t k);
std::vector<int64_t> AllRows(const nn::Conditioning& conditions, size_t steps);

// Runs the time layers in their present state for every step and condition: a step by itself on each lane,
// or, where `lanes` is null, all steps in one pass on the calling thread. `places`: of timesteps that are not
// the calibrated ones; empty: they are. `of_tau`: TauPart of the timesteps, where its layers are not there.
Result<FeatureTable> ComputeFeatures(const CallScope& scope, const Denoiser& network,
                                     const std::vector<double>& timesteps, const nn::Conditioning& conditions,
                                     Lanes* lanes, const std::vector<StepPlace>& places = {},
                                     const at::Tensor& of_tau = {});

// What follows from tau alone where time depends on the prompt, [K, E] f32. REQUIRES: tau_slots.
at::Tensor TauPart(const Denoiser& network, const std::vector<double>& timesteps);

// Features quantized at `bits` per (k, c, i): the code with the least squared error over 80 shrinks of the
// min-max range (Source: TFMQ-DM's cache-based maintenance; the grid is that of its weight search). 32 bits:
// f16.
struct FeatureCache {
  int bits = 8;
  int64_t steps = 0, classes = 1;
  struct Column {                      // one feature i
    int64_t width = 0;                 // N_i
    std::vector<int64_t> row_of_step;  // [K]: row of `codes`, -1 where the layers are run instead
    at::Tensor codes;                  // [rows, C, N_i] u8 (two codes a byte at <= 4 bits), f16 at 32 bits
    at::Tensor scale, zero;            // [rows, C] f32, u8; undefined at 32 bits
  };
  std::vector<Column> columns;
  bool full() const;  // every feature of every step is cached
  int64_t bytes() const;
  int64_t entries() const;  // cached (k, c, i)
  // One without entries: every feature comes from the layers.
  static FeatureCache None(const Denoiser& network, int64_t steps, int64_t classes);
  // emb^[k, c, i]; REQUIRES: cached. Writes N_i values.
  void Read(int64_t i, int64_t k, int64_t c, float* out) const;
};
// How a code is found: by the search above, or from min to max, which costs one pass over the values.
enum class CacheRounding : uint8_t { kSearch, kMinMax };
FeatureCache BuildCache(const FeatureTable& exact, int bits, CacheRounding rounding);
// The cache for one request at other timesteps: entries of `cache` where a timestep was calibrated (none
// where its layers are run instead), new ones of `computed` elsewhere. `condition`: column of `cache` for
// each of `computed`.
FeatureCache CacheFor(const FeatureCache& cache, const FeatureTable& computed,
                      const std::vector<StepPlace>& places, const std::vector<int64_t>& condition);
// The cache's values as a table; REQUIRES: full().
FeatureTable Dequantized(const FeatureCache& cache);

// What one feature is replaced by at one step.
enum class Strategy : uint8_t { kReconstruct = 0, kCache = 1 };

// Disturbance-aware selection: e[k, i] = sum over classes of |emb - emb^|^2 for the layers (reconstruct) and
// for the cache; the smaller wins, a tie goes to the cache, which costs nothing at run time.
struct Selection {
  std::vector<std::vector<double>> error_reconstruct, error_cache;  // [K][i], squared L2
  std::vector<std::vector<Strategy>> choice;                        // [K][i]
  bool all_cached() const;
};
Selection Select(const FeatureTable& exact, const FeatureTable& layers, const FeatureTable& cached,
                 const std::string& temporal_strategy);
// Drops the rows of `cache` that `selection` does not use.
FeatureCache Prune(const FeatureCache& cache, const Selection& selection);
// The values that will be used: per (k, i) from `layers` or from `cached`.
FeatureTable Chosen(const FeatureTable& layers, const FeatureTable& cached, const Selection& selection);

// Errors of a table against the exact one.
struct FeatureErrors {
  std::vector<double> ratio;   // [K] |emb^ - emb| / |emb| over all features and classes
  std::vector<double> cosine;  // [K] mean over features and classes
  // [K] features (c, i) that are closer, by cosine, to the exact feature of another step than to their own;
  // steps of one timestep are equally close.
  std::vector<int64_t> mismatches;
  std::vector<std::vector<double>> per_feature;  // [K][i] relative L2 over classes
};
FeatureErrors CompareFeatures(const FeatureTable& exact, const FeatureTable& table);

// Gives every pass the features of a table; no time layer runs.
class TableSource : public nn::FeatureSource {
 public:
  explicit TableSource(const FeatureTable& table) : table_(table) {}
  at::Tensor Get(const nn::Slot& slot, const nn::ForwardContext& ctx,
                 const std::function<at::Tensor()>& compute) override;

 private:
  const FeatureTable& table_;
};

// Serving: the cache's value where there is one, else the layers'; each value that was used is compared with
// the reference. One pass at a time.
class ServingSource : public nn::FeatureSource {
 public:
  // `reference` may be null: no errors then.
  ServingSource(const FeatureCache& cache, const FeatureTable* reference)
      : cache_(cache), reference_(reference) {
    difference2.resize(cache.columns.size());
    norm2.resize(cache.columns.size());
  }
  at::Tensor Get(const nn::Slot& slot, const nn::ForwardContext& ctx,
                 const std::function<at::Tensor()>& compute) override;

  // What another pass, over other rows, found.
  void Add(const ServingSource& other);

  std::vector<double> difference2, norm2;  // [i]: sums over the rows of the pass

 private:
  const FeatureCache& cache_;
  const FeatureTable* reference_;
};

// Bin of a timestep for metrics: twentieths of the training range, 0..19.
int TimestepBin(double timestep, int64_t train_timesteps);

}  // namespace tempera
