#include "quant/ranges.h"

#include <ATen/Functions.h>

#include <cmath>

#include "base/status.h"

namespace tempera {

nn::Range RangeOf(float lo, float hi, int bits) {
  lo = std::min(lo, 0.0f);
  hi = std::max(hi, 0.0f);
  const int top = (1 << bits) - 1;
  nn::Range range;
  range.scale = std::max((hi - lo) / static_cast<float>(top), 1e-8f);
  range.zero = std::clamp(static_cast<int>(std::nearbyint(-lo / range.scale)), 0, top);
  return range;
}

nn::Range RangeOf(const at::Tensor& x, int bits) {
  const at::Tensor flat = x.detach().reshape({-1});
  const float lo = flat.min().item<float>(), hi = flat.max().item<float>();
  if (bits >= 8) return RangeOf(lo, hi, bits);
  // A regular sample of at most 2^16 values finds the shrink as well as all of them.
  const int64_t stride = std::max<int64_t>(1, flat.numel() >> 16);
  const at::Tensor sample = flat.slice(0, 0, std::nullopt, stride).contiguous();
  nn::Range best;
  double best_error = INFINITY;
  for (int shrink = 0; shrink < 80; ++shrink) {
    const float f = 1.0f - 0.01f * static_cast<float>(shrink);
    const nn::Range range = RangeOf(lo * f, hi * f, bits);
    const auto zero = static_cast<float>(range.zero);
    const at::Tensor codes = at::clamp(at::round(sample / range.scale) + zero, 0, (1 << bits) - 1);
    const double error = ((codes - zero) * range.scale - sample).square().mean().item<double>();
    if (error < best_error) {
      best_error = error;
      best = range;
    }
  }
  return best;
}

RangeObserver::RangeObserver(const std::vector<nn::Slot*>& slots, int64_t steps, bool per_step) : per_step_(per_step) {
  for (nn::Slot* slot : slots) {
    Entry& entry = entries_[slot];
    entry.slot = slot;
    entry.extremes.assign(slot->parts.size(), std::vector<std::pair<float, float>>(static_cast<size_t>(steps)));
    for (nn::SlotPart& part : slot->parts) part.ranges.assign(per_step ? static_cast<size_t>(steps) : 1, {});
  }
}

void RangeObserver::OnInput(const nn::Slot& slot, size_t part, const at::Tensor& x, const nn::ForwardContext& ctx) {
  const auto it = entries_.find(&slot);
  TEMPERA_CHECK(it != entries_.end(), slot.name);
  for (const int64_t k : ctx.step) TEMPERA_CHECK(k == ctx.step[0], Cat(slot.name, ": rows of several steps in one observing pass"));
  const auto k = static_cast<size_t>(ctx.step[0]);
  if (per_step_) it->second.slot->parts[part].ranges[k] = RangeOf(x, slot.activation_bits);
  else it->second.extremes[part][k] = {x.min().item<float>(), x.max().item<float>()};
}

void RangeObserver::FinishStatic() {
  for (auto& [key, entry] : entries_) {
    for (size_t p = 0; p < entry.extremes.size(); ++p) {
      float lo = 0, hi = 0;
      for (const auto& [low, high] : entry.extremes[p]) {
        lo = std::min(lo, low);
        hi = std::max(hi, high);
      }
      entry.slot->parts[p].ranges = {RangeOf(lo, hi, entry.slot->activation_bits)};
    }
  }
}

}  // namespace tempera
