// Stands in for onednn.cc where oneDNN is not installed.
#include <cstdlib>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {

bool OneDnnUsable(const PackedMatrix&) { return false; }
void OneDnnGemm(const GemmArgs&) { std::abort(); }  // not usable, so never called
void CapOneDnnAtVnni() {}

}  // namespace tempera::kernels
