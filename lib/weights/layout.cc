#include "weights/layout.h"

#include <algorithm>
#include <set>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

constexpr char kConvert[] =
    "convert it with diffusers, StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)";
constexpr char kConvertXl[] =
    "convert it with diffusers, StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(FOLDER)";
constexpr char kFuse[] =
    "fuse it into its base model with diffusers, pipe.load_lora_weights(FILE), pipe.fuse_lora(), "
    "pipe.unload_lora_weights(), pipe.save_pretrained(FOLDER)";
constexpr char kSaveInner[] = "save the state of the module inside";
constexpr char kSafe[] = "save it again with save_pretrained(FOLDER, safe_serialization=True)";

// Recognised by one tensor whose name begins with `prefix` and contains `part`.
struct LayoutRow {
  const char* prefix;
  const char* part;
  const char* looks_like;
  const char* advice;  // null: there is no way from it to a model
};
// The first that fits any tensor: what is added to a model stands before what it is added to, and what
// contains another before that.
constexpr LayoutRow kLayouts[] = {
    {"", ".lora_A.", "a LoRA", kFuse},
    {"", ".lora_down.", "a LoRA", kFuse},
    {"", ".lora.down.", "a LoRA", kFuse},
    {"", "_lora.down.", "a LoRA", kFuse},
    {"", ".hada_w1_a", "a LoRA of the LoHa kind", kFuse},
    {"", ".lokr_w1", "a LoRA of the LoKr kind", kFuse},
    {"", "controlnet_cond_embedding.", "a ControlNet", nullptr},
    {"control_model.", "", "a ControlNet", nullptr},
    {"", ".weight.absmax", "weights quantized by bitsandbytes", "save them without quantization"},
    {"conditioner.embedders.", "", "a single-file Stable Diffusion XL checkpoint", kConvertXl},
    {"model.diffusion_model.joint_blocks.", "", "a Stable Diffusion 3 checkpoint", nullptr},
    {"model.diffusion_model.double_blocks.", "", "a Flux checkpoint", nullptr},
    {"double_blocks.", "", "a Flux checkpoint", nullptr},
    {"model.diffusion_model.", "", "a single-file Stable Diffusion checkpoint", kConvert},
    {"first_stage_model.", "", "a single-file Stable Diffusion checkpoint", kConvert},
    {"cond_stage_model.", "", "a single-file Stable Diffusion checkpoint", kConvert},
    {"module.", "", "a state saved through a DataParallel wrapper", kSaveInner},
    {"_orig_mod.", "", "a state saved through torch.compile", kSaveInner},
    {"input_blocks.", ".transformer_blocks.", "the UNet of a single-file Stable Diffusion checkpoint",
     kConvert},
    {"input_blocks.", "", "a UNet of guided-diffusion", nullptr},
    {"encoder.down.", ".block.", "the autoencoder of a single-file Stable Diffusion checkpoint", kConvert},
    {"decoder.up.", ".block.", "the autoencoder of a single-file Stable Diffusion checkpoint", kConvert},
    {"temb.dense.", "", "a UNet of the original DDPM code", nullptr},
    {"downs.", "", "a UNet of denoising-diffusion-pytorch", nullptr},
    {"pos_embed.proj.", "", "a diffusion transformer (DiT, PixArt, SD3)", nullptr},
    {"transformer_blocks.", "", "a diffusion transformer", nullptr},
    {"x_embedder.proj.", "", "a diffusion transformer (DiT)", nullptr},
    {"", "transformer.resblocks.", "an OpenCLIP text encoder", "save it as a CLIPTextModel of transformers"},
    {"vision_model.", "", "a whole CLIPModel", "save its text model alone"},
    {"", ".SelfAttention.relative_attention_bias.", "a T5 text encoder", nullptr},
};

std::string Looks(std::string_view what, const char* advice) {
  return advice == nullptr ? Cat("; it looks like ", what, ", which is not supported")
                           : Cat("; it looks like ", what, ": ", advice);
}

bool IsPickle(const fs::path& file) {
  const std::string extension = file.extension().string();
  return extension == ".ckpt" || extension == ".bin" || extension == ".pt" || extension == ".pth";
}

std::string FileHint(const fs::path& file) {
  const std::string extension = file.extension().string();
  if (extension == ".safetensors") {
    const auto source = WeightSource::OpenFile(file, "");
    return source.ok() ? LayoutHint(**source) : "";
  }
  if (extension == ".ckpt")
    return Looks("a pickled Stable Diffusion checkpoint, which is never read", kConvert);
  if (IsPickle(file)) return Looks("pickled weights, which are never read", kSafe);
  if (extension == ".onnx") return Looks("an ONNX model", nullptr);
  if (extension == ".gguf") return Looks("a GGUF model", nullptr);
  return "";
}

// Of a component's configuration: "UNet2DModel"; empty if it names none.
std::string ClassOf(const fs::path& config) {
  constexpr uint64_t kLimit = 1 << 20;
  const Result<std::string> text = ReadFile(config, "config.json", kLimit);
  if (!text.ok()) return "";
  const Result<Json> json = ParsePythonJson(*text, "config.json");
  if (!json.ok() || !json->is_object()) return "";
  const auto word = [](const Json& j) { return j.is_string() ? j.get<std::string>() : std::string(); };
  if (const auto it = json->find("_class_name"); it != json->end()) return word(*it);
  if (const auto it = json->find("architectures"); it != json->end() && it->is_array() && it->size() == 1)
    return word(it->front());
  return "";
}

}  // namespace

std::string LayoutHint(const WeightSource& source) {
  for (const LayoutRow& row : kLayouts)
    for (const auto& [name, view] : source.tensors())
      if (name.starts_with(row.prefix) && name.find(row.part) != name.npos)
        return Looks(row.looks_like, row.advice);
  return "";
}

std::string ModelPathHint(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return FileHint(path);
  std::set<fs::path> files;
  std::string components;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) files.insert(it->path());
  }
  for (const char* component : {"unet", "vae", "vqvae", "text_encoder", "text_encoder_2"})
    if (fs::exists(path / component / "config.json", error))
      components += Cat(components.empty() ? "" : ", ", component);
  if (!components.empty())
    return Cat("; it holds components without their pipeline (", components,
               "): save the whole pipeline with pipe.save_pretrained(FOLDER)");
  if (files.contains(path / "adapter_config.json")) return Looks("a LoRA", kFuse);
  // The names of weights tell more than a class.
  for (const fs::path& file : files)
    if (std::string hint = FileHint(file); !hint.empty() && !IsPickle(file)) return hint;
  if (const std::string name = ClassOf(path / "config.json"); !name.empty())
    return Cat("; it holds a lone ", name.substr(0, 100),
               ": save the whole pipeline with pipe.save_pretrained(FOLDER)");
  for (const fs::path& file : files)
    if (IsPickle(file)) return FileHint(file);
  return "";
}

}  // namespace tempera
