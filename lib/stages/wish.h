// What one picture is asked to show. No LibTorch here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace tempera {

struct Wish {
  std::string prompt;
  std::optional<std::string> prompt_2;              // for the second text encoder; unset: as `prompt`
  std::optional<std::string> negative, negative_2;  // unset: nothing, or what the pipeline puts there
  std::optional<int64_t> class_label;
  double guidance = 1;  // above 1: two rows
  int64_t clip_skip = 0;
  bool long_prompt = false;  // in chunks instead of cut
  // Pixels, height before width. What an SDXL UNet is told of the picture; unset: the size that is painted.
  std::array<int64_t, 2> size{};
  std::optional<std::array<int64_t, 2>> original_size, crop, target_size;
};

}  // namespace tempera
