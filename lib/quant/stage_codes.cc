#include "quant/stage_codes.h"

#include <ATen/core/grad_mode.h>

#include "kernels/kernels.h"
#include "models/autoencoder.h"
#include "models/text_encoder.h"
#include "nn/params.h"
#include "quant/weights.h"

namespace tempera {
namespace {

Result<std::unique_ptr<Network>> Build(const ModelPart& part, nn::Params& params) {
  if (part.is_first_stage()) {
    TEMPERA_ASSIGN(auto autoencoder, BuildAutoencoder(part.config, part.label, params));
    return std::unique_ptr<Network>(std::move(autoencoder));
  }
  TEMPERA_ASSIGN(auto encoder, BuildTextEncoder(part.config, part.label, params));
  return std::unique_ptr<Network>(std::move(encoder));
}

bool Quantized(const nn::Slot& slot) {
  switch (slot.role) {
    case nn::Role::kConvIn:
    case nn::Role::kConvOut:
    case nn::Role::kMatmul:
      return false;
    default:
      return slot.k() <= kernels::kMostColumns;
  }
}

}  // namespace

Result<nn::TensorMap> StageCodes(const ModelPart& part) {
  return nn::TorchEdge(part.name, [&]() -> Result<nn::TensorMap> {
    const at::NoGradGuard guard;
    nn::Params params(part.weights, at::kCPU);
    TEMPERA_ASSIGN(const auto network, Build(part, params));
    nn::TensorMap tensors;
    for (const auto& [name, view] : part.weights->tensors()) tensors[name] = nn::ToTensor(view);
    for (nn::Slot& slot : network->slots()) {
      if (!Quantized(slot)) continue;
      slot.weight_bits = 8;
      InitWeights(slot, /*search=*/false);
      nn::ExportWeights(slot, tensors);
      tensors.erase(slot.name + ".weight");
    }
    return tensors;
  });
}

}  // namespace tempera
