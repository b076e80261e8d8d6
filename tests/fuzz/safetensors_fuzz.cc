// Any bytes as a safetensors file, and as the header of one.
#include <cstdlib>
#include <string>

#include "weights/safetensors.h"

namespace {

void Try(std::span<const uint8_t> file) {
  const tempera::Result<tempera::SafetensorsFile> parsed = tempera::ParseSafetensors(file, nullptr, "fuzz");
  if (!parsed.ok()) return;
  // What is accepted lies in the file and has the size that it says; each byte is read once.
  unsigned sum = 0;
  for (const auto& [name, view] : parsed->tensors) {
    if (static_cast<int64_t>(view.bytes.size()) != view.elements() * tempera::DtypeBytes(view.dtype))
      std::abort();
    for (const uint8_t byte : view.bytes) sum += byte;
  }
  volatile unsigned keep = sum;
  (void)keep;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Try({data, size});
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(size >> (8 * i)));
  file.append(reinterpret_cast<const char*>(data), size).append(64, 'd');
  Try({reinterpret_cast<const uint8_t*>(file.data()), file.size()});
  return 0;
}
