// A request for a picture with every field decided and checked.
#include <cmath>

#include "pipeline/network_engine.h"

namespace tempera {
namespace {

// Values of a block at the latent's full size that a step holds at once: skip connections, a concatenation,
// and what a feed-forward widens.
constexpr int64_t kStepValues = 32;

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

}  // namespace

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
  if (features_guidance_ != 0 && !info_.any_timestep) {
    if (!request.guidance) wish.guidance = features_guidance_;
    if (wish.guidance != features_guidance_)
      return InvalidArgument("guidance: got ", wish.guidance, ", but time depends on it and artifact ",
                             info_.id.substr(0, 12), " keeps no time layers, want ", features_guidance_);
  }
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

Status NetworkEngine::ResolveImage(const GenerationRequest& request, ResolvedGeneration& r) const {
  if (request.init_image == nullptr) {
    if (request.strength)
      return InvalidArgument("strength: got ", *request.strength, " without an init_image, want none");
    if (request.mask != nullptr) return InvalidArgument("mask: is given without an init_image, want both");
    return OkStatus();
  }
  if (!info_.takes_image)
    return InvalidArgument("init_image: is given, but ", info_.name, " begins from noise alone, want none");
  for (const auto& [field, image] :
       {std::pair("init_image", request.init_image.get()), std::pair("mask", request.mask.get())}) {
    if (image == nullptr) continue;
    if (image->height != r.wish.size[0] || image->width != r.wish.size[1])
      return InvalidArgument(field, ": got ", image->width, " x ", image->height,
                             " pixels, want width x height, ", r.wish.size[1], " x ", r.wish.size[0]);
    if (image->channels != 1 && image->channels != info_.channels)
      return InvalidArgument(field, ": got ", image->channels, " channels, want ", info_.channels, " or 1");
  }
  r.init_image = request.init_image;
  r.mask = request.mask;
  // Where everything inside of a mask is new, nothing need be kept of what was there.
  r.strength = request.strength.value_or(r.mask != nullptr ? 1 : 0.8);
  TEMPERA_ASSIGN(r.first, r.schedule->FirstStep(r.strength));
  return OkStatus();
}

namespace {

// "951, 901, ...": at most eight.
std::string Listed(const std::vector<double>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size() && i < 8; ++i) text += Cat(i == 0 ? "" : ", ", numbers[i]);
  if (numbers.size() > 8) text += Cat(", ... ", numbers.back());
  return text;
}

}  // namespace

Status NetworkEngine::ResolveSchedule(const GenerationRequest& request, ResolvedGeneration& r) const {
  SchedulerRequest want{.config = scheduler_config_,
                        .name = request.scheduler,
                        .steps = request.steps,
                        .eta = request.eta,
                        .options = request.scheduler_options};
  if (info_.is_artifact) {
    // What the request leaves open is as in the artifact's own schedule; another scheduler keeps its steps.
    if (!want.name || *want.name == info_.scheduler) {
      want.name = info_.scheduler;
      if (!want.eta) want.eta = info_.eta;
      Json options = scheduler_options_.is_object() ? scheduler_options_ : Json::object();
      if (want.options.is_object()) options.update(want.options);
      if (want.options.is_object() || want.options.is_null()) want.options = options;
    }
    if (!want.steps) want.steps = info_.steps;
  }
  TEMPERA_ASSIGN(r.schedule, CreateScheduler(want));
  r.scheduler = r.schedule->name();
  r.steps = want.steps ? static_cast<int>(*want.steps) : static_cast<int>(r.schedule->steps());
  r.eta = r.schedule->eta();
  TEMPERA_TRY(r.schedule->CheckOutput(stages_->latent_channels(), network_->info().out_channels));
  if (!info_.is_artifact || info_.any_timestep) return OkStatus();
  std::vector<double> strange;
  const auto places = PlaceSteps(info_.timesteps, r.schedule->timesteps());
  for (size_t k = 0; k < places.size(); ++k)
    if (places[k].own < 0) strange.push_back(r.schedule->timesteps()[k]);
  if (strange.empty()) return OkStatus();
  const char* field = request.scheduler && *request.scheduler != info_.scheduler ? "scheduler"
                      : request.steps && *request.steps != info_.steps           ? "steps"
                                                                                 : "scheduler_options";
  return InvalidArgument(field, ": ", r.scheduler, " of ", r.steps, " steps runs timesteps that artifact ",
                         info_.id.substr(0, 12), " was not calibrated on, and it keeps no time layers, got ",
                         Listed(strange), ", want of ", Listed(info_.timesteps), " (", info_.scheduler,
                         " of ", info_.steps, " steps), or an artifact quantized with keep_time_layers");
}

Result<ResolvedGeneration> NetworkEngine::Resolve(const GenerationRequest& request) const {
  ResolvedGeneration r;
  r.seed = request.seed;
  if (request.preview_interval < 0)
    return InvalidArgument("preview_interval: got ", request.preview_interval, ", want 0 or more");
  r.preview_interval = request.preview_interval;
  r.preview_kind = request.preview_kind;
  TEMPERA_TRY(ResolveWish(request, r.wish));
  TEMPERA_ASSIGN(r.warnings, stages_->Check(r.wish));
  r.guidance_rescale = request.guidance_rescale;
  if (info_.channels != 1 && info_.channels != 3 && info_.channels != 4)
    return FailedPrecondition("model ", info_.name, ": paints ", info_.channels,
                              " channels, a picture has 1, 3 or 4");
  TEMPERA_TRY(ResolveSchedule(request, r));
  TEMPERA_TRY(ResolveImage(request, r));
  const int64_t positions = r.wish.size[0] * r.wish.size[1] / (stages_->factor() * stages_->factor());
  const int64_t rows = stages_->Rows(r.wish);
  r.memory_bytes = std::max(kStepValues * network_->info().base_channels * 4 * rows * positions,
                            stages_->DecodeBytes(r.wish.size));
  return r;
}

}  // namespace tempera
