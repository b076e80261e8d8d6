// What 8 bits do to the parts around the denoiser.
#pragma once

#include <filesystem>
#include <vector>

#include "base/executors.h"
#include "models/family.h"
#include "models/folder.h"
#include "quant/quantizer.h"
#include "report/evaluation.h"

namespace tempera {

// Each part of `model` beside the same part of the artifact in `folder`: bytes of their weights, and how far
// their outputs are apart. Text encoders read the prompts of calibration; the first stage decodes `latents`
// ([C, h, w] each, of the plan's size), and encodes what it decoded in full precision.
Result<std::vector<PartResult>> MeasureParts(const ModelFolder& model, const std::filesystem::path& folder,
                                             const DenoiserInfo& network, const QuantSpec& spec,
                                             const CalibrationPlan& plan,
                                             const std::vector<std::vector<float>>& latents, Lanes& lanes);

}  // namespace tempera
