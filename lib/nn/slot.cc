#include "nn/slot.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/status.h"
#include "nn/context.h"

namespace tempera::nn {

// slot_integer.cc
at::Tensor RunInteger(const Slot& slot, const ForwardContext& ctx, const at::Tensor& x);
at::Tensor RunIntegerMatmul(const Slot& slot, const ForwardContext& ctx, const at::Tensor& a,
                            const at::Tensor& b);

const char* RoleName(Role role) {
  switch (role) {
    case Role::kConvIn:
      return "conv_in";
    case Role::kConvOut:
      return "conv_out";
    case Role::kTimeFirst:
      return "time_first";
    case Role::kTime:
      return "time";
    case Role::kConv:
      return "conv";
    case Role::kShortcut:
      return "shortcut";
    case Role::kSampler:
      return "sampler";
    case Role::kLinear:
      return "linear";
    case Role::kMatmul:
      return "matmul";
  }
  return "?";
}

const Range& Slot::RangeAt(const SlotPart& part, int64_t step) const {
  TEMPERA_CHECK(!part.ranges.empty(), Cat(name, ": no activation range"));
  if (part.ranges.size() == 1) return part.ranges[0];
  TEMPERA_CHECK(step >= 0 && step < static_cast<int64_t>(part.ranges.size()),
                Cat(name, ": no activation range for step ", step));
  return part.ranges[static_cast<size_t>(step)];
}

at::Tensor Slot::FloatWeight() const { return weight.to(at::kFloat); }

at::Tensor Slot::EqualizedWeight() const {
  if (!gain.defined()) return FloatWeight();
  return FloatWeight() / (linear ? gain : gain.view({1, -1, 1, 1}));
}

namespace {

at::Tensor Apply(const Slot& slot, const at::Tensor& x, const at::Tensor& weight) {
  if (slot.linear) return at::linear(x, weight, slot.bias);
  const auto [top, left, bottom, right] = slot.pad;
  if (top == bottom && left == right) return at::conv2d(x, weight, slot.bias, slot.stride, {top, left});
  return at::conv2d(at::constant_pad_nd(x, {left, right, top, bottom}), weight, slot.bias, slot.stride);
}

// The channels of one part.
at::Tensor PartOf(const Slot& slot, const SlotPart& part, const at::Tensor& x) {
  if (part.channels == slot.in_channels) return x;
  return x.narrow(slot.linear ? -1 : 1, part.begin, part.channels);
}

// The input as the layer's arithmetic sees it.
at::Tensor QuantizedInput(const Slot& slot, ForwardContext& ctx, const at::Tensor& input) {
  if (slot.activation_bits == 0) return input;
  const at::Tensor x = Equalized(slot, input);
  std::vector<at::Tensor> parts;
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    const at::Tensor part = PartOf(slot, slot.parts[p], x);
    if (slot.state == State::kObserve) ctx.observer->OnInput(slot, p, part, ctx);
    if (slot.activations_on) parts.push_back(FakeQuantize(part, slot, slot.parts[p], ctx));
  }
  if (!slot.activations_on) return x;
  return parts.size() == 1 ? parts[0] : at::cat(parts, slot.linear ? -1 : 1);
}

}  // namespace

at::Tensor Equalized(const Slot& slot, const at::Tensor& x) {
  if (!slot.gain.defined()) return x;
  return x * (slot.linear ? slot.gain : slot.gain.view({1, -1, 1, 1}));
}

Range RangeOf(float lo, float hi, int bits) {
  lo = std::min(lo, 0.0f);
  hi = std::max(hi, 0.0f);
  const int top = (1 << bits) - 1;
  Range range;
  if (!std::isfinite(hi - lo)) return range;  // whatever the code, the result is lost
  range.scale = std::max((hi - lo) / static_cast<float>(top), 1e-8f);
  range.zero = std::clamp(static_cast<int>(std::nearbyint(-lo / range.scale)), 0, top);
  return range;
}

Range Union(const Range& a, const Range& b, int bits) {
  const int top = (1 << bits) - 1;
  const auto low = [](const Range& r) { return r.scale * static_cast<float>(-r.zero); };
  const auto high = [top](const Range& r) { return r.scale * static_cast<float>(top - r.zero); };
  return RangeOf(std::min(low(a), low(b)), std::max(high(a), high(b)), bits);
}

std::vector<Range> RowRanges(const Slot& slot, const SlotPart& part, const at::Tensor& x,
                             const ForwardContext& ctx) {
  std::vector<Range> ranges;
  if (slot.dynamic) {
    const int64_t rows = slot.linear ? x.numel() / x.size(-1) : x.size(0);
    const auto [low, high] = at::aminmax(x.detach().reshape({rows, -1}), 1);
    const at::Tensor lo = low.cpu(), hi = high.cpu();
    for (int64_t b = 0; b < rows; ++b)
      ranges.push_back(
          RangeOf(lo.const_data_ptr<float>()[b], hi.const_data_ptr<float>()[b], slot.activation_bits));
  } else if (part.ranges.size() == 1) {
    ranges.assign(static_cast<size_t>(x.size(0)), part.ranges[0]);
  } else {
    if (ctx.ranges.empty()) {
      for (const int64_t step : ctx.step) ranges.push_back(slot.RangeAt(part, step));
    } else {
      for (const auto& [before, after] : ctx.ranges) {
        const Range& range = slot.RangeAt(part, before);
        ranges.push_back(before == after ? range
                                         : Union(range, slot.RangeAt(part, after), slot.activation_bits));
      }
    }
    TEMPERA_CHECK(static_cast<int64_t>(ranges.size()) == x.size(0),
                  Cat(slot.name, ": ", ranges.size(), " steps for ", x.size(0), " rows"));
  }
  return ranges;
}

at::Tensor FakeQuantize(const at::Tensor& x, const Slot& slot, const SlotPart& part,
                        const ForwardContext& ctx) {
  const float top = static_cast<float>((1 << slot.activation_bits) - 1);
  std::vector<float> scales, zeros;
  for (const Range& r : RowRanges(slot, part, x, ctx)) {
    scales.push_back(r.scale);
    zeros.push_back(static_cast<float>(r.zero));
  }
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  if (slot.dynamic && slot.linear) {
    shape = x.sizes().vec();
    shape.back() = 1;
  } else {
    shape[0] = x.size(0);
  }
  const at::Tensor scale = at::tensor(scales, at::kFloat).to(x.device()).view(shape);
  const at::Tensor zero = at::tensor(zeros, at::kFloat).to(x.device()).view(shape);
  const at::Tensor codes = at::clamp(at::round(x.detach() / scale) + zero, 0, top);
  const at::Tensor value = (codes - zero) * scale;
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return value;
  const at::Tensor inside = at::minimum(at::maximum(x, -zero * scale), (top - zero) * scale);
  return inside + (value - inside.detach());
}

at::Tensor Run(const Slot& slot, ForwardContext& ctx, const at::Tensor& x) {
  at::Tensor y;
  if (slot.temporal_index >= 0 || slot.role == Role::kTime || slot.role == Role::kTimeFirst)
    ctx.temporal_macs += x.numel() / slot.in_channels * slot.k() * slot.out_channels;
  if (slot.state == State::kFloat || slot.weight_bits == 0) {
    y = Apply(slot, x, slot.FloatWeight());
  } else if (slot.state == State::kInteger && slot.activation_bits > 0) {
    y = RunInteger(slot, ctx, x);
  } else if (slot.state == State::kInteger) {
    y = Apply(slot, x, Dequantize(slot));  // weight-only: the codes stay packed in memory
  } else {
    y = Apply(slot, QuantizedInput(slot, ctx, x),
              slot.simulated.defined() ? slot.simulated : Dequantize(slot));
  }
  if (ctx.listener != nullptr) ctx.listener->OnSlot(slot, x, y);
  return y;
}

at::Tensor RunMatmul(const Slot& slot, ForwardContext& ctx, const at::Tensor& a, const at::Tensor& b) {
  if (slot.state == State::kFloat || slot.activation_bits == 0) return at::matmul(a, b.transpose(-1, -2));
  if (slot.state == State::kInteger) return RunIntegerMatmul(slot, ctx, a, b);
  if (slot.state == State::kObserve) {
    ctx.observer->OnInput(slot, 0, a, ctx);
    ctx.observer->OnInput(slot, 1, b, ctx);
  }
  if (!slot.activations_on) return at::matmul(a, b.transpose(-1, -2));
  return at::matmul(FakeQuantize(a, slot, slot.parts[0], ctx),
                    FakeQuantize(b, slot, slot.parts[1], ctx).transpose(-1, -2));
}

at::Tensor Dequantize(const Slot& slot) {
  std::vector<at::Tensor> parts;
  for (const SlotPart& part : slot.parts) {
    at::Tensor codes = part.codes;
    if (!codes.defined()) {  // packed
      std::vector<int64_t> shape{slot.out_channels, part.channels};
      codes = at::empty({slot.out_channels, part.packed.k}, at::kByte);
      kernels::UnpackMatrix(part.packed, codes.mutable_data_ptr<uint8_t>());
      // Packed columns lie as [kh][kw][C], a weight as [C][kh][kw].
      if (!slot.linear)
        codes = codes.view({slot.out_channels, slot.kh, slot.kw, part.channels}).permute({0, 3, 1, 2});
    }
    std::vector<int64_t> shape(static_cast<size_t>(codes.dim()), 1);
    shape[0] = slot.out_channels;
    parts.push_back((codes.to(at::kFloat) - part.zero.to(at::kFloat).view(shape)) * part.scale.view(shape));
  }
  return parts.size() == 1 ? parts[0].contiguous() : at::cat(parts, 1);
}

kernels::Format FormatOf(const Slot& slot) {
  return slot.weight_bits <= 4 ? kernels::Format::kInt4 : kernels::Format::kInt8;
}

void Pack(Slot& slot) {
  for (SlotPart& part : slot.parts) {
    if (slot.role == Role::kMatmul) break;
    at::Tensor codes = slot.linear ? part.codes : part.codes.permute({0, 2, 3, 1});
    codes = codes.contiguous().view({slot.out_channels, -1});
    const at::Tensor zero = part.zero.to(at::kInt).contiguous();
    part.packed = kernels::Pack(FormatOf(slot), slot.weight_bits, slot.out_channels, codes.size(1),
                                codes.const_data_ptr<uint8_t>(), zero.const_data_ptr<int32_t>());
    part.codes = at::Tensor();
  }
  BeginInteger(slot);
}

void BeginInteger(Slot& slot) {
  slot.weight = at::Tensor();
  slot.simulated = at::Tensor();
  slot.state = State::kInteger;
}

int64_t ResidentBytes(const Slot& slot) {
  const auto bytes = [](const at::Tensor& t) { return t.defined() ? static_cast<int64_t>(t.nbytes()) : 0; };
  int64_t total = bytes(slot.weight) + bytes(slot.bias);
  for (const SlotPart& part : slot.parts)
    total +=
        bytes(part.scale) + bytes(part.zero) + bytes(part.codes) + static_cast<int64_t>(part.packed.bytes());
  return total;
}

}  // namespace tempera::nn
