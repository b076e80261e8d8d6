// oneDNN's u8 x s8 product as a row of the table. It packs the weights anew at each call.
#include <dnnl.h>
#include <omp.h>
#include <strings.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

// Weights given to one call: rows that fill about this much.
constexpr int64_t kBlockBytes = 1 << 20;

dnnl_cpu_isa_t EffectiveIsa() {
  static const dnnl_cpu_isa_t isa = [] {
    CapOneDnnOnce();
    return dnnl_get_effective_cpu_isa();
  }();
  return isa;
}

bool OneThreadPossible() {  // through OpenMP, or because there is but one
  const unsigned runtime = dnnl_version()->cpu_runtime;
  return runtime == DNNL_RUNTIME_OMP || runtime == DNNL_RUNTIME_SEQ;
}

// oneDNN takes its threads from OpenMP, whose count belongs to the calling thread.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace

void CapOneDnnAtVnni() {
  for (const char* variable : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    const char* wanted = std::getenv(variable);
    if (wanted == nullptr) continue;
    for (const char* low : {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_MIC", "AVX512_MIC_4OPS",
                            "AVX512_CORE", "AVX512_CORE_VNNI"}) {
      if (strcasecmp(wanted, low) == 0) return;
    }
  }
  dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_vnni);
}

// Without VNNI oneDNN adds pairs of u8 x s8 products in 16 bits, saturating: 2 * 255 * 63 <= 32767 fits, 7
// bits do not. An instruction set this list does not know counts as one without.
bool OneDnnUsable(const PackedMatrix& w) {
  if (!OneThreadPossible()) return false;
  switch (EffectiveIsa()) {
    case dnnl_cpu_isa_avx512_core_vnni:
    case dnnl_cpu_isa_avx512_core_bf16:
    case dnnl_cpu_isa_avx512_core_amx:
      return true;
    default:
      return w.bits <= 6;
  }
}

void OneDnnGemm(const GemmArgs& g) {
  const PackedMatrix& w = *g.w;
  if (g.m <= 0 || w.n <= 0) return;
  if (w.k <= 0) {
    std::fill_n(g.acc, g.m * w.n, 0);
    return;
  }
  std::vector<int32_t> row_sum(static_cast<size_t>(g.m));
  for (int64_t m = 0; m < g.m; ++m) {
    int32_t sum = 0;
    for (int64_t k = 0; k < w.k; ++k) sum += g.a[m * g.lda + k];
    row_sum[static_cast<size_t>(m)] = sum;
  }
  const int64_t block = std::clamp<int64_t>(kBlockBytes / w.k, kPanel, w.n < kPanel ? kPanel : w.n);
  const int32_t shift = HeldShift(w.bits);
  uint8_t* held = Scratch(static_cast<size_t>(block * w.k));
  const OneThread one_thread;
  for (int64_t n = 0; n < w.n; n += block) {
    const int64_t count = std::min(block, w.n - n);
    for (int64_t i = 0; i < count; ++i) UnpackRow(w, n + i, held + i * w.k);
    if (shift != 0) {
      for (int64_t i = 0; i < count * w.k; ++i) held[i] ^= 0x80;  // code - 128 as s8
    }
    const int32_t no_offset = 0;
    const dnnl_status_t status =
        dnnl_gemm_u8s8s32('N', 'T', 'F', g.m, count, w.k, 1.0f, g.a, g.lda, 0,
                          reinterpret_cast<const int8_t*>(held), w.k, 0, 0.0f, g.acc + n, w.n, &no_offset);
    if (status != dnnl_success) return ScalarGemm(g);
  }
  // The zero points, as in tiled_gemm.cc, modulo 2^32.
  for (int64_t n = 0; n < w.n; ++n) {
    const int64_t zero = w.zero[static_cast<size_t>(n)];
    const uint32_t u = static_cast<uint32_t>(shift - zero);
    const uint32_t v = static_cast<uint32_t>(g.a_zero * (w.k * zero - w.code_sum[static_cast<size_t>(n)]));
    for (int64_t m = 0; m < g.m; ++m) {
      int32_t& acc = g.acc[m * w.n + n];
      acc = static_cast<int32_t>(static_cast<uint32_t>(acc) +
                                 u * static_cast<uint32_t>(row_sum[static_cast<size_t>(m)]) + v);
    }
  }
}

}  // namespace tempera::kernels
