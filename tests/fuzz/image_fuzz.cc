// Any bytes as a picture. A PNG's checksums are repaired after each mutation, or none would pass its first
// chunk.
#include <zlib.h>

#include <cstdlib>
#include <cstring>

#include "pipeline/image_codec.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned) {
  size = LLVMFuzzerMutate(data, size, max_size);
  static constexpr uint8_t kSignature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  if (size < 8 || std::memcmp(data, kSignature, 8) != 0) return size;
  for (size_t at = 8; at + 12 <= size;) {
    const size_t length =
        size_t{data[at]} << 24 | size_t{data[at + 1]} << 16 | size_t{data[at + 2]} << 8 | data[at + 3];
    if (length > size - at - 12) break;
    const auto crc = static_cast<uint32_t>(crc32(0, data + at + 4, static_cast<uInt>(length + 4)));
    for (int i = 0; i < 4; ++i)
      data[at + 8 + length + static_cast<size_t>(i)] = static_cast<uint8_t>(crc >> (24 - 8 * i));
    at += 12 + length;
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const tempera::Result<tempera::Picture> picture =
      tempera::DecodeImage({reinterpret_cast<const char*>(data), size});
  if (!picture.ok()) return 0;
  // What is accepted survives a round trip.
  const tempera::Result<std::string> again = tempera::EncodeImage(*picture, tempera::ImageFormat::kPng);
  if (!again.ok()) std::abort();
  const tempera::Result<tempera::Picture> back = tempera::DecodeImage(*again);
  if (!back.ok() || back->pixels != picture->pixels || back->channels != picture->channels) std::abort();
  return 0;
}
