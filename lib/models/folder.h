// A diffusers folder: which pipeline it is and what its parts are.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "weights/weights.h"

namespace tempera {

// How a pipeline paints.
enum class PipelineKind : uint8_t {
  kPixel,        // a network paints the picture itself
  kLatent,       // and a first stage makes the picture of what it paints
  kLatentClass,  // the same, conditioned by cross-attention on a class's embedding
  kPrompt,       // the same, on a prompt: Stable Diffusion 1.x, 2.x
  kPromptPair,   // by two text encoders and the picture's sizes: Stable Diffusion XL
};

// One row a class of model_index.json.
struct PipelineRow {
  const char* class_name;
  PipelineKind kind;
  double guidance;  // scale where a request names none; 1: no guidance
  // Its network may see a mask and the latent of what it leaves, beside the sample.
  bool repaints = false;
};
const std::vector<PipelineRow>& Pipelines();

// A part of a pipeline with weights: its configuration read, its weights mapped.
struct ModelPart {
  std::string name;                 // the sub-folder: "unet", "vae", "text_encoder"
  std::string library, class_name;  // as model_index.json says
  Json config;
  std::string label;  // "vae/config.json"
  std::string stem;   // of its weights' files: "model"
  std::shared_ptr<const WeightSource> weights;

  bool is_first_stage() const { return name == "vae" || name == "vqvae"; }
  // A class embedder has none, only vectors.
  bool has_layers() const { return name != "class_embedder"; }
};

// Errors name files relative to the folder.
struct ModelFolder {
  std::filesystem::path path;
  std::string name;  // last component of the path
  Json index;        // model_index.json
  const PipelineRow* pipeline = nullptr;
  ModelPart network;
  Json scheduler_config;
  std::vector<std::string> class_names;  // from labels.json beside model_index.json, if there is one
  std::vector<std::string> prompts;      // from prompts.json: what it is calibrated on by default
  std::vector<ModelPart> stages;         // what stands around the network, by the name of its sub-folder
  std::vector<std::string> tokenizers;   // sub-folders

  const ModelPart* Stage(std::string_view stage_name) const;
  // Of every configuration and all weights' bytes.
  Result<std::string> Digest() const;
  // Takes what has been read of the weights out of the process's memory; the next read brings it back.
  void ReleasePages() const;
};
// Reads configurations and maps weights; no tensor is read. InvalidArgument names the file, the field or the
// part that is missing or of another class than the pipeline takes. NotFound for what has no model_index.json
// says what it looks like instead.
Result<ModelFolder> OpenModelFolder(const std::filesystem::path& path);
// The parts beside the network alone, as an artifact's folder holds them; `index` is the source's
// model_index.json.
Result<ModelFolder> OpenStages(const std::filesystem::path& path, const Json& index);
// What the stages' configurations say, before any of them is built. Classes of the class embedder, 0: there
// is none. Sides of a picture for one of its latent, 1 without a first stage.
Result<int64_t> EmbeddedClasses(const ModelFolder& folder);
Result<int64_t> LatentFactor(const ModelFolder& folder);
// Files of the stages and tokenizers, relative to the folder: what an artifact needs of it beside the
// network.
std::vector<std::string> StageFiles(const ModelFolder& folder);

}  // namespace tempera
