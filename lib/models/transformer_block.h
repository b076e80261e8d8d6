// The transformer of UNets: self-attention, cross-attention, gated feed-forward.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "nn/layers.h"

namespace tempera {

// diffusers' BasicTransformerBlock with layer norms and a GEGLU feed-forward of four times the width.
struct TransformerBlock {
  nn::LayerNorm norm1, norm2, norm3;
  nn::TokenAttention attention1, attention2;
  nn::Slot *gate = nullptr, *out = nullptr;  // "ff.net.0.proj" makes value and gate in one
  bool first_reads_context = false;          // only_cross_attention

  TransformerBlock() = default;
  TransformerBlock(nn::Builder& b, const std::string& name, int64_t width, int64_t heads, int64_t head_dim,
                   int64_t context_width, bool only_cross_attention);
  // x: [B, T, width], context: [B, S, context_width] -> [B, T, width]
  at::Tensor operator()(nn::ForwardContext& ctx, at::Tensor x, const at::Tensor& context) const;
};

}  // namespace tempera
