#include "weights/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/base/temp_folder.h"

namespace tempera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Checkpoint(const std::vector<std::string>& names) {
  static constexpr uint8_t kByte[1] = {0};
  std::vector<TensorOut> tensors;
  for (const std::string& name : names)
    tensors.push_back({.name = name, .dtype = Dtype::kU8, .shape = {1}, .bytes = kByte});
  return SafetensorsBytes(std::move(tensors));
}

struct Case {
  std::string test;
  std::vector<std::string> names;  // as the real files have them
  std::string looks_like;
  std::string advice;
};

class LayoutTest : public ::testing::TestWithParam<Case> {};

TEST_P(LayoutTest, IsNamedWithTheWayOut) {
  TempFolder folder;
  folder.Write("x.safetensors", Checkpoint(GetParam().names));
  const auto source = WeightSource::OpenFile(folder / "x.safetensors", "x");
  ASSERT_TRUE(source.ok()) << source.status();
  const std::string hint = LayoutHint(**source);
  if (GetParam().looks_like.empty()) {
    EXPECT_EQ(hint, "");
    return;
  }
  EXPECT_THAT(hint, AllOf(testing::StartsWith("; it looks like " + GetParam().looks_like),
                          HasSubstr(GetParam().advice)));
  EXPECT_EQ(ModelPathHint(folder / "x.safetensors"), hint);
  EXPECT_EQ(ModelPathHint(folder.path()), hint);
}

constexpr char kFuse[] = "pipe.fuse_lora()";
constexpr char kConvert[] = "StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)";
constexpr char kNot[] = ", which is not supported";
INSTANTIATE_TEST_SUITE_P(
    Rows, LayoutTest,
    ::testing::Values(
        Case{"lora_kohya",
             {"lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
              "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"},
             "a LoRA:",
             kFuse},
        Case{"lora_peft",
             {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.lora_A.weight"},
             "a LoRA:",
             kFuse},
        Case{"lora_diffusers",
             {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.lora.down.weight"},
             "a LoRA:",
             kFuse},
        Case{"lora_processor",
             {"mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"},
             "a LoRA:",
             kFuse},
        Case{
            "loha", {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"}, "a LoRA of the LoHa kind", kFuse},
        Case{"lokr", {"lora_unet_mid_block_attentions_0_proj_in.lokr_w1"}, "a LoRA of the LoKr kind", kFuse},
        Case{"controlnet",
             {"conv_in.weight", "controlnet_cond_embedding.conv_in.weight"},
             "a ControlNet",
             kNot},
        Case{"controlnet_single", {"control_model.input_blocks.0.0.weight"}, "a ControlNet", kNot},
        Case{"bitsandbytes",
             {"mid_block.resnets.0.conv1.weight.absmax"},
             "weights quantized by bitsandbytes",
             "without quantization"},
        Case{"sdxl",
             {"conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
              "conditioner.embedders.1.model.transformer.resblocks.0.ln_1.weight",
              "first_stage_model.encoder.conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"},
             "a single-file Stable Diffusion XL checkpoint",
             "StableDiffusionXLPipeline.from_single_file"},
        Case{"sd3",
             {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"},
             "a Stable Diffusion 3 checkpoint",
             kNot},
        Case{"flux_single",
             {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight"},
             "a Flux checkpoint",
             kNot},
        Case{"flux", {"double_blocks.0.img_attn.qkv.weight"}, "a Flux checkpoint", kNot},
        Case{"sd",
             {"cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
              "first_stage_model.encoder.conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"},
             "a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"first_stage",
             {"first_stage_model.encoder.conv_in.weight"},
             "a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"cond_stage",
             {"cond_stage_model.model.transformer.resblocks.0.ln_1.weight"},
             "a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"data_parallel",
             {"module.conv_in.weight"},
             "a state saved through a DataParallel wrapper",
             "inside"},
        Case{"compiled", {"_orig_mod.conv_in.weight"}, "a state saved through torch.compile", "inside"},
        Case{"compvis_unet",
             {"input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.norm1.weight"},
             "the UNet of a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"guided_diffusion",
             {"input_blocks.0.0.weight", "input_blocks.10.1.qkv.weight"},
             "a UNet of guided-diffusion",
             kNot},
        Case{"compvis_encoder",
             {"encoder.down.0.block.0.conv1.weight"},
             "the autoencoder of a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"compvis_decoder",
             {"decoder.up.0.block.0.conv1.weight"},
             "the autoencoder of a single-file Stable Diffusion checkpoint",
             kConvert},
        Case{"ddpm_original",
             {"conv_in.weight", "temb.dense.0.weight"},
             "a UNet of the original DDPM code",
             kNot},
        Case{"lucidrains", {"downs.0.0.block1.proj.weight"}, "a UNet of denoising-diffusion-pytorch", kNot},
        Case{"dit_diffusers",
             {"pos_embed.proj.weight", "transformer_blocks.0.attn1.to_q.weight"},
             "a diffusion transformer (DiT, PixArt, SD3)",
             kNot},
        Case{"transformer",
             {"transformer_blocks.0.attn.to_q.weight", "x_embedder.weight"},
             "a diffusion transformer,",
             kNot},
        Case{"dit_original",
             {"x_embedder.proj.weight", "blocks.0.attn.qkv.weight"},
             "a diffusion transformer (DiT)",
             kNot},
        Case{"open_clip",
             {"transformer.resblocks.0.attn.in_proj_weight"},
             "an OpenCLIP text encoder",
             "CLIPTextModel"},
        Case{"clip_whole",
             {"text_model.final_layer_norm.weight", "vision_model.post_layernorm.weight"},
             "a whole CLIPModel",
             "text model alone"},
        Case{"t5",
             {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "shared.weight"},
             "a T5 text encoder",
             kNot},
        // What is read, and what is not known.
        Case{"diffusers_unet",
             {"conv_in.weight", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
              "time_embedding.linear_1.weight"},
             "",
             ""},
        Case{"diffusers_vae",
             {"encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"},
             "",
             ""},
        Case{"clip", {"text_model.encoder.layers.0.layer_norm1.weight"}, "", ""},
        Case{"unknown", {"a.b"}, "", ""}),
    [](const auto& param) { return param.param.test; });

TEST(ModelPathHint, KnowsFilesByTheirKind) {
  TempFolder folder;
  for (const auto& [name, want] : std::vector<std::pair<std::string, std::string>>{
           {"sd.ckpt",
            "; it looks like a pickled Stable Diffusion checkpoint, which is never read: convert it"},
           {"pytorch_model.bin", "; it looks like pickled weights, which are never read: save it again with"},
           {"model.onnx", "; it looks like an ONNX model, which is not supported"},
           {"model.gguf", "; it looks like a GGUF model, which is not supported"}}) {
    folder.Write(name, "bytes");
    EXPECT_THAT(ModelPathHint(folder / name), testing::StartsWith(want));
  }
  folder.Write("broken.safetensors", "bytes");
  EXPECT_EQ(ModelPathHint(folder / "broken.safetensors"), "");
  EXPECT_EQ(ModelPathHint(folder / "absent.safetensors"), "");
}

TEST(ModelPathHint, SaysWhatAFolderHoldsInsteadOfAPipeline) {
  TempFolder pickles;
  EXPECT_EQ(ModelPathHint(pickles.path()), "");
  pickles.Write("diffusion_pytorch_model.bin", "bytes");
  EXPECT_THAT(ModelPathHint(pickles.path()), HasSubstr("safe_serialization=True"));
  pickles.Write("config.json", "{\"_class_name\": \"UNet2DConditionModel\"}");
  EXPECT_EQ(
      ModelPathHint(pickles.path()),
      "; it holds a lone UNet2DConditionModel: save the whole pipeline with pipe.save_pretrained(FOLDER)");
  pickles.Write("config.json", "{\"architectures\": [\"CLIPTextModel\"]}");
  EXPECT_THAT(ModelPathHint(pickles.path()), HasSubstr("a lone CLIPTextModel"));
  pickles.Write("adapter_config.json", "{}");
  EXPECT_THAT(ModelPathHint(pickles.path()), HasSubstr("a LoRA"));
  pickles.Write("vae/config.json", "{}");
  pickles.Write("unet/config.json", "{}");
  EXPECT_EQ(ModelPathHint(pickles.path()),
            "; it holds components without their pipeline (unet, vae): save the whole pipeline with "
            "pipe.save_pretrained(FOLDER)");
}

TEST(WeightSource, AVariantAloneIsRefusedByItsName) {
  TempFolder folder;
  folder.Write("model.fp16.safetensors", Checkpoint({"a"}));
  const Status status = WeightSource::Open(folder.path(), "model", "vae").status();
  EXPECT_EQ(
      Message(status),
      "vae/model.fp16.safetensors: a variant, want model.safetensors: load it with its variant and save it "
      "without");
}

}  // namespace
}  // namespace tempera
