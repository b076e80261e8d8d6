// The loss that scales are searched by: 80 candidates for every weight, so its power is a polynomial's.
#include "kernels/rounding_loss.h"

#include <cstring>

#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

// Sixteen lanes whatever the instruction set, additions and products alone, each rounded by itself: the same sum
// on every machine.
constexpr int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
// Inlined into a caller for any instruction set.
#define TEMPERA_LANES [[gnu::always_inline]] inline

TEMPERA_LANES Floats All(float v) { return Floats{} + v; }
TEMPERA_LANES Ints Bits(Floats v) { return reinterpret_cast<Ints>(v); }
TEMPERA_LANES Floats Value(Ints v) { return reinterpret_cast<Floats>(v); }

// To the nearest integer, half to even; |v| < 2^22.
TEMPERA_LANES Floats Round(Floats v) {
  const Floats shift = All(12582912.0f);  // 1.5 * 2^23: no fraction fits beside it
  return (v + shift) - shift;
}

// e^2.4 for e >= 0, to 3e-5 of itself; 0 gives less than 1e-37. Polynomials fitted at Chebyshev's points.
TEMPERA_LANES Floats Power(Floats e) {
  const Floats exponent = __builtin_convertvector((Bits(e) >> 23) - 127, Floats);
  const Floats m = Value((Bits(e) & 0x7fffff) | 0x3f800000);  // 1 to 2
  Floats log2 = m * 0.043928627f - 0.40947559f;
  log2 = log2 * m + 1.6101775f;
  log2 = log2 * m - 3.5202188f;
  log2 = log2 * m + 5.0697565f;
  log2 = log2 * m - 2.7941536f;
  Floats y = (exponent + log2) * 2.4f;
  y = y < -125.0f ? All(-125.0f) : y;
  const Floats whole = Round(y), f = y - whole;
  Floats two = f * 0.0096760374f + 0.055922035f;
  two = two * f + 0.24022107f;
  two = two * f + 0.69312102f;
  two = two * f + 1.0000001f;
  return Value(Bits(two) + (__builtin_convertvector(whole, Ints) << 23));
}

TEMPERA_LANES double Loss(const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  const float inverse = 1 / scale, z = static_cast<float>(zero);
  const Floats top = All(static_cast<float>(levels - 1));
  constexpr int64_t kRun = 2048;  // values that are summed in float
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = count - begin < kRun ? count : begin + kRun;
    Floats sum{};
    for (int64_t i = begin; i < end; i += kLanes) {
      Floats x{};  // 0 loses nothing
      std::memcpy(&x, w + i, end - i < kLanes ? static_cast<size_t>(end - i) * sizeof(float) : sizeof x);
      Floats code = Round(x * inverse) + z;
      code = code < 0.0f ? Floats{} : code;
      code = code > top ? top : code;
      sum += Power(Value(Bits((code - z) * scale - x) & 0x7fffffff));
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sum[lane]);
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
[[gnu::target("avx512f,avx512dq")]] double LossAvx512(const float* w, int64_t count, float scale,
                                                      int32_t zero, int32_t levels) {
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
