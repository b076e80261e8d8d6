// The loss that scales are searched by: 80 candidates for every weight, so its power is a polynomial's.
#include "kernels/rounding_loss.h"

#include <cstring>

namespace tempera::kernels {
namespace {

// Four lanes of the baseline instruction set; additions and products alone, each rounded by itself.
using Floats = float __attribute__((vector_size(16)));
using Ints = int32_t __attribute__((vector_size(16)));

Floats All(float v) { return Floats{v, v, v, v}; }
Ints Bits(Floats v) { return reinterpret_cast<Ints>(v); }
Floats Value(Ints v) { return reinterpret_cast<Floats>(v); }

// To the nearest integer, half to even; |v| < 2^22.
Floats Round(Floats v) {
  const Floats shift = All(12582912.0f);  // 1.5 * 2^23: no fraction fits beside it
  return (v + shift) - shift;
}

// e^2.4 for e >= 0, to 3e-5 of itself; 0 gives less than 1e-37. Polynomials fitted at Chebyshev's points.
Floats Power(Floats e) {
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

}  // namespace

double RoundingLoss(const float* w, int64_t count, float scale, int32_t zero, int32_t levels) {
  const Floats inverse = All(1 / scale), z = All(static_cast<float>(zero)),
               top = All(static_cast<float>(levels - 1));
  const auto of = [&](Floats x) {
    Floats code = Round(x * inverse) + z;
    code = code < 0.0f ? All(0) : code;
    code = code > top ? top : code;
    return Power(Value(Bits((code - z) * scale - x) & 0x7fffffff));
  };
  constexpr int64_t kRun = 512;  // values that are summed in float
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {
    const int64_t end = count - begin < kRun ? count : begin + kRun;
    Floats sum = All(0);
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      Floats x;
      std::memcpy(&x, w + i, sizeof x);
      sum += of(x);
    }
    if (i < end) {
      Floats x = All(0);  // 0 loses nothing
      std::memcpy(&x, w + i, static_cast<size_t>(end - i) * sizeof(float));
      sum += of(x);
    }
    total += static_cast<double>(sum[0]) + static_cast<double>(sum[1]) + static_cast<double>(sum[2]) +
             static_cast<double>(sum[3]);
  }
  return total / static_cast<double>(count);
}

}  // namespace tempera::kernels
