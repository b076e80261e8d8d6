// Checkpoints of a job: named tensors in files that appear whole and are believed only if they are of this
// very job.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/status.h"
#include "nn/slot_io.h"

namespace tempera {

// Thread-compatible.
class Checkpoints {
 public:
  // `fingerprint` stands for model, spec and build: a file with another one is as good as none.
  Checkpoints(std::filesystem::path folder, std::string fingerprint)
      : folder_(std::move(folder)), fingerprint_(std::move(fingerprint)) {}

  Status Save(const std::string& name, const nn::TensorMap& tensors) const;
  // A finder over the file's tensors; NotFound if there is none, or it is damaged or of another job (it is
  // removed).
  Result<nn::TensorFinder> Load(const std::string& name) const;

 private:
  std::filesystem::path folder_;
  std::string fingerprint_;
};

}  // namespace tempera
