// The configuration of diffusers' UNet2DModel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// How the residual blocks and the sampler of a level are made.
enum class BlockStyle : uint8_t {
  kPlain,   // the sampler is a convolution, or what downsample_type and upsample_type say
  kResnet,  // the sampler is a residual block
  kSkip,    // NCSN++: filtered residual samplers, and the picture passes beside the blocks
  kKarras,  // k-diffusion: every norm takes scale and shift from the time embedding, samplers are filters
};
struct BlockKind {
  const char* name;
  BlockStyle style;
  bool attention;
};

// Fields of config.json with the class's defaults.
struct UnetConfig {
  std::vector<int64_t> sample_size;  // height, width; empty: any
  int64_t in_channels = 3, out_channels = 3;
  bool center_input_sample = false;
  std::string time_embedding_type = "positional";
  std::optional<int64_t> time_embedding_dim;
  double freq_shift = 0;
  bool flip_sin_to_cos = true;
  std::vector<std::string> down_block_types{"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                                            "AttnDownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2D";
  std::vector<std::string> up_block_types{"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  std::vector<int64_t> block_out_channels{224, 448, 672, 896};
  int64_t layers_per_block = 2;
  double mid_block_scale_factor = 1;
  int64_t downsample_padding = 1;
  std::string downsample_type = "conv", upsample_type = "conv";
  double dropout = 0;
  std::string act_fn = "silu";
  std::optional<int64_t> attention_head_dim = 8;
  std::optional<int64_t> norm_num_groups = 32;  // none: from the channels, see Groups()
  std::optional<int64_t> attn_norm_num_groups;
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";
  bool add_attention = true;
  std::optional<std::string> class_embed_type;
  std::optional<int64_t> num_class_embeds;
  std::optional<int64_t> num_train_timesteps;

  // InvalidArgument "<label>: <field> ...": an unknown field, a value out of range, or one that the family
  // does not compute.
  static Result<UnetConfig> Parse(const Json& json, const std::string& label);

  int64_t levels() const { return static_cast<int64_t>(block_out_channels.size()); }
  // Of level i of the down or up path.
  const BlockKind& Down(int64_t i) const;
  const BlockKind& Up(int64_t i) const;
  // Groups of the norms in the middle and at the end.
  int64_t Groups(int64_t channels) const;
};

}  // namespace tempera
