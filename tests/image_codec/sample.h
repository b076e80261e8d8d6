#pragma once

#include <random>

#include "pipeline/image_codec.h"

namespace tempera {

constexpr char kPngSignature[] = "\x89PNG\r\n\x1a\n";

// A smooth picture with noise on it.
inline Picture Sample(int64_t width, int64_t height, int64_t channels, unsigned seed = 1) {
  std::mt19937 random(seed);
  Picture p{.width = width, .height = height, .channels = channels, .pixels = {}};
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      for (int64_t c = 0; c < channels; ++c)
        p.pixels.push_back(static_cast<uint8_t>((5 * x + 3 * y + 60 * c + random() % 8) % 256));
  return p;
}

}  // namespace tempera
