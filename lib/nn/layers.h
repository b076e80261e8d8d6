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

// By the names of diffusers and transformers: "silu" ("swish"), "gelu", "quick_gelu" ... Another name is
// InvalidArgument "<field> is not supported, ..." that lists them all.
using Activation = at::Tensor (*)(const at::Tensor&);
Result<Activation> FindActivation(std::string_view name, std::string_view field = "act_fn");

// What a model's constructor builds with: parameters come in, slots go into the model's own list, in
// execution order.
class Builder {
 public:
  // `label` names the configuration in errors.
  Builder(Params& params, std::deque<Slot>& slots, std::string label)
      : params_(params), slots_(slots), label_(std::move(label)) {}
  Params& params() { return params_; }
  // InvalidArgument "<label>: ..." through params().Fail.
  template <typename... P>
  void Fail(const P&... what) {
    params_.Fail(InvalidArgument(label_, ": ", what...));
  }

  // `split`: channels of the first half where the input is a concatenation whose halves differ in range; 0:
  // none.
  Slot* Conv(const std::string& name, Role role, int64_t in, int64_t out, int64_t kernel, int64_t stride,
             std::array<int64_t, 4> pad, int64_t split = 0, bool bias = true);
  Slot* Linear(const std::string& name, Role role, int64_t in, int64_t out, bool bias = true);
  // Two activations of `depth` summed products.
  Slot* Matmul(const std::string& name);

 private:
  Slot* Add(Slot slot, int64_t split);
  Params& params_;
  std::deque<Slot>& slots_;
  std::string label_;
};

struct GroupNorm {
  at::Tensor weight, bias;  // [C], undefined if not affine
  int64_t groups = 1;
  double eps = 1e-5;
  GroupNorm() = default;
  // Groups that do not divide the channels are InvalidArgument through Fail.
  GroupNorm(Builder& b, const std::string& name, int64_t channels, int64_t num_groups, double epsilon,
            bool affine = true);
  at::Tensor operator()(const at::Tensor& x) const;  // x: [B, C, ...]
};

struct LayerNorm {
  at::Tensor weight, bias;  // [C], undefined if not affine
  int64_t channels = 1;
  double eps = 1e-5;
  LayerNorm() = default;
  LayerNorm(Builder& b, const std::string& name, int64_t size, double epsilon, bool affine = true);
  at::Tensor operator()(const at::Tensor& x) const;  // x: [..., C]
};

// softmax(q k^T / sqrt(D)) v in every head, between the projections of an attention layer. Fused where both
// products are in float: the scores then never lie in memory as a whole.
struct DotAttention {
  Slot *scores = nullptr, *values = nullptr;
  int64_t heads = 1;
  double scale = 1;
  bool causal = false;  // query t sees keys 0 .. t
  DotAttention() = default;
  DotAttention(Builder& b, const std::string& name, int64_t head_count, int64_t head_dim,
               bool is_causal = false);
  // q: [B, T, heads * D]; k, v: [B, S, heads * D] -> [B, T, heads * D]
  at::Tensor operator()(ForwardContext& ctx, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v) const;
};

// Attention of tokens on themselves or on a context, as diffusers' Attention without norm and residual.
struct TokenAttention {
  Slot *to_q = nullptr, *to_k = nullptr, *to_v = nullptr, *to_out = nullptr;
  DotAttention attention;
  TokenAttention() = default;
  TokenAttention(Builder& b, const std::string& name, int64_t width, int64_t source_width, int64_t heads,
                 int64_t head_dim);
  // x: [B, T, width], source: [B, S, source_width] -> [B, T, width]
  at::Tensor operator()(ForwardContext& ctx, const at::Tensor& x, const at::Tensor& source) const;
};

// Self-attention over the pixels of a picture, as diffusers' Attention in its AttnBlock form: group norm, q,
// k, v and output projections, residual, division by `rescale`.
struct PixelAttention {
  std::optional<GroupNorm> norm;
  Slot *to_q = nullptr, *to_k = nullptr, *to_v = nullptr, *to_out = nullptr;
  DotAttention attention;
  double rescale = 1;
  PixelAttention() = default;
  // norm_groups 0: no norm. floor(channels / head_dim) heads.
  PixelAttention(Builder& b, const std::string& name, int64_t channels, int64_t head_dim, int64_t norm_groups,
                 double eps, double rescale_factor);
  at::Tensor operator()(ForwardContext& ctx, const at::Tensor& x) const;  // [B, C, H, W] -> the same
};

// Halves or doubles a picture with the fixed filter 1 3 3 1 in both directions, each channel by itself; a
// constant picture keeps its value away from the edges. Beyond the edges are zeros, or the picture mirrored
// (it must then have two rows and columns).
enum class Edge : uint8_t { kZero, kMirror };
at::Tensor FilterDown(const at::Tensor& x, Edge edge);  // [B, C, H, W] -> [B, C, H/2, W/2]
at::Tensor FilterUp(const at::Tensor& x, Edge edge);    // [B, C, H, W] -> [B, C, 2H, 2W]

}  // namespace tempera::nn
