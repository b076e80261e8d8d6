// Activation ranges from what a pass shows.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "nn/context.h"

namespace tempera {

// The range of one tensor with the least mean squared error: from min-max, first the end that lies further
// out is drawn in, then the other. A few far values then do not cost all others their resolution.
nn::Range SearchRange(const at::Tensor& x, int bits);

// How ranges are found. Per step is finite-set calibration: a pass over the rows of one step sets that step's
// range before the input is quantized, so that later layers see quantized inputs.
enum class RangeRule {
  kStatic,  // min-max over every step; FinishStatic sets the one range
  kMinMax,  // per step, exact: for inputs that are the same at every request, as the time layers' are
  kSearch,  // per step; below 8 bits SearchRange, at 8 min-max: clipping costs more there than it gains
            // (measured)
};

// Passes of different steps may run side by side.
class RangeObserver : public nn::Observer {
 public:
  RangeObserver(const std::vector<nn::Slot*>& slots, int64_t steps, RangeRule rule);
  void OnInput(const nn::Slot& slot, size_t part, const at::Tensor& x,
               const nn::ForwardContext& ctx) override;
  void FinishStatic();

 private:
  struct Entry {
    nn::Slot* slot;
    std::vector<std::vector<std::pair<float, float>>> extremes;  // [part][K]
  };
  std::map<const nn::Slot*, Entry> entries_;
  RangeRule rule_;
};

}  // namespace tempera
