// The residual block of UNets and autoencoders.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "nn/layers.h"

namespace tempera {

// kUp doubles by nearest neighbours, kDown halves by the mean; the filters are nn::FilterUp and FilterDown.
enum class Resample : uint8_t { kNone, kUp, kDown, kFilterUp, kFilterDown };
at::Tensor Resampled(Resample how, const at::Tensor& x);

// A layer that makes a temporal feature.
struct TimeLayer {
  nn::Slot* slot = nullptr;
  bool activated = true;  // it reads act(embedding), else the embedding itself
};

// How a block differs from the plainest.
struct ResOptions {
  int64_t groups1 = 1, groups2 = 1;  // of the two norms
  double eps = 1e-5;                 // of the norms
  Resample resample = Resample::kNone;
  double rescale = 1;        // the sum is divided by it
  bool shortcut = false;     // a convolution there even where the channels stay the same
  bool scale_shift = false;  // the feature scales and shifts after norm2 instead of being added before it
  bool conditioned = false;  // k-diffusion: both norms get scale and shift from the embedding, none their own
  bool time_activated = true;  // the layer of the feature reads act(embedding)
  int64_t split = 0;           // channels of the first half of a concatenated input; 0: it is none
};

// diffusers' ResnetBlock2D, and ResnetBlockCondNorm2D with its "ada_group" norms.
struct ResBlock {
  nn::GroupNorm norm1, norm2;
  nn::Slot *conv1 = nullptr, *conv2 = nullptr, *shortcut = nullptr;
  TimeLayer time1;  // scale and shift after norm1; no slot: none
  TimeLayer time2;  // shift before norm2, or scale and shift after it; no slot: none
  bool scale_shift = false;
  Resample resample = Resample::kNone;
  double rescale = 1;

  using MakeTime = std::function<TimeLayer(const std::string& name, int64_t out, bool activated)>;
  ResBlock() = default;
  // `make_time` adds a layer of the time path; empty: a block without time.
  ResBlock(nn::Builder& b, const std::string& name, int64_t in, int64_t out, const ResOptions& options,
           const MakeTime& make_time);

  // x: [B, in, H, W] -> [B, out, H', W']. `feature` gives a layer's feature, [B, N].
  using Feature = std::function<at::Tensor(const TimeLayer&)>;
  at::Tensor Run(nn::ForwardContext& ctx, at::Tensor x, nn::Activation act, const Feature& feature) const;
};

}  // namespace tempera
