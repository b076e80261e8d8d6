// What each layer loses at its place in the quantized network.
#include <ATen/Functions.h>

#include <cmath>

#include "quant/quantizer.h"
#include "quant/weights.h"

namespace tempera {
namespace {

// Sums for the layers of one pass.
struct Sums {
  double difference2 = 0, norm2 = 0, clipped = 0, values = 0;
};

class LossListener : public nn::Listener {
 public:
  explicit LossListener(int64_t step) : step_(step) {}
  std::map<std::string, Sums> sums;
  void OnSlot(const nn::Slot& slot, const at::Tensor& input, const at::Tensor& y) override {
    if (!slot.quantized()) return;
    // The same input through the original layer.
    nn::Slot original = slot;
    original.state = nn::State::kFloat;
    nn::ForwardContext none;
    const at::Tensor exact = nn::Run(original, none, input);
    Sums& s = sums[slot.name];
    s.difference2 += (y - exact).to(at::kDouble).square().sum().item<double>();
    s.norm2 += exact.to(at::kDouble).square().sum().item<double>();
    if (slot.activation_bits == 0 || slot.dynamic) return;
    const at::Tensor x = nn::Equalized(slot, input);
    for (const nn::SlotPart& part : slot.parts) {
      const nn::Range& r = slot.RangeAt(part, step_);
      const float lo = -static_cast<float>(r.zero) * r.scale - r.scale / 2;
      const float hi = static_cast<float>((1 << slot.activation_bits) - 1 - r.zero) * r.scale + r.scale / 2;
      const at::Tensor seen = slot.parts.size() == 1 ? x : x.narrow(1, part.begin, part.channels);
      s.clipped += (seen < lo).logical_or(seen > hi).sum().item<double>();
      s.values += static_cast<double>(seen.numel());
    }
  }

 private:
  int64_t step_;
};

}  // namespace

Result<std::vector<LayerError>> Quantizer::MeasureLayers(const CallScope& scope) {
  SimulateAll(/*activations=*/true);
  const auto steps = static_cast<int64_t>(scheduler_->timesteps().size());
  std::vector<LossListener> listeners;
  for (int64_t k = 0; k < steps; ++k) listeners.emplace_back(k);
  // A large network's single row holds thousands of places.
  const int64_t count = std::min<int64_t>(large_ ? plan_.rows_per_sample : 4, rows_.count);
  const Status ran = lanes_.ParallelFor(steps, [&](int64_t k) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("layer errors", [&]() -> Status {
      const at::NoGradGuard guard;
      std::vector<int64_t> rows = RowsOf(k);
      rows.resize(static_cast<size_t>(count));
      nn::ForwardContext ctx = RowContext(rows);
      ctx.listener = &listeners[static_cast<size_t>(k)];
      // Time layers run here even where their features will be cached: their losses belong in the table, too.
      (void)network_->Forward(ctx, rows_.x.narrow(0, k * rows_.count, count));
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran);
  std::vector<LayerError> errors;
  for (const nn::Slot& slot : network_->slots()) {
    if (!slot.quantized()) continue;
    LayerError e{.slot = slot.name};
    Sums total;
    for (const LossListener& l : listeners) {
      const auto it = l.sums.find(slot.name);
      if (it == l.sums.end()) continue;
      total.difference2 += it->second.difference2;
      total.norm2 += it->second.norm2;
      total.clipped += it->second.clipped;
      total.values += it->second.values;
    }
    e.output_error = std::sqrt(total.difference2 / std::max(total.norm2, 1e-30));
    e.clipping = total.values > 0 ? total.clipped / total.values : 0;
    if (slot.weight_bits > 0) {
      const at::Tensor exact = slot.EqualizedWeight();
      e.weight_error =
          (nn::Dequantize(slot) - exact).norm().item<double>() / std::max(exact.norm().item<double>(), 1e-30);
    }
    errors.push_back(e);
  }
  return errors;
}

}  // namespace tempera
