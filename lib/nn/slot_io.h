// Slots and tensors with names: how codes, scales and ranges stand in artifacts and checkpoints.
//
//   <slot>.weight.codes   U8 [N, C, kh, kw] (linear: [N, K]); at 4 bits [N, ceil(K / 2)], low nibble first
//   <slot>.weight.scale   F32 [N]      <slot>.weight.zero  U8 [N]
//   <slot>.input.scale    F32 [S]      <slot>.input.zero   U8 [S]     S = 1 (static) or one a step
//   <slot>.input.gain     F32 [C], where the input is equalized
// A split input has weight.0, weight.1, input.0, input.1 instead; an attention product has input.0 and
// input.1.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "nn/slot.h"
#include "weights/weights.h"

namespace tempera::nn {

using TensorMap = std::map<std::string, at::Tensor>;
// Finds a tensor by name: NotFound names it.
using TensorFinder = std::function<Result<at::Tensor>(const std::string&)>;
// Over the tensors of `source`.
TensorFinder FinderOf(std::shared_ptr<const WeightSource> source);

// REQUIRES: codes in every part (not packed).
void ExportWeights(const Slot& slot, TensorMap& out);
void ExportRanges(const Slot& slot, TensorMap& out);
// Shapes, element types and values are checked against the slot's geometry and bits: DataLoss names the
// tensor.
Status ImportWeights(Slot& slot, const TensorFinder& find);
// The same, packed at once: the slot is in kInteger then, and no codes lie unpacked on the way.
Status ImportPacked(Slot& slot, const TensorFinder& find);
// `steps`: how many a per-step table must have. A gain is read where slot.gain is defined.
Status ImportRanges(Slot& slot, const TensorFinder& find, int64_t steps);

}  // namespace tempera::nn
