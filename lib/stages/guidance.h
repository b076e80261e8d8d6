// Classifier-free guidance. Source: arXiv 2207.12598.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tempera {

// From the network's output for pairs of rows, first against the prompt and then for it, what the sampler is
// given: against + scale * (for - against). `rescale` > 0 draws its spread back to that of `for` (arXiv
// 2305.08891, 3.4). output: [2 B, C, ...] -> [B, C, ...].
at::Tensor Guide(const at::Tensor& output, double scale, double rescale = 0);

// The guidance scale as the time path of a model distilled with it reads it: [1, width] f32.
// Source: arXiv 2310.04378; as diffusers embeds scale - 1.
at::Tensor GuidanceEmbedding(double scale, int64_t width);

}  // namespace tempera
