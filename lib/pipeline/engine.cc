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
#include "models/folder.h"
#include "nn/slot_io.h"
#include "pipeline/load.h"
#include "schedulers/scheduler.h"
#include "stages/guidance.h"
#include "stages/stages.h"
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

// The other way, [1, channels, H, W]; one channel becomes as many.
at::Tensor FromPicture(const Picture& p, int64_t channels) {
  const at::Tensor bytes =
      at::from_blob(const_cast<uint8_t*>(p.pixels.data()), {p.height, p.width, p.channels}, at::kByte);
  const at::Tensor x = bytes.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat) / 255.0f;
  return (2.0f * x - 1.0f).expand({1, channels, -1, -1}).contiguous();
}

class NetworkEngine final : public Engine {
 public:
  EngineInfo info_;
  std::unique_ptr<Denoiser> network_;
  std::unique_ptr<Stages> stages_;
  Json scheduler_config_;
  // An artifact's only schedule, with its cache and, where the metric is on, the exact features.
  std::shared_ptr<const Scheduler> schedule_;
  int artifact_steps_ = 0;
  FeatureCache cache_;
  std::optional<FeatureTable> reference_;
  // Where time depends on the prompt both are made for each request, from the layers and from these.
  bool features_of_request_ = false;
  int temporal_bits_ = 0;
  std::unique_ptr<Denoiser> reference_layers_;
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
  Status ResolveWish(const GenerationRequest& request, Wish& wish) const;
  Status ResolveImage(const GenerationRequest& request, const Scheduler& scheduler,
                      ResolvedGeneration& r) const;
  std::vector<FeatureError> StepErrors(const ServingSource& source, double timestep, int64_t train,
                                       double* total) const;
};

// A prompt's text that the model has no use for is refused, so that nobody takes it for heeded.
Status RefuseText(const EngineInfo& info, const GenerationRequest& r) {
  for (const auto& [field, set] :
       {std::pair("prompt", r.prompt.has_value()), std::pair("prompt_2", r.prompt_2.has_value()),
        std::pair("negative_prompt", r.negative_prompt.has_value()),
        std::pair("negative_prompt_2", r.negative_prompt_2.has_value()),
        std::pair("clip_skip", r.clip_skip != 0), std::pair("long_prompt", r.long_prompt),
        std::pair("original_size", r.original_size.has_value()), std::pair("crop", r.crop.has_value()),
        std::pair("target_size", r.target_size.has_value())})
    if (set) return InvalidArgument(field, ": is given, but ", info.name, " takes no prompt, want none");
  return OkStatus();
}

// What a network of Stable Diffusion's size still paints in a few GiB.
constexpr int64_t kMaxPixels = 2048 * 2048;
constexpr int64_t kMaxSide = 16384;

Status NetworkEngine::ResolveWish(const GenerationRequest& request, Wish& wish) const {
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
    wish.class_label = request.class_label;
  } else if (request.class_label) {
    return InvalidArgument("class_label: got ", *request.class_label, ", but ", info_.name,
                           info_.takes_prompt ? " takes a prompt" : " is unconditional", ", want none");
  }
  if (info_.takes_prompt) {
    if (!request.prompt) return InvalidArgument("prompt: is missing, ", info_.name, " paints from a prompt");
    wish.prompt = *request.prompt;
    wish.prompt_2 = request.prompt_2;
    wish.negative = request.negative_prompt;
    wish.negative_2 = request.negative_prompt_2;
    wish.clip_skip = request.clip_skip;
    wish.long_prompt = request.long_prompt;
    wish.original_size = request.original_size;
    wish.crop = request.crop;
    wish.target_size = request.target_size;
  } else {
    TEMPERA_TRY(RefuseText(info_, request));
  }
  wish.guidance = request.guidance.value_or(info_.guidance);
  if (!(std::isfinite(wish.guidance) && wish.guidance >= 0 && wish.guidance <= 1000))
    return InvalidArgument("guidance: got ", wish.guidance, ", want 0 to 1000");
  if (info_.guidance == 1 && request.guidance && *request.guidance != 1)
    return InvalidArgument("guidance: got ", *request.guidance, ", but ", info_.name,
                           " has nothing to be guided by, want none");
  if (!(request.guidance_rescale >= 0 && request.guidance_rescale <= 1))
    return InvalidArgument("guidance_rescale: got ", request.guidance_rescale, ", want 0 to 1");
  const Picture* image = request.init_image.get();
  wish.size = {request.height.value_or(image != nullptr ? image->height : info_.height),
               request.width.value_or(image != nullptr ? image->width : info_.width)};
  for (const auto& [field, side, own] :
       {std::tuple("height", wish.size[0], info_.height), std::tuple("width", wish.size[1], info_.width)}) {
    if (side == own && own > 0) continue;
    if (own == 0 && side == 0)
      return InvalidArgument(field, ": is missing, ", info_.name, ": unet/config.json names no sample_size");
    if (!info_.any_size) return InvalidArgument(field, ": got ", side, ", ", info_.name, " paints ", own);
    if (side < info_.size_step || side > kMaxSide || side % info_.size_step != 0)
      return InvalidArgument(field, ": got ", side, ", want a multiple of ", info_.size_step, " up to ",
                             kMaxSide);
  }
  if (info_.any_size && wish.size[0] * wish.size[1] > kMaxPixels)
    return InvalidArgument("width: got ", wish.size[1], " x ", wish.size[0], " pixels, want at most ",
                           kMaxPixels, " in all");
  return OkStatus();
}

Status NetworkEngine::ResolveImage(const GenerationRequest& request, const Scheduler& scheduler,
                                   ResolvedGeneration& r) const {
  if (request.init_image == nullptr) {
    if (!request.strength) return OkStatus();
    return InvalidArgument("strength: got ", *request.strength, " without an init_image, want none");
  }
  const Picture& image = *request.init_image;
  if (!info_.takes_image)
    return InvalidArgument("init_image: is given, but ", info_.name, " begins from noise alone, want none");
  if (image.height != r.wish.size[0] || image.width != r.wish.size[1])
    return InvalidArgument("init_image: got ", image.width, " x ", image.height,
                           " pixels, want width x height, ", r.wish.size[1], " x ", r.wish.size[0]);
  if (image.channels != 1 && image.channels != info_.channels)
    return InvalidArgument("init_image: got ", image.channels, " channels, want ", info_.channels, " or 1");
  r.init_image = request.init_image;
  r.strength = request.strength.value_or(0.8);
  TEMPERA_ASSIGN(r.first, scheduler.FirstStep(r.strength));
  return OkStatus();
}

Result<ResolvedGeneration> NetworkEngine::Resolve(const GenerationRequest& request) const {
  ResolvedGeneration r;
  r.seed = request.seed;
  if (request.preview_interval < 0)
    return InvalidArgument("preview_interval: got ", request.preview_interval, ", want 0 or more");
  r.preview_interval = request.preview_interval;
  TEMPERA_TRY(ResolveWish(request, r.wish));
  TEMPERA_ASSIGN(r.warnings, stages_->Check(r.wish));
  r.guidance_rescale = request.guidance_rescale;
  if (info_.channels != 1 && info_.channels != 3 && info_.channels != 4)
    return FailedPrecondition("model ", info_.name, ": paints ", info_.channels,
                              " channels, a picture has 1, 3 or 4");
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
    TEMPERA_TRY(ResolveImage(request, *schedule_, r));
    return r;
  }
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler({.config = scheduler_config_,
                                                        .name = request.scheduler,
                                                        .steps = request.steps,
                                                        .eta = request.eta}));
  r.scheduler = scheduler->name();
  r.steps = request.steps.value_or(static_cast<int>(scheduler->steps()));
  r.eta = scheduler->eta();
  TEMPERA_TRY(scheduler->CheckOutput(stages_->latent_channels(), network_->info().out_channels));
  TEMPERA_TRY(ResolveImage(request, *scheduler, r));
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
    TEMPERA_ASSIGN(const Conditions conditions, stages_->Encode(request.wish));
    const FeatureCache* cache = &cache_;
    const FeatureTable* reference = reference_ ? &*reference_ : nullptr;
    std::optional<FeatureCache> own_cache;
    std::optional<FeatureTable> own_reference;
    if (features_of_request_) {
      // All steps in one product for each layer.
      TEMPERA_ASSIGN(const FeatureTable features,
                     ComputeFeatures(scope, *network_, timesteps, conditions.on, nullptr));
      temporal_macs_ += features.multiplications;
      cache = &own_cache.emplace(BuildCache(features, temporal_bits_, CacheRounding::kMinMax));
      if (reference_layers_) {
        TEMPERA_ASSIGN(own_reference,
                       ComputeFeatures(scope, *reference_layers_, timesteps, conditions.on, nullptr));
        reference = &*own_reference;
      }
    }
    std::vector<int64_t> condition;  // columns of the tables of features
    if (features_of_request_)
      for (int64_t row = 0; row < conditions.rows; ++row) condition.push_back(row);
    else if (conditions.on.label.defined())
      condition = {*request.wish.class_label};
    result.prompt_ms = Milliseconds(begin);

    const auto denoise_begin = std::chrono::steady_clock::now();
    NoiseSource noise(request.seed);
    SamplerState state;
    const int64_t factor = stages_->factor();
    const std::vector<int64_t> shape{1, stages_->latent_channels(), request.wish.size[0] / factor,
                                     request.wish.size[1] / factor};
    at::Tensor x;
    if (request.init_image != nullptr) {
      const at::Tensor begun =
          stages_->EncodeImage(FromPicture(*request.init_image, info_.channels), noise.Randn(shape));
      x = scheduler->AddNoise(begun, noise.Randn(shape), request.first);
    } else {
      x = noise.Randn(shape) * scheduler->init_noise_sigma();
    }
    x = x.to(network_->device());
    for (auto k = static_cast<size_t>(request.first); k < timesteps.size(); ++k) {
      TEMPERA_TRY(scope.Check());
      const auto step_begin = std::chrono::steady_clock::now();
      nn::ForwardContext ctx;
      ctx.step.assign(static_cast<size_t>(conditions.rows), static_cast<int64_t>(k));
      ctx.timestep = at::full({conditions.rows}, timesteps[k], at::kFloat).to(network_->device());
      ctx.on = conditions.on;
      ctx.condition = condition;
      std::optional<ServingSource> source;
      if (info_.is_artifact) ctx.features = &source.emplace(*cache, reference);
      const at::Tensor seen = scheduler->ScaleInput(x, static_cast<int64_t>(k));
      at::Tensor output =
          network_->Forward(ctx, conditions.rows == 1 ? seen : seen.expand({conditions.rows, -1, -1, -1}));
      temporal_macs_ += ctx.temporal_macs;
      if (conditions.rows == 2) output = Guide(output, request.wish.guidance, request.guidance_rescale);
      x = scheduler->Step(output, static_cast<int64_t>(k), x, noise, state);
      if (!at::isfinite(x).all().item<bool>())
        return Internal("generation: step ", k, " gave numbers that are not finite");
      StepEvent event{.step = static_cast<int>(k),
                      .steps = static_cast<int>(timesteps.size()),
                      .timestep = timesteps[k],
                      .milliseconds = 0,
                      .temporal_feature_error = {},
                      .errors = {}};
      if (source && reference != nullptr) {
        double total = 0;
        event.errors = StepErrors(*source, timesteps[k], scheduler->train_timesteps(), &total);
        event.temporal_feature_error = total;
      }
      event.milliseconds = Milliseconds(step_begin);
      if (events.on_step) events.on_step(event);
      if (events.on_preview && request.preview_interval > 0 &&
          (k + 1) % static_cast<size_t>(request.preview_interval) == 0 && k + 1 < timesteps.size())
        events.on_preview(event, ToPicture(stages_->Decode(x)[0]));
      result.steps.push_back(std::move(event));
    }
    result.denoise_ms = Milliseconds(denoise_begin);
    const auto decode_begin = std::chrono::steady_clock::now();
    const at::Tensor latent = x[0].cpu().contiguous();
    result.latent.assign(latent.const_data_ptr<float>(), latent.const_data_ptr<float>() + latent.numel());
    result.latent_sha256 = Sha256Hex({static_cast<const char*>(latent.const_data_ptr()), latent.nbytes()});
    result.picture = ToPicture(stages_->Decode(latent.unsqueeze(0))[0]);
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
      if (slot->activation_bits > 0) TEMPERA_TRY(nn::ImportRanges(*slot, nn::FinderOf(tables), steps));
      if (slot->weight_bits > 0) {
        TEMPERA_TRY(nn::ImportWeights(*slot, nn::FinderOf(weights)));
        nn::Pack(*slot);
      } else if (slot->role == nn::Role::kMatmul && slot->activation_bits > 0) {
        slot->state = nn::State::kInteger;
      }
    }
    for (size_t i = 0; i < network.temporal_slots().size(); ++i)
      network.temporal_slots()[i]->temporal_index = static_cast<int>(i);
    engine->features_of_request_ = model.temporal_bits > 0 && network.info().added_width > 0;
    engine->temporal_bits_ = model.temporal_bits;
    if (engine->features_of_request_) return OkStatus();
    if (model.temporal_bits > 0) {
      TEMPERA_ASSIGN(engine->cache_, ImportCache(network, model.temporal_bits, steps, nn::FinderOf(tables)));
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
  info.class_names = model.class_names;
  TEMPERA_ASSIGN(const ModelFolder parts, OpenStages(folder, model.index));
  TEMPERA_ASSIGN(engine->stages_, Stages::Open(parts, network.info(), model.stage_bits));
  FillGeometry(network, *engine->stages_, *parts.pipeline, {model.latent[1], model.latent[2]}, info);
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
    if (engine->features_of_request_) {
      TEMPERA_ASSIGN(engine->reference_layers_,
                     BuildReferenceLayers(model.network_config, network, reference));
      info.reference_bytes = engine->reference_layers_->resident_bytes();
    } else {
      TEMPERA_ASSIGN(engine->reference_,
                     ImportReference(scope, model.network_config, network, schedule.timesteps, reference));
      for (const at::Tensor& f : engine->reference_->features)
        info.reference_bytes += static_cast<int64_t>(f.nbytes());
    }
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
