// Written for a compiler that makes vectors of plain loops; products and sums stay apart (CMakeLists.txt), so
// every instruction set gives the same numbers.
#include "kernels/rounding_step.h"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/lane_math.h"

namespace tempera::kernels {
namespace {

constexpr int64_t kRun = 256;  // weights that pass through the loops together

TEMPERA_INLINE float Sigmoid(float a) {
  return 1.0f / (1.0f + Exp2(Clamp(a * -1.4426950f, -126.0f, 126.0f)));
}
TEMPERA_INLINE float Stretched(float sigmoid) { return sigmoid * 1.2f - 0.1f; }

TEMPERA_INLINE int64_t Step(const RoundingStep& s, const RoundingRow& r) {
  const float regulariser = 2 * s.lambda * s.beta, power = s.beta - 1;
  const float inverse1 = 1 / s.correction1, inverse2 = 1 / s.correction2, rate = s.rate, top = s.top;
  const float scale = r.scale, zero = r.zero;
  int64_t hard = 0;
  for (int64_t begin = 0; begin < r.count; begin += kRun) {
    const int64_t n = std::min(kRun, r.count - begin);
    float g[kRun];
    for (int64_t i = 0; i < n; ++i) g[i] = 0;
    for (int64_t shard = 0; shard < r.shards; ++shard) {
      const float* of_shard = r.gradients[shard] + r.offset + begin;
      for (int64_t i = 0; i < n; ++i) g[i] += of_shard[i];
    }
    const float* __restrict base = r.base + begin;
    float* __restrict alpha = r.alpha + begin;
    float* __restrict m = r.m + begin;
    float* __restrict v = r.v + begin;
    float* __restrict soft = r.soft + begin;
    for (int64_t i = 0; i < n; ++i) {
      const float sigmoid = Sigmoid(alpha[i]), stretched = Stretched(sigmoid),
                  h = Clamp(stretched, 0.0f, 1.0f);
      const float code = base[i] + h;
      float d = g[i] * scale;
      d = code < 0.0f ? 0.0f : d;
      d = code > top ? 0.0f : d;
      // d/dH of lambda * (1 - |2H - 1|^beta)
      const float centred = 2 * h - 1, away = std::fabs(centred);
      const float slope = Exp2(Clamp(power * Log2(Clamp(away, 1e-30f, 1.0f)), -126.0f, 0.0f));
      d -= regulariser * (centred < 0.0f ? -slope : slope);
      const float moves = sigmoid * (1 - sigmoid) * 1.2f;
      const float inside = stretched > 0.0f ? moves : 0.0f;
      d *= stretched < 1.0f ? inside : 0.0f;
      m[i] = m[i] * 0.9f + d * 0.1f;
      v[i] = v[i] * 0.999f + d * d * 0.001f;
      alpha[i] -= rate * (m[i] * inverse1) / (std::sqrt(v[i] * inverse2) + 1e-8f);
    }
    int32_t settled = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float h = Clamp(Stretched(Sigmoid(alpha[i])), 0.0f, 1.0f);
      soft[i] = (Clamp(base[i] + h, 0.0f, top) - zero) * scale;
      settled += static_cast<int32_t>(h < 0.01f) + static_cast<int32_t>(h > 0.99f);
    }
    hard += settled;
  }
  return hard;
}

int64_t StepBaseline(const RoundingStep& step, const RoundingRow& row) { return Step(step, row); }
#if defined(__x86_64__)
[[gnu::target("avx2")]] int64_t StepAvx2(const RoundingStep& step, const RoundingRow& row) {
  return Step(step, row);
}
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")]] int64_t StepAvx512(
    const RoundingStep& step, const RoundingRow& row) {
  return Step(step, row);
}
#endif

}  // namespace

std::vector<RoundingStepKernel> RoundingStepKernels() {
  std::vector<RoundingStepKernel> kernels;
#if defined(__x86_64__)
  if (Cpu().avx512) kernels.push_back(StepAvx512);
  if (Cpu().avx2) kernels.push_back(StepAvx2);
#endif
  kernels.push_back(StepBaseline);
  return kernels;
}

int64_t StepRounding(const RoundingStep& step, const RoundingRow& row) {
  static const RoundingStepKernel kernel = RoundingStepKernels().front();
  return kernel(step, row);
}

}  // namespace tempera::kernels
