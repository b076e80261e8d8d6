// Float activations to u8 codes, and to channels-last.
#include <algorithm>
#include <cmath>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

// In the order and the float arithmetic of at::clamp(at::round(x / scale) + zero, 0, top).
uint8_t Code(float x, float scale, float zero, float top) {
  const float code = std::nearbyint(x / scale) + zero;
  if (!(code > 0.0f)) return 0;  // NaN too
  return static_cast<uint8_t>(std::min(code, top));
}

}  // namespace

void QuantizeU8Scalar(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q) {
  for (int64_t i = 0; i < count; ++i)
    q[i] = Code(x[i], scale, static_cast<float>(zero), static_cast<float>(levels - 1));
}

void QuantizeToNhwcScalar(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                          int32_t zero, int32_t levels, uint8_t* q) {
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < channels; ++c)
      q[p * channels + c] = Code(gain == nullptr ? x[c * pixels + p] : x[c * pixels + p] * gain[c], scale,
                                 static_cast<float>(zero), static_cast<float>(levels - 1));
}

void QuantizeU8(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q) {
#if defined(__x86_64__)
  if (Cpu().avx2) return QuantizeU8Avx2(x, count, scale, zero, levels, q);
#endif
  QuantizeU8Scalar(x, count, scale, zero, levels, q);
}

void QuantizeToNhwc(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                    int32_t zero, int32_t levels, uint8_t* q) {
#if defined(__x86_64__)
  if (Cpu().avx2) return QuantizeToNhwcAvx2(x, channels, pixels, gain, scale, zero, levels, q);
#endif
  QuantizeToNhwcScalar(x, channels, pixels, gain, scale, zero, levels, q);
}

}  // namespace tempera::kernels
