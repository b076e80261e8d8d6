// What a checkpoint that is no diffusers folder looks like, and what to do about it: for errors alone.
#pragma once

#include <filesystem>
#include <string>

#include "weights/weights.h"

namespace tempera {

// From the names of tensors: "; it looks like a LoRA: fuse it ..."; empty where they are not recognised.
std::string LayoutHint(const WeightSource& source);

// The same for a file, or a folder without model_index.json, by what lies in it; headers are read, no tensor.
std::string ModelPathHint(const std::filesystem::path& path);

}  // namespace tempera
