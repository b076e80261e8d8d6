// AVX2 tiles. vpmaddubsw adds two u8 x s8 products in 16 bits and saturates, so it serves only where codes
// are small enough that it cannot (up to 6 bits); 7 and 8 bits are widened to 16 bits first and go through
// vpmaddwd. Compiled with -mavx2: everything in the anonymous namespace, nothing from the standard library.
#include <immintrin.h>

#include <cstdint>

#include "kernels/internal.h"

namespace tempera::kernels {
namespace {

__m256i Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void Store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
__m128i LoadHalf(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
void StoreHalf(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }

// The 4 bytes at p in all lanes.
__m256i Broadcast(const uint8_t* p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// One step of a row, zero beyond `count` codes.
__m128i LoadStep(const uint8_t* a, int64_t count) {
  if (count >= kStep) return LoadHalf(a);
  uint8_t padded[kStep] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = a[i];
  return LoadHalf(padded);
}

int32_t SumOfHalves(__m128i sums) {  // of vpsadbw
  return _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums)));
}

void PackBytes(const uint8_t* a, int64_t lda, int rows, int64_t k, uint8_t* out, int32_t* row_sum) {
  for (int r = 0; r < rows; ++r, a += lda, out += kStep) {
    __m128i sums = _mm_setzero_si128();
    uint8_t* to = out;
    for (int64_t i = 0; i < k; i += kStep, to += rows * kStep) {
      const __m128i codes = LoadStep(a + i, k - i);
      sums = _mm_add_epi32(sums, _mm_sad_epu8(codes, _mm_setzero_si128()));
      StoreHalf(to, codes);
    }
    row_sum[r] += SumOfHalves(sums);
  }
}

// A step of a row as 16-bit numbers: of each quad the pairs (k0, k2) and (k1, k3).
void PackWords(const uint8_t* a, int64_t lda, int rows, int64_t k, uint8_t* out, int32_t* row_sum) {
  for (int r = 0; r < rows; ++r, a += lda, out += 2 * kStep) {
    __m128i sums = _mm_setzero_si128();
    uint8_t* to = out;
    for (int64_t i = 0; i < k; i += kStep, to += rows * 2 * kStep) {
      const __m128i codes = LoadStep(a + i, k - i);
      sums = _mm_add_epi32(sums, _mm_sad_epu8(codes, _mm_setzero_si128()));
      const __m128i even = _mm_and_si128(codes, _mm_set1_epi16(0x00ff)), odd = _mm_srli_epi16(codes, 8);
      StoreHalf(to, _mm_unpacklo_epi32(even, odd));
      StoreHalf(to + kStep, _mm_unpackhi_epi32(even, odd));
    }
    row_sum[r] += SumOfHalves(sums);
  }
}

// Each stored quad [kPanel][4] s8 -> [2][8] pairs (k0, k2), then [2][8] pairs (k1, k3), s16.
void WidenPanel(const uint8_t* stored, int64_t steps, uint8_t* out) {
  for (int64_t quad = 0; quad < 4 * steps; ++quad, stored += 64, out += 128) {
    for (int half = 0; half < 2; ++half) {
      const __m256i held = Load(stored + 32 * half);
      Store(out + 32 * half, _mm256_srai_epi16(_mm256_slli_epi16(held, 8), 8));
      Store(out + 64 + 32 * half, _mm256_srai_epi16(held, 8));
    }
  }
}

// Two stored quads, nibble on nibble -> two quads of bytes.
void SplitNibbles(const uint8_t* stored, int64_t steps, uint8_t* out) {
  const __m256i low = _mm256_set1_epi8(15);
  for (int64_t pair = 0; pair < 2 * steps; ++pair, stored += 64, out += 128) {
    for (int half = 0; half < 2; ++half) {
      const __m256i both = Load(stored + 32 * half);
      Store(out + 32 * half, _mm256_and_si256(both, low));
      Store(out + 64 + 32 * half, _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
    }
  }
}

// Columns [8 * half, 8 * half + 8) of one row of the tile.
void Finish(const Tile& t, int row, int half, __m256i sum) {
  int32_t* c = t.c + row * t.ldc + 8 * half;
  const int columns = t.columns - 8 * half;
  if (columns <= 0) return;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(columns), lane);
  if (!t.first) sum = _mm256_add_epi32(sum, _mm256_maskload_epi32(c, mask));
  if (t.last) {
    const __m256i u = _mm256_mullo_epi32(_mm256_set1_epi32(t.row_sum[row]), Load(t.u + 8 * half));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(u, Load(t.v + 8 * half)));
  }
  if (columns >= 8) {
    Store(c, sum);
  } else {
    _mm256_maskstore_epi32(c, mask, sum);
  }
}

// 16-bit operands: each vpmaddwd is exact (2 * 255 * 128 < 2^31).
template <int kRows>
void MultiplyWords(const Tile& t) {
  __m256i sum[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  const uint8_t* a = t.a;
  const uint8_t* b = t.b;
  for (int64_t step = 0; step < t.steps; ++step, a += kRows * 2 * kStep) {
    for (int pair = 0; pair < kStep / 2; ++pair, b += 64) {
      const __m256i b0 = Load(b), b1 = Load(b + 32);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m256i codes = Broadcast(a + r * 2 * kStep + pair * 4);
        sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(codes, b0));
        sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(codes, b1));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    Finish(t, r, 0, sum[r][0]);
    Finish(t, r, 1, sum[r][1]);
  }
}

// Byte operands. kQuads quads are added in 16 bits before they are widened, which needs
// kQuads * 2 * 255 * (2^bits - 1) <= 32767: 4 quads at 4 bits (30600), 2 at 5 (31620), 1 at 6 (32130).
template <int kRows, int kQuads>
void MultiplyBytes(const Tile& t) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int half = 0; half < 2 && 8 * half < t.columns; ++half) {
    __m256i sum[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) sum[r] = _mm256_setzero_si256();
    const uint8_t* a = t.a;
    const uint8_t* b = t.b + 32 * half;
    for (int64_t step = 0; step < t.steps; ++step, a += kRows * kStep, b += kInt8StepBytes) {
      const __m256i b0 = Load(b), b1 = Load(b + 64), b2 = Load(b + 128), b3 = Load(b + 192);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* four = a + r * kStep;
        const __m256i p0 = _mm256_maddubs_epi16(Broadcast(four), b0);
        const __m256i p1 = _mm256_maddubs_epi16(Broadcast(four + 4), b1);
        const __m256i p2 = _mm256_maddubs_epi16(Broadcast(four + 8), b2);
        const __m256i p3 = _mm256_maddubs_epi16(Broadcast(four + 12), b3);
        if constexpr (kQuads == 4) {
          const __m256i all = _mm256_add_epi16(_mm256_add_epi16(p0, p1), _mm256_add_epi16(p2, p3));
          sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(all, ones));
        } else if constexpr (kQuads == 2) {
          const __m256i left = _mm256_madd_epi16(_mm256_add_epi16(p0, p1), ones);
          const __m256i right = _mm256_madd_epi16(_mm256_add_epi16(p2, p3), ones);
          sum[r] = _mm256_add_epi32(sum[r], _mm256_add_epi32(left, right));
        } else {
          const __m256i left = _mm256_add_epi32(_mm256_madd_epi16(p0, ones), _mm256_madd_epi16(p1, ones));
          const __m256i right = _mm256_add_epi32(_mm256_madd_epi16(p2, ones), _mm256_madd_epi16(p3, ones));
          sum[r] = _mm256_add_epi32(sum[r], _mm256_add_epi32(left, right));
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) Finish(t, r, half, sum[r]);
  }
}

void WordsByRows(const Tile& t) {
  switch (t.rows) {
    case 6:
      return MultiplyWords<6>(t);
    case 4:
      return MultiplyWords<4>(t);
    case 2:
      return MultiplyWords<2>(t);
    default:
      return MultiplyWords<1>(t);
  }
}

template <int kQuads>
void BytesByRows(const Tile& t) {
  switch (t.rows) {
    case 8:
      return MultiplyBytes<8, kQuads>(t);
    case 4:
      return MultiplyBytes<4, kQuads>(t);
    case 2:
      return MultiplyBytes<2, kQuads>(t);
    default:
      return MultiplyBytes<1, kQuads>(t);
  }
}

constexpr int kWordHeights[] = {6, 4, 2, 1};
constexpr int kByteHeights[] = {8, 4, 2, 1};
// Blocks of 32 steps of words, 64 of bytes: 16 KB of B beside a few of A.
constexpr TileOps kWords{kWordHeights, 1, 32, 2, 2, &PackWords, &WidenPanel, &WordsByRows};
constexpr TileOps kSixBits{kByteHeights, 1, 64, 1, 1, &PackBytes, nullptr, &BytesByRows<1>};
constexpr TileOps kFiveBits{kByteHeights, 1, 64, 1, 1, &PackBytes, nullptr, &BytesByRows<2>};
constexpr TileOps kFourBits{kByteHeights, 1, 64, 1, 1, &PackBytes, nullptr, &BytesByRows<4>};
constexpr TileOps kNibbles{kByteHeights, 1, 64, 1, 1, &PackBytes, &SplitNibbles, &BytesByRows<4>};

}  // namespace

const TileOps& Avx2Ops(bool int4, int bits) {
  if (int4) return kNibbles;
  if (bits <= 4) return kFourBits;
  if (bits == 5) return kFiveBits;
  if (bits == 6) return kSixBits;
  return kWords;
}

}  // namespace tempera::kernels
