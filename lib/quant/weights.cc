#include "quant/weights.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/rounding_loss.h"

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

namespace {

// Scale and zero point of a row of K weights: those of its range, or of the share of it, down to a fifth,
// that loses least.
std::pair<float, float> RowScale(const float* w, int64_t k, int levels, bool search) {
  const float top = static_cast<float>(levels - 1);
  float low = 0, high = 0;
  for (int64_t i = 0; i < k; ++i) {
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  float best_scale = 1, best_zero = 0;
  double best = INFINITY;
  for (int shrink = 0; shrink < (search ? 80 : 1); ++shrink) {
    const float f = 1 - 0.01f * static_cast<float>(shrink);
    const float scale = std::max((high - low) * f / top, 1e-8f);
    const float zero = std::clamp(std::nearbyint(-low * f / scale), 0.0f, top);
    const double loss = search ? kernels::RoundingLoss(w, k, scale, static_cast<int32_t>(zero), levels) : 0;
    if (!(loss < best)) continue;
    best = loss;
    best_scale = scale;
    best_zero = zero;
  }
  return {best_scale, best_zero};
}

}  // namespace

void InitWeights(nn::Slot& slot, bool search) {
  const at::NoGradGuard guard;
  const int levels = 1 << slot.weight_bits;
  for (nn::SlotPart& part : slot.parts) {
    const at::Tensor w = slot.EqualizedWeight().narrow(1, part.begin, part.channels).contiguous();
    const at::Tensor flat = w.reshape({slot.out_channels, -1});  // [N, K]
    const at::Tensor on_cpu = flat.cpu();
    const int64_t k = flat.size(1);
    std::vector<float> scale, zero;
    for (int64_t row = 0; row < slot.out_channels; ++row) {
      const auto [s, z] = RowScale(on_cpu.const_data_ptr<float>() + row * k, k, levels, search);
      scale.push_back(s);
      zero.push_back(z);
    }
    part.scale = at::tensor(scale).to(w.device());
    const at::Tensor zeros = at::tensor(zero).to(w.device());
    part.zero = zeros.to(at::kInt);
    part.codes = at::clamp(at::round(flat / part.scale.view({-1, 1})) + zeros.view({-1, 1}), 0, levels - 1)
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
