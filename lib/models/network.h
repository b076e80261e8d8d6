// What every network of a model has: parameters by name, and slots.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>

#include "nn/params.h"
#include "nn/slot.h"

namespace tempera {

// Structure and float weights are fixed at build; slots change state only while no pass runs. Passes only
// read it.
class Network {
 public:
  virtual ~Network() = default;
  Network() = default;
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  std::deque<nn::Slot>& slots() { return slots_; }
  const std::deque<nn::Slot>& slots() const { return slots_; }
  // Null if there is none of this name.
  nn::Slot* FindSlot(std::string_view name);
  at::Device device() const { return device_; }
  // Bytes of parameters that are in no slot (norms, embeddings), as f32.
  int64_t other_bytes() const { return other_bytes_; }
  // Bytes of all weights as they lie in memory now.
  int64_t resident_bytes() const;
  // Every parameter of the model by its state-dict name (those that its slots have let go of, too).
  const std::map<std::string, at::Tensor>& parameters() const { return parameters_; }

 protected:
  // Takes over what `params` handed out. Call when every layer is made.
  void Adopt(const nn::Params& params);

  std::deque<nn::Slot> slots_;

 private:
  std::map<std::string, at::Tensor> parameters_;
  at::Device device_ = at::kCPU;
  int64_t other_bytes_ = 0;
};

}  // namespace tempera
