// What the zoo's models are trained on.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"

namespace tempera::zoo {

// Fashion-MNIST from Debian's package dataset-fashion-mnist.
struct Dataset {
  at::Tensor pictures;  // [N, 1, 32, 32] f32 in [-1, 1]: 28x28 with a border of 2 of background
  at::Tensor labels;    // [N] i64, 0..9
};

// `split` is "train" (60,000) or "t10k" (10,000). Checks magic numbers and sizes.
Result<Dataset> LoadFashion(const std::filesystem::path& folder, const std::string& split);

// Emoji pictures with their words.
struct EmojiData {
  struct Row {
    std::string style, label, group;  // "twemoji", "red apple", "food-drink"
    std::vector<std::string> tags;    // synonyms, one word or few each
  };
  at::Tensor pictures;  // [N, 3, 64, 64] u8, over white
  std::vector<Row> rows;

  // The pictures `index` ([n] i64), f32 in [-1, 1].
  at::Tensor Pictures(const at::Tensor& index) const;
};

// From `folder`: emoji-64.rgb, 64 x 64 x 3 bytes a picture, one after the other, and emoji-pairs.jsonl, a
// line
// {"style", "hex", "label", "tags", "group"} a picture in the same order.
Result<EmojiData> LoadEmoji(const std::filesystem::path& folder);

}  // namespace tempera::zoo
