#include "worker/artifact_files.h"

#include <set>

#include "base/files.h"
#include "nn/params.h"
#include "quant/stage_codes.h"

namespace tempera {

Status WriteTensors(const std::filesystem::path& file, const nn::TensorMap& tensors) {
  std::vector<TensorOut> out;
  for (const auto& [name, tensor] : tensors) out.push_back(nn::ToTensorOut(name, tensor));
  return WriteFileAtomic(file, SafetensorsBytes(std::move(out)), file.filename().string());
}

Status AddFile(Manifest& manifest, const std::filesystem::path& folder, const std::string& name) {
  TEMPERA_ASSIGN(const std::string digest, Sha256File(folder / name, name));
  manifest.files[name] = {.sha256 = digest,
                          .bytes = static_cast<int64_t>(std::filesystem::file_size(folder / name))};
  return OkStatus();
}

Status AddStages(Manifest& manifest, const std::filesystem::path& folder, const ModelFolder& model,
                 int bits) {
  std::set<std::string> replaced;
  for (const ModelPart& part : model.stages) {
    if (bits != 8 || !part.has_layers()) continue;
    for (const std::string& file : part.weights->files()) replaced.insert(Cat(part.name, "/", file));
    TEMPERA_ASSIGN(const nn::TensorMap tensors, StageCodes(part));
    const std::string name = Cat(part.name, "/", part.stem, ".safetensors");
    TEMPERA_TRY(MakeFolders(folder / part.name, part.name));
    TEMPERA_TRY(WriteTensors(folder / name, tensors));
    TEMPERA_TRY(AddFile(manifest, folder, name));
  }
  for (const std::string& name : StageFiles(model)) {
    if (replaced.contains(name)) continue;
    TEMPERA_TRY(MakeFolders((folder / name).parent_path(), name));
    TEMPERA_TRY(CopyFile(model.path / name, folder / name, name));
    TEMPERA_TRY(AddFile(manifest, folder, name));
  }
  return OkStatus();
}

}  // namespace tempera
