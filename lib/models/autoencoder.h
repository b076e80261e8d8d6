// First stages: what turns pictures into latents and back. diffusers' AutoencoderKL and VQModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "models/network.h"
#include "nn/context.h"
#include "nn/params.h"

namespace tempera {

struct AutoencoderConfig;

struct AutoencoderInfo {
  std::string family;                              // "kl", "vq"
  int64_t image_channels = 0, input_channels = 0;  // of the pictures that Decode paints and Encode reads
  int64_t latent_channels = 0;                     // of the latent that a denoiser sees
  int64_t factor = 1;                              // pixels a side of one latent position
  int64_t picture_width = 0;  // channels of the decoder's widest layer at the picture's full size
  int64_t sample_size = 0;    // pixels a side that the configuration names
  double scaling_factor = 1;
  std::optional<double> shift_factor;
  std::vector<double> latents_mean, latents_std;  // one a latent channel, or empty
};

// A normal distribution of each element by itself.
struct Gaussian {
  at::Tensor mean;    // [B, C, h, w]
  at::Tensor logvar;  // the same shape; undefined: no variance
  // noise: as mean, N(0, 1).
  at::Tensor Sample(const at::Tensor& noise) const;
};

// Overlapping squares; the defaults are those of diffusers' enable_tiling.
struct TileOptions {
  int64_t side = 0;       // latent positions; 0: as many as make sample_size pixels
  double overlap = 0.25;  // of the side, 0 to 0.5
};

// Pictures are [B, C, H, W] f32, about -1 to 1. A pass holds a few values of block_out_channels[1] x H x W
// for each of them at once (Stable Diffusion's at 512 x 512: 268 MB each): tiles bound H and W.
class Autoencoder final : public Network {
 public:
  // Through BuildAutoencoder.
  Autoencoder(const AutoencoderConfig& config, const std::string& label, nn::Params& params);

  const AutoencoderInfo& info() const { return info_; }

  // What a denoiser sees of z, and back: (z - m) * scaling_factor / s, where m and s are latents_mean and
  // latents_std, shift_factor and 1, or 0 and 1.
  at::Tensor ToLatent(const at::Tensor& z) const;
  at::Tensor FromLatent(const at::Tensor& latent) const;

  // z: [B, latent_channels, h, w], after FromLatent -> [B, image_channels, h * factor, w * factor]. A
  // VQModel first puts the nearest codebook vector at every position, unless `quantize` is false.
  at::Tensor Decode(nn::ForwardContext& ctx, const at::Tensor& z, bool quantize = true) const;
  // -> z, before ToLatent, of [B, latent_channels, H / factor, W / factor]; a VQModel's has no variance and
  // is not yet quantized. Rows and columns beyond a multiple of factor play a part but have no position of
  // their own. REQUIRES: H, W >= factor.
  Gaussian Encode(nn::ForwardContext& ctx, const at::Tensor& image) const;

  // The same of a picture of any size in the memory of one tile. Overlaps go over from one tile to the next
  // linearly. What fits in one tile is computed whole; else the result differs a little from the whole
  // picture's, whose norms and attention see all of it. Source: diffusers' AutoencoderKL.tiled_decode.
  at::Tensor DecodeTiled(nn::ForwardContext& ctx, const at::Tensor& z, const TileOptions& options = {}) const;
  Gaussian EncodeTiled(nn::ForwardContext& ctx, const at::Tensor& image,
                       const TileOptions& options = {}) const;

 private:
  // Layers one after the other.
  using Chain = std::vector<std::function<at::Tensor(nn::ForwardContext&, at::Tensor)>>;
  class Assembly;

  at::Tensor Nearest(const at::Tensor& z) const;
  at::Tensor Moments(nn::ForwardContext& ctx, const at::Tensor& image) const;
  Gaussian Posterior(const at::Tensor& moments) const;

  AutoencoderInfo info_;
  Chain encoder_, decoder_;
  at::Tensor codebook_;    // [entries, latent_channels]; undefined: AutoencoderKL
  at::Tensor mean_, std_;  // [1, latent_channels, 1, 1] of latents_mean and latents_std, or undefined
};

// The first stage of `config` (config.json of "vae" or "vqvae", `label` names it in errors) with parameters
// from `params`. Every parameter of the source must have its place (params.Finish is part of it).
// InvalidArgument names field or tensor.
Result<std::unique_ptr<Autoencoder>> BuildAutoencoder(const Json& config, const std::string& label,
                                                      nn::Params& params);

}  // namespace tempera
