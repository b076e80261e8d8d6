// Channel equalization: a layer's input has one scale, so a channel with a narrow range wastes codes. Gains g
// bring channels closer, the weight takes 1/g (the idea of cross-layer equalization, arXiv 1906.04721, and of
// SmoothQuant, arXiv 2211.10438); how far is decided by the error that both roundings make.
#include <ATen/Functions.h>

#include <cmath>
#include <numeric>

#include "quant/quantizer.h"

namespace tempera {
namespace {

// What the input channels of one slot show at one step.
struct ChannelStats {
  at::Tensor low, high;  // [C] with 0 inside
  at::Tensor power;      // [C] mean square
};

class ChannelListener : public nn::Listener {
 public:
  std::map<const nn::Slot*, ChannelStats> stats;  // keys are set before the passes
  double share = 1;                               // of the step's rows, that the next pass has
  void OnSlot(const nn::Slot& slot, const at::Tensor& x, const at::Tensor&) override {
    const auto it = stats.find(&slot);
    if (it == stats.end()) return;
    std::vector<int64_t> rest;
    for (int64_t d = 0; d < x.dim(); ++d)
      if (d != (slot.linear ? x.dim() - 1 : 1)) rest.push_back(d);
    ChannelStats& s = it->second;
    const at::Tensor low = x.amin(rest).clamp_max(0), high = x.amax(rest).clamp_min(0);
    const at::Tensor power = x.square().mean(rest) * share;
    s = s.low.defined() ? ChannelStats{at::minimum(s.low, low), at::maximum(s.high, high), s.power + power}
                        : ChannelStats{low, high, power};
  }
};

// The gain of one part with the least estimated output error.
at::Tensor PartGain(const nn::Slot& slot, const nn::SlotPart& part,
                    const std::vector<ChannelListener>& steps) {
  const at::Tensor w =
      slot.FloatWeight().narrow(1, part.begin, part.channels).reshape({slot.out_channels, part.channels, -1});
  const at::Tensor norms = w.square().sum({0, 2});             // [C]
  const at::Tensor highest = w.amax(2), lowest = w.amin(2);  // [N, C]: all that a row's range needs
  const auto of_part = [&](const at::Tensor& t) { return t.narrow(0, part.begin, part.channels); };
  at::Tensor reach = at::zeros_like(norms), power = at::zeros_like(norms);
  for (const ChannelListener& step : steps) {
    const ChannelStats& s = step.stats.at(&slot);
    reach = at::maximum(reach, of_part(s.high) - of_part(s.low));
    power = power + of_part(s.power) / static_cast<double>(steps.size());
  }
  const double input_levels = (1 << slot.activation_bits) - 1, weight_levels = (1 << slot.weight_bits) - 1;
  // Rounding of the inputs: Delta^2 / 12 times the weights' squares; rounding of the weights: Delta_n^2 / 12
  // times the inputs' power.
  const auto error = [&](const at::Tensor& gain) {
    double input = 0;
    const double weights2 = (norms / gain.square()).sum().item<double>();
    for (const ChannelListener& step : steps) {
      const ChannelStats& s = step.stats.at(&slot);
      const double range =
          (of_part(s.high) * gain).max().item<double>() - (of_part(s.low) * gain).min().item<double>();
      input += std::pow(range / input_levels, 2) * weights2 / static_cast<double>(steps.size());
    }
    const at::Tensor range =
        (highest / gain).amax(1).clamp_min(0) - (lowest / gain).amin(1).clamp_max(0);  // [N]
    const double power2 = (power * gain.square()).sum().item<double>() * static_cast<double>(w.size(2));
    return input + (range / weight_levels).square().sum().item<double>() * power2;
  };
  at::Tensor best = at::ones_like(norms);
  double least = error(best);
  const at::Tensor usable = (reach > 0).logical_and(norms > 0);
  const at::Tensor r = at::where(usable, reach, at::ones_like(reach));
  const at::Tensor n = at::where(usable, w.abs().amax({0, 2}), at::ones_like(reach));
  for (const double a : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    for (const double b : {0.0, 0.25, 0.5}) {
      const at::Tensor gain = r.pow(-a) * n.pow(b);
      const double e = error(gain);
      if (e >= least) continue;
      least = e;
      best = gain;
    }
  }
  return best;
}

}  // namespace

Status Quantizer::EqualizeInputs(const CallScope& scope) {
  std::vector<nn::Slot*> slots;
  for (nn::Slot& slot : network_->slots())
    if (slot.weight_bits > 0 && slot.activation_bits > 0 && !Apart(slot)) slots.push_back(&slot);
  const auto steps = static_cast<int64_t>(scheduler_->timesteps().size());
  std::vector<ChannelListener> listeners(static_cast<size_t>(steps));
  for (ChannelListener& listener : listeners)
    for (const nn::Slot* slot : slots) listener.stats[slot];
  const Status ran = lanes_.ParallelFor(steps, [&](int64_t k) -> Status {
    return nn::TorchEdge("input channels", [&]() -> Status {
      const at::NoGradGuard guard;
      ChannelListener& listener = listeners[static_cast<size_t>(k)];
      for (int64_t begin = k * rows_.count; begin < (k + 1) * rows_.count; begin += shard_rows_) {
        TEMPERA_TRY(scope.Check());
        const int64_t count = std::min(shard_rows_, (k + 1) * rows_.count - begin);
        std::vector<int64_t> rows(static_cast<size_t>(count));
        std::iota(rows.begin(), rows.end(), begin);
        nn::ForwardContext ctx = RowContext(rows);
        TableSource source(exact_);
        ctx.features = &source;
        ctx.listener = &listener;
        listener.share = static_cast<double>(count) / static_cast<double>(rows_.count);
        (void)network_->Forward(ctx, rows_.x.narrow(0, begin, count));
      }
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran);
  Trim();
  return lanes_.ParallelFor(static_cast<int64_t>(slots.size()), [&](int64_t i) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("input channels", [&]() -> Status {
      const at::NoGradGuard guard;
      nn::Slot* slot = slots[static_cast<size_t>(i)];
      std::vector<at::Tensor> gains;
      for (const nn::SlotPart& part : slot->parts) gains.push_back(PartGain(*slot, part, listeners));
      slot->gain = at::cat(gains, 0);
      // The stream itself is their input: its range differs from picture to picture.
      slot->dynamic = slot->role == nn::Role::kShortcut || slot->role == nn::Role::kSampler;
      return OkStatus();
    });
  });
}

}  // namespace tempera
