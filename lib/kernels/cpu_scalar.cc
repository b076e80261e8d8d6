// The reference: the contract of GemmArgs word for word, for any machine.
#include <vector>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {

bool ScalarUsable(const PackedMatrix&) { return true; }

void ScalarGemm(const GemmArgs& g) {
  const PackedMatrix& w = *g.w;
  std::vector<uint8_t> codes(static_cast<size_t>(w.k));
  for (int64_t n = 0; n < w.n; ++n) {
    UnpackRow(w, n, codes.data());
    const uint8_t* row = codes.data();
    const int32_t zero = w.zero[static_cast<size_t>(n)];
    for (int64_t m = 0; m < g.m; ++m) {
      const uint8_t* a = g.a + m * g.lda;
      int32_t sum = 0;  // at most 32768 * 255 * 255 in size, at every k
      for (int64_t k = 0; k < w.k; ++k) sum += (a[k] - g.a_zero) * (row[k] - zero);
      g.acc[m * w.n + n] = sum;
    }
  }
}

}  // namespace tempera::kernels
