#include "models/folder.h"

#include <algorithm>
#include <set>

#include "base/files.h"
#include "weights/layout.h"

namespace tempera {
namespace fs = std::filesystem;

namespace {

constexpr uint64_t kConfigLimit = 16 << 20;

// A part that a kind of pipeline takes.
struct PartRow {
  PipelineKind kind;
  const char* name;
  std::vector<const char*> classes;
  const char* stem;  // of its weights; null: a tokenizer
};
constexpr const char* kDiffusers = "diffusion_pytorch_model";
const std::vector<PartRow>& Parts() {
  static const std::vector<PartRow> rows{
      {PipelineKind::kPixel, "unet", {"UNet2DModel"}, kDiffusers},
      {PipelineKind::kLatent, "unet", {"UNet2DModel"}, kDiffusers},
      {PipelineKind::kLatent, "vqvae", {"VQModel", "AutoencoderKL"}, kDiffusers},
      {PipelineKind::kLatentClass, "unet", {"UNet2DConditionModel"}, kDiffusers},
      {PipelineKind::kLatentClass, "vqvae", {"VQModel", "AutoencoderKL"}, kDiffusers},
      {PipelineKind::kLatentClass, "class_embedder", {"Embedding"}, "model"},
      {PipelineKind::kPrompt, "unet", {"UNet2DConditionModel"}, kDiffusers},
      {PipelineKind::kPrompt, "vae", {"AutoencoderKL"}, kDiffusers},
      {PipelineKind::kPrompt, "text_encoder", {"CLIPTextModel", "CLIPTextModelWithProjection"}, "model"},
      {PipelineKind::kPrompt, "tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}, nullptr},
      {PipelineKind::kPromptPair, "unet", {"UNet2DConditionModel"}, kDiffusers},
      {PipelineKind::kPromptPair, "vae", {"AutoencoderKL"}, kDiffusers},
      {PipelineKind::kPromptPair, "text_encoder", {"CLIPTextModel"}, "model"},
      {PipelineKind::kPromptPair, "text_encoder_2", {"CLIPTextModelWithProjection"}, "model"},
      {PipelineKind::kPromptPair, "tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}, nullptr},
      {PipelineKind::kPromptPair, "tokenizer_2", {"CLIPTokenizer", "CLIPTokenizerFast"}, nullptr},
  };
  return rows;
}

// Parts of published folders that painting does not need: they judge pictures or prompt with them.
constexpr const char* kLeftAside[] = {"safety_checker", "feature_extractor", "image_encoder", "watermark"};

Result<Json> ReadConfig(const fs::path& folder, const std::string& label) {
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / label, label, kConfigLimit));
  TEMPERA_ASSIGN(Json json, ParsePythonJson(text, label));
  if (!json.is_object()) return InvalidArgument(label, ": want a JSON object");
  return json;
}

// [library, class] of a part in model_index.json; both empty where it is null.
Result<std::pair<std::string, std::string>> PartOf(const Json& index, const std::string& name) {
  const auto it = index.find(name);
  if (it == index.end()) return std::pair<std::string, std::string>();
  const auto text = [](const Json& j) { return j.is_string() ? j.get<std::string>() : std::string(); };
  if (it->is_null()) return std::pair<std::string, std::string>();
  if (!it->is_array() || it->size() != 2)
    return InvalidArgument("model_index.json: ", name, ": got ", it->dump().substr(0, 80),
                           ", want [library, class]");
  return std::pair(text((*it)[0]), text((*it)[1]));
}

// Of all files, in the order of their names.
Result<std::string> FolderDigest(const fs::path& folder, const std::string& label) {
  std::set<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(folder, error))
    if (file.is_regular_file(error)) names.insert(file.path().filename().string());
  if (error) return InvalidArgument(label, ": cannot be read: ", error.message());
  std::string text;
  for (const std::string& name : names) {
    TEMPERA_ASSIGN(const std::string digest, Sha256File(folder / name, Cat(label, "/", name)));
    text += Cat(name, " ", digest, "\n");
  }
  return Sha256Hex(text);
}

template <typename List>
std::string Joined(const List& words) {
  std::string text;
  for (const auto& word : words) text += Cat(text.empty() ? "" : ", ", word);
  return text;
}

Status ReadParts(ModelFolder& folder, bool with_network) {
  std::set<std::string> known{"scheduler"};
  for (const PartRow& row : Parts()) {
    if (row.kind != folder.pipeline->kind) continue;
    known.insert(row.name);
    const std::string name = row.name;
    if (name == "unet" && !with_network) continue;
    TEMPERA_ASSIGN(const auto part, PartOf(folder.index, name));
    const auto& [library, class_name] = part;
    if (class_name.empty() && name != "unet")
      return InvalidArgument("model_index.json: component \"", name, "\" is missing, ",
                             folder.pipeline->class_name, " wants a ", Joined(row.classes));
    // Hand-written indices of the first kind name no more than the pipeline.
    if (!class_name.empty() &&
        std::find(row.classes.begin(), row.classes.end(), class_name) == row.classes.end())
      return InvalidArgument("model_index.json: component \"", name, "\" is not supported, got ", class_name,
                             ", want ", Joined(row.classes));
    if (row.stem == nullptr) {
      if (!fs::is_directory(folder.path / name))
        return InvalidArgument(name, ": is missing, want a folder with the tokenizer");
      folder.tokenizers.push_back(name);
      continue;
    }
    ModelPart stage{.name = name,
                    .library = library,
                    .class_name = class_name,
                    .config = {},
                    .label = name + "/config.json",
                    .stem = row.stem,
                    .weights = nullptr};
    TEMPERA_ASSIGN(stage.config, ReadConfig(folder.path, stage.label));
    if (row.stem == kDiffusers) {
      const std::string own = stage.config.value("_class_name", Json()).is_string()
                                  ? stage.config["_class_name"].get<std::string>()
                                  : "";
      if (std::find(row.classes.begin(), row.classes.end(), own) == row.classes.end())
        return InvalidArgument(stage.label, ": _class_name is not supported, got \"", own, "\", want ",
                               Joined(row.classes));
    }
    TEMPERA_ASSIGN(stage.weights, WeightSource::Open(folder.path / name, row.stem, name));
    if (name == "unet")
      folder.network = std::move(stage);
    else
      folder.stages.push_back(std::move(stage));
  }
  for (const auto& [key, value] : folder.index.items()) {
    if (key.starts_with("_") || known.contains(key) || !value.is_array()) continue;
    TEMPERA_ASSIGN(const auto part, PartOf(folder.index, key));
    if (part.second.empty() ||
        std::find(std::begin(kLeftAside), std::end(kLeftAside), key) != std::end(kLeftAside))
      continue;
    return InvalidArgument("model_index.json: component \"", key, "\" is not supported, got ", part.second);
  }
  return OkStatus();
}

}  // namespace

const std::vector<PipelineRow>& Pipelines() {
  static const std::vector<PipelineRow> rows{
      {"DDPMPipeline", PipelineKind::kPixel, 1},
      {"DDIMPipeline", PipelineKind::kPixel, 1},
      {"LDMPipeline", PipelineKind::kLatent, 1},
      {"LDMClassConditionalPipeline", PipelineKind::kLatentClass, 3},
      {"StableDiffusionPipeline", PipelineKind::kPrompt, 7.5},
      {"StableDiffusionImg2ImgPipeline", PipelineKind::kPrompt, 7.5},
      {"StableDiffusionInpaintPipeline", PipelineKind::kPrompt, 7.5, true},
      {"StableDiffusionXLPipeline", PipelineKind::kPromptPair, 5},
      {"StableDiffusionXLImg2ImgPipeline", PipelineKind::kPromptPair, 5},
      {"StableDiffusionXLInpaintPipeline", PipelineKind::kPromptPair, 5, true},
  };
  return rows;
}

const ModelPart* ModelFolder::Stage(std::string_view stage_name) const {
  for (const ModelPart& stage : stages)
    if (stage.name == stage_name) return &stage;
  return nullptr;
}

Result<std::string> ModelFolder::Digest() const {
  TEMPERA_ASSIGN(const std::string weights_digest, network.weights->Digest());
  std::string text = Cat(pipeline->class_name, "\n", CanonicalJson(network.config), "\n",
                         CanonicalJson(scheduler_config), "\n", weights_digest);
  for (const ModelPart& stage : stages) {
    TEMPERA_ASSIGN(const std::string digest, stage.weights->Digest());
    text += Cat("\n", stage.name, "\n", CanonicalJson(stage.config), "\n", digest);
  }
  for (const std::string& tokenizer : tokenizers) {
    TEMPERA_ASSIGN(const std::string digest, FolderDigest(path / tokenizer, tokenizer));
    text += Cat("\n", tokenizer, "\n", digest);
  }
  return Sha256Hex(text);
}

void ModelFolder::ReleasePages() const {
  network.weights->ReleasePages();
  for (const ModelPart& stage : stages) stage.weights->ReleasePages();
}

namespace {

// What stands beside model_index.json, if it does.
Status ReadStrings(const fs::path& folder, const std::string& name, std::vector<std::string>& strings) {
  const std::string file = name + ".json";
  if (!fs::exists(folder / file)) return OkStatus();
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / file, file, kConfigLimit));
  TEMPERA_ASSIGN(const Json read, ParseJson(text, file));
  const Json wrapped{{name, read}};
  Fields fields(wrapped, file);
  fields.Need(name.c_str(), strings);
  return fields.Finish();
}

Status FindPipeline(ModelFolder& folder) {
  const auto name = folder.index.find("_class_name");
  const std::string class_name =
      name != folder.index.end() && name->is_string() ? name->get<std::string>() : "";
  std::vector<std::string> known;
  for (const PipelineRow& row : Pipelines()) {
    if (class_name == row.class_name) folder.pipeline = &row;
    known.emplace_back(row.class_name);
  }
  if (folder.pipeline != nullptr) return OkStatus();
  return InvalidArgument("model_index.json: _class_name is not supported, got \"", class_name, "\", want ",
                         Joined(known));
}

}  // namespace

Result<ModelFolder> OpenModelFolder(const fs::path& path) {
  ModelFolder folder;
  folder.path = path;
  folder.name = path.filename().string();
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path / "model_index.json", error)))
    return NotFound("model_index.json: does not exist, want the folder of a diffusers pipeline",
                    ModelPathHint(path));
  TEMPERA_ASSIGN(folder.index, ReadConfig(path, "model_index.json"));
  TEMPERA_TRY(FindPipeline(folder));
  TEMPERA_TRY(ReadParts(folder, true));
  TEMPERA_ASSIGN(folder.scheduler_config, ReadConfig(path, "scheduler/scheduler_config.json"));
  TEMPERA_TRY(ReadStrings(path, "labels", folder.class_names));
  TEMPERA_TRY(ReadStrings(path, "prompts", folder.prompts));
  return folder;
}

Result<ModelFolder> OpenStages(const fs::path& path, const Json& index) {
  ModelFolder folder;
  folder.path = path;
  folder.index = index;
  TEMPERA_TRY(FindPipeline(folder));
  TEMPERA_TRY(ReadParts(folder, false));
  return folder;
}

Result<int64_t> EmbeddedClasses(const ModelFolder& folder) {
  const ModelPart* embedder = folder.Stage("class_embedder");
  if (embedder == nullptr) return 0;
  int64_t rows = 0;
  Fields f(embedder->config, embedder->label);
  f.Need("num_embeddings", rows);
  f.Within("num_embeddings", rows, 2, 1 << 20);
  TEMPERA_TRY(f.status());
  return rows - 1;  // the last one stands for no class
}

Result<int64_t> LatentFactor(const ModelFolder& folder) {
  for (const ModelPart& stage : folder.stages) {
    if (!stage.is_first_stage()) continue;
    std::vector<int64_t> channels{64};  // the classes' default
    Fields f(stage.config, stage.label);
    f.Get("block_out_channels", channels);
    if (channels.empty() || channels.size() > 16)
      f.Fail("block_out_channels", Cat("has ", channels.size(), " entries, want 1 to 16"));
    TEMPERA_TRY(f.status());
    return int64_t{1} << (channels.size() - 1);
  }
  return 1;
}

std::vector<std::string> StageFiles(const ModelFolder& folder) {
  std::vector<std::string> files;
  for (const ModelPart& stage : folder.stages) {
    files.push_back(stage.label);
    for (const std::string& file : stage.weights->files()) files.push_back(Cat(stage.name, "/", file));
  }
  for (const std::string& tokenizer : folder.tokenizers)
    for (const char* file : {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "added_tokens.json"})
      if (fs::exists(folder.path / tokenizer / file)) files.push_back(Cat(tokenizer, "/", file));
  return files;
}

}  // namespace tempera
