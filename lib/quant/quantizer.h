// One model on its way to an artifact: the stages of quantization, each resumable from what it left.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "base/json.h"
#include "base/status.h"
#include "models/family.h"
#include "models/folder.h"
#include "nn/large_blocks.h"
#include "nn/slot_io.h"
#include "quant/equalize.h"
#include "quant/method.h"
#include "quant/reconstruct.h"
#include "quant/spec.h"
#include "quant/spill.h"
#include "schedulers/scheduler.h"
#include "tib/features.h"
#include "tib/features_io.h"
#include "tib/trace.h"

namespace tempera {

// What the full-precision sampler paints for calibration: `samples` latents, each with one row of conditions
// or, under guidance, two: against the prompt and for it.
struct CalibrationPlan {
  int64_t samples = 0;
  std::vector<int64_t> latent;  // channels, height, width
  at::Tensor beside;            // [1, B, h, w], what the network sees beside every sample; undefined: nothing
  nn::Conditioning on;          // [samples * rows_per_sample]; no rows: unconditional
  int64_t rows_per_sample = 1;
  double guidance = 1;
};

// Rows of the network's inputs along full-precision trajectories: row k * count + r is row r of the plan
// entering step k.
struct CalibrationRows {
  int64_t count = 0;               // of one step
  at::Tensor x;                    // [K * count, C, H, W] f32
  nn::Conditioning on;             // [count]
  std::vector<int64_t> condition;  // [count]: column in the tables of features; empty: there is one
};

// What became of one unit (or of the temporal block), for the report.
struct UnitOutcome {
  std::string name;
  RoundingResult rounding;
};

// What one layer loses, on calibration inputs at its place in the quantized network.
struct LayerError {
  std::string slot;
  double weight_error = 0;  // |w^ - w| / |w|
  double output_error = 0;  // |y^ - y| / |y| for the same input
  double clipping = 0;      // share of input values outside of the range
};

using StageProgress = std::function<void(const std::string& unit, int64_t done, int64_t total)>;

// Owns the network while it is quantized. Stages are called in the order of the declarations; Export and
// Import carry what a stage decided, so that a resumed job skips it. Results depend on model, spec and build,
// not on the lanes.
class Quantizer {
 public:
  static Result<std::unique_ptr<Quantizer>> Create(const CallScope& scope, const ModelFolder& folder,
                                                   const QuantSpec& spec, CalibrationPlan plan,
                                                   SpillStore spill, Lanes& lanes);

  // 1. Latents of the full-precision sampler, and what input channels show on the way. Not exported: cheaper
  // to repeat than to keep.
  Status Calibrate(const CallScope& scope, const StageProgress& progress);
  // 2. Scales and nearest codes of every weight.
  Status InitWeights(const CallScope& scope, const StageProgress& progress);
  // 3. The temporal information block. tfmq: joint rounding of trunk and features on the finite set of (step,
  // class),
  //    exact ranges per step; others: rounding of the trunk alone where the method reconstructs.
  Status Temporal(const CallScope& scope);
  nn::TensorMap ExportTemporal() const;
  Status ImportTemporal(const nn::TensorFinder& find);
  // 4. tfmq: the cache and, per (step, feature), the strategy with the smaller error. The blocks after it see
  // the
  //    features that will be served.
  Status CacheAndSelect(const CallScope& scope);
  // 5. Units in execution order; each sees the quantized prefix as input and the full-precision output as
  // target.
  int64_t unit_count() const;
  bool UnitLearns(int64_t unit) const;  // it has rounding to learn
  const std::string& unit_name(int64_t unit) const;
  // `learn` false: the unit's codes were imported; only carries the values on to the next unit.
  Status RunUnit(const CallScope& scope, int64_t unit, bool learn);
  nn::TensorMap ExportUnit(int64_t unit) const;
  Status ImportUnit(int64_t unit, const nn::TensorFinder& find);
  // 6. Activation ranges: per step on the quantized prefix, or one for all steps.
  Status Ranges(const CallScope& scope, const StageProgress& progress);
  nn::TensorMap ExportRanges() const;
  Status ImportRanges(const nn::TensorFinder& find);
  // 7. What each layer loses; REQUIRES: ranges.
  Result<std::vector<LayerError>> MeasureLayers(const CallScope& scope);

  // The artifact's tensors. Time layers are left out where every feature is cached.
  nn::TensorMap ArtifactWeights() const;
  nn::TensorMap ArtifactTables() const;
  nn::TensorMap ArtifactReference() const;

  Denoiser& network() { return *network_; }
  const Scheduler& scheduler() const { return *scheduler_; }
  std::shared_ptr<const Scheduler> shared_scheduler() const { return scheduler_; }
  const TibTrace& trace() const { return trace_; }
  const FeatureTable& exact_features() const { return exact_; }
  const nn::Conditioning& conditions() const { return conditions_; }
  // The features that the quantized model uses, whatever its method. REQUIRES: ranges.
  Result<FeatureTable> UsedFeatures(const CallScope& scope);
  const FeatureCache& cache() const { return cache_; }
  const Selection& selection() const { return selection_; }
  bool time_layers_dropped() const;
  // Names of the parameters that the artifact does without: the time layers' where every feature is cached;
  // where time depends on the prompt, those of the part that follows from tau alone, which is cached exactly.
  std::vector<std::string> DroppedParameters() const;
  const std::vector<UnitOutcome>& outcomes() const { return outcomes_; }

 private:
  Quantizer(const QuantSpec& spec, SpillStore spill, Lanes& lanes)
      : spec_(spec), method_(*FindMethod(spec.method)), spill_(std::move(spill)), lanes_(lanes) {}

  int64_t Shards(int64_t rows) const;
  std::vector<int64_t> RowsOf(int64_t step) const;
  // A context of calibration rows.
  nn::ForwardContext RowContext(const std::vector<int64_t>& rows) const;
  // One unit on all rows, in shards; REQUIRES: slots in the state to run.
  Result<at::Tensor> RunOnRows(const CallScope& scope, const Unit& unit,
                               const std::vector<at::Tensor>& inputs, const FeatureTable* features);
  // Rounding variables live in these.
  std::vector<nn::Slot*> LearnedSlots(const Unit& unit) const;
  bool Apart(const nn::Slot& slot) const;  // a time layer that its own stage treats
  // Layers whose input channels the method equalizes.
  std::vector<nn::Slot*> EqualizedSlots();
  void DropSimulated(const std::vector<nn::Slot*>& slots);
  // Large: gives what the stage freed back to the system. The next one's tensors have other sizes, and what
  // every heap kept would add up.
  void Trim() const;
  void SetState(const std::vector<nn::Slot*>& slots, nn::State state, bool activations);
  // Every slot simulated with its codes.
  void SimulateAll(bool activations);
  Status TemporalRanges(const CallScope& scope);

  QuantSpec spec_;
  const QuantMethod& method_;
  SpillStore spill_;
  Lanes& lanes_;
  bool large_ = false;  // the weights that a simulation runs are made for each pass anew
  std::unique_ptr<nn::KeptBlocks> kept_blocks_;  // where large
  int64_t shard_rows_ = 8;  // of one pass: the unit in which results are reproducible; 1 where large
  std::unique_ptr<Denoiser> network_;
  std::shared_ptr<const Scheduler> scheduler_;
  TibTrace trace_;
  CalibrationPlan plan_;
  CalibrationRows rows_;
  // [K], what calibration saw enter equalized layers; until InitWeights.
  std::vector<ChannelListener> channels_;
  nn::Conditioning conditions_;  // columns of the tables
  FeatureTable exact_, layers_, chosen_;
  FeatureCache cache_;
  Selection selection_;
  std::vector<at::Tensor> exact_values_, quantized_values_;  // by value number, freed after the last reader
  std::vector<int> last_reader_;
  std::vector<UnitOutcome> outcomes_;
};

}  // namespace tempera
