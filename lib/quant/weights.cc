#include "quant/weights.h"

#include <ATen/Functions.h>

#include <cmath>

namespace tempera {

void AssignBits(Denoiser& network, const QuantSpec& spec) {
  const int activation = spec.activation_bits == 32 ? 0 : spec.activation_bits;
  for (nn::Slot& slot : network.slots()) {
    switch (slot.role) {
      case nn::Role::kConvIn:
      case nn::Role::kConvOut:
      case nn::Role::kTimeFirst:
        slot.weight_bits = spec.boundary_bits;
        slot.activation_bits = spec.boundary_bits == 0 ? 0 : activation == 0 ? 0 : spec.boundary_bits;
        break;
      case nn::Role::kMatmul:
        slot.weight_bits = 0;
        slot.activation_bits = spec.quantize_attention ? activation : 0;
        break;
      default:
        slot.weight_bits = spec.weight_bits;
        slot.activation_bits = activation;
    }
  }
  for (const SlotOverride& o : spec.overrides) {
    nn::Slot* slot = network.FindSlot(o.slot);
    TEMPERA_CHECK(slot != nullptr, o.slot);
    if (o.weight_bits && slot->role != nn::Role::kMatmul) slot->weight_bits = *o.weight_bits;
    if (o.activation_bits) slot->activation_bits = *o.activation_bits == 32 ? 0 : *o.activation_bits;
    if (slot->weight_bits == 0 && slot->role != nn::Role::kMatmul) slot->activation_bits = 0;
  }
}

void InitWeights(nn::Slot& slot, bool search) {
  const at::NoGradGuard guard;
  const float top = static_cast<float>((1 << slot.weight_bits) - 1);
  for (nn::SlotPart& part : slot.parts) {
    const at::Tensor w = slot.EqualizedWeight().narrow(1, part.begin, part.channels).contiguous();
    const at::Tensor flat = w.reshape({slot.out_channels, -1});  // [N, K]
    const at::Tensor low = flat.amin(1, true).clamp_max(0), high = flat.amax(1, true).clamp_min(0);
    at::Tensor best, best_scale, best_zero;
    for (int shrink = 0; shrink < (search ? 80 : 1); ++shrink) {
      const double f = 1 - 0.01 * shrink;
      const at::Tensor scale = ((high - low) * f / top).clamp_min(1e-8);
      const at::Tensor zero = at::round(-low * f / scale).clamp(0, top);
      if (!search) {
        best_scale = scale;
        best_zero = zero;
        break;
      }
      const at::Tensor value = (at::clamp(at::round(flat / scale) + zero, 0, top) - zero) * scale;
      const at::Tensor error = (value - flat).abs().pow(2.4).mean(1, true);
      if (!best.defined()) {
        best = error;
        best_scale = scale;
        best_zero = zero;
        continue;
      }
      const at::Tensor better = error < best;
      best = at::where(better, error, best);
      best_scale = at::where(better, scale, best_scale);
      best_zero = at::where(better, zero, best_zero);
    }
    part.scale = best_scale.view({-1}).contiguous();
    part.zero = best_zero.view({-1}).to(at::kInt).contiguous();
    part.codes = at::clamp(at::round(flat / best_scale) + best_zero, 0, top)
                     .to(at::kByte)
                     .view(w.sizes())
                     .contiguous();
  }
}

void UseCodes(nn::Slot& slot) {
  const at::NoGradGuard guard;
  if (slot.role != nn::Role::kMatmul) slot.simulated = nn::Dequantize(slot).to(slot.weight.device());
  slot.state = nn::State::kSimulate;
}

Json SlotTable(const Denoiser& network) {
  Json table = Json::array();
  for (const Unit& unit : network.units())
    for (const nn::Slot* slot : unit.slots) {
      if (slot->role == nn::Role::kMatmul && slot->activation_bits == 0) continue;
      table.push_back({{"slot", slot->name},
                       {"role", nn::RoleName(slot->role)},
                       {"unit", unit.name},
                       {"group", unit.group},
                       {"weight_bits", slot->weight_bits},
                       {"activation_bits", slot->activation_bits},
                       {"equalized", slot->gain.defined()},
                       {"dynamic", slot->dynamic},
                       {"parts", slot->parts.size()}});
    }
  for (const nn::Slot* slot : network.temporal_trunk())
    table.push_back({{"slot", slot->name},
                     {"role", nn::RoleName(slot->role)},
                     {"unit", "time"},
                     {"group", "time"},
                     {"weight_bits", slot->weight_bits},
                     {"activation_bits", slot->activation_bits},
                     {"equalized", false},
                     {"dynamic", slot->dynamic},
                     {"parts", 1}});
  return table;
}

}  // namespace tempera
