// Weight quantizers: bits for each slot, scales, nearest codes.
#pragma once

#include <ATen/core/Tensor.h>

#include "base/json.h"
#include "base/status.h"
#include "models/family.h"
#include "quant/method.h"
#include "quant/spec.h"

namespace tempera {

// Sets every slot's bits from the spec: first and last layers (by role) at boundary_bits, attention products
// on request, then the overrides.
void AssignBits(Denoiser& network, const QuantSpec& spec);

// Per output channel and input part: scale, zero point (0 inside of the range, 0 <= zero < 2^bits) and
// nearest codes. Min-max, or the best of 80 shrinks of it under the mean of |error|^2.4 (Source: TFMQ-DM's
// weight quantizer).
void InitWeights(nn::Slot& slot, bool search);

// Makes the slot's simulated weight from its codes. State becomes kSimulate.
void UseCodes(nn::Slot& slot);

// The manifest's table: one row a slot.
Json SlotTable(const Denoiser& network);

}  // namespace tempera
