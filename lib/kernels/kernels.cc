// The table of kernels and the choice among them.
#include "kernels/kernels.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/internal.h"

namespace tempera::kernels {
namespace {

#if defined(__x86_64__)
bool VnniUsable(const PackedMatrix&) { return Cpu().avx512_vnni; }
void VnniGemm(const GemmArgs& g) { TiledGemm(g, VnniOps(g.w->format == Format::kInt4)); }
bool Avx2Usable(const PackedMatrix&) { return Cpu().avx2; }
void Avx2Gemm(const GemmArgs& g) { TiledGemm(g, Avx2Ops(g.w->format == Format::kInt4, g.w->bits)); }
#endif

const Kernel* FindPinned() {
  const char* name = std::getenv("TEMPERA_KERNEL");
  if (name == nullptr || *name == '\0') return nullptr;
  std::string names;
  for (const Kernel& kernel : Kernels()) {
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
    names += names.empty() ? "" : ", ";
    names += kernel.name;
  }
  std::fprintf(stderr, "TEMPERA_KERNEL: unknown kernel is ignored, got \"%s\", want one of %s\n", name,
               names.c_str());
  return nullptr;
}

}  // namespace

const std::vector<Kernel>& Kernels() {
  static const std::vector<Kernel> kernels = {
#if defined(__x86_64__)
    {"vnni512", &VnniUsable, &VnniGemm},
    {"avx2", &Avx2Usable, &Avx2Gemm},
#endif
    {"onednn", &OneDnnUsable, &OneDnnGemm},
    {"scalar", &ScalarUsable, &ScalarGemm},
  };
  return kernels;
}

const Kernel& Choose(const PackedMatrix& w) {
  static const Kernel* const pinned = FindPinned();
  if (pinned != nullptr && pinned->usable(w)) return *pinned;
  for (const Kernel& kernel : Kernels()) {
    if (kernel.usable(w)) return kernel;
  }
  return Kernels().back();  // scalar, which is always usable
}

}  // namespace tempera::kernels
