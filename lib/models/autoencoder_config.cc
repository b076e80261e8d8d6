#include "models/autoencoder_config.h"

#include <cmath>

#include "nn/layers.h"

namespace tempera {
namespace {

void CheckLevels(Fields& f, const AutoencoderConfig& c) {
  if (c.block_out_channels.empty() || c.block_out_channels.size() > 16)
    f.Fail("block_out_channels", Cat("has ", c.block_out_channels.size(), " entries, want 1 to 16"));
  for (const int64_t channels : c.block_out_channels) f.Within("block_out_channels", channels, 1, 65536);
  const auto one_a_level = [&](const char* key, const std::vector<std::string>& types) {
    if (types.size() != c.block_out_channels.size())
      f.Fail(key, Cat("has ", types.size(), " entries, want ", c.block_out_channels.size(),
                      " as block_out_channels has"));
  };
  one_a_level("down_block_types", c.down_block_types);
  one_a_level("up_block_types", c.up_block_types);
  for (const std::string& type : c.down_block_types)
    f.OneOf("down_block_types", type, {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"});
  for (const std::string& type : c.up_block_types)
    f.OneOf("up_block_types", type, {"UpDecoderBlock2D", "AttnUpDecoderBlock2D"});
}

// How latents of a denoiser follow from those of the network.
void CheckScale(Fields& f, const AutoencoderConfig& c) {
  if (!std::isfinite(c.scaling_factor) || c.scaling_factor == 0)
    f.Fail("scaling_factor", Cat("is out of range, got ", c.scaling_factor, ", want a number other than 0"));
  const auto one_a_channel = [&](const char* key, const std::vector<double>& values,
                                 const std::vector<double>& others) {
    if (values.empty() && others.empty()) return;
    if (static_cast<int64_t>(values.size()) != c.latent_channels)
      f.Fail(key, Cat("has ", values.size(), " entries, want ", c.latent_channels,
                      ", one a latent channel: latents_mean and latents_std go together"));
  };
  one_a_channel("latents_mean", c.latents_mean, c.latents_std);
  one_a_channel("latents_std", c.latents_std, c.latents_mean);
  for (const double std : c.latents_std)
    if (!(std > 0)) f.Fail("latents_std", Cat("is out of range, got ", std, ", want > 0"));
  if (c.shift_factor && !c.latents_mean.empty())
    f.Fail("shift_factor", "does not go together with latents_mean, want one of them");
}

}  // namespace

Result<AutoencoderConfig> AutoencoderConfig::Parse(const Json& json, const std::string& label) {
  AutoencoderConfig c;
  Fields f(json, label);
  f.Ignore({"_diffusers_version", "_name_or_path", "_commit_hash"});
  // It matters where networks run in half precision; this one runs in f32.
  bool force_upcast = true;
  f.Get("force_upcast", force_upcast);
  std::string class_name;
  f.Need("_class_name", class_name);
  f.OneOf("_class_name", class_name, {"AutoencoderKL", "VQModel"});
  TEMPERA_TRY(f.status());
  c.vq = class_name == "VQModel";
  if (c.vq) c.latent_channels = 3;

  f.Get("in_channels", c.in_channels);
  f.Get("out_channels", c.out_channels);
  f.Get("down_block_types", c.down_block_types);
  f.Get("up_block_types", c.up_block_types);
  f.Get("block_out_channels", c.block_out_channels);
  f.Get("layers_per_block", c.layers_per_block);
  f.Get("act_fn", c.act_fn);
  f.Get("latent_channels", c.latent_channels);
  f.Get("norm_num_groups", c.norm_num_groups);
  if (const Json* size = f.Raw("sample_size"); size != nullptr) {
    if (size->is_array())
      f.Get("sample_size", c.sample_size);
    else
      f.Get("sample_size", c.sample_size[0]);
  }
  f.Get("scaling_factor", c.scaling_factor);
  f.Get("mid_block_add_attention", c.mid_block_add_attention);
  std::string norm_type = "group";
  if (c.vq) {
    f.Get("num_vq_embeddings", c.num_vq_embeddings);
    f.Get("vq_embed_dim", c.vq_embed_dim);
    f.Get("norm_type", norm_type);
    // It is about decoding indices, which no denoiser gives that works on latents.
    bool lookup_from_codebook = false;
    f.Get("lookup_from_codebook", lookup_from_codebook);
  } else {
    f.Get("shift_factor", c.shift_factor);
    f.Get("latents_mean", c.latents_mean);
    f.Get("latents_std", c.latents_std);
    f.Get("use_quant_conv", c.use_quant_conv);
    f.Get("use_post_quant_conv", c.use_post_quant_conv);
  }
  TEMPERA_TRY(f.Finish());

  // The limits are far above any real model and far below what would exhaust memory before the weights are
  // compared.
  f.Within("in_channels", c.in_channels, 1, 65536);
  f.Within("out_channels", c.out_channels, 1, 65536);
  f.Within("layers_per_block", c.layers_per_block, 1, 64);
  f.Within("latent_channels", c.latent_channels, 1, 32768);
  f.Within("norm_num_groups", c.norm_num_groups, 1, 65536);
  f.Within("num_vq_embeddings", c.num_vq_embeddings, 1, 1 << 20);
  if (c.vq_embed_dim) f.Within("vq_embed_dim", *c.vq_embed_dim, 1, 65536);
  if (c.sample_size.size() != 1 && c.sample_size.size() != 2)
    f.Fail("sample_size", "is wrong, want one side or [height, width]");
  for (const int64_t side : c.sample_size) f.Within("sample_size", side, 1, 16384);
  f.OneOf("norm_type", norm_type, {"group"});
  CheckLevels(f, c);
  CheckScale(f, c);
  TEMPERA_TRY(f.status());
  if (const auto activation = nn::FindActivation(c.act_fn); !activation.ok())
    return Annotate(activation.status(), label);
  return c;
}

}  // namespace tempera
