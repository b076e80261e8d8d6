// The manifest's table of slots, as those who load an artifact read it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

struct SlotRow {
  std::string slot, role, unit, group;
  int weight_bits = 0, activation_bits = 0;  // 0: float; else 2 to 8
  bool equalized = false;                    // the input has a gain for each channel
  bool dynamic = false;                      // each picture's input has a range of its own
  int64_t parts = 1;                         // >= 1
};

// DataLoss names the slot whose row is wrong.
Result<std::vector<SlotRow>> ParseSlots(const Json& slots);

}  // namespace tempera
