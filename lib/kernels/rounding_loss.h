// The loss that weight scales are searched by. Plain pointers, no LibTorch.
#pragma once

#include <cstdint>
#include <vector>

namespace tempera::kernels {

// What rounding loses of a weight row: the mean over k of |s * (clamp(round(w / s) + zero, 0, levels - 1) -
// zero) - w|^2.4, within 1e-4 of it and the same number on every machine. Source: TFMQ-DM's weight quantizer.
// REQUIRES: count > 0, scale > 0, 2 <= levels <= 256, |w / scale| < 2^22.
double RoundingLoss(const float* w, int64_t count, float scale, int32_t zero, int32_t levels);

// The ways this machine can compute it, fastest first; RoundingLoss is the first.
using RoundingLossKernel = double (*)(const float* w, int64_t count, float scale, int32_t zero,
                                      int32_t levels);
std::vector<RoundingLossKernel> RoundingLossKernels();

}  // namespace tempera::kernels
