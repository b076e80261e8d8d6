// Activation ranges from what a pass shows.
#pragma once

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "nn/context.h"

namespace tempera {

// lo <= 0 <= hi is forced; scale >= 1e-8; 0 <= zero < 2^bits.
nn::Range RangeOf(float lo, float hi, int bits);

// The range of one tensor. 8 bits: min-max. Fewer: the best of 80 shrinks of it under mean squared error, for a single
// outlier then costs more than clipping it.
nn::Range RangeOf(const at::Tensor& x, int bits);

// Finite-set calibration: a pass over the rows of one step sets that step's range before the input is quantized, so that
// later layers see quantized inputs. Static: keeps the extremes of every step; FinishStatic sets the one range.
// Passes of different steps may run side by side.
class RangeObserver : public nn::Observer {
 public:
  RangeObserver(const std::vector<nn::Slot*>& slots, int64_t steps, bool per_step);
  void OnInput(const nn::Slot& slot, size_t part, const at::Tensor& x, const nn::ForwardContext& ctx) override;
  void FinishStatic();

 private:
  struct Entry {
    nn::Slot* slot;
    std::vector<std::vector<std::pair<float, float>>> extremes;  // [part][K]
  };
  std::map<const nn::Slot*, Entry> entries_;
  bool per_step_;
};

}  // namespace tempera
