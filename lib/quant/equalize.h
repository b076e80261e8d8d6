// Channel equalization: gains that bring a layer's input channels to a common range before they are
// quantized, with the weight divided by them.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "nn/context.h"
#include "nn/slot.h"

namespace tempera {

// What the input channels of one slot show.
struct ChannelStats {
  at::Tensor low, high;  // [C] with 0 inside
  at::Tensor power;      // [C] mean square over places, summed over rows
  int64_t rows = 0;      // 0: not seen, no tensors
};

// Gathers them for the passes of one step. Not thread-safe: one for each thread, added up in a fixed order.
class ChannelListener : public nn::Listener {
 public:
  void Watch(const std::vector<nn::Slot*>& slots);
  void OnSlot(const nn::Slot& slot, const at::Tensor& x, const at::Tensor&) override;
  void Add(const ChannelListener& other);
  // REQUIRES: the slot is watched and ran.
  const ChannelStats& of(const nn::Slot& slot) const { return stats_.at(&slot); }

 private:
  static void Add(ChannelStats& s, const ChannelStats& other);
  std::map<const nn::Slot*, ChannelStats> stats_;
};

// Sets the slot's gain to the one with the least estimated output error over all steps. Shortcuts and
// samplers take each row's own range besides.
void Equalize(nn::Slot& slot, const std::vector<ChannelListener>& steps);

}  // namespace tempera
