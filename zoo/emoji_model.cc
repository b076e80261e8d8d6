#include "zoo/emoji_model.h"

#include <ATen/Functions.h>

#include "base/files.h"
#include "zoo/diffusion.h"
#include "zoo/trainer.h"

namespace tempera::zoo {

Json EmojiAutoencoderConfig() {
  return {{"_class_name", "AutoencoderKL"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", "silu"},
          {"block_out_channels", {16, 32, 64}},
          {"down_block_types", {"DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"}},
          {"force_upcast", false},
          {"in_channels", 3},
          {"latent_channels", kLatentChannels},
          {"latents_mean", nullptr},
          {"latents_std", nullptr},
          {"layers_per_block", 1},
          {"mid_block_add_attention", false},
          {"norm_num_groups", 8},
          {"out_channels", 3},
          {"sample_size", 64},
          {"scaling_factor", 1.0},
          {"shift_factor", nullptr},
          {"up_block_types", {"UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"}},
          {"use_post_quant_conv", true},
          {"use_quant_conv", true}};
}

Json EmojiTextConfig() {
  return {{"architectures", {"CLIPTextModel"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", kVocabulary - 2},
          {"eos_token_id", kVocabulary - 1},
          {"pad_token_id", kVocabulary - 1},
          {"hidden_act", "quick_gelu"},
          {"hidden_size", 128},
          {"initializer_factor", 1.0},
          {"initializer_range", 0.02},
          {"intermediate_size", 512},
          {"layer_norm_eps", 1e-5},
          {"max_position_embeddings", kPromptTokens},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", 4},
          {"num_hidden_layers", 3},
          {"projection_dim", 128},
          {"torch_dtype", "float32"},
          {"vocab_size", kVocabulary}};
}

Json EmojiNetworkConfig() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", "silu"},
          {"attention_head_dim", {2, 4, 5}},  // heads, 32 channels each
          {"block_out_channels", {64, 128, 160}},
          {"center_input_sample", false},
          {"cross_attention_dim", 128},
          {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"downsample_padding", 1},
          {"flip_sin_to_cos", true},
          {"freq_shift", 0},
          {"in_channels", kLatentChannels},
          {"layers_per_block", 1},
          {"mid_block_scale_factor", 1},
          {"mid_block_type", "UNetMidBlock2DCrossAttn"},
          {"norm_eps", 1e-5},
          {"norm_num_groups", 16},
          {"only_cross_attention", false},
          {"out_channels", kLatentChannels},
          {"sample_size", 16},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"use_linear_projection", true}};
}

namespace {

Status WriteJson(const std::filesystem::path& out, const std::string& name, const Json& json) {
  TEMPERA_TRY(MakeFolders((out / name).parent_path(), "out"));
  return WriteFileAtomic(out / name, json.dump(2) + "\n", name);
}

std::map<std::string, at::Tensor> WithPrefix(const std::map<std::string, at::Tensor>& all,
                                             const std::string& prefix) {
  std::map<std::string, at::Tensor> some;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) some[name.substr(prefix.size())] = tensor;
  return some;
}

}  // namespace

Status WriteAutoencoder(const std::filesystem::path& out, std::map<std::string, at::Tensor> weights,
                        const at::Tensor& mean, const at::Tensor& std) {
  const at::NoGradGuard guard;
  const auto get = [&](const std::string& name) -> at::Tensor& {
    at::Tensor& t = weights.at(name);
    return t = t.detach().clone();
  };
  at::Tensor &to = get("quant_conv.weight"), &to_bias = get("quant_conv.bias");
  // Rows of the one before: means, then logarithms of variances.
  to.narrow(0, 0, kLatentChannels).div_(std.view({-1, 1, 1, 1}));
  to_bias.narrow(0, 0, kLatentChannels).sub_(mean).div_(std);
  to_bias.narrow(0, kLatentChannels, kLatentChannels).sub_(2 * std.log());
  at::Tensor &from = get("post_quant_conv.weight"), &from_bias = get("post_quant_conv.bias");
  from_bias.add_(at::mv(from.flatten(1), mean));
  from.mul_(std.view({1, -1, 1, 1}));
  TEMPERA_TRY(WriteJson(out, "vae/config.json", EmojiAutoencoderConfig()));
  return SaveTensors(out / "vae/diffusion_pytorch_model.safetensors", weights, /*half=*/true);
}

Status WriteDenoiser(const std::filesystem::path& out, const std::map<std::string, at::Tensor>& weights) {
  const Json none{nullptr, nullptr};
  const Json index{{"_class_name", "StableDiffusionPipeline"},
                   {"_diffusers_version", "0.42.1"},
                   {"feature_extractor", none},
                   {"image_encoder", none},
                   {"requires_safety_checker", false},
                   {"safety_checker", none},
                   {"scheduler", {"diffusers", "DDIMScheduler"}},
                   {"text_encoder", {"transformers", "CLIPTextModel"}},
                   {"tokenizer", {"transformers", "CLIPTokenizer"}},
                   {"unet", {"diffusers", "UNet2DConditionModel"}},
                   {"vae", {"diffusers", "AutoencoderKL"}}};
  TEMPERA_TRY(WriteJson(out, "model_index.json", index));
  Json scheduler = VelocityScheduler(/*clip=*/false);
  scheduler["steps_offset"] = 1;  // without a part in trailing spacing; diffusers wants it of this pipeline
  TEMPERA_TRY(WriteJson(out, "scheduler/scheduler_config.json", scheduler));
  TEMPERA_TRY(WriteJson(out, "text_encoder/config.json", EmojiTextConfig()));
  TEMPERA_TRY(WriteJson(out, "unet/config.json", EmojiNetworkConfig()));
  TEMPERA_TRY(
      SaveTensors(out / "text_encoder/model.safetensors", WithPrefix(weights, "text_encoder/"), true));
  return SaveTensors(out / "unet/diffusion_pytorch_model.safetensors", WithPrefix(weights, "unet/"), true);
}

}  // namespace tempera::zoo
