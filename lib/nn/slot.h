// Slots: the places in a model where quantizers sit, and what runs a layer in each of a slot's states.
//
// Legend of shapes: B batch, N output channels, C input channels, H W rows and columns, K = kh*kw*C (or a
// linear's inputs), T tokens, L = 2^bits levels.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace tempera::nn {

struct ForwardContext;

// What a layer is for: decides its default bits.
enum class Role : uint8_t {
  kConvIn,     // first layer of the network
  kConvOut,    // last layer
  kTimeFirst,  // first linear of the timestep embedding
  kTime,       // every other layer of the time path
  kConv,       // convolution inside a block
  kShortcut,   // 1x1 convolution of a skip connection
  kSampler,    // convolution of a down- or upsampler
  kLinear,     // projection inside a block
  kMatmul,     // product of two activations in attention: no weight
};
const char* RoleName(Role role);

enum class State : uint8_t {
  kFloat,     // the original
  kObserve,   // ranges are taken from the input, then as kSimulate
  kSimulate,  // quantize-dequantize in float, with gradients
  kInteger,   // packed codes on a kernel
};

// x ~ scale * (code - zero), code in [0, 2^bits).
struct Range {
  float scale = 1;
  int32_t zero = 0;
};
// The range that holds lo to hi, and 0. scale >= 1e-8; 0 <= zero < 2^bits.
Range RangeOf(float lo, float hi, int bits);
// The range that holds what both hold.
Range Union(const Range& a, const Range& b, int bits);

// The whole input, or one half of a concatenation (the halves have ranges of their own: Q-Diffusion's split
// shortcut).
struct SlotPart {
  int64_t begin = 0, channels = 0;  // input channels [begin, begin + channels)
  at::Tensor scale, zero,
      codes;                  // weights: [N] f32, [N] i32, [N, channels, kh, kw] u8 (linear: [N, channels])
  std::vector<Range> ranges;  // activations: one for all steps, or one a step
  kernels::PackedMatrix packed;  // kInteger
};

// One quantizable layer. The model owns it; methods fill it; forward passes read it. Thread-compatible:
// passes may share it while nobody writes.
struct Slot {
  std::string name;  // state-dict path: "down_blocks.0.resnets.0.conv1"
  Role role = Role::kConv;
  // Geometry: a convolution's, or a linear with kh = kw = 1 and linear = true.
  bool linear = false;
  int64_t out_channels = 0, in_channels = 0, kh = 1, kw = 1, stride = 1;
  std::array<int64_t, 4> pad{};  // top, left, bottom, right
  at::Tensor weight;  // f32, or f16 or bf16 of a large model, widened where it is used; undefined once packed
                      // or dropped
  at::Tensor bias;    // f32; undefined once dropped

  State state = State::kFloat;
  int weight_bits = 0;          // 0: float
  int activation_bits = 0;      // 0: float
  bool activations_on = true;   // kSimulate: quantize the input too
  std::vector<SlotPart> parts;  // one, or two for a split input; kMatmul: the two operands
  // [C] f32 > 0, or undefined: 1. The input is multiplied by it before it is quantized, the weight was
  // divided by it before its codes were made: x w = (x g)(w / g), with channels of about the same range. Not
  // in kFloat.
  at::Tensor gain;
  // Every row of a convolution's input, every vector of a linear's, has the range of its own values: for
  // inputs that no norm has brought to scale, or that nothing was calibrated on. The ranges of the parts, if
  // there are any, are then those that calibration saw, for people to read.
  bool dynamic = false;
  // kSimulate: the weight that runs, f32, may require gradients; undefined: what the codes stand for.
  at::Tensor simulated;
  int temporal_index = -1;  // >= 0: this layer's output is temporal feature i

  int64_t k() const { return in_channels * kh * kw; }
  bool quantized() const { return weight_bits > 0 || (role == Role::kMatmul && activation_bits > 0); }
  at::Tensor FloatWeight() const;  // in f32
  const Range& RangeAt(const SlotPart& part, int64_t step) const;
  // weight / gain: what the codes stand for. REQUIRES: not packed.
  at::Tensor EqualizedWeight() const;
};

// Runs the layer in its state. x: [B, C, H, W] for a convolution, [..., K] with B first for a linear; f32.
at::Tensor Run(const Slot& slot, ForwardContext& ctx, const at::Tensor& x);

// a @ b^T over the last two dimensions: a [B, h, T, D], b [B, h, S, D] -> [B, h, T, S]. REQUIRES: role
// kMatmul.
at::Tensor RunMatmul(const Slot& slot, ForwardContext& ctx, const at::Tensor& a, const at::Tensor& b);

// x * gain, by input channel; x itself where the slot has none.
at::Tensor Equalized(const Slot& slot, const at::Tensor& x);

// The range of each row of a part; of each vector, x.numel() / C of them, where a linear is dynamic. x: the
// part's channels of the equalized input, B rows; read where dynamic.
std::vector<Range> RowRanges(const Slot& slot, const SlotPart& part, const at::Tensor& x,
                             const ForwardContext& ctx);

// s * (clamp(round(x/s) + z, 0, L-1) - z) with each row's range; straight-through gradient inside of the
// clamp.
at::Tensor FakeQuantize(const at::Tensor& x, const Slot& slot, const SlotPart& part,
                        const ForwardContext& ctx);

// Dequantized weight of all parts, [N, C, kh, kw] or [N, K]: scale * (codes - zero), the gain still divided
// out.
at::Tensor Dequantize(const Slot& slot);

// How its codes lie, in artifacts and packed. REQUIRES: weight_bits > 0.
kernels::Format FormatOf(const Slot& slot);

// Puts the slot in kInteger: packs the codes and lets go of the float weight. REQUIRES: codes in every part.
void Pack(Slot& slot);
// The last of it. REQUIRES: every part packed.
void BeginInteger(Slot& slot);

// Bytes of the weight as it lies in memory now, zero points, scales and bias included.
int64_t ResidentBytes(const Slot& slot);

}  // namespace tempera::nn
