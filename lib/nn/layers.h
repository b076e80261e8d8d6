// The layers that families are written in. Shapes: see slot.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "nn/context.h"
#include "nn/params.h"
#include "nn/slot.h"

namespace tempera::nn {

// "silu" ("swish"), "mish", "gelu", "relu".
using Activation = at::Tensor (*)(const at::Tensor&);
Result<Activation> FindActivation(std::string_view name);

// What a model's constructor builds with: parameters come in, slots go into the model's own list, in
// execution order.
class Builder {
 public:
  Builder(Params& params, std::deque<Slot>& slots) : params_(params), slots_(slots) {}
  Params& params() { return params_; }

  // `split`: channels of the first half where the input is a concatenation whose halves differ in range; 0:
  // none.
  Slot* Conv(const std::string& name, Role role, int64_t in, int64_t out, int64_t kernel, int64_t stride,
             std::array<int64_t, 4> pad, int64_t split = 0);
  Slot* Linear(const std::string& name, Role role, int64_t in, int64_t out, bool bias = true);
  // Two activations of `depth` summed products.
  Slot* Matmul(const std::string& name);

 private:
  Slot* Add(Slot slot, int64_t split);
  Params& params_;
  std::deque<Slot>& slots_;
};

struct GroupNorm {
  at::Tensor weight, bias;  // [C]
  int64_t groups = 1;
  double eps = 1e-5;
  GroupNorm() = default;
  // Groups that do not divide the channels are InvalidArgument through params.Fail.
  GroupNorm(Params& params, const std::string& name, int64_t channels, int64_t num_groups, double epsilon);
  at::Tensor operator()(const at::Tensor& x) const;  // x: [B, C, ...]
};

// Self-attention over the pixels of a picture, as diffusers' Attention in its AttnBlock form: group norm, q,
// k, v and output projections, residual, division by `rescale`.
struct PixelAttention {
  std::optional<GroupNorm> norm;
  Slot *to_q = nullptr, *to_k = nullptr, *to_v = nullptr, *to_out = nullptr, *scores = nullptr,
       *values = nullptr;
  int64_t heads = 1;
  double scale = 1, rescale = 1;
  PixelAttention() = default;
  // norm_groups 0: no norm. floor(channels / head_dim) heads.
  PixelAttention(Builder& b, const std::string& name, int64_t channels, int64_t head_dim, int64_t norm_groups,
                 double eps, double rescale_factor);
  at::Tensor operator()(ForwardContext& ctx, const at::Tensor& x) const;  // [B, C, H, W] -> the same
};

}  // namespace tempera::nn
