// How each layer of an artifact is quantized, from its manifest, tensors and evaluation.
#pragma once

#include <filesystem>

#include "artifact/artifact.h"
#include "base/status.h"
#include "tempera/v1/artifact.pb.h"

namespace tempera {

// `folder` holds the artifact's files. Fills everything but the artifact's id. InvalidArgument or NotFound
// name the request's field; DataLoss names the file and tensor.
Status Explain(const std::filesystem::path& folder, const Manifest& manifest,
               const v1::ExplainQuantizationRequest& request, v1::ExplainQuantizationResponse& response);

}  // namespace tempera
