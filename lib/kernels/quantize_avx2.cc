// AVX2 halves of quantize.cc, bit for bit the scalar ones (whose remainders they take themselves).
// Compiled with -mavx2: everything in the anonymous namespace, nothing from the standard library.
#include <immintrin.h>

#include <cstdint>

#include "kernels/internal.h"

namespace tempera::kernels {
namespace {

struct Affine {
  __m256 gain, scale, zero, top;
};
Affine MakeAffine(float scale, int32_t zero, int32_t levels) {
  return {_mm256_set1_ps(1.0f), _mm256_set1_ps(scale), _mm256_set1_ps(static_cast<float>(zero)),
          _mm256_set1_ps(static_cast<float>(levels - 1))};
}

// 8 codes as s32. vmaxps gives its second operand where the first is NaN: 0.
__m256i Codes(const Affine& f, __m256 x) {
  const __m256 rounded = _mm256_round_ps(_mm256_div_ps(_mm256_mul_ps(x, f.gain), f.scale),
                                         _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 code = _mm256_max_ps(_mm256_add_ps(rounded, f.zero), _mm256_setzero_ps());
  return _mm256_cvtps_epi32(_mm256_min_ps(code, f.top));
}

// 16 codes as bytes.
__m128i Codes16(const Affine& f, const float* x) {
  const __m256i words = _mm256_packs_epi32(Codes(f, _mm256_loadu_ps(x)), Codes(f, _mm256_loadu_ps(x + 8)));
  const __m256i ordered = _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0));
  return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

// Fewer than 16, the rest 0 / scale.
__m128i CodesTail(const Affine& f, const float* x, int64_t count) {
  float padded[16] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return Codes16(f, padded);
}

void StoreFirst(uint8_t* to, __m128i bytes, int64_t count) {
  if (count >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
    return;
  }
  alignas(16) uint8_t all[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(all), bytes);
  for (int64_t i = 0; i < count; ++i) to[i] = all[i];
}

// rows[i] byte j -> rows[j] byte i. Interleaving row i with row i + 8 rotates the 8 bits of (row, byte) by
// one; four times exchanges row and byte.
void Transpose16(__m128i* rows) {
  __m128i next[16];
  for (int round = 0; round < 4; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
      next[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = next[i];
  }
}

}  // namespace

void QuantizeU8Avx2(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q) {
  const Affine f = MakeAffine(scale, zero, levels);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), Codes16(f, x + i));
  if (i < count) StoreFirst(q + i, CodesTail(f, x + i, count - i), count - i);
}

void QuantizeToNhwcAvx2(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                        int32_t zero, int32_t levels, uint8_t* q) {
  Affine f = MakeAffine(scale, zero, levels);
  for (int64_t p = 0; p < pixels; p += 16) {
    const int64_t width = pixels - p < 16 ? pixels - p : 16;
    for (int64_t c = 0; c < channels; c += 16) {
      const int64_t height = channels - c < 16 ? channels - c : 16;
      __m128i rows[16];
      for (int64_t i = 0; i < 16; ++i) {
        const float* from = x + (c + i) * pixels + p;
        if (gain != nullptr && i < height) f.gain = _mm256_set1_ps(gain[c + i]);
        rows[i] = i >= height   ? _mm_setzero_si128()
                  : width == 16 ? Codes16(f, from)
                                : CodesTail(f, from, width);
      }
      Transpose16(rows);
      for (int64_t i = 0; i < width; ++i) StoreFirst(q + (p + i) * channels + c, rows[i], height);
    }
  }
}

}  // namespace tempera::kernels
