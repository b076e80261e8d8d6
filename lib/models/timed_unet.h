// What both kinds of UNet share: the time path's layers, and how their program is written.
#pragma once

#include <string>
#include <vector>

#include "models/family.h"
#include "models/res_block.h"
#include "nn/layers.h"

namespace tempera {

// Sinusoidal embedding of a number: cos and sin (or the other way about) of it at `channels` / 2 frequencies.
// Source: arXiv 1706.03762, 3.5; `shift` as diffusers' downscale_freq_shift.
class Sinusoid {
 public:
  Sinusoid() = default;
  Sinusoid(int64_t channels, bool cos_first, double shift, at::Device device);
  at::Tensor operator()(const at::Tensor& t) const;  // [B] f32 -> [B, channels]

 private:
  bool cos_first_ = true, odd_ = false;
  at::Tensor frequencies_;  // [channels / 2]
};

class TimedUnet : public Denoiser {
 public:
  std::vector<at::Tensor> TemporalFeatures(nn::ForwardContext& ctx) const override;

 protected:
  using Values = std::vector<at::Tensor>;

  explicit TimedUnet(nn::Activation act) : act_(act) {}

  // The time embedding of every row, [B, E], from the layers.
  virtual at::Tensor Embed(nn::ForwardContext& ctx) const = 0;
  at::Tensor TemporalFeature(const TimeLayer& layer, nn::ForwardContext& ctx) const;

  // Slots made so far belong to no unit: call when the embedding's layers are made.
  void BeginUnits() { assigned_ = slots_.size(); }
  // The next unit: it takes the slots made since the last one; returns the value that it writes.
  int AddUnit(std::string name, std::string group, std::vector<int> inputs, decltype(Unit::run) run);
  // A block of `in` channels in all; several inputs are concatenated.
  int AddResUnit(nn::Builder& b, const std::string& name, const char* group, std::vector<int> inputs,
                 int64_t in, int64_t out, const ResOptions& options);

  nn::Activation act_;
  int64_t embedding_dim_ = 0;

 private:
  // Made once a pass.
  const at::Tensor& Embedding(nn::ForwardContext& ctx) const;

  size_t assigned_ = 0;                 // slots that have their unit
  std::vector<TimeLayer> time_layers_;  // of temporal_slots_
};

// What every UNet's configuration says alike.
template <typename Config>
DenoiserInfo UnetInfo(const char* family, const Config& c) {
  DenoiserInfo info{.family = family,
                    .in_channels = c.in_channels,
                    .out_channels = c.out_channels,
                    .base_channels = c.block_out_channels[0],
                    .block_groups = {"down", "up"}};
  if (c.mid_block_type) info.block_groups.insert(info.block_groups.begin() + 1, "mid");
  if (!c.sample_size.empty()) {
    info.height = c.sample_size[0];
    info.width = c.sample_size[1];
  }
  info.classes = c.num_class_embeds.value_or(0);
  return info;
}

// A family's `build`: reads the configuration and takes every parameter.
template <typename Net, typename Config>
Result<std::unique_ptr<Denoiser>> BuildUnet(const Json& json, const std::string& label, nn::Params& params) {
  TEMPERA_ASSIGN(Config config, Config::Parse(json, label));
  auto unet = std::make_unique<Net>(std::move(config), label, params);
  TEMPERA_TRY(params.Finish());
  return unet;
}

// Tells the pass's listener of a value with a name of its own.
void Note(nn::ForwardContext& ctx, std::string_view name, const at::Tensor& value);

}  // namespace tempera
