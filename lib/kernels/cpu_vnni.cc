// AVX-512 VNNI tiles: vpdpbusd adds four u8 x s8 products straight into 32 bits (the form that does not
// saturate). Compiled with AVX-512 flags: everything in the anonymous namespace, nothing from the standard
// library.
#include <immintrin.h>

#include <cstdint>

#include "kernels/internal.h"

namespace tempera::kernels {
namespace {

__m512i Load(const void* p) { return _mm512_loadu_si512(p); }

// The 4 bytes at p in all lanes.
__m512i Broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// One step of a row, zero beyond `count` codes.
__m128i LoadStep(const uint8_t* a, int64_t count) {
  uint8_t padded[kStep] = {};
  if (count < kStep) {
    for (int64_t i = 0; i < count; ++i) padded[i] = a[i];
    a = padded;
  }
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
}

void PackBytes(const uint8_t* a, int64_t lda, int rows, int64_t k, uint8_t* out, int32_t* row_sum) {
  for (int r = 0; r < rows; ++r, a += lda, out += kStep) {
    __m128i sums = _mm_setzero_si128();
    uint8_t* to = out;
    for (int64_t i = 0; i < k; i += kStep, to += rows * kStep) {
      const __m128i codes = LoadStep(a + i, k - i);
      sums = _mm_add_epi32(sums, _mm_sad_epu8(codes, _mm_setzero_si128()));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
    }
    row_sum[r] += _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums)));
  }
}

// Two stored quads, nibble on nibble -> two quads of bytes.
void SplitNibbles(const uint8_t* stored, int64_t steps, uint8_t* out) {
  const __m512i low = _mm512_set1_epi32(0x0f0f0f0f);
  for (int64_t pair = 0; pair < 2 * steps; ++pair, stored += 64, out += 128) {
    const __m512i both = Load(stored);
    _mm512_storeu_si512(out, _mm512_and_si512(both, low));
    _mm512_storeu_si512(out + 64, _mm512_and_si512(_mm512_srli_epi32(both, 4), low));
  }
}

// Columns of panel p of one row of the tile.
void Finish(const Tile& t, int row, int p, __m512i sum) {
  int32_t* c = t.c + row * t.ldc + kPanel * p;
  const int columns = t.columns - kPanel * p;
  const __mmask16 mask =
      columns >= kPanel ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1 << columns) - 1);
  if (!t.first) sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(mask, c));
  if (t.last) {
    const __m512i u = _mm512_mullo_epi32(_mm512_set1_epi32(t.row_sum[row]), Load(t.u + kPanel * p));
    sum = _mm512_add_epi32(sum, _mm512_add_epi32(u, Load(t.v + kPanel * p)));
  }
  _mm512_mask_storeu_epi32(c, mask, sum);
}

// 12 rows x 2 panels: 24 sums, 2 operands of B and one of A in the 32 registers.
template <int kRows, int kPanels>
void Multiply(const Tile& t) {
  __m512i sum[kRows][kPanels];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) sum[r][p] = _mm512_setzero_si512();
  const uint8_t* a = t.a;
  const uint8_t* b = t.b;
  for (int64_t step = 0; step < t.steps; ++step, a += kRows * kStep, b += kInt8StepBytes) {
    for (int quad = 0; quad < 4; ++quad) {
      __m512i held[kPanels];
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) held[p] = Load(b + p * t.b_stride + 64 * quad);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const __m512i codes = Broadcast(a + r * kStep + 4 * quad);
#pragma GCC unroll 2
        for (int p = 0; p < kPanels; ++p) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], codes, held[p]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) Finish(t, r, p, sum[r][p]);
}

template <int kRows>
void ByPanels(const Tile& t) {
  if (t.panels == 2) {
    Multiply<kRows, 2>(t);
  } else {
    Multiply<kRows, 1>(t);
  }
}

void ByRows(const Tile& t) {
  switch (t.rows) {
    case 12:
      return ByPanels<12>(t);
    case 8:
      return ByPanels<8>(t);
    case 4:
      return ByPanels<4>(t);
    case 2:
      return ByPanels<2>(t);
    default:
      return ByPanels<1>(t);
  }
}

constexpr int kHeights[] = {12, 8, 4, 2, 1};
// Blocks of 32 steps: two panels of B take 16 KB, 12 rows of A 6 KB.
constexpr TileOps kBytes{kHeights, 2, 32, 1, 1, &PackBytes, nullptr, &ByRows};
constexpr TileOps kNibbles{kHeights, 2, 32, 1, 1, &PackBytes, &SplitNibbles, &ByRows};

}  // namespace

const TileOps& VnniOps(bool int4) { return int4 ? kNibbles : kBytes; }

}  // namespace tempera::kernels
