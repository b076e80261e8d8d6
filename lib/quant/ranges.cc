#include "quant/ranges.h"

#include <ATen/Functions.h>

#include <cmath>

#include "base/status.h"

namespace tempera {

nn::Range SearchRange(const at::Tensor& x, int bits) {
  const at::Tensor flat = x.detach().reshape({-1});
  float ends[2] = {std::min(flat.min().item<float>(), 0.0f), std::max(flat.max().item<float>(), 0.0f)};
  // About 2^14 values find the ends as well as all of them; an odd stride visits every column of a picture.
  const int64_t stride = (flat.numel() >> 14) | 1;
  const at::Tensor sample = flat.slice(0, 0, std::nullopt, stride).contiguous();
  const float* values = sample.const_data_ptr<float>();
  const int64_t count = sample.numel();
  const auto top = static_cast<float>((1 << bits) - 1);
  const auto error = [&](const nn::Range& range) {
    const auto zero = static_cast<float>(range.zero);
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float code = std::clamp(std::nearbyint(values[i] / range.scale) + zero, 0.0f, top);
      const float d = (code - zero) * range.scale - values[i];
      sum += static_cast<double>(d * d);
    }
    return sum;
  };
  nn::Range best = nn::RangeOf(ends[0], ends[1], bits);
  double least = error(best);
  const int further = ends[1] >= -ends[0] ? 1 : 0;
  for (const int end : {further, 1 - further}) {
    const float whole = ends[end];
    for (int shrink = 1; shrink < 40; ++shrink) {
      float candidate[2] = {ends[0], ends[1]};
      candidate[end] = whole * (1.0f - 0.02f * static_cast<float>(shrink));
      const nn::Range range = nn::RangeOf(candidate[0], candidate[1], bits);
      const double e = error(range);
      if (e >= least) continue;
      least = e;
      best = range;
      ends[end] = candidate[end];
    }
  }
  return best;
}

RangeObserver::RangeObserver(const std::vector<nn::Slot*>& slots, int64_t steps, RangeRule rule)
    : rule_(rule) {
  for (nn::Slot* slot : slots) {
    Entry& entry = entries_[slot];
    entry.slot = slot;
    entry.extremes.assign(slot->parts.size(),
                          std::vector<std::pair<float, float>>(static_cast<size_t>(steps)));
    for (nn::SlotPart& part : slot->parts)
      part.ranges.assign(rule == RangeRule::kStatic ? 1 : static_cast<size_t>(steps), {});
  }
}

void RangeObserver::OnInput(const nn::Slot& slot, size_t part, const at::Tensor& x,
                            const nn::ForwardContext& ctx) {
  const auto it = entries_.find(&slot);
  TEMPERA_CHECK(it != entries_.end(), slot.name);
  for (const int64_t k : ctx.step)
    TEMPERA_CHECK(k == ctx.step[0], Cat(slot.name, ": rows of several steps in one observing pass"));
  const auto k = static_cast<size_t>(ctx.step[0]);
  if (rule_ == RangeRule::kSearch && slot.activation_bits < 8) {
    it->second.slot->parts[part].ranges[k] = SearchRange(x, slot.activation_bits);
    return;
  }
  const std::pair<float, float> extremes{x.min().item<float>(), x.max().item<float>()};
  if (rule_ == RangeRule::kStatic)
    it->second.extremes[part][k] = extremes;
  else
    it->second.slot->parts[part].ranges[k] =
        nn::RangeOf(extremes.first, extremes.second, slot.activation_bits);
}

void RangeObserver::FinishStatic() {
  for (auto& [key, entry] : entries_) {
    for (size_t p = 0; p < entry.extremes.size(); ++p) {
      float lo = 0, hi = 0;
      for (const auto& [low, high] : entry.extremes[p]) {
        lo = std::min(lo, low);
        hi = std::max(hi, high);
      }
      entry.slot->parts[p].ranges = {nn::RangeOf(lo, hi, entry.slot->activation_bits)};
    }
  }
}

}  // namespace tempera
