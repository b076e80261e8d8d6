// Channel equalization: a layer's input has one scale, so a channel with a narrow range wastes codes. Gains g
// bring channels closer, the weight takes 1/g (the idea of cross-layer equalization, arXiv 1906.04721, and of
// SmoothQuant, arXiv 2211.10438); how far is decided by the error that both roundings make.
#include "quant/equalize.h"

#include <ATen/Functions.h>

#include <cmath>

namespace tempera {

void ChannelListener::Watch(const std::vector<nn::Slot*>& slots) {
  for (const nn::Slot* slot : slots) stats_[slot];
}

void ChannelListener::OnSlot(const nn::Slot& slot, const at::Tensor& x, const at::Tensor&) {
  const auto it = stats_.find(&slot);
  if (it == stats_.end()) return;
  std::vector<int64_t> rest;
  for (int64_t d = 0; d < x.dim(); ++d)
    if (d != (slot.linear ? x.dim() - 1 : 1)) rest.push_back(d);
  Add(it->second, {.low = x.amin(rest).clamp_max(0),
                   .high = x.amax(rest).clamp_min(0),
                   .power = x.square().mean(rest) * static_cast<double>(x.size(0)),
                   .rows = x.size(0)});
}

void ChannelListener::Add(const ChannelListener& other) {
  for (const auto& [slot, stats] : other.stats_)
    if (stats.rows > 0) Add(stats_[slot], stats);
}

void ChannelListener::Add(ChannelStats& s, const ChannelStats& other) {
  s = s.rows == 0 ? other
                  : ChannelStats{.low = at::minimum(s.low, other.low),
                                 .high = at::maximum(s.high, other.high),
                                 .power = s.power + other.power,
                                 .rows = s.rows + other.rows};
}

namespace {

// The gain of one part with the least estimated output error.
at::Tensor PartGain(const nn::Slot& slot, const nn::SlotPart& part,
                    const std::vector<ChannelListener>& steps) {
  const at::Tensor w =
      slot.FloatWeight().narrow(1, part.begin, part.channels).reshape({slot.out_channels, part.channels, -1});
  const at::Tensor norms = w.square().sum({0, 2});           // [C]
  const at::Tensor highest = w.amax(2), lowest = w.amin(2);  // [N, C]: all that a row's range needs
  const auto of_part = [&](const at::Tensor& t) { return t.narrow(0, part.begin, part.channels); };
  at::Tensor reach = at::zeros_like(norms), power = at::zeros_like(norms);
  for (const ChannelListener& step : steps) {
    const ChannelStats& s = step.of(slot);
    reach = at::maximum(reach, of_part(s.high) - of_part(s.low));
    power = power + of_part(s.power) / static_cast<double>(s.rows * static_cast<int64_t>(steps.size()));
  }
  const double input_levels = (1 << slot.activation_bits) - 1, weight_levels = (1 << slot.weight_bits) - 1;
  // Rounding of the inputs: Delta^2 / 12 times the weights' squares; rounding of the weights: Delta_n^2 / 12
  // times the inputs' power.
  const auto error = [&](const at::Tensor& gain) {
    double input = 0;
    const double weights2 = (norms / gain.square()).sum().item<double>();
    for (const ChannelListener& step : steps) {
      const ChannelStats& s = step.of(slot);
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

void Equalize(nn::Slot& slot, const std::vector<ChannelListener>& steps) {
  std::vector<at::Tensor> gains;
  for (const nn::SlotPart& part : slot.parts) gains.push_back(PartGain(slot, part, steps));
  slot.gain = at::cat(gains, 0);
  // The stream itself is their input: its range differs from picture to picture.
  slot.dynamic = slot.role == nn::Role::kShortcut || slot.role == nn::Role::kSampler;
}

}  // namespace tempera
