// Fashion-MNIST from Debian's package dataset-fashion-mnist.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "base/status.h"

namespace tempera::zoo {

struct Dataset {
  at::Tensor pictures;  // [N, 1, 32, 32] f32 in [-1, 1]: 28x28 with a border of 2 of background
  at::Tensor labels;    // [N] i64, 0..9
};

// `split` is "train" (60,000) or "t10k" (10,000). Checks magic numbers and sizes.
Result<Dataset> LoadFashion(const std::filesystem::path& folder, const std::string& split);

}  // namespace tempera::zoo
