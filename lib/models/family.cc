#include "models/family.h"

#include <ATen/Functions.h>

#include "base/files.h"

namespace tempera {
namespace fs = std::filesystem;

extern const ModelFamily kUnetFamily;  // unet.cc

const std::vector<ModelFamily>& Families() {
  static const std::vector<ModelFamily> families{kUnetFamily};
  return families;
}

nn::Slot* Denoiser::FindSlot(std::string_view name) {
  for (nn::Slot& slot : slots_)
    if (slot.name == name) return &slot;
  return nullptr;
}

void Denoiser::FinishProgram() {
  last_use_.assign(units_.size() + 1, -1);
  for (size_t u = 0; u < units_.size(); ++u) {
    TEMPERA_CHECK(units_[u].output == static_cast<int>(u) + 1, units_[u].name);
    for (const int value : units_[u].inputs) last_use_[static_cast<size_t>(value)] = static_cast<int>(u);
  }
}

at::Tensor Denoiser::Forward(nn::ForwardContext& ctx, const at::Tensor& x) const {
  std::vector<at::Tensor> values(units_.size() + 1);
  values[0] = x;
  std::vector<at::Tensor> inputs;
  for (size_t u = 0; u < units_.size(); ++u) {
    const Unit& unit = units_[u];
    inputs.clear();
    for (const int value : unit.inputs) inputs.push_back(values[static_cast<size_t>(value)]);
    values[static_cast<size_t>(unit.output)] = unit.run(ctx, inputs);
    for (const int value : unit.inputs)
      if (last_use_[static_cast<size_t>(value)] == static_cast<int>(u))
        values[static_cast<size_t>(value)] = at::Tensor();
  }
  return values.back();
}

Result<std::unique_ptr<Denoiser>> BuildDenoiser(const Json& config, const std::string& label,
                                                nn::Params& params) {
  if (!config.is_object()) return InvalidArgument(label, ": want a JSON object");
  const auto it = config.find("_class_name");
  const std::string class_name = it != config.end() && it->is_string() ? it->get<std::string>() : "";
  std::string known;
  for (const ModelFamily& family : Families()) {
    if (class_name == family.class_name)
      return nn::TorchEdge(label, [&] { return family.build(config, label, params); });
    known += Cat(known.empty() ? "" : ", ", family.class_name);
  }
  return InvalidArgument(label, ": _class_name is not supported, got \"", class_name, "\", want one of ",
                         known);
}

namespace {

constexpr uint64_t kConfigLimit = 16 << 20;

Result<Json> ReadConfig(const fs::path& folder, const std::string& label) {
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / label, label, kConfigLimit));
  TEMPERA_ASSIGN(Json json, ParsePythonJson(text, label));
  if (!json.is_object()) return InvalidArgument(label, ": want a JSON object");
  return json;
}

// "Pipeline classes that paint from a network and a scheduler alone."
constexpr const char* kPipelines[] = {"DDPMPipeline", "DDIMPipeline"};

}  // namespace

Result<std::string> ModelFolder::Digest() const {
  TEMPERA_ASSIGN(const std::string weights_digest, weights->Digest());
  return Sha256Hex(Cat(pipeline, "\n", CanonicalJson(network_config), "\n", CanonicalJson(scheduler_config),
                       "\n", weights_digest));
}

Result<ModelFolder> OpenModelFolder(const fs::path& path) {
  ModelFolder folder;
  folder.path = path;
  folder.name = path.filename().string();
  TEMPERA_ASSIGN(const Json index, ReadConfig(path, "model_index.json"));
  const auto name = index.find("_class_name");
  folder.pipeline = name != index.end() && name->is_string() ? name->get<std::string>() : "";
  if (std::find(std::begin(kPipelines), std::end(kPipelines), folder.pipeline) == std::end(kPipelines))
    return InvalidArgument("model_index.json: _class_name is not supported, got \"", folder.pipeline,
                           "\", want DDPMPipeline or DDIMPipeline");
  for (const auto& [key, value] : index.items()) {
    if (key.starts_with("_") || key == "unet" || key == "scheduler") continue;
    if (!value.is_null())
      return InvalidArgument("model_index.json: component \"", key, "\" is not supported");
  }
  folder.network_label = "unet/config.json";
  TEMPERA_ASSIGN(folder.network_config, ReadConfig(path, folder.network_label));
  TEMPERA_ASSIGN(folder.scheduler_config, ReadConfig(path, "scheduler/scheduler_config.json"));
  if (fs::exists(path / "labels.json")) {
    TEMPERA_ASSIGN(const std::string text, ReadFile(path / "labels.json", "labels.json", kConfigLimit));
    TEMPERA_ASSIGN(const Json labels, ParseJson(text, "labels.json"));
    const Json wrapped{{"labels", labels}};
    Fields fields(wrapped, "labels.json");
    fields.Need("labels", folder.class_names);
    TEMPERA_TRY(fields.Finish());
  }
  TEMPERA_ASSIGN(folder.weights, WeightSource::Open(path / "unet", "diffusion_pytorch_model", "unet"));
  return folder;
}

}  // namespace tempera
