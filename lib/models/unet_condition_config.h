// Configuration of diffusers' UNet2DConditionModel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// Fields of config.json with the class's defaults; what the class takes as one value or one a level stands
// here as one a level.
struct UnetConditionConfig {
  std::vector<int64_t> sample_size;  // height, width of the latent; empty: any
  int64_t in_channels = 4, out_channels = 4;
  bool center_input_sample = false;
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  std::vector<std::string> down_block_types{"CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
                                            "CrossAttnDownBlock2D", "DownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2DCrossAttn";
  std::vector<std::string> up_block_types{"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
                                          "CrossAttnUpBlock2D"};
  std::vector<bool> only_cross_attention;  // the first attention of a block reads the context, too
  std::vector<int64_t> block_out_channels{320, 640, 1280, 1280};
  std::vector<int64_t> layers_per_block;
  int64_t downsample_padding = 1;
  double mid_block_scale_factor = 1;
  double dropout = 0;
  std::string act_fn = "silu";
  int64_t norm_num_groups = 32;
  double norm_eps = 1e-5;
  std::vector<int64_t> cross_attention_dim;
  // Transformer blocks behind each residual block: of the down levels, of the up levels in their own order,
  // of the middle.
  std::vector<std::vector<int64_t>> transformers_down, transformers_up;
  int64_t transformers_mid = 1;
  std::optional<int64_t> encoder_hid_dim;  // the context is projected from it
  std::vector<int64_t> attention_heads;    // the class calls it attention_head_dim
  bool use_linear_projection = false;
  std::optional<std::string> class_embed_type;
  std::optional<int64_t> num_class_embeds;
  bool class_embeddings_concat = false;
  std::optional<std::string> addition_embed_type;
  int64_t addition_time_embed_dim = 0;
  int64_t projection_class_embeddings_input_dim = 0;
  std::string resnet_time_scale_shift = "default";
  std::string time_embedding_type = "positional";
  std::optional<int64_t> time_embedding_dim;
  std::optional<std::string> time_embedding_act_fn, timestep_post_act;
  std::optional<int64_t> time_cond_proj_dim;
  int64_t conv_in_kernel = 3, conv_out_kernel = 3;

  // InvalidArgument "<label>: <field> ...": an unknown field, a value out of range, or one that the family
  // does not compute.
  static Result<UnetConditionConfig> Parse(const Json& json, const std::string& label);

  int64_t levels() const { return static_cast<int64_t>(block_out_channels.size()); }
};

}  // namespace tempera
