// What stands around the denoiser, in 8 bits.
#pragma once

#include "base/status.h"
#include "models/folder.h"
#include "nn/slot_io.h"

namespace tempera {

// The part's tensors as an artifact holds them: codes, scales and zero points of its layers by min-max for
// each output channel (names: nn/slot_io.h), all others as they stand in the source. In float stay the layers
// next to picture and latent (conv_in, conv_out, the quant convs) and those too wide for the kernels.
// InvalidArgument names field or tensor. REQUIRES: has_layers.
Result<nn::TensorMap> StageCodes(const ModelPart& part);

}  // namespace tempera
