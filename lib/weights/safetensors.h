// One safetensors file in memory: header checked, tensors as views into it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "weights/weights.h"

namespace tempera {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensors = 1'000'000;  // a file; entries of its metadata likewise
inline constexpr size_t kMaxTensorDims = 8;
inline constexpr size_t kMaxTensorNameBytes = 1024;

struct SafetensorsFile {
  std::map<std::string, TensorView> tensors;
  std::map<std::string, std::string> metadata;
};

// Checks the whole header as WeightSource::Open promises; `owner` keeps `file` alive and goes into every
// view. Memory is proportional to the number of tensors and metadata, whatever the header holds.
// InvalidArgument names `label` and the tensor.
Result<SafetensorsFile> ParseSafetensors(std::span<const uint8_t> file, std::shared_ptr<const void> owner,
                                         std::string_view label);

std::optional<Dtype> ParseDtype(std::string_view name);

// Elements of a shape; nothing if a dimension is negative or the product, zeros left out, leaves int64.
std::optional<int64_t> ElementsOf(std::span<const int64_t> shape);

}  // namespace tempera
