// What a forward pass carries beside its tensors. A pass never changes the model: everything that varies is
// in here.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "nn/slot.h"

namespace tempera::nn {

// Sees values as they are computed. Called on the lane of the pass.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void OnSlot(const Slot&, const at::Tensor& /*input*/, const at::Tensor& /*output*/) {}
  // Values with a name of their own: "time_proj", "emb" ...
  virtual void OnValue(std::string_view /*name*/, const at::Tensor&) {}
};

// Takes ranges in State::kObserve, before the input is quantized.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnInput(const Slot& slot, size_t part, const at::Tensor& x, const ForwardContext& ctx) = 0;
};

// Gives temporal features instead of the layers, or beside them.
class FeatureSource {
 public:
  virtual ~FeatureSource() = default;
  // The feature of `slot` for every row, [B, N] f32. `compute` runs the layers for all rows: call it only if
  // some row needs it.
  virtual at::Tensor Get(const Slot& slot, const ForwardContext& ctx,
                         const std::function<at::Tensor()>& compute) = 0;
};

// What rows are conditioned on beside their timestep; undefined: the model has no such input, or none is
// given.
struct Conditioning {
  at::Tensor label;     // [B] i64, class labels
  at::Tensor context;   // [B, T, D] f32, what cross-attention reads: the encoded prompt
  at::Tensor pooled;    // [B, P] f32, the prompt in one vector
  at::Tensor sizes;     // [B, 6] f32: original height and width, crop top and left, target height and width
  at::Tensor guidance;  // [B, G] f32, the embedded guidance scale of a model distilled with it

  int64_t rows() const;  // 0: every tensor is undefined
  // The rows `index`, in that order: [n] i64 on the CPU.
  Conditioning Rows(const at::Tensor& index) const;
  // The rows of all, one after the other. REQUIRES: the same inputs in each.
  static Conditioning Cat(const std::vector<Conditioning>& all);
};

// One pass over a batch; rows may be at different steps.
struct ForwardContext {
  std::vector<int64_t>
      step;  // [B] step ordinal of each row: indexes per-step ranges; empty: no slot needs it
  // [B] whose activation ranges a row takes: of both steps, where its timestep lies between two that were
  // calibrated; empty: its own step's.
  std::vector<std::array<int64_t, 2>> ranges;
  at::Tensor timestep;  // [B] f32, tau
  Conditioning on;
  std::vector<int64_t>
      condition;  // [B] column of each row in tables of temporal features; empty: there is one
  Listener* listener = nullptr;
  Observer* observer = nullptr;
  FeatureSource* features = nullptr;
  at::Tensor of_tau;          // [B, E] what follows from tau alone, where a cache gives it; else undefined
  at::Tensor embedding;       // the time embedding, made on first use
  int64_t temporal_macs = 0;  // multiplications of the time layers in this pass

  int64_t rows() const { return timestep.size(0); }
};

}  // namespace tempera::nn
