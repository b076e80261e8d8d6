// Any text as a manifest.
#include <cstdlib>

#include "artifact/artifact.h"
#include "base/files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const tempera::Result<tempera::Manifest> parsed = tempera::Manifest::Parse(text, "fuzz");
  // The id of what is accepted is that of its bytes.
  if (parsed.ok() && parsed->Id() != tempera::Sha256Hex(text)) std::abort();
  return 0;
}
