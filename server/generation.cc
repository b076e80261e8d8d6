#include "server/generation.h"

#include <random>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "server/messages.h"
#include "server/version.h"

namespace tempera {
namespace {

using Clock = CallScope::Clock;

constexpr size_t kChunkBytes = 1 << 20;
constexpr std::chrono::seconds kSilence{10};

double Ms(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }
double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

ImageFormat FormatOf(v1::ImageFormat format) {
  switch (format) {
    case v1::WEBP:
      return ImageFormat::kWebp;
    case v1::JPEG:
      return ImageFormat::kJpeg;
    default:
      return ImageFormat::kPng;
  }
}

v1::ImageFormat FormatMessage(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return v1::PNG;
    case ImageFormat::kWebp:
      return v1::WEBP;
    case ImageFormat::kJpeg:
      return v1::JPEG;
  }
  return v1::IMAGE_FORMAT_UNSPECIFIED;
}

std::array<int64_t, 2> Pair(const v1::Size& size) { return {size.height(), size.width()}; }

const char* MediaType(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "image/png";
    case ImageFormat::kWebp:
      return "image/webp";
    case ImageFormat::kJpeg:
      return "image/jpeg";
  }
  return "";
}

}  // namespace

Generation::Generation(Backend& backend, Writer::Handle out, const rpc::CallInfo& info,
                       const v1::GenerateRequest& request)
    : backend_(backend),
      out_(std::move(out)),
      info_(info),
      request_(request),
      scope_{stop_.get_token(), info.scope.deadline} {}

Status Generation::CheckMemory() const {
  const EngineInfo& engine = lease_.engine().info();
  const int64_t needed = engine.memory_bytes() + resolved_.memory_bytes;
  const int64_t budget = backend_.models.budget_bytes();
  if (budget == 0 || needed <= budget) return OkStatus();
  return rpc::WithReason(
      InvalidArgument("width: ", resolved_.wish.size[1], " x ", resolved_.wish.size[0],
                      " pixels are too many for the memory budget, got ", needed, " bytes with the model's ",
                      engine.memory_bytes(), ", want at most ", budget),
      rpc::kMemoryBudget);
}

Status Generation::Prepare(ModelLease lease) {
  lease_ = std::move(lease);
  const EngineInfo& engine = lease_.engine().info();
  GenerationRequest wanted;
  if (request_.has_class_label()) wanted.class_label = request_.class_label();
  if (request_.has_prompt()) wanted.prompt = request_.prompt();
  if (request_.has_prompt_2()) wanted.prompt_2 = request_.prompt_2();
  if (request_.has_negative_prompt()) wanted.negative_prompt = request_.negative_prompt();
  if (request_.has_negative_prompt_2()) wanted.negative_prompt_2 = request_.negative_prompt_2();
  if (request_.has_guidance()) wanted.guidance = request_.guidance();
  wanted.guidance_rescale = request_.guidance_rescale();
  if (request_.has_height()) wanted.height = request_.height();
  if (request_.has_width()) wanted.width = request_.width();
  wanted.clip_skip = request_.clip_skip();
  wanted.long_prompt = request_.long_prompt();
  if (request_.has_original_size()) wanted.original_size = Pair(request_.original_size());
  if (request_.has_crop()) wanted.crop = Pair(request_.crop());
  if (request_.has_target_size()) wanted.target_size = Pair(request_.target_size());
  wanted.seed = request_.has_seed() ? request_.seed() : RandomSeed();
  if (request_.has_scheduler()) wanted.scheduler = request_.scheduler();
  if (request_.has_steps()) wanted.steps = request_.steps();
  if (request_.has_eta()) wanted.eta = request_.eta();
  if (request_.has_scheduler_options()) wanted.scheduler_options = JsonFrom(request_.scheduler_options());
  wanted.preview_interval = request_.preview_interval();
  if (request_.preview_kind() == v1::FULL_DECODE) wanted.preview_kind = PreviewKind::kDecode;
  for (const auto& [field, file, picture] :
       {std::tuple("init_image", &request_.init_image(), &wanted.init_image),
        std::tuple("mask", &request_.mask(), &wanted.mask)}) {
    if (file->empty()) continue;
    Result<Picture> image = backend_.compute.decode_image(*file);
    if (!image.ok()) return Annotate(image.status(), field);
    *picture = std::make_shared<const Picture>(*std::move(image));
  }
  if (request_.has_strength()) wanted.strength = request_.strength();
  TEMPERA_ASSIGN(resolved_, lease_.engine().Resolve(wanted));
  TEMPERA_TRY(CheckMemory());
  format_ = FormatOf(request_.format());
  count_ = request_.has_count() ? request_.count() : 1;

  accepted_.set_generation("generations/" + rpc::RandomId().substr(0, 16));
  accepted_.set_request_id(info_.request_id);
  accepted_.set_seed(resolved_.seed);
  accepted_.set_artifact(engine.id);
  accepted_.set_model(engine.name);
  if (resolved_.wish.class_label) accepted_.set_class_label(*resolved_.wish.class_label);
  accepted_.set_prompt(resolved_.wish.prompt);
  if (engine.guidance != 1) accepted_.set_guidance(resolved_.wish.guidance);
  if (resolved_.init_image != nullptr) accepted_.set_strength(resolved_.strength);
  for (const std::string& warning : resolved_.warnings) accepted_.add_warnings(warning);
  if (request_.audit())
    accepted_.add_warnings(
        "audit: this server keeps no full-precision model to compare with, nothing is audited");
  accepted_.mutable_schedule()->set_scheduler(resolved_.scheduler);
  accepted_.mutable_schedule()->set_steps(resolved_.steps);
  accepted_.mutable_schedule()->set_eta(resolved_.eta);
  accepted_.set_format(FormatMessage(format_));
  accepted_.set_count(count_);
  accepted_.set_height(resolved_.wish.size[0]);
  accepted_.set_width(resolved_.wish.size[1]);
  accepted_.set_preview_interval(resolved_.preview_interval);

  // Weak: the client may stay longer than the generation.
  on_client_stop_.emplace(info_.scope.stop, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->stop_.request_stop();
      self->LeaveQueue();
    }
  });
  return OkStatus();
}

void Generation::Queued(GenerationQueue& queue, uint64_t ticket) {
  queue_ = &queue;
  ticket_ = ticket;
  // A stop before this line found no ticket.
  if (scope_.stop.stop_requested()) LeaveQueue();
}

void Generation::LeaveQueue() {
  GenerationQueue* queue = queue_;
  if (queue != nullptr && ticket_ != 0 && queue->Remove(ticket_))
    Finish(absl::CancelledError("cancelled by the caller"));
}

void Generation::StopForDrain() {
  drained_ = true;
  stop_.request_stop();
  LeaveQueue();
}

bool Generation::Send(v1::GenerateResponse event, bool droppable) {
  std::lock_guard lock(mutex_);
  event.set_sequence(sequence_++);
  last_sent_ = Clock::now();
  const auto result = droppable ? out_.TrySend(std::move(event)) : out_.Send(std::move(event));
  return result != rpc::SendResult::kClosed;
}

void Generation::SendAccepted(int queue_position) {
  {
    std::lock_guard lock(mutex_);
    if (accepted_sent_ && position_ == queue_position && Clock::now() - last_sent_ < kSilence) return;
    position_ = queue_position;
    if (!std::exchange(accepted_sent_, true)) queued_at_ = Clock::now();
  }
  v1::GenerateResponse event;
  *event.mutable_accepted() = accepted_;
  event.mutable_accepted()->set_queue_position(queue_position);
  Send(std::move(event), false);
}

void Generation::KeepAlive() {
  int position;
  {
    std::lock_guard lock(mutex_);
    if (finished_ || !accepted_sent_ || Clock::now() - last_sent_ < kSilence) return;
    position = position_;
  }
  SendAccepted(position);
}

void Generation::Run() {
  const LogContext log(info_.request_id, info_.trace_id);
  started_at_ = Clock::now();
  {
    std::lock_guard lock(mutex_);
    position_ = 0;
  }
  v1::Summary summary;
  const Status status = Paint(summary);
  if (status.ok()) {
    backend_.metrics.generation_seconds.Observe(Seconds(Clock::now() - started_at_), model(),
                                                ArtifactLabel(lease_.engine().info()));
    summary.set_queue_ms(Ms(started_at_ - queued_at_));
    summary.set_load_ms(static_cast<double>(lease_.load_time.count()));
    summary.set_total_ms(Ms(Clock::now() - arrival_));
    v1::GenerateResponse event;
    *event.mutable_summary() = std::move(summary);
    Send(std::move(event), false);
  }
  Finish(status);
}

Status Generation::Paint(v1::Summary& summary) {
  for (int picture = 0; picture < count_; ++picture) {
    TEMPERA_TRY(scope_.Check());
    TEMPERA_ASSIGN(*summary.add_pictures(), PaintOne(picture));
  }
  return OkStatus();
}

namespace {

// The settings as a whole, and as picture tools read them: the first line of "parameters" is the prompt, the
// next what it shall not show, the last the rest, "Steps: 20, Sampler: ddim, ...".
std::map<std::string, std::string> TextChunks(const EngineInfo& info, const ResolvedGeneration& r) {
  Json settings{{"model", info.name}, {"artifact", info.id},      {"seed", r.seed},
                {"steps", r.steps},   {"scheduler", r.scheduler}, {"eta", r.eta}};
  if (r.wish.class_label) settings["class_label"] = *r.wish.class_label;
  std::map<std::string, std::string> chunks{{"Software", Cat("tempera ", kVersion)}};
  if (info.takes_prompt) {
    const Wish& w = r.wish;
    settings["prompt"] = w.prompt;
    if (w.prompt_2) settings["prompt_2"] = *w.prompt_2;
    if (w.negative) settings["negative_prompt"] = *w.negative;
    if (w.negative_2) settings["negative_prompt_2"] = *w.negative_2;
    settings["guidance_rescale"] = r.guidance_rescale;
    settings["clip_skip"] = w.clip_skip;
    std::string text = Cat(w.prompt, "\n");
    if (w.negative && !w.negative->empty()) text += Cat("Negative prompt: ", *w.negative, "\n");
    text += Cat("Steps: ", r.steps, ", Sampler: ", r.scheduler, ", CFG scale: ", w.guidance,
                ", Seed: ", r.seed, ", Size: ", w.size[1], "x", w.size[0], ", Model: ", info.name);
    if (info.is_artifact) text += Cat(", Model hash: ", info.id.substr(0, 12));
    if (w.clip_skip > 0) text += Cat(", Clip skip: ", w.clip_skip);
    if (r.init_image != nullptr) text += Cat(", Denoising strength: ", r.strength);
    std::erase(text, '\0');  // a chunk cannot hold it
    chunks["parameters"] = text;
  }
  if (r.init_image != nullptr) settings["strength"] = r.strength;
  if (r.mask != nullptr) settings["mask"] = true;
  if (info.guidance != 1) settings["guidance"] = r.wish.guidance;
  chunks["tempera"] = CanonicalJson(settings);
  return chunks;
}

}  // namespace

Result<v1::PictureSummary> Generation::PaintOne(int picture) {
  const Engine& engine = lease_.engine();
  const std::string& name = engine.info().name;
  const std::string artifact = ArtifactLabel(engine.info());
  Metrics& metrics = backend_.metrics;
  ResolvedGeneration resolved = resolved_;
  resolved.seed += static_cast<uint64_t>(picture);

  GenerationEvents events;
  events.on_step = [&](const StepEvent& step) {
    metrics.steps.Add(1, name);
    metrics.step_seconds.Observe(step.milliseconds / 1e3, name, artifact);
    for (const FeatureError& error : step.errors)
      metrics.temporal_error.Observe(error.ratio, name, artifact, TimestepBinLabel(error.timestep_bin),
                                     error.block_group);
    v1::GenerateResponse event;
    *event.mutable_progress() = ProgressMessage(picture, step);
    // Nobody reads: the engine's next check ends the work.
    if (!Send(std::move(event), true)) stop_.request_stop();
  };
  events.on_preview = [&](const StepEvent& step, const Picture& preview) {
    Result<std::string> png = backend_.compute.encode_image(preview, ImageFormat::kPng, {});
    if (!png.ok() || png->size() > kChunkBytes) return;
    v1::GenerateResponse event;
    event.mutable_preview()->set_picture(picture);
    event.mutable_preview()->set_step(step.step);
    event.mutable_preview()->set_media_type(MediaType(ImageFormat::kPng));
    event.mutable_preview()->set_data(*std::move(png));
    Send(std::move(event), true);
  };
  TEMPERA_ASSIGN(const GenerationResult result, engine.Generate(scope_, resolved, events));

  const auto encode_begin = Clock::now();
  TEMPERA_ASSIGN(const std::string bytes,
                 backend_.compute.encode_image(result.picture, format_, TextChunks(engine.info(), resolved)));
  const auto encode_time = Clock::now() - encode_begin;
  const std::string sha256 = Sha256Hex(bytes);

  metrics.images.Add(1, name);
  metrics.pixels.Add(static_cast<double>(result.picture.width * result.picture.height), name);
  if (engine.info().takes_prompt) metrics.stage_seconds.Observe(result.prompt_ms / 1e3, name, "prompt");
  metrics.stage_seconds.Observe(result.denoise_ms / 1e3, name, "denoise");
  metrics.stage_seconds.Observe(result.decode_ms / 1e3, name, "decode");
  metrics.stage_seconds.Observe(Seconds(encode_time), name, "encode");
  TEMPERA_TRY(SendImage(picture, resolved.seed, bytes, sha256));

  v1::PictureSummary summary;
  summary.set_picture(picture);
  summary.set_seed(resolved.seed);
  summary.set_sha256(sha256);
  summary.set_latent_sha256(result.latent_sha256);
  summary.set_denoise_ms(result.denoise_ms);
  summary.set_prompt_ms(result.prompt_ms);
  summary.set_decode_ms(result.decode_ms);
  summary.set_encode_ms(Ms(encode_time));
  return summary;
}

Status Generation::SendImage(int picture, uint64_t seed, const std::string& bytes,
                             const std::string& sha256) {
  size_t offset = 0;
  do {
    v1::GenerateResponse event;
    v1::ImageChunk& chunk = *event.mutable_image();
    chunk.set_picture(picture);
    chunk.set_seed(seed);
    chunk.set_media_type(MediaType(format_));
    chunk.set_total_bytes(static_cast<int64_t>(bytes.size()));
    chunk.set_offset(static_cast<int64_t>(offset));
    chunk.set_data(bytes.substr(offset, kChunkBytes));
    offset += chunk.data().size();
    if (offset == bytes.size()) {
      chunk.set_last(true);
      chunk.set_sha256(sha256);
    }
    if (!Send(std::move(event), false)) return absl::CancelledError("the client does not read");
  } while (offset < bytes.size());
  return OkStatus();
}

void Generation::Finish(Status status) {
  if (finished_.exchange(true)) return;
  if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) {
    if (drained_) status = backend_.CheckServing();
    status = rpc::CancelReason(scope_, status);
    const char* reason = drained_                            ? "drain"
                         : absl::IsDeadlineExceeded(status)  ? "deadline"
                         : info_.scope.stop.stop_requested() ? "client"
                                                             : "shed";  // it read too slowly
    if (lease_) backend_.metrics.cancelled.Add(1, model(), reason);
  }
  const auto now = Clock::now();
  std::map<std::string, std::string> trailers;
  if (lease_ && started_at_ != Clock::time_point{}) {
    trailers["x-queue-seconds"] = Cat(Seconds(started_at_ - queued_at_));
    trailers["x-compute-seconds"] = Cat(Seconds(now - started_at_));
    if (lease_.engine().info().is_artifact) trailers["x-artifact-digest"] = lease_.engine().info().id;
  }
  const LogContext log(info_.request_id, info_.trace_id);
  Log(LogLevel::kInfo, "generation_finished",
      {{"ref", request_.ref().substr(0, 200)},
       {"model", lease_ ? model() : ""},
       {"artifact", lease_ ? lease_.engine().info().id : ""},
       {"count", count_},
       {"code", rpc::CodeName(status.raw_code())},
       {"error", Message(status)},
       {"ms", Ms(now - arrival_)}});
  // Before the client hears of the end, so that it finds the model idle.
  lease_ = ModelLease();
  out_.Finish(status, std::move(trailers));
}

}  // namespace tempera
