// Files of an artifact while it is made.
#pragma once

#include <filesystem>
#include <string>

#include "artifact/artifact.h"
#include "base/status.h"
#include "models/folder.h"
#include "nn/slot_io.h"

namespace tempera {

Status WriteTensors(const std::filesystem::path& file, const nn::TensorMap& tensors);

// Enters size and digest of `folder`/`name` in the manifest.
Status AddFile(Manifest& manifest, const std::filesystem::path& folder, const std::string& name);

// What stands around the denoiser goes to `folder` and into the manifest: file by file as it is in the
// model's folder, or with the codes of its layers (bits 8) as one file of weights a part.
Status AddStages(Manifest& manifest, const std::filesystem::path& folder, const ModelFolder& model, int bits);

}  // namespace tempera
