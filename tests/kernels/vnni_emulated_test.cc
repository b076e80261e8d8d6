// The AVX-512 VNNI tiles on any x86: cpu_vnni.cc compiled once more, over vectors of 16 numbers in plain C++.
// So its layouts and loops are tested where the instructions are missing; the instructions themselves by
// gemm_test.cc.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <cstring>

#include "kernels/internal.h"
#include "tests/kernels/gemm_case.h"

namespace tempera::kernels {
namespace {

struct Vector {
  uint32_t lane[16];
};

template <typename F>
Vector Map(F f) {
  Vector r;
  for (int i = 0; i < 16; ++i) r.lane[i] = static_cast<uint32_t>(f(i));
  return r;
}

Vector EmLoad(const void* p) {
  Vector r;
  std::memcpy(r.lane, p, 64);
  return r;
}
void EmStore(void* p, Vector v) { std::memcpy(p, v.lane, 64); }
Vector EmSet1(int32_t x) {
  return Map([=](int) { return x; });
}
Vector EmAnd(Vector a, Vector b) {
  return Map([&](int i) { return a.lane[i] & b.lane[i]; });
}
Vector EmShiftRight(Vector a, unsigned by) {
  return Map([&](int i) { return a.lane[i] >> by; });
}
Vector EmAdd(Vector a, Vector b) {
  return Map([&](int i) { return a.lane[i] + b.lane[i]; });
}
Vector EmMultiply(Vector a, Vector b) {
  return Map([&](int i) { return a.lane[i] * b.lane[i]; });
}
// Lanes whose bit is clear are not touched, in memory neither.
Vector EmMaskLoad(unsigned mask, const int32_t* p) {
  return Map([&](int i) { return mask >> i & 1 ? p[i] : 0; });
}
void EmMaskStore(int32_t* p, unsigned mask, Vector v) {
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) p[i] = static_cast<int32_t>(v.lane[i]);
}
// vpdpbusd: `codes` as u8, `held` as s8, no saturation.
Vector EmDot(Vector sum, Vector codes, Vector held) {
  return Map([&](int i) {
    uint32_t s = sum.lane[i];
    for (int j = 0; j < 32; j += 8)
      s += static_cast<uint32_t>(static_cast<uint8_t>(codes.lane[i] >> j) *
                                 static_cast<int8_t>(held.lane[i] >> j));
    return s;
  });
}

}  // namespace
}  // namespace tempera::kernels

#define __m512i Vector
#define _mm512_loadu_si512 EmLoad
#define _mm512_storeu_si512 EmStore
#define _mm512_set1_epi32 EmSet1
#define _mm512_setzero_si512() EmSet1(0)
#define _mm512_and_si512 EmAnd
#define _mm512_srli_epi32 EmShiftRight
#define _mm512_add_epi32 EmAdd
#define _mm512_mullo_epi32 EmMultiply
#define _mm512_maskz_loadu_epi32 EmMaskLoad
#define _mm512_mask_storeu_epi32 EmMaskStore
#define _mm512_dpbusd_epi32 EmDot
#define VnniOps EmulatedVnniOps
#include "kernels/cpu_vnni.cc"

namespace tempera::kernels {
namespace {

TEST(VnniEmulated, IsExact) {
  for (const GemmCase& c : GemmCases()) {
    const PackedMatrix w = c.Packed();
    const auto gemm = [&](const GemmArgs& args) {
      TiledGemm(args, EmulatedVnniOps(c.format == Format::kInt4));
    };
    ASSERT_EQ(c.Run(w, gemm), c.Expected()) << c.Text();
  }
}

}  // namespace
}  // namespace tempera::kernels
