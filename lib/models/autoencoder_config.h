// The configurations of diffusers' AutoencoderKL and VQModel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// Fields of config.json; where the classes' defaults differ, those of AutoencoderKL.
struct AutoencoderConfig {
  bool vq = false;  // "_class_name": VQModel
  int64_t in_channels = 3, out_channels = 3;
  std::vector<std::string> down_block_types{"DownEncoderBlock2D"};
  std::vector<std::string> up_block_types{"UpDecoderBlock2D"};
  std::vector<int64_t> block_out_channels{64};
  int64_t layers_per_block = 1;
  std::string act_fn = "silu";
  int64_t latent_channels = 4;
  int64_t norm_num_groups = 32;
  std::vector<int64_t> sample_size{32};  // one side, or height and width
  double scaling_factor = 0.18215;
  bool mid_block_add_attention = true;
  // AutoencoderKL alone.
  std::optional<double> shift_factor;
  std::vector<double> latents_mean, latents_std;  // empty, or one a latent channel
  bool use_quant_conv = true, use_post_quant_conv = true;
  // VQModel alone.
  int64_t num_vq_embeddings = 256;
  std::optional<int64_t> vq_embed_dim;  // none: latent_channels

  // InvalidArgument "<label>: <field> ...": an unknown field, a value out of range, or one that is not
  // computed.
  static Result<AutoencoderConfig> Parse(const Json& json, const std::string& label);

  int64_t levels() const { return static_cast<int64_t>(block_out_channels.size()); }
  // Channels of the latent that a denoiser sees.
  int64_t seen_channels() const { return vq ? vq_embed_dim.value_or(latent_channels) : latent_channels; }
};

}  // namespace tempera
