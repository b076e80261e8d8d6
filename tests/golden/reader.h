// Golden tensors as LibTorch tensors.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/item.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>

#include "base/json.h"
#include "weights/weights.h"

namespace tempera::golden {

// Paths are relative to the tests' folder, where ctest runs the tests.
inline Json ReadJson(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  Result<Json> json = ParsePythonJson(text.str(), path.string());
  if (!json.ok()) ADD_FAILURE() << json.status();
  return json.ok() ? *json : Json();
}

// A golden.json and the golden.safetensors beside it.
class Case {
 public:
  explicit Case(const std::filesystem::path& folder) : json(ReadJson(folder / "golden.json")) {
    auto source = WeightSource::OpenFile(folder / "golden.safetensors", folder.string());
    if (source.ok()) source_ = *source;
    EXPECT_TRUE(source.ok()) << source.status();
  }
  bool Has(const std::string& name) const { return source_ && source_->tensors().contains(name); }
  // A copy with the stored dtype. A missing name is a failure and gives an undefined tensor.
  at::Tensor Get(const std::string& name) const {
    if (!Has(name)) {
      ADD_FAILURE() << "no golden tensor " << name;
      return {};
    }
    const TensorView& view = source_->tensors().at(name);
    const auto type = view.dtype == Dtype::kF32   ? at::kFloat
                      : view.dtype == Dtype::kI64 ? at::kLong
                      : view.dtype == Dtype::kU8  ? at::kByte
                                                  : at::ScalarType::Undefined;
    EXPECT_NE(type, at::ScalarType::Undefined) << name;
    // clone() reads the file's bytes; from_blob asks for a pointer that is not const.
    return at::from_blob(const_cast<uint8_t*>(view.bytes.data()), view.shape, at::TensorOptions().dtype(type))
        .clone();
  }

  const Json json;

 private:
  std::shared_ptr<const WeightSource> source_;
};

// The largest difference of two tensors of one shape; infinite where the shapes differ or one holds a NaN.
inline double Difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0;
  const double d = (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
  return std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
}

}  // namespace tempera::golden
