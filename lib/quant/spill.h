// Values of reconstruction that do not fit in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/status.h"

namespace tempera {

// Keeps tensors in memory up to a budget and the rest in files of a folder, mapped: they read the same, and
// the system takes their pages when it needs memory. The files have no name: they go with their tensors, or
// with the process. One thread.
class SpillStore {
 public:
  // `folder` must be there.
  SpillStore(std::filesystem::path folder, int64_t budget_bytes)
      : folder_(std::move(folder)), budget_(budget_bytes), held_(std::make_shared<int64_t>(0)) {}

  // A tensor for values [shape] f32, not set. ResourceExhausted if the disk is full.
  Result<at::Tensor> Make(at::IntArrayRef shape);
  // The pages of a tensor that was written may go to its file: they are read again from there.
  static void Release(const at::Tensor& tensor);

 private:
  std::filesystem::path folder_;
  int64_t budget_;
  std::shared_ptr<int64_t> held_;  // bytes in memory; tensors may outlive the store
};

}  // namespace tempera
