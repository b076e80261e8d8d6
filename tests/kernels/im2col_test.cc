#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

struct ConvCase {
  const char* name;
  ConvShape shape;
  int64_t n;
};

// Im2Col and a product equal the convolution written out.
TEST(Im2Col, ConvolvesAsWrittenOut) {
  std::mt19937 random(3);
  const ConvCase cases[] = {
      {"1x1", {.c_in = 7, .h_in = 5, .w_in = 6}, 3},
      {"3x3 same",
       {.c_in = 5,
        .h_in = 6,
        .w_in = 9,
        .kh = 3,
        .kw = 3,
        .pad_top = 1,
        .pad_left = 1,
        .pad_bottom = 1,
        .pad_right = 1},
       4},
      {"3x3 stride 2 same",
       {.c_in = 3,
        .h_in = 8,
        .w_in = 8,
        .kh = 3,
        .kw = 3,
        .stride = 2,
        .pad_top = 1,
        .pad_left = 1,
        .pad_bottom = 1,
        .pad_right = 1},
       5},
      {"3x3 stride 2 padded below and right",
       {.c_in = 4, .h_in = 8, .w_in = 6, .kh = 3, .kw = 3, .stride = 2, .pad_bottom = 1, .pad_right = 1},
       6},
      {"3x3 unpadded", {.c_in = 2, .h_in = 5, .w_in = 4, .kh = 3, .kw = 3}, 2},
      {"1x1 stride 2", {.c_in = 3, .h_in = 7, .w_in = 5, .stride = 2}, 2},
      {"3x5 stride 3",
       {.c_in = 2,
        .h_in = 10,
        .w_in = 11,
        .kh = 3,
        .kw = 5,
        .stride = 3,
        .pad_top = 2,
        .pad_left = 0,
        .pad_bottom = 1,
        .pad_right = 3},
       3},
      {"picture smaller than the kernel",
       {.c_in = 3,
        .h_in = 1,
        .w_in = 1,
        .kh = 3,
        .kw = 3,
        .pad_top = 1,
        .pad_left = 1,
        .pad_bottom = 1,
        .pad_right = 1},
       2},
      {"padding wider than the kernel",
       {.c_in = 2,
        .h_in = 3,
        .w_in = 3,
        .kh = 2,
        .kw = 2,
        .pad_top = 4,
        .pad_left = 4,
        .pad_bottom = 4,
        .pad_right = 4},
       2},
  };
  for (const ConvCase& c : cases) {
    SCOPED_TRACE(c.name);
    const ConvShape& s = c.shape;
    const int32_t a_zero = 77;
    std::vector<uint8_t> q(static_cast<size_t>(s.h_in * s.w_in * s.c_in)),
        codes(static_cast<size_t>(c.n * s.k()));
    std::vector<int32_t> zero(static_cast<size_t>(c.n));
    for (uint8_t& x : q) x = static_cast<uint8_t>(random());
    for (uint8_t& x : codes) x = static_cast<uint8_t>(random());
    for (int32_t& x : zero) x = static_cast<int32_t>(random() % 256);

    const int64_t rows = s.h_out() * s.w_out();
    std::vector<uint8_t> columns(static_cast<size_t>(rows * s.k()));
    const int64_t cut = rows / 3;  // in two pieces
    Im2Col(s, q.data(), a_zero, 0, cut, columns.data());
    Im2Col(s, q.data(), a_zero, cut, rows, columns.data() + cut * s.k());
    const PackedMatrix w = Pack(Format::kInt8, 8, c.n, s.k(), codes.data(), zero.data());
    std::vector<int32_t> acc(static_cast<size_t>(rows * c.n));
    Choose(w).gemm(
        {.m = rows, .a = columns.data(), .lda = s.k(), .a_zero = a_zero, .w = &w, .acc = acc.data()});

    for (int64_t oy = 0; oy < s.h_out(); ++oy)
      for (int64_t ox = 0; ox < s.w_out(); ++ox)
        for (int64_t n = 0; n < c.n; ++n) {
          int64_t sum = 0;  // outside of the picture a - a_zero is 0
          for (int64_t ky = 0; ky < s.kh; ++ky)
            for (int64_t kx = 0; kx < s.kw; ++kx)
              for (int64_t ch = 0; ch < s.c_in; ++ch) {
                const int64_t y = oy * s.stride + ky - s.pad_top, x = ox * s.stride + kx - s.pad_left;
                if (y < 0 || y >= s.h_in || x < 0 || x >= s.w_in) continue;
                const int64_t a = q[static_cast<size_t>((y * s.w_in + x) * s.c_in + ch)];
                const int64_t code = codes[static_cast<size_t>(n * s.k() + (ky * s.kw + kx) * s.c_in + ch)];
                sum += (a - a_zero) * (code - zero[static_cast<size_t>(n)]);
              }
          ASSERT_EQ(acc[static_cast<size_t>((oy * s.w_out() + ox) * c.n + n)], sum)
              << oy << " " << ox << " " << n;
        }
  }
}

}  // namespace
}  // namespace tempera::kernels
