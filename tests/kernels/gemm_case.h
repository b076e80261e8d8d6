// One product with its operands as plain numbers, and the sums it must give.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace tempera::kernels {

struct GemmCase {
  int64_t m = 1, n = 1, k = 1;
  int bits = 8;
  Format format = Format::kInt8;
  int32_t a_zero = 0;
  int64_t gap = 0;  // bytes between the rows of a
  std::vector<uint8_t> a{}, codes{};
  std::vector<int32_t> zero{};

  int64_t lda() const { return k + gap; }
  int32_t top() const { return (1 << bits) - 1; }
  std::string Text() const {
    return "m " + std::to_string(m) + " n " + std::to_string(n) + " k " + std::to_string(k) + " bits " +
           std::to_string(bits) + " " + FormatName(format) + " a_zero " + std::to_string(a_zero);
  }

  // The last row of `a` ends at its K-th byte, so that a sanitizer sees who reads on.
  void Allocate() {
    a.resize(static_cast<size_t>(m == 0 ? 0 : (m - 1) * lda() + k));
    codes.resize(static_cast<size_t>(n * k));
    zero.resize(static_cast<size_t>(n));
  }
  void Randomize(std::mt19937& random) {
    Allocate();
    for (uint8_t& x : a) x = static_cast<uint8_t>(random());
    for (uint8_t& x : codes) x = static_cast<uint8_t>(random() % static_cast<uint32_t>(top() + 1));
    for (int32_t& x : zero) x = static_cast<int32_t>(random() % static_cast<uint32_t>(top() + 1));
  }
  void Fill(uint8_t a_value, int32_t code, int32_t zero_value) {
    Allocate();
    std::fill(a.begin(), a.end(), a_value);
    std::fill(codes.begin(), codes.end(), static_cast<uint8_t>(code));
    std::fill(zero.begin(), zero.end(), zero_value);
  }

  std::vector<int64_t> Expected() const {
    std::vector<int64_t> sums(static_cast<size_t>(m * n));
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const uint8_t* row = a.data() + i * lda();
        const uint8_t* column = codes.data() + j * k;
        const int64_t column_zero = zero[static_cast<size_t>(j)];
        int64_t sum = 0;
        for (int64_t x = 0; x < k; ++x)
          sum += (int64_t{row[x]} - a_zero) * (int64_t{column[x]} - column_zero);
        sums[static_cast<size_t>(i * n + j)] = sum;
      }
    }
    return sums;
  }

  // `gemm(args)` over a destination of garbage, the sums widened.
  template <typename Gemm>
  std::vector<int64_t> Run(const PackedMatrix& w, Gemm gemm) const {
    std::vector<int32_t> acc(static_cast<size_t>(m * n), -123456789);
    gemm(GemmArgs{.m = m, .a = a.data(), .lda = lda(), .a_zero = a_zero, .w = &w, .acc = acc.data()});
    return {acc.begin(), acc.end()};
  }
  PackedMatrix Packed() const { return Pack(format, bits, n, k, codes.data(), zero.data()); }
};

// Shapes with odd remainders, several cache blocks, single rows, columns and codes, and none; all formats and
// bits; random numbers, then the extremes, where 16-bit pairs saturate and 32-bit sums come closest to their
// end.
inline std::vector<GemmCase> GemmCases() {
  struct Shape {
    int64_t m, n, k;
  };
  struct Kind {
    int bits;
    Format format;
  };
  constexpr Kind kinds[] = {{4, Format::kInt4}, {3, Format::kInt4}, {4, Format::kInt8}, {5, Format::kInt8},
                            {6, Format::kInt8}, {7, Format::kInt8}, {8, Format::kInt8}};
  std::mt19937 random(20240607);
  std::vector<GemmCase> cases;
  for (const Kind& kind : kinds) {
    for (const Shape& s :
         {Shape{1, 1, 1}, Shape{0, 5, 7}, Shape{3, 0, 7}, Shape{2, 3, 0}, Shape{1, 16, 16}, Shape{1, 33, 65},
          Shape{7, 17, 31}, Shape{12, 32, 64}, Shape{13, 47, 100}, Shape{23, 48, 129}, Shape{5, 1, 1100},
          Shape{29, 31, 1030}, Shape{196, 20, 27}, Shape{2, 40, 2305}}) {
      GemmCase c{.m = s.m,
                 .n = s.n,
                 .k = s.k,
                 .bits = kind.bits,
                 .format = kind.format,
                 .a_zero = static_cast<int32_t>(random() % 256),
                 .gap = static_cast<int64_t>(random() % 3)};
      c.Randomize(random);
      cases.push_back(c);
    }
    for (int i = 0; i < 12; ++i) {
      GemmCase c{.m = static_cast<int64_t>(random() % 30 + 1),
                 .n = static_cast<int64_t>(random() % 70 + 1),
                 .k = static_cast<int64_t>(random() % 400 + 1),
                 .bits = kind.bits,
                 .format = kind.format,
                 .a_zero = i % 3 == 0   ? 0
                           : i % 3 == 1 ? 255
                                        : 128,
                 .gap = i % 2 * 5};
      c.Randomize(random);
      if (i % 4 == 0) std::fill(c.zero.begin(), c.zero.end(), i % 8 == 0 ? c.top() : 0);
      cases.push_back(c);
    }
    const int32_t top = (1 << kind.bits) - 1;
    for (const int a_value : {0, 255})
      for (const int32_t code : {0, top})
        for (const int32_t zero : {0, (top + 1) / 2, top})
          for (const int32_t a_zero : {0, 255}) {
            GemmCase c{.m = 3, .n = 18, .k = 530, .bits = kind.bits, .format = kind.format, .a_zero = a_zero};
            c.Fill(static_cast<uint8_t>(a_value), code, zero);
            cases.push_back(c);
          }
    for (const int32_t a_zero : {0, 255}) {  // the longest K there is
      GemmCase c{.m = 2, .n = 17, .k = 32768, .bits = kind.bits, .format = kind.format, .a_zero = a_zero};
      c.Fill(static_cast<uint8_t>(255 - a_zero), a_zero == 0 ? top : 0, a_zero == 0 ? 0 : top);
      cases.push_back(c);
    }
  }
  return cases;
}

}  // namespace tempera::kernels
