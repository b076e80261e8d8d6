// Engines from folders.
#include <ATen/Functions.h>

#include <algorithm>
#include <set>

#include "artifact/slots.h"
#include "base/executors.h"
#include "base/files.h"
#include "models/folder.h"
#include "nn/slot_io.h"
#include "pipeline/load.h"
#include "pipeline/network_engine.h"
#include "tib/features_io.h"

namespace tempera {
namespace {

// `latent`: height and width of the latent that the network is made for, or was calibrated on.
void FillGeometry(const Denoiser& network, const Stages& stages, const PipelineRow& pipeline,
                  std::array<int64_t, 2> latent, EngineInfo& info) {
  info.pipeline = pipeline.class_name;
  info.family = network.info().family;
  info.channels = stages.image_channels();
  info.size_step = stages.factor();
  info.any_size = pipeline.kind != PipelineKind::kPixel;
  info.height = latent[0] * stages.factor();
  info.width = latent[1] * stages.factor();
  info.takes_prompt = stages.takes_prompt();
  info.takes_image = stages.takes_prompt() && stages.reads_pictures();
  info.guidance = pipeline.guidance;
  info.classes = stages.classes();
  info.weight_bytes = network.resident_bytes();
  info.stage_bytes = stages.bytes();
}

}  // namespace

Result<std::shared_ptr<const Engine>> Engine::LoadModel(const CallScope& scope,
                                                        const std::filesystem::path& path) {
  TEMPERA_TRY(scope.Check());
  TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(path));
  return LoadModelOf(scope, folder);
}

Result<std::shared_ptr<const Engine>> LoadModelOf(const CallScope& scope, const ModelFolder& folder) {
  TEMPERA_TRY(scope.Check());
  auto engine = std::make_shared<NetworkEngine>();
  nn::Params params(folder.network.weights, at::kCPU);
  TEMPERA_ASSIGN(engine->network_, BuildDenoiser(folder.network.config, folder.network.label, params));
  engine->scheduler_config_ = folder.scheduler_config;
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler({.config = folder.scheduler_config}));
  EngineInfo& info = engine->info_;
  info.name = folder.name;
  info.class_names = folder.class_names;
  TEMPERA_ASSIGN(info.source_sha256, folder.Digest());
  TEMPERA_ASSIGN(engine->stages_, Stages::Open(folder, engine->network_->info()));
  const DenoiserInfo& network = engine->network_->info();
  FillGeometry(*engine->network_, *engine->stages_, *folder.pipeline, {network.height, network.width}, info);
  if (!info.class_names.empty() && static_cast<int64_t>(info.class_names.size()) != info.classes)
    return InvalidArgument("labels.json: got ", info.class_names.size(), " names, want ", info.classes);
  info.scheduler = scheduler->name();
  info.steps = static_cast<int>(scheduler->steps());
  info.eta = scheduler->eta();
  info.any_timestep = true;
  for (const SchedulerRow& row : Schedulers()) info.schedulers.push_back(row.name);
  return engine;
}

Result<std::shared_ptr<const Engine>> Engine::LoadArtifact(const CallScope& scope,
                                                           const std::filesystem::path& folder,
                                                           const std::string& id,
                                                           const EngineOptions& options) {
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / kManifestFile, kManifestFile));
  TEMPERA_ASSIGN(const Manifest manifest, Manifest::Parse(text, kManifestFile));
  return LoadArtifactAs(scope, folder, manifest, id, options);
}

Result<std::shared_ptr<const Engine>> LoadArtifactAs(const CallScope& scope,
                                                     const std::filesystem::path& folder,
                                                     const Manifest& manifest, const std::string& id,
                                                     const EngineOptions& options) {
  TEMPERA_TRY(scope.Check());
  TEMPERA_ASSIGN(const ArtifactModel model, ArtifactModel::FromJson(manifest.model));
  TEMPERA_ASSIGN(const ArtifactSchedule schedule, ArtifactSchedule::FromJson(manifest.schedule));
  TEMPERA_ASSIGN(const auto weights, WeightSource::OpenFile(folder / kWeightsFile, kWeightsFile));
  TEMPERA_ASSIGN(const auto tables, WeightSource::OpenFile(folder / kTablesFile, kTablesFile));

  auto engine = std::make_shared<NetworkEngine>();
  TEMPERA_ASSIGN(engine->schedule_, CreateScheduler({.config = schedule.config,
                                                     .label = "manifest.json: schedule",
                                                     .name = schedule.scheduler,
                                                     .steps = schedule.steps,
                                                     .eta = schedule.eta,
                                                     .options = schedule.options}));
  engine->scheduler_config_ = schedule.config;
  engine->scheduler_options_ = schedule.options;
  if (engine->schedule_->timesteps() != schedule.timesteps)
    return FailedPrecondition(
        "manifest.json: schedule: this build makes other timesteps of it, quantize again");

  // Codes stand in the file instead of quantized weights; time layers may have been dropped.
  TEMPERA_ASSIGN(const std::vector<SlotRow> rows, ParseSlots(manifest.slots));
  std::set<std::string> absent(model.dropped_parameters.begin(), model.dropped_parameters.end());
  nn::Params params(weights, at::kCPU);
  for (const SlotRow& row : rows) {
    if (row.weight_bits > 0) {
      absent.insert(row.slot + ".weight");
      for (const char* tensor : {"codes", "scale", "zero"}) {
        params.MarkUsed(Cat(row.slot, ".weight.", tensor));
        for (int64_t p = 0; p < row.parts && row.parts > 1; ++p)
          params.MarkUsed(Cat(row.slot, ".weight.", p, ".", tensor));
      }
    }
  }
  params.SetAbsent([&](const std::string& name) { return absent.contains(name); });
  TEMPERA_ASSIGN(engine->network_, BuildDenoiser(model.network_config, "manifest.json: model", params));
  Denoiser& network = *engine->network_;
  const std::set<std::string> dropped(model.dropped_parameters.begin(), model.dropped_parameters.end());
  const auto steps = static_cast<int64_t>(schedule.timesteps.size());
  const Status filled = nn::TorchEdge("artifact", [&]() -> Status {
    const at::NoGradGuard guard;
    std::vector<nn::Slot*> coded;
    for (const SlotRow& row : rows) {
      nn::Slot* slot = network.FindSlot(row.slot);
      if (slot == nullptr || static_cast<int64_t>(slot->parts.size()) != row.parts)
        return DataLoss("manifest.json: slots: the network has no such layer \"", row.slot, "\" of ",
                        row.parts, " parts");
      slot->weight_bits = row.weight_bits;
      slot->activation_bits = row.activation_bits;
      slot->dynamic = row.dynamic;
      if (row.equalized) slot->gain = at::ones({slot->in_channels});
      if (dropped.contains(row.slot + ".weight")) continue;
      if (slot->activation_bits > 0) TEMPERA_TRY(nn::ImportRanges(*slot, nn::FinderOf(tables), steps));
      if (slot->weight_bits > 0) {
        coded.push_back(slot);
      } else if (slot->role == nn::Role::kMatmul && slot->activation_bits > 0) {
        slot->state = nn::State::kInteger;
      }
    }
    Lanes lanes(AvailableCpus(), &InitComputeThread);
    const Status packed = lanes.ParallelFor(static_cast<int64_t>(coded.size()), [&](int64_t i) -> Status {
      TEMPERA_TRY(scope.Check());
      return nn::TorchEdge("artifact", [&] {
        const at::NoGradGuard no_gradients;
        return nn::ImportPacked(*coded[static_cast<size_t>(i)], nn::FinderOf(weights));
      });
    });
    TEMPERA_TRY(packed);
    for (size_t i = 0; i < network.temporal_slots().size(); ++i)
      network.temporal_slots()[i]->temporal_index = static_cast<int>(i);
    engine->features_of_request_ = model.temporal_bits > 0 && network.info().added_width > 0;
    engine->temporal_bits_ = model.temporal_bits;
    engine->features_guidance_ = model.guidance;
    if (engine->features_of_request_) {
      if (!dropped.empty()) {
        TEMPERA_ASSIGN(engine->of_tau_, nn::FinderOf(tables)("of_tau"));
        if (engine->of_tau_.dim() != 2 || engine->of_tau_.size(0) != steps)
          return DataLoss("tensor of_tau: wrong shape, got ", engine->of_tau_.sizes(), ", want ", steps,
                          " rows");
      }
      return OkStatus();
    }
    if (model.temporal_bits > 0) {
      TEMPERA_ASSIGN(engine->cache_, ImportCache(network, model.temporal_bits, steps, nn::FinderOf(tables)));
    } else {
      // Features come from the layers, and are compared with the reference all the same.
      engine->cache_ = FeatureCache::None(network, steps, std::max<int64_t>(1, network.info().classes));
    }
    if (!dropped.empty() && !engine->cache_.full())
      return DataLoss("manifest.json: time layers were dropped, but the feature cache is not full");
    return OkStatus();
  });
  TEMPERA_TRY(filled);

  EngineInfo& info = engine->info_;
  info.is_artifact = true;
  info.id = id;
  info.name = model.name;
  info.source_sha256 = manifest.source_sha256;
  info.class_names = model.class_names;
  TEMPERA_ASSIGN(const ModelFolder parts, OpenStages(folder, model.index));
  TEMPERA_ASSIGN(engine->stages_, Stages::Open(parts, network.info(), model.stage_bits));
  FillGeometry(network, *engine->stages_, *parts.pipeline, {model.latent[1], model.latent[2]}, info);
  info.scheduler = schedule.scheduler;
  info.steps = schedule.steps;
  info.eta = engine->schedule_->eta();
  info.timesteps = schedule.timesteps;
  info.cache_bytes = engine->cache_.bytes();
  info.cache_entries = engine->cache_.entries();
  for (size_t i = 0; i < network.temporal_slots().size(); ++i) {
    for (const Unit& unit : network.units())
      if (std::find(unit.slots.begin(), unit.slots.end(), network.temporal_slots()[i]) != unit.slots.end())
        engine->group_of_feature_.push_back(unit.group);
  }
  TEMPERA_ASSIGN(const auto reference, WeightSource::OpenFile(folder / kReferenceFile, kReferenceFile));
  engine->metric_ = options.metric;
  info.any_timestep = dropped.empty() || !HoldsFeatures(*reference);
  if (!HoldsFeatures(*reference) && (options.metric || !dropped.empty())) {
    TEMPERA_ASSIGN(engine->reference_layers_, BuildReferenceLayers(model.network_config, network, reference));
    info.reference_bytes = engine->reference_layers_->resident_bytes();
  }
  if (options.metric && !engine->features_of_request_) {
    TEMPERA_ASSIGN(engine->reference_,
                   ImportReference(scope, model.network_config, network, schedule.timesteps, reference));
    for (const at::Tensor& f : engine->reference_->features)
      info.reference_bytes += static_cast<int64_t>(f.nbytes());
  }
  if (info.any_timestep)
    for (const SchedulerRow& row : Schedulers()) info.schedulers.push_back(row.name);
  else
    info.schedulers = {schedule.scheduler};
  TEMPERA_ASSIGN(info.baseline, ParseBaseline(manifest.baseline));
  return engine;
}

}  // namespace tempera
