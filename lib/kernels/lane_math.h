// Private to lib/kernels: elementary functions that a compiler makes vectors of in plain loops. Products and
// sums alone, each rounded by itself where the file is compiled with -ffp-contract=off: the same numbers on
// every instruction set. Always inlined, so that nothing of one instruction set is kept for callers on
// another machine.
#pragma once

#include <bit>
#include <cstdint>

#define TEMPERA_INLINE [[gnu::always_inline]] inline

namespace tempera::kernels {

// To the nearest integer, half to even; |x| < 2^22.
TEMPERA_INLINE float Round(float x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: no fraction fits beside it
  return (x + shift) - shift;
}

TEMPERA_INLINE float Clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// 2^y for |y| <= 126, to 2e-7 of itself: the series of e^(y ln 2).
TEMPERA_INLINE float Exp2(float y) {
  const float whole = Round(y), f = y - whole;
  float p = f * 1.5403530e-4f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 0.24022651f;
  p = p * f + 0.69314718f;
  p = p * f + 1.0f;
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + (static_cast<int32_t>(whole) << 23));
}

// log2(x) for x >= 0, to 2e-5; a polynomial fitted at Chebyshev's points. 0 gives -127 or less.
TEMPERA_INLINE float Log2(float x) {
  const auto bits = std::bit_cast<int32_t>(x);
  const auto exponent = static_cast<float>((bits >> 23) - 127);
  const float m = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000);  // 1 to 2
  float p = m * 0.043928627f - 0.40947559f;
  p = p * m + 1.6101775f;
  p = p * m - 3.5202188f;
  p = p * m + 5.0697565f;
  p = p * m - 2.7941536f;
  return exponent + p;
}

}  // namespace tempera::kernels
