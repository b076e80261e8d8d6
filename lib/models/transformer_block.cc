#include "models/transformer_block.h"

#include <ATen/Functions.h>

namespace tempera {

TransformerBlock::TransformerBlock(nn::Builder& b, const std::string& name, int64_t width, int64_t heads,
                                   int64_t head_dim, int64_t context_width, bool only_cross_attention)
    : first_reads_context(only_cross_attention) {
  norm1 = nn::LayerNorm(b, name + ".norm1", width, 1e-5);
  attention1 = nn::TokenAttention(b, name + ".attn1", width, only_cross_attention ? context_width : width,
                                  heads, head_dim);
  norm2 = nn::LayerNorm(b, name + ".norm2", width, 1e-5);
  attention2 = nn::TokenAttention(b, name + ".attn2", width, context_width, heads, head_dim);
  norm3 = nn::LayerNorm(b, name + ".norm3", width, 1e-5);
  gate = b.Linear(name + ".ff.net.0.proj", nn::Role::kLinear, width, 8 * width);
  out = b.Linear(name + ".ff.net.2", nn::Role::kLinear, 4 * width, width);
}

at::Tensor TransformerBlock::operator()(nn::ForwardContext& ctx, at::Tensor x,
                                        const at::Tensor& context) const {
  const at::Tensor normed = norm1(x);
  x = attention1(ctx, normed, first_reads_context ? context : normed) + x;
  x = attention2(ctx, norm2(x), context) + x;
  const auto halves = nn::Run(*gate, ctx, norm3(x)).chunk(2, -1);
  return nn::Run(*out, ctx, halves[0] * at::gelu(halves[1])) + x;
}

}  // namespace tempera
