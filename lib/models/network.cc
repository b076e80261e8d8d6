#include "models/network.h"

#include <set>

namespace tempera {

nn::Slot* Network::FindSlot(std::string_view name) {
  for (nn::Slot& slot : slots_)
    if (slot.name == name) return &slot;
  return nullptr;
}

int64_t Network::resident_bytes() const {
  int64_t total = other_bytes_;
  for (const nn::Slot& slot : slots_) total += nn::ResidentBytes(slot);
  return total;
}

void Network::Adopt(const nn::Params& params) {
  device_ = params.device();
  parameters_ = params.taken();
  std::set<std::string> in_slots;
  for (const nn::Slot& slot : slots_) in_slots.insert({slot.name + ".weight", slot.name + ".bias"});
  for (const auto& [name, tensor] : parameters_)
    if (!in_slots.contains(name) && tensor.defined()) other_bytes_ += static_cast<int64_t>(tensor.nbytes());
}

}  // namespace tempera
