#include "pipeline/engine.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cmath>
#include <set>

#include "artifact/slots.h"
#include "base/files.h"
#include "kernels/kernels.h"
#include "models/family.h"
#include "nn/slot_io.h"
#include "pipeline/load.h"
#include "schedulers/scheduler.h"
#include "tib/features_io.h"
#include "tib/trace.h"

namespace tempera {
namespace {

double Milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

// [C, H, W] in [-1, 1] to 8 bits: round half to even of 255 * clamp(x / 2 + 0.5, 0, 1).
Picture ToPicture(const at::Tensor& x) {
  const at::Tensor bytes =
      at::round((x / 2 + 0.5).clamp(0, 1) * 255).to(at::kByte).permute({1, 2, 0}).contiguous().cpu();
  Picture picture{.width = bytes.size(1), .height = bytes.size(0), .channels = bytes.size(2), .pixels = {}};
  const uint8_t* data = bytes.const_data_ptr<uint8_t>();
  picture.pixels.assign(data, data + bytes.numel());
  return picture;
}

class NetworkEngine final : public Engine {
 public:
  EngineInfo info_;
  std::unique_ptr<Denoiser> network_;
  Json scheduler_config_;
  // An artifact's only schedule, with its cache and, where the metric is on, the exact features.
  std::shared_ptr<const Scheduler> schedule_;
  int artifact_steps_ = 0;
  FeatureCache cache_;
  std::optional<FeatureTable> reference_;
  std::vector<std::string> group_of_feature_;
  mutable std::atomic<int64_t> temporal_macs_{0};

  const EngineInfo& info() const override { return info_; }
  Result<ResolvedGeneration> Resolve(const GenerationRequest& request) const override;
  Result<GenerationResult> Generate(const CallScope& scope, const ResolvedGeneration& request,
                                    const GenerationEvents& events) const override;
  bool CorruptCacheForTest(int64_t entry) const override;
  int64_t TemporalMultiplications() const override { return temporal_macs_; }

 private:
  Result<std::shared_ptr<const Scheduler>> SchedulerFor(const ResolvedGeneration& r) const {
    if (info_.is_artifact) return schedule_;
    return CreateScheduler(
        {.config = scheduler_config_, .name = r.scheduler, .steps = r.steps, .eta = r.eta});
  }
  std::vector<FeatureError> StepErrors(const ServingSource& source, double timestep, int64_t train,
                                       double* total) const;
};

Result<ResolvedGeneration> NetworkEngine::Resolve(const GenerationRequest& request) const {
  ResolvedGeneration r;
  r.seed = request.seed;
  if (request.preview_interval < 0)
    return InvalidArgument("preview_interval: got ", request.preview_interval, ", want 0 or more");
  r.preview_interval = request.preview_interval;
  if (info_.classes > 0) {
    std::string named;
    for (size_t i = 0; i < info_.class_names.size() && i < 32; ++i)
      named += Cat(i == 0 ? " (" : ", ", i, " ", info_.class_names[i]);
    if (!named.empty()) named += ")";
    if (!request.class_label)
      return InvalidArgument("class_label: is missing, ", info_.name, " is class-conditional, want 0 to ",
                             info_.classes - 1, named);
    if (*request.class_label < 0 || *request.class_label >= info_.classes)
      return InvalidArgument("class_label: got ", *request.class_label, ", want 0 to ", info_.classes - 1,
                             named);
    r.class_label = *request.class_label;
  } else if (request.class_label) {
    return InvalidArgument("class_label: got ", *request.class_label, ", but ", info_.name,
                           " is unconditional, want none");
  }
  if (info_.channels != 1 && info_.channels != 3 && info_.channels != 4)
    return FailedPrecondition("model ", info_.name, ": paints ", info_.channels,
                              " channels, a picture has 1, 3 or 4");
  if (info_.height == 0)
    return FailedPrecondition("model ", info_.name, ": unet/config.json: sample_size is missing");
  if (info_.is_artifact) {
    if (request.scheduler && *request.scheduler != info_.scheduler)
      return InvalidArgument("scheduler: got \"", *request.scheduler, "\", artifact ", info_.id.substr(0, 12),
                             " serves ", info_.scheduler);
    if (request.steps && *request.steps != info_.steps)
      return InvalidArgument("steps: got ", *request.steps, ", artifact ", info_.id.substr(0, 12), " serves ",
                             info_.steps);
    if (request.eta && *request.eta != info_.eta)
      return InvalidArgument("eta: got ", *request.eta, ", artifact ", info_.id.substr(0, 12), " serves ",
                             info_.eta);
    r.scheduler = info_.scheduler;
    r.steps = info_.steps;
    r.eta = info_.eta;
    return r;
  }
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler({.config = scheduler_config_,
                                                        .name = request.scheduler,
                                                        .steps = request.steps,
                                                        .eta = request.eta}));
  r.scheduler = scheduler->name();
  r.steps = request.steps.value_or(static_cast<int>(scheduler->steps()));
  r.eta = scheduler->eta();
  return r;
}

std::vector<FeatureError> NetworkEngine::StepErrors(const ServingSource& source, double timestep,
                                                    int64_t train, double* total) const {
  std::map<std::string, std::pair<double, double>> by_group;
  std::pair<double, double> all;
  for (size_t i = 0; i < group_of_feature_.size(); ++i) {
    auto& [difference, norm] = by_group[group_of_feature_[i]];
    difference += source.difference2[i];
    norm += source.norm2[i];
    all.first += source.difference2[i];
    all.second += source.norm2[i];
  }
  const auto ratio = [](const std::pair<double, double>& sums) {
    return std::sqrt(sums.first / std::max(sums.second, 1e-30));
  };
  *total = ratio(all);
  std::vector<FeatureError> errors;
  for (const auto& [group, sums] : by_group)
    errors.push_back(
        {.timestep_bin = TimestepBin(timestep, train), .block_group = group, .ratio = ratio(sums)});
  return errors;
}

Result<GenerationResult> NetworkEngine::Generate(const CallScope& scope, const ResolvedGeneration& request,
                                                 const GenerationEvents& events) const {
  return nn::TorchEdge("generation", [&]() -> Result<GenerationResult> {
    const at::NoGradGuard guard;
    const auto begin = std::chrono::steady_clock::now();
    TEMPERA_ASSIGN(const std::shared_ptr<const Scheduler> scheduler, SchedulerFor(request));
    const auto& timesteps = scheduler->timesteps();
    GenerationResult result;
    NoiseSource noise(request.seed);
    SamplerState state;
    at::Tensor x = noise.Randn({1, info_.channels, info_.height, info_.width}).to(network_->device()) *
                   scheduler->init_noise_sigma();
    for (size_t k = 0; k < timesteps.size(); ++k) {
      TEMPERA_TRY(scope.Check());
      const auto step_begin = std::chrono::steady_clock::now();
      nn::ForwardContext ctx;
      ctx.step = {static_cast<int64_t>(k)};
      ctx.timestep = at::tensor({static_cast<float>(timesteps[k])}).to(network_->device());
      if (request.class_label >= 0) {
        ctx.classes = {request.class_label};
        ctx.label = at::tensor({request.class_label}, at::kLong).to(network_->device());
      }
      std::optional<ServingSource> source;
      if (info_.is_artifact) ctx.features = &source.emplace(cache_, reference_ ? &*reference_ : nullptr);
      const at::Tensor output = network_->Forward(ctx, scheduler->ScaleInput(x, static_cast<int64_t>(k)));
      temporal_macs_ += ctx.temporal_macs;
      x = scheduler->Step(output, static_cast<int64_t>(k), x, noise, state);
      if (!at::isfinite(x).all().item<bool>())
        return Internal("generation: step ", k, " gave numbers that are not finite");
      StepEvent event{.step = static_cast<int>(k),
                      .steps = static_cast<int>(timesteps.size()),
                      .timestep = timesteps[k],
                      .milliseconds = 0,
                      .temporal_feature_error = {},
                      .errors = {}};
      if (source && reference_) {
        double total = 0;
        event.errors = StepErrors(*source, timesteps[k], scheduler->train_timesteps(), &total);
        event.temporal_feature_error = total;
      }
      event.milliseconds = Milliseconds(step_begin);
      if (events.on_step) events.on_step(event);
      if (events.on_preview && request.preview_interval > 0 &&
          (k + 1) % static_cast<size_t>(request.preview_interval) == 0 && k + 1 < timesteps.size())
        events.on_preview(event, ToPicture(x[0]));
      result.steps.push_back(std::move(event));
    }
    result.denoise_ms = Milliseconds(begin);
    const auto decode_begin = std::chrono::steady_clock::now();
    const at::Tensor latent = x[0].cpu().contiguous();
    result.latent_sha256 = Sha256Hex({static_cast<const char*>(latent.const_data_ptr()), latent.nbytes()});
    result.picture = ToPicture(latent);
    result.decode_ms = Milliseconds(decode_begin);
    return result;
  });
}

bool NetworkEngine::CorruptCacheForTest(int64_t entry) const {
  for (const FeatureCache::Column& column : cache_.columns) {
    if (!column.codes.defined() || column.codes.numel() == 0) continue;
    const int64_t bytes = static_cast<int64_t>(column.codes.nbytes());
    if (entry >= bytes) {
      entry -= bytes;
      continue;
    }
    static_cast<uint8_t*>(column.codes.mutable_data_ptr())[entry] ^= 0x40;
    return true;
  }
  return false;
}

void FillGeometry(const Denoiser& network, EngineInfo& info) {
  info.channels = network.info().in_channels;
  info.height = network.info().height;
  info.width = network.info().width;
  info.classes = network.info().classes;
  info.family = network.info().family;
  info.weight_bytes = network.other_bytes();
  for (const nn::Slot& slot : network.slots()) info.weight_bytes += nn::ResidentBytes(slot);
}

}  // namespace

void InitCompute() {
  kernels::InitCpu();
  at::set_num_threads(1);
}
void InitComputeThread() { at::set_num_threads(1); }

Result<std::shared_ptr<const Engine>> Engine::LoadModel(const CallScope& scope,
                                                        const std::filesystem::path& path) {
  TEMPERA_TRY(scope.Check());
  TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(path));
  auto engine = std::make_shared<NetworkEngine>();
  nn::Params params(folder.weights, at::kCPU);
  TEMPERA_ASSIGN(engine->network_, BuildDenoiser(folder.network_config, folder.network_label, params));
  engine->scheduler_config_ = folder.scheduler_config;
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler({.config = folder.scheduler_config}));
  EngineInfo& info = engine->info_;
  info.name = folder.name;
  info.pipeline = folder.pipeline;
  info.class_names = folder.class_names;
  TEMPERA_ASSIGN(info.source_sha256, folder.Digest());
  FillGeometry(*engine->network_, info);
  if (!info.class_names.empty() && static_cast<int64_t>(info.class_names.size()) != info.classes)
    return InvalidArgument("labels.json: got ", info.class_names.size(), " names, want ", info.classes);
  info.scheduler = scheduler->name();
  info.steps = static_cast<int>(scheduler->steps());
  info.eta = scheduler->eta();
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
  engine->artifact_steps_ = schedule.steps;
  TEMPERA_ASSIGN(engine->schedule_, CreateScheduler({.config = schedule.config,
                                                     .label = "manifest.json: schedule",
                                                     .name = schedule.scheduler,
                                                     .steps = schedule.steps,
                                                     .eta = schedule.eta}));
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
  const auto finder = [](const std::shared_ptr<const WeightSource>& source) {
    return [source](const std::string& name) -> Result<at::Tensor> {
      TEMPERA_ASSIGN(const TensorView view, source->Find(name));
      return nn::ToTensor(view);
    };
  };
  const std::set<std::string> dropped(model.dropped_parameters.begin(), model.dropped_parameters.end());
  const auto steps = static_cast<int64_t>(schedule.timesteps.size());
  const Status filled = nn::TorchEdge("artifact", [&]() -> Status {
    const at::NoGradGuard guard;
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
      if (slot->activation_bits > 0) TEMPERA_TRY(nn::ImportRanges(*slot, finder(tables), steps));
      if (slot->weight_bits > 0) {
        TEMPERA_TRY(nn::ImportWeights(*slot, finder(weights)));
        nn::Pack(*slot);
      } else if (slot->role == nn::Role::kMatmul && slot->activation_bits > 0) {
        slot->state = nn::State::kInteger;
      }
    }
    for (size_t i = 0; i < network.temporal_slots().size(); ++i)
      network.temporal_slots()[i]->temporal_index = static_cast<int>(i);
    if (model.temporal_bits > 0) {
      TEMPERA_ASSIGN(engine->cache_, ImportCache(network, model.temporal_bits, steps, finder(tables)));
    } else {
      // No cache: every feature comes from the layers, and is compared with the reference all the same.
      engine->cache_.steps = steps;
      engine->cache_.classes = std::max<int64_t>(1, network.info().classes);
      for (const nn::Slot* slot : network.temporal_slots()) {
        FeatureCache::Column column;
        column.width = slot->out_channels;
        column.row_of_step.assign(static_cast<size_t>(steps), -1);
        engine->cache_.columns.push_back(std::move(column));
      }
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
  info.pipeline = model.pipeline;
  info.class_names = model.class_names;
  FillGeometry(network, info);
  info.scheduler = schedule.scheduler;
  info.steps = schedule.steps;
  info.eta = engine->schedule_->eta();
  info.schedulers = {schedule.scheduler};
  info.cache_bytes = engine->cache_.bytes();
  info.cache_entries = engine->cache_.entries();
  for (size_t i = 0; i < network.temporal_slots().size(); ++i) {
    for (const Unit& unit : network.units())
      if (std::find(unit.slots.begin(), unit.slots.end(), network.temporal_slots()[i]) != unit.slots.end())
        engine->group_of_feature_.push_back(unit.group);
  }
  if (options.metric && manifest.files.contains(kReferenceFile)) {
    TEMPERA_ASSIGN(const auto reference, WeightSource::OpenFile(folder / kReferenceFile, kReferenceFile));
    TEMPERA_ASSIGN(engine->reference_,
                   ImportReference(scope, model.network_config, network, schedule.timesteps, reference));
    for (const at::Tensor& f : engine->reference_->features)
      info.reference_bytes += static_cast<int64_t>(f.nbytes());
  }
  if (manifest.baseline.is_array()) {
    for (const Json& item : manifest.baseline) {
      FeatureBaseline e;
      Fields f(item, "manifest.json: baseline");
      f.Need("timestep_bin", e.timestep_bin);
      f.Need("block_group", e.block_group);
      f.Need("ratio", e.ratio);
      f.Need("low", e.low);
      f.Need("high", e.high);
      TEMPERA_TRY(f.Finish());
      info.baseline.push_back(std::move(e));
    }
  }
  return engine;
}

}  // namespace tempera
