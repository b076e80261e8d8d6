// State kInteger: quantize the input once, integer products on the chosen kernel, one float epilogue.
#include <ATen/Functions.h>

#include <algorithm>

#include "base/status.h"
#include "nn/context.h"
#include "nn/slot.h"

namespace tempera::nn {
namespace {

// Rows of a tile: its columns (K bytes a row) and sums stay near the core.
int64_t TileRows(int64_t k, int64_t n) {
  return std::clamp<int64_t>((256 << 10) / std::max<int64_t>(1, k + 4 * n), 16, 1024);
}

// Scratch of one lane, grown to the largest layer it ran.
struct Scratch {
  std::vector<uint8_t> codes, columns;
  std::vector<int32_t> sums;
};
Scratch& LaneScratch() {
  thread_local Scratch scratch;
  return scratch;
}

template <typename T>
T* Grow(std::vector<T>& v, int64_t size) {
  if (static_cast<int64_t>(v.size()) < size) v.resize(static_cast<size_t>(size));
  return v.data();
}

// y[n][pixel] (+)= scale[n] * sums[pixel][n] (+ bias[n]); the first part writes, the second adds.
void Epilogue(const int32_t* sums, int64_t rows, int64_t n_out, float x_scale, const float* scale,
              const float* bias, bool first, float* y, int64_t stride_n, int64_t stride_row) {
  for (int64_t n = 0; n < n_out; ++n) {
    const float s = x_scale * scale[n];
    const float b = first && bias != nullptr ? bias[n] : 0.0f;
    float* out = y + n * stride_n;
    if (first) {
      for (int64_t r = 0; r < rows; ++r)
        out[r * stride_row] = s * static_cast<float>(sums[r * n_out + n]) + b;
    } else {
      for (int64_t r = 0; r < rows; ++r) out[r * stride_row] += s * static_cast<float>(sums[r * n_out + n]);
    }
  }
}

// The same for a linear whose rows have ranges of their own: the kernel took every zero point for 0. Each
// term fits int32 by the kernels' bound on K.
void VectorEpilogue(const int32_t* sums, int64_t rows, const kernels::PackedMatrix& w, const Range* range,
                    const float* scale, const float* bias, bool first, float* y) {
  const int64_t n_out = w.n;
  for (int64_t r = 0; r < rows; ++r) {
    const float x_scale = range[r].scale;
    for (int64_t n = 0; n < n_out; ++n) {
      const auto i = static_cast<size_t>(n);
      const int32_t weights = w.code_sum[i] - static_cast<int32_t>(w.k) * w.zero[i];  // sum of code - zero
      const float s = x_scale * scale[n];
      const float value = s * static_cast<float>(sums[r * n_out + n] - range[r].zero * weights);
      float& out = y[r * n_out + n];
      out = first ? value + (bias != nullptr ? bias[n] : 0.0f) : out + value;
    }
  }
}

}  // namespace

at::Tensor RunInteger(const Slot& slot, const ForwardContext& ctx, const at::Tensor& input) {
  // The gain is folded into the quantizing of a convolution's input, unless its range is read off it before.
  const bool folded = slot.gain.defined() && !slot.linear && !slot.dynamic;
  const at::Tensor x = (folded ? input : Equalized(slot, input)).contiguous();
  const float* gain = folded ? slot.gain.const_data_ptr<float>() : nullptr;
  const int64_t batch = x.size(0), n_out = slot.out_channels;
  const int32_t levels = 1 << slot.activation_bits;
  const float* bias = slot.bias.defined() ? slot.bias.const_data_ptr<float>() : nullptr;
  Scratch& scratch = LaneScratch();
  const float* in = x.const_data_ptr<float>();

  kernels::ConvShape shape;
  at::Tensor y;
  int64_t rows = 0;  // GEMM rows of one batch row
  if (slot.linear) {
    rows = x.numel() / batch / slot.in_channels;
    std::vector<int64_t> out_shape = x.sizes().vec();
    out_shape.back() = n_out;
    y = at::empty(out_shape, x.options());
  } else {
    shape = {.c_in = 0,
             .h_in = x.size(2),
             .w_in = x.size(3),
             .kh = slot.kh,
             .kw = slot.kw,
             .stride = slot.stride,
             .pad_top = slot.pad[0],
             .pad_left = slot.pad[1],
             .pad_bottom = slot.pad[2],
             .pad_right = slot.pad[3]};
    rows = shape.h_out() * shape.w_out();
    y = at::empty({batch, n_out, shape.h_out(), shape.w_out()}, x.options());
  }
  float* out = y.mutable_data_ptr<float>();
  const int64_t in_pixels = slot.linear ? rows : x.size(2) * x.size(3);

  const bool by_vector = slot.linear && slot.dynamic;
  std::vector<std::vector<Range>> ranges;  // [part][B], or [part][B * rows] by vector
  for (const SlotPart& part : slot.parts)
    ranges.push_back(RowRanges(slot, part, x.narrow(slot.linear ? -1 : 1, part.begin, part.channels), ctx));
  for (int64_t b = 0; b < batch; ++b) {
    for (size_t p = 0; p < slot.parts.size(); ++p) {
      const SlotPart& part = slot.parts[p];
      const Range* own = ranges[p].data() + (by_vector ? b * rows : b);
      const Range& range = *own;  // by vector: the first one's
      const kernels::Kernel& kernel = kernels::Choose(part.packed);
      const float* scale = part.scale.const_data_ptr<float>();
      uint8_t* codes = Grow(scratch.codes, in_pixels * part.channels);
      const float* from = in + b * in_pixels * slot.in_channels;
      if (slot.linear) {
        if (!by_vector && part.channels == slot.in_channels) {
          kernels::QuantizeU8(from, rows * part.channels, range.scale, range.zero, levels, codes);
        } else {
          for (int64_t r = 0; r < rows; ++r) {
            const Range& of_row = by_vector ? own[r] : range;
            kernels::QuantizeU8(from + r * slot.in_channels + part.begin, part.channels, of_row.scale,
                                of_row.zero, levels, codes + r * part.channels);
          }
        }
      } else {
        kernels::QuantizeToNhwc(from + part.begin * in_pixels, part.channels, in_pixels,
                                gain == nullptr ? nullptr : gain + part.begin, range.scale, range.zero,
                                levels, codes);
      }
      const bool plain = slot.linear || (slot.kh == 1 && slot.kw == 1 && slot.stride == 1 &&
                                         slot.pad == std::array<int64_t, 4>{});
      shape.c_in = part.channels;
      const int64_t k = part.packed.k;
      const int64_t tile = TileRows(k, n_out);
      for (int64_t row = 0; row < rows; row += tile) {
        const int64_t end = std::min(rows, row + tile);
        const uint8_t* a = codes + row * part.channels;
        if (!plain) {
          uint8_t* columns = Grow(scratch.columns, (end - row) * k);
          kernels::Im2Col(shape, codes, range.zero, row, end, columns);
          a = columns;
        }
        int32_t* sums = Grow(scratch.sums, (end - row) * n_out);
        kernel.gemm({.m = end - row,
                     .a = a,
                     .lda = k,
                     .a_zero = by_vector ? 0 : range.zero,
                     .w = &part.packed,
                     .acc = sums});
        float* target = out + b * rows * n_out;
        if (by_vector) {
          VectorEpilogue(sums, end - row, part.packed, own + row, scale, bias, p == 0, target + row * n_out);
        } else if (slot.linear) {
          Epilogue(sums, end - row, n_out, range.scale, scale, bias, p == 0, target + row * n_out, 1, n_out);
        } else {
          Epilogue(sums, end - row, n_out, range.scale, scale, bias, p == 0, target + row, rows, 1);
        }
      }
    }
  }
  return y;
}

at::Tensor RunIntegerMatmul(const Slot& slot, const ForwardContext& ctx, const at::Tensor& a_in,
                            const at::Tensor& b_in) {
  const at::Tensor a = a_in.contiguous(), b = b_in.contiguous();
  const int64_t batch = a.size(0), heads = a.size(1), m = a.size(2), n = b.size(2), k = a.size(3);
  const int32_t levels = 1 << slot.activation_bits;
  at::Tensor y = at::empty({batch, heads, m, n}, a.options());
  Scratch& scratch = LaneScratch();
  std::vector<int32_t> zeros(static_cast<size_t>(n));
  std::vector<float> scales(static_cast<size_t>(n));
  const std::vector<Range> ranges_a = RowRanges(slot, slot.parts[0], a, ctx),
                           ranges_b = RowRanges(slot, slot.parts[1], b, ctx);
  for (int64_t r = 0; r < batch; ++r) {
    const Range &ra = ranges_a[static_cast<size_t>(r)], &rb = ranges_b[static_cast<size_t>(r)];
    std::fill(zeros.begin(), zeros.end(), rb.zero);
    std::fill(scales.begin(), scales.end(), rb.scale);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t index = r * heads + h;
      uint8_t* qa = Grow(scratch.codes, m * k);
      uint8_t* qb = Grow(scratch.columns, n * k);
      kernels::QuantizeU8(a.const_data_ptr<float>() + index * m * k, m * k, ra.scale, ra.zero, levels, qa);
      kernels::QuantizeU8(b.const_data_ptr<float>() + index * n * k, n * k, rb.scale, rb.zero, levels, qb);
      const kernels::PackedMatrix w =
          kernels::Pack(kernels::Format::kInt8, slot.activation_bits, n, k, qb, zeros.data());
      int32_t* sums = Grow(scratch.sums, m * n);
      kernels::Choose(w).gemm({.m = m, .a = qa, .lda = k, .a_zero = ra.zero, .w = &w, .acc = sums});
      Epilogue(sums, m, n, ra.scale, scales.data(), nullptr, true,
               y.mutable_data_ptr<float>() + index * m * n, 1, n);
    }
  }
  return y;
}

}  // namespace tempera::nn
