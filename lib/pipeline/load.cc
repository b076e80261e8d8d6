#include "pipeline/load.h"

namespace tempera {

Json ArtifactModel::ToJson() const {
  return {{"name", name},
          {"pipeline", pipeline},
          {"family", family},
          {"network_label", network_label},
          {"network_config", network_config},
          {"index", index},
          {"class_names", class_names},
          {"latent", latent},
          {"picture", picture},
          {"classes", classes},
          {"stage_bits", stage_bits},
          {"temporal_bits", temporal_bits},
          {"guidance", guidance},
          {"dropped_parameters", dropped_parameters}};
}

Result<ArtifactModel> ArtifactModel::FromJson(const Json& json) {
  ArtifactModel m;
  Fields f(json, "manifest.json: model");
  f.Need("name", m.name);
  f.Need("pipeline", m.pipeline);
  f.Need("family", m.family);
  f.Need("network_label", m.network_label);
  f.Need("class_names", m.class_names);
  f.Need("latent", m.latent);
  f.Need("picture", m.picture);
  f.Need("classes", m.classes);
  f.Get("stage_bits", m.stage_bits);
  f.Need("temporal_bits", m.temporal_bits);
  f.Need("guidance", m.guidance);
  f.Need("dropped_parameters", m.dropped_parameters);
  if (const Json* config = f.Raw("network_config"); config != nullptr)
    m.network_config = *config;
  else
    f.Fail("network_config", "is missing");
  if (const Json* index = f.Raw("index"); index != nullptr)
    m.index = *index;
  else
    f.Fail("index", "is missing");
  for (const auto& [key, sides] : {std::pair("latent", m.latent), std::pair("picture", m.picture)})
    if (sides.size() != 3) f.Fail(key, "is wrong, want channels, height and width");
  if (m.stage_bits != 8 && m.stage_bits != 32)
    f.Fail("stage_bits", Cat("is wrong, got ", m.stage_bits, ", want 8 or 32"));
  TEMPERA_TRY(f.Finish());
  return m;
}

Json ArtifactSchedule::ToJson() const {
  return {{"scheduler", scheduler}, {"config", config}, {"options", options},
          {"steps", steps},         {"eta", eta},       {"timesteps", timesteps}};
}

Result<ArtifactSchedule> ArtifactSchedule::FromJson(const Json& json) {
  ArtifactSchedule s;
  Fields f(json, "manifest.json: schedule");
  f.Need("scheduler", s.scheduler);
  f.Need("steps", s.steps);
  f.Need("eta", s.eta);
  f.Need("timesteps", s.timesteps);
  for (const auto& [key, target] : {std::pair("config", &s.config), std::pair("options", &s.options)}) {
    if (const Json* raw = f.Raw(key); raw != nullptr)
      *target = *raw;
    else
      f.Fail(key, "is missing");
  }
  TEMPERA_TRY(f.Finish());
  return s;
}

}  // namespace tempera
