// Engines from their parts: what Engine's two loaders and the evaluation of an unfinished artifact share.
#pragma once

#include "artifact/artifact.h"
#include "pipeline/engine.h"

namespace tempera {

struct ModelFolder;

// Engine::LoadModel of a folder that is open: its weights stay mapped once.
Result<std::shared_ptr<const Engine>> LoadModelOf(const CallScope& scope, const ModelFolder& folder);

// An engine over the tensors of `folder`, read as `manifest` says; the folder's own manifest.json is not
// looked at.
Result<std::shared_ptr<const Engine>> LoadArtifactAs(const CallScope& scope,
                                                     const std::filesystem::path& folder,
                                                     const Manifest& manifest, const std::string& id,
                                                     const EngineOptions& options);

// Manifest.model and Manifest.schedule, as the quantizer writes them and the loader reads them.
struct ArtifactModel {
  std::string name, pipeline, family, network_label;
  Json network_config;
  Json index;  // model_index.json of the source
  std::vector<std::string> class_names;
  std::vector<int64_t> latent;   // channels, height and width that it was calibrated on
  std::vector<int64_t> picture;  // the same of the pictures
  int64_t classes = 0;           // that a request may name
  int stage_bits = 32;           // of the layers of text encoders and first stage: 32 or 8
  int temporal_bits = 0;         // of the feature cache; 0: the method keeps none
  double guidance = 0;           // scale that temporal features hold, where they depend on it; else 0
  std::vector<std::string> dropped_parameters;  // of time layers that the cache made needless
  Json ToJson() const;
  static Result<ArtifactModel> FromJson(const Json& json);
};
struct ArtifactSchedule {
  std::string scheduler;
  Json config;    // the model's scheduler_config.json
  Json options;   // that differ from it
  int steps = 0;  // as requested
  double eta = 0;
  std::vector<double> timesteps;  // of each network evaluation
  Json ToJson() const;
  static Result<ArtifactSchedule> FromJson(const Json& json);
};

}  // namespace tempera
