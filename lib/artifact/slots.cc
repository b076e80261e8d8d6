#include "artifact/slots.h"

namespace tempera {

Result<std::vector<SlotRow>> ParseSlots(const Json& slots) {
  if (!slots.is_array()) return DataLoss("manifest.json: slots is wrong, want a list");
  const auto usable = [](int bits) { return bits >= 0 && bits <= 8 && bits != 1; };
  std::vector<SlotRow> rows;
  for (const Json& item : slots) {
    SlotRow row;
    Fields f(item, "manifest.json: slots");
    f.Need("slot", row.slot);
    f.Get("role", row.role);
    f.Get("unit", row.unit);
    f.Get("group", row.group);
    f.Need("weight_bits", row.weight_bits);
    f.Need("activation_bits", row.activation_bits);
    f.Get("equalized", row.equalized);
    f.Get("dynamic", row.dynamic);
    f.Need("parts", row.parts);
    TEMPERA_TRY(f.Finish());
    if (!usable(row.weight_bits) || !usable(row.activation_bits) || row.parts < 1)
      return DataLoss("manifest.json: slots: ", row.slot, ": bits or parts out of range");
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace tempera
