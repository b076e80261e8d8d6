// One step of learned rounding (AdaRound) on the weights of one output channel. Plain pointers, no LibTorch.
#pragma once

#include <cstdint>
#include <vector>

namespace tempera::kernels {

// What all weights of one step share. H(a) = clamp(1.2 sigmoid(a) - 0.1, 0, 1) is the share of a code that is
// rounded up; the regulariser is lambda * sum(1 - |2 H - 1|^beta).
struct RoundingStep {
  float rate = 0;                          // of Adam, moments 0.9 and 0.999
  float correction1 = 1, correction2 = 1;  // 1 - 0.9^t, 1 - 0.999^t
  float lambda = 0;                        // 0: no regulariser yet
  float beta = 2;
  float top = 15;  // the highest code
};

// The variables of `count` weights that share scale and zero point.
struct RoundingRow {
  const float* const* gradients = nullptr;  // of the loss by the soft weight, one for each shard
  int64_t shards = 0, offset = 0;           // where the row begins in each gradient
  const float* base = nullptr;              // floor(w / scale) + zero
  float* alpha = nullptr;
  float *m = nullptr, *v = nullptr;  // Adam's moments
  float* soft = nullptr;             // out: (clamp(base + H(alpha), 0, top) - zero) * scale
  int64_t count = 0;
  float scale = 1, zero = 0;
};

// Sums the gradients in the order of the shards, moves alpha and writes the soft weights. Returns how many of
// them have H within 0.01 of 0 or 1. The same numbers on every machine.
int64_t StepRounding(const RoundingStep& step, const RoundingRow& row);

// The ways this machine can compute it, fastest first; StepRounding is the first.
using RoundingStepKernel = int64_t (*)(const RoundingStep& step, const RoundingRow& row);
std::vector<RoundingStepKernel> RoundingStepKernels();

}  // namespace tempera::kernels
