#include "worker/checkpoints.h"

#include <ATen/Functions.h>

#include "base/files.h"
#include "nn/params.h"

namespace tempera {
namespace {

std::string DigestOf(const std::map<std::string, TensorView>& tensors) {
  Sha256 hash;
  for (const auto& [name, view] : tensors) {
    hash.Update(name.data(), name.size() + 1);
    hash.Update(view.bytes.data(), view.bytes.size());
  }
  return hash.Hex();
}

}  // namespace

Status Checkpoints::Save(const std::string& name, const nn::TensorMap& tensors) const {
  TEMPERA_TRY(MakeFolders(folder_, "checkpoints"));
  std::vector<TensorOut> out;
  Sha256 hash;
  for (const auto& [tensor_name, tensor] : tensors) {
    out.push_back(nn::ToTensorOut(tensor_name, tensor));
    hash.Update(tensor_name.data(), tensor_name.size() + 1);
    hash.Update(out.back().bytes.data(), out.back().bytes.size());
  }
  return WriteFileAtomic(
      folder_ / (name + ".safetensors"),
      SafetensorsBytes(std::move(out), {{"fingerprint", fingerprint_}, {"sha256", hash.Hex()}}),
      Cat("checkpoint ", name));
}

Result<nn::TensorFinder> Checkpoints::Load(const std::string& name) const {
  const std::filesystem::path file = folder_ / (name + ".safetensors");
  if (!std::filesystem::exists(file)) return NotFound("checkpoint ", name, ": there is none");
  const auto source = WeightSource::OpenFile(file, "checkpoint " + name);
  if (source.ok()) {
    const auto& metadata = (*source)->metadata();
    const auto value = [&](const char* key) {
      const auto it = metadata.find(key);
      return it == metadata.end() ? std::string() : it->second;
    };
    if (value("fingerprint") == fingerprint_ && value("sha256") == DigestOf((*source)->tensors()))
      return nn::TensorFinder([shared = *source](const std::string& tensor) -> Result<at::Tensor> {
        TEMPERA_ASSIGN(const TensorView view, shared->Find(tensor));
        return nn::ToTensor(view).clone();
      });
  }
  std::error_code ignored;
  std::filesystem::remove(file, ignored);
  return NotFound("checkpoint ", name, ": was damaged or of another job, and is discarded");
}

}  // namespace tempera
