// Convolution as a product: rows of input patches.
#include <algorithm>
#include <cstring>

#include "kernels/kernels.h"

namespace tempera::kernels {

void Im2Col(const ConvShape& s, const uint8_t* q, int32_t zero, int64_t row_begin, int64_t row_end,
            uint8_t* columns) {
  const int64_t w_out = s.w_out();
  const int64_t line = s.kw * s.c_in;  // pixels of one kernel row lie side by side in channels-last input
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t top = row / w_out * s.stride - s.pad_top, left = row % w_out * s.stride - s.pad_left;
    const int64_t x_begin = std::clamp<int64_t>(left, 0, s.w_in),
                  x_end = std::clamp<int64_t>(left + s.kw, 0, s.w_in);
    const int64_t before = std::min(s.kw, x_begin - left) * s.c_in, inside = (x_end - x_begin) * s.c_in;
    for (int64_t y = top; y < top + s.kh; ++y, columns += line) {
      if (y < 0 || y >= s.h_in || inside == 0) {
        std::memset(columns, zero, static_cast<size_t>(line));
        continue;
      }
      if (before > 0) std::memset(columns, zero, static_cast<size_t>(before));
      std::memcpy(columns + before, q + (y * s.w_in + x_begin) * s.c_in, static_cast<size_t>(inside));
      const int64_t after = line - before - inside;
      if (after > 0) std::memset(columns + before + inside, zero, static_cast<size_t>(after));
    }
  }
}

}  // namespace tempera::kernels
