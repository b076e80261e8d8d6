// The loss that scales are searched by: 80 candidates for every weight, so its power is a polynomial's.
// Written for a compiler that makes vectors of plain loops.
#include "kernels/rounding_loss.h"

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"
#include "kernels/lane_math.h"

namespace tempera::kernels {
namespace {

// Weights whose losses are added in float, each to the sum of its place among kLanes: in the same order on
// every machine.
constexpr int64_t kRun = 512, kLanes = 16;

TEMPERA_INLINE double Loss(const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  const float inverse = 1 / scale, z = static_cast<float>(zero), top = static_cast<float>(levels - 1);
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t n = std::min(kRun, count - begin);
    const float* x = w + begin;
    float lost[kRun];
    for (int64_t i = 0; i < n; ++i) {
      const float code = Clamp(Round(x[i] * inverse) + z, 0.0f, top);
      lost[i] = Exp2(Clamp(2.4f * Log2(std::fabs((code - z) * scale - x[i])), -126.0f, 126.0f));
    }
    for (int64_t i = n; i < (n + kLanes - 1) / kLanes * kLanes; ++i) lost[i] = 0;
    float sums[kLanes] = {};
    for (int64_t i = 0; i < n; i += kLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += lost[i + lane];
    for (int64_t lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sums[lane]);
  }
  return total / static_cast<double>(count);
}

double LossBaseline(const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  return Loss(w, count, scale, zero, levels);
}
#if defined(__x86_64__)
[[gnu::target("avx2")]] double LossAvx2(const float* w, int64_t count, float scale, int32_t zero,
                                        int32_t levels) {
  return Loss(w, count, scale, zero, levels);
}
[[gnu::target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")]] double LossAvx512(
    const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  return Loss(w, count, scale, zero, levels);
}
#endif

}  // namespace

std::vector<RoundingLossKernel> RoundingLossKernels() {
  std::vector<RoundingLossKernel> kernels;
#if defined(__x86_64__)
  if (Cpu().avx512) kernels.push_back(LossAvx512);
  if (Cpu().avx2) kernels.push_back(LossAvx2);
#endif
  kernels.push_back(LossBaseline);
  return kernels;
}

double RoundingLoss(const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  static const RoundingLossKernel kernel = RoundingLossKernels().front();
  return kernel(w, count, scale, zero, levels);
}

}  // namespace tempera::kernels
