#include "server/messages.h"

#include <google/protobuf/util/json_util.h>

#include "rpc/status_map.h"
#include "server/refs.h"

namespace tempera {
namespace {

constexpr char kJobs[] = "quantizeJobs/";
constexpr char kOperations[] = "operations/";

Result<std::string> IdFrom(const std::string& name, const std::string& collection) {
  const std::string id = name.starts_with(collection) ? name.substr(collection.size()) : name;
  if (id.size() == 16 && id.find_first_not_of("0123456789abcdef") == std::string::npos) return id;
  return InvalidArgument("name: got ", Quoted(name), ", want ", collection, "{16 hexadecimal digits}");
}

}  // namespace

google::protobuf::Timestamp TimeFromMs(int64_t ms) {
  google::protobuf::Timestamp time;
  time.set_seconds(ms / 1000);
  time.set_nanos(static_cast<int32_t>(ms % 1000 * 1'000'000));
  return time;
}

google::protobuf::Timestamp TimeFrom(std::chrono::system_clock::time_point time) {
  return TimeFromMs(std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count());
}

Json JsonFrom(const google::protobuf::Struct& object) {
  std::string text;
  // What has no JSON, a number that is not finite, is refused as no object.
  if (!google::protobuf::util::MessageToJsonString(object, &text).ok()) return "a number that is not finite";
  return Json::parse(text, nullptr, false);
}

google::protobuf::Struct StructFrom(const Json& object) {
  google::protobuf::Struct message;
  TEMPERA_CHECK(google::protobuf::util::JsonStringToMessage(object.dump(), &message).ok(), "an object");
  return message;
}

QuantRequest RequestFrom(const v1::QuantizationSpec& spec) {
  QuantRequest r;
  if (spec.has_method()) r.method = spec.method();
  if (spec.has_weight_bits()) r.weight_bits = spec.weight_bits();
  if (spec.has_activation_bits()) r.activation_bits = spec.activation_bits();
  if (spec.has_boundary_bits()) r.boundary_bits = spec.boundary_bits();
  if (spec.has_quantize_attention()) r.quantize_attention = spec.quantize_attention();
  if (spec.has_stage_bits()) r.stage_bits = spec.stage_bits();
  for (const v1::SlotOverride& o : spec.overrides()) {
    SlotOverride& out = r.overrides.emplace_back();
    out.slot = o.slot();
    if (o.has_weight_bits()) out.weight_bits = o.weight_bits();
    if (o.has_activation_bits()) out.activation_bits = o.activation_bits();
  }
  if (spec.has_scheduler()) r.scheduler = spec.scheduler();
  if (spec.has_steps()) r.steps = spec.steps();
  if (spec.has_eta()) r.eta = spec.eta();
  if (spec.has_spacing()) r.spacing = spec.spacing();
  if (spec.has_samples_per_step()) r.samples_per_step = spec.samples_per_step();
  if (spec.has_seed()) r.seed = spec.seed();
  r.classes.assign(spec.classes().begin(), spec.classes().end());
  r.prompts.assign(spec.prompts().begin(), spec.prompts().end());
  if (spec.has_guidance()) r.guidance = spec.guidance();
  if (spec.has_height()) r.height = spec.height();
  if (spec.has_width()) r.width = spec.width();
  if (spec.has_max_iterations()) r.max_iterations = spec.max_iterations();
  if (spec.has_batch()) r.batch = spec.batch();
  if (spec.has_temporal_strategy()) r.temporal_strategy = spec.temporal_strategy();
  if (spec.has_keep_time_layers()) r.keep_time_layers = spec.keep_time_layers();
  if (spec.has_scheduler_options()) r.scheduler_options = JsonFrom(spec.scheduler_options());
  if (spec.has_evaluation_pictures()) r.evaluation_pictures = spec.evaluation_pictures();
  r.compare.assign(spec.compare().begin(), spec.compare().end());
  return r;
}

v1::QuantizationSpec SpecMessage(const QuantSpec& spec) {
  v1::QuantizationSpec m;
  m.set_method(spec.method);
  m.set_weight_bits(spec.weight_bits);
  m.set_activation_bits(spec.activation_bits);
  m.set_boundary_bits(spec.boundary_bits);
  m.set_quantize_attention(spec.quantize_attention);
  m.set_stage_bits(spec.stage_bits);
  for (const SlotOverride& o : spec.overrides) {
    v1::SlotOverride* out = m.add_overrides();
    out->set_slot(o.slot);
    if (o.weight_bits) out->set_weight_bits(*o.weight_bits);
    if (o.activation_bits) out->set_activation_bits(*o.activation_bits);
  }
  m.set_scheduler(spec.scheduler);
  m.set_steps(spec.steps);
  m.set_eta(spec.eta);
  m.set_spacing(spec.spacing);
  m.set_samples_per_step(spec.samples_per_step);
  m.set_seed(spec.seed);
  for (const int64_t c : spec.classes) m.add_classes(c);
  for (const std::string& prompt : spec.prompts) m.add_prompts(prompt);
  m.set_guidance(spec.guidance);
  m.set_height(spec.height);
  m.set_width(spec.width);
  m.set_max_iterations(spec.max_iterations);
  m.set_batch(spec.batch);
  m.set_temporal_strategy(spec.temporal_strategy);
  m.set_keep_time_layers(spec.keep_time_layers);
  if (!spec.scheduler_options.empty()) *m.mutable_scheduler_options() = StructFrom(spec.scheduler_options);
  m.set_evaluation_pictures(spec.evaluation_pictures);
  for (const std::string& name : spec.compare) m.add_compare(name);
  return m;
}

v1::QuantizeJob::State StateMessage(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return v1::QuantizeJob::QUEUED;
    case JobState::kRunning:
      return v1::QuantizeJob::RUNNING;
    case JobState::kCancelling:
      return v1::QuantizeJob::CANCELLING;
    case JobState::kSucceeded:
      return v1::QuantizeJob::SUCCEEDED;
    case JobState::kFailed:
      return v1::QuantizeJob::FAILED;
    case JobState::kCancelled:
      return v1::QuantizeJob::CANCELLED;
    case JobState::kRejected:
      return v1::QuantizeJob::REJECTED;
  }
  return v1::QuantizeJob::STATE_UNSPECIFIED;
}

v1::QuantizeJob JobMessage(const Job& job, const Result<QuantSpec>& spec) {
  v1::QuantizeJob m;
  if (!job.id.empty()) {
    m.set_name(kJobs + job.id);
    m.set_operation(kOperations + job.id);
    m.set_state(StateMessage(job.state));
    m.set_etag(job.etag());
  }
  m.set_model(job.model);
  if (spec.ok()) *m.mutable_spec() = SpecMessage(*spec);
  m.set_alias(job.name);
  m.mutable_labels()->insert(job.labels.begin(), job.labels.end());
  m.set_stage(job.progress.stage);
  m.set_unit(job.progress.unit);
  m.set_units_done(job.progress.done);
  m.set_units_total(job.progress.total);
  m.set_fraction(job.state == JobState::kSucceeded ? 1 : job.progress.fraction);
  const bool final = IsTerminal(job.state);
  if (job.progress.eta_seconds >= 0 && !final) {
    const auto ns = static_cast<int64_t>(std::min(job.progress.eta_seconds, 1e9) * 1e9);
    m.mutable_eta()->set_seconds(ns / 1'000'000'000);
    m.mutable_eta()->set_nanos(static_cast<int32_t>(ns % 1'000'000'000));
  }
  if (job.create_ms > 0) *m.mutable_create_time() = TimeFromMs(job.create_ms);
  if (job.start_ms > 0) *m.mutable_start_time() = TimeFromMs(job.start_ms);
  if (job.update_ms > 0) *m.mutable_update_time() = TimeFromMs(job.update_ms);
  if (job.end_ms > 0) *m.mutable_end_time() = TimeFromMs(job.end_ms);
  if (final && job.state != JobState::kSucceeded) {
    const Status error = job.error.ok() ? absl::CancelledError("cancelled on request") : job.error;
    *m.mutable_error() = rpc::ToProto(error);
  } else if (job.state == JobState::kQueued && !job.error.ok()) {
    *m.mutable_error() = rpc::ToProto(job.error);  // why its last attempt ended
  }
  m.set_artifact(job.artifact_id);
  m.set_worker(job.worker);
  m.set_attempts(static_cast<int32_t>(job.attempts));
  m.set_request_id(job.request_id);
  return m;
}

Result<std::string> JobIdFrom(const std::string& name) { return IdFrom(name, kJobs); }
Result<std::string> OperationIdFrom(const std::string& name) { return IdFrom(name, kOperations); }

v1::ModelInfo InfoMessage(const EngineInfo& info) {
  v1::ModelInfo m;
  m.set_name(info.name);
  m.set_source_sha256(info.source_sha256);
  m.set_pipeline(info.pipeline);
  m.set_family(info.family);
  m.set_channels(info.channels);
  m.set_height(info.height);
  m.set_width(info.width);
  m.set_classes(info.classes);
  m.set_takes_prompt(info.takes_prompt);
  m.set_takes_image(info.takes_image);
  m.set_default_guidance(info.guidance);
  m.set_size_step(info.any_size ? info.size_step : 0);
  for (const std::string& name : info.class_names) m.add_class_names(name);
  for (const std::string& name : info.schedulers) m.add_schedulers(name);
  for (const double timestep : info.timesteps) m.add_timesteps(timestep);
  m.set_any_timestep(info.any_timestep);
  v1::Schedule& schedule = *m.mutable_default_schedule();
  schedule.set_scheduler(info.scheduler);
  schedule.set_steps(info.steps);
  schedule.set_eta(info.eta);
  return m;
}

v1::LoadedModel LoadedMessage(const LoadedModel& model) {
  const EngineInfo& info = model.engine->info();
  v1::LoadedModel m;
  m.set_ref(model.ref.shown);
  m.set_artifact(info.id);
  *m.mutable_info() = InfoMessage(info);
  m.set_weight_bytes(info.weight_bytes);
  m.set_stage_bytes(info.stage_bytes);
  m.set_cache_bytes(info.cache_bytes);
  m.set_reference_bytes(info.reference_bytes);
  m.set_memory_bytes(info.memory_bytes());
  m.set_active_generations(model.active);
  *m.mutable_load_time() = TimeFrom(model.load_time);
  *m.mutable_last_use_time() = TimeFrom(model.last_use);
  return m;
}

v1::TemporalFeatureError ErrorMessage(const FeatureError& error) {
  v1::TemporalFeatureError m;
  m.set_timestep_bin(error.timestep_bin);
  m.set_block_group(error.block_group);
  m.set_ratio(error.ratio);
  return m;
}

v1::Progress ProgressMessage(int picture, const StepEvent& event) {
  v1::Progress m;
  m.set_picture(picture);
  m.set_step(event.step);
  m.set_steps(event.steps);
  m.set_timestep(event.timestep);
  m.set_milliseconds(event.milliseconds);
  if (event.temporal_feature_error) m.set_temporal_feature_error(*event.temporal_feature_error);
  for (const FeatureError& error : event.errors) *m.add_errors() = ErrorMessage(error);
  return m;
}

}  // namespace tempera
