#include "server/artifact_index.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "artifact/artifact.h"
#include "artifact/baseline.h"
#include "base/files.h"
#include "base/log.h"
#include "report/evaluation.h"
#include "report/measurements.h"
#include "rpc/status_map.h"
#include "server/messages.h"
#include "storage/artifacts.h"

namespace tempera {
namespace {

Status Missing(const std::string& id) {
  return rpc::WithResource(
      rpc::WithReason(NotFound("artifact ", id.substr(0, 12), ": is not published"), rpc::kArtifactNotFound),
      "artifact", id);
}

Result<std::string> ReadText(const CallScope& scope, ObjectStore& objects, const std::string& id,
                             const char* file) {
  TEMPERA_ASSIGN(const StoredObject object, objects.Get(scope, ArtifactKey(id, file)));
  return object.bytes;
}

void SetIf(const std::optional<double>& value, v1::EvaluationSummary& summary,
           void (v1::EvaluationSummary::*set)(double)) {
  if (value) (summary.*set)(*value);
}

v1::EvaluationSummary Summarize(const Evaluation& evaluation) {
  v1::EvaluationSummary s;
  s.set_pictures(static_cast<int32_t>(evaluation.pairs.size()));
  if (!evaluation.methods.empty()) {
    const MethodResult& own = evaluation.methods.front();
    if (own.psnr) s.set_psnr_db(own.psnr->mean.mean);
    if (own.ssim) s.set_ssim(own.ssim->mean.mean);
    SetIf(own.frechet_distance.value, s, &v1::EvaluationSummary::set_frechet_distance);
    SetIf(own.class_accuracy.value, s, &v1::EvaluationSummary::set_class_accuracy);
    if (!own.temporal.ratio.empty()) {
      s.set_temporal_feature_error(MeanTemporalError(own));
      s.set_temporal_mismatches(static_cast<int32_t>(TemporalMismatches(own)));
    }
  }
  SetIf(evaluation.full_precision.frechet_distance.value, s,
        &v1::EvaluationSummary::set_reference_frechet_distance);
  SetIf(evaluation.full_precision.class_accuracy.value, s,
        &v1::EvaluationSummary::set_reference_class_accuracy);
  return s;
}

// manifest.model: what the artifact paints and of which classes.
void FillModel(const Json& json, v1::ModelInfo& model) {
  std::string pipeline, family;
  std::vector<std::string> names;
  std::vector<int64_t> picture;  // channels, height, width
  int64_t classes = 0;
  Fields fields(json, "model");
  fields.Get("pipeline", pipeline);
  fields.Get("family", family);
  fields.Get("class_names", names);
  fields.Get("picture", picture);
  fields.Get("classes", classes);
  model.set_pipeline(pipeline);
  model.set_family(family);
  model.mutable_class_names()->Assign(names.begin(), names.end());
  model.set_classes(classes);
  if (picture.size() != 3) return;
  model.set_channels(picture[0]);
  model.set_height(picture[1]);
  model.set_width(picture[2]);
}

}  // namespace

Result<Manifest> ReadManifest(const CallScope& scope, ObjectStore& objects, const std::string& id) {
  const Result<std::string> text = ReadText(scope, objects, id, kManifestFile);
  if (absl::IsNotFound(text.status())) return Missing(id);
  if (!text.ok()) return text.status();
  const std::string label = Cat("artifact ", id.substr(0, 12), ": ", kManifestFile);
  if (Sha256Hex(*text) != id)
    return rpc::WithReason(DataLoss(label, ": sha256 is wrong, got ", Sha256Hex(*text), ", want ", id),
                           rpc::kArtifactDamaged);
  return Manifest::Parse(*text, label);
}

std::string ArtifactKey(const std::string& id, const std::string& path) {
  return Cat("artifacts/", id, "/", path);
}

int64_t ParseTimeMs(const std::string& text) {
  int year, month, day, hour, minute;
  double second;
  char end = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%lf%c", &year, &month, &day, &hour, &minute, &second,
                  &end) != 7 ||
      end != 'Z')
    return 0;
  const std::chrono::year_month_day date(std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day)));
  if (!date.ok() || hour > 23 || minute > 59 || !(second >= 0 && second < 61)) return 0;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return ((days * 24 + hour) * 60 + minute) * 60'000 + static_cast<int64_t>(second * 1000);
}

Result<std::vector<ObjectInfo>> ArtifactIndex::Files(const CallScope& scope, const std::string& id) {
  const std::string prefix = ArtifactKey(id, "");
  ObjectQuery query;
  query.prefix = prefix;
  std::vector<ObjectInfo> files;
  do {
    TEMPERA_ASSIGN(const ObjectPage page, objects_.List(scope, query));
    for (const ObjectInfo& object : page.objects)
      files.push_back({object.key.substr(prefix.size()), object.bytes});
    query.page_token = page.next_page_token;
  } while (!query.page_token.empty());
  const bool published =
      std::any_of(files.begin(), files.end(), [](const ObjectInfo& f) { return f.key == kManifestFile; });
  if (!published) return Missing(id);
  std::sort(files.begin(), files.end(),
            [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return files;
}

Result<std::shared_ptr<const ArtifactSummary>> ArtifactIndex::Get(const CallScope& scope,
                                                                  const std::string& id) {
  {
    std::lock_guard lock(mutex_);
    if (const auto it = known_.find(id); it != known_.end()) return it->second;
  }
  TEMPERA_ASSIGN(const Manifest manifest, ReadManifest(scope, objects_, id));
  auto summary = std::make_shared<ArtifactSummary>();
  v1::Artifact& m = summary->message;
  m.set_name("artifacts/" + id);
  m.set_id(id);
  v1::ModelInfo& model = *m.mutable_model();
  model.set_name(manifest.source_name);
  model.set_source_sha256(manifest.source_sha256);
  FillModel(manifest.model, model);
  if (const auto it = manifest.model.find("dropped_parameters"); it != manifest.model.end())
    summary->cache_complete = it->is_array() && !it->empty();
  if (const Result<QuantSpec> spec = compute_.parse_spec(manifest.spec, "spec"); spec.ok()) {
    *m.mutable_spec() = SpecMessage(*spec);
    summary->method = spec->method;
    v1::Schedule& schedule = *m.mutable_schedule();
    schedule.set_scheduler(spec->scheduler);
    schedule.set_steps(spec->steps);
    schedule.set_eta(spec->eta);
    schedule.set_spacing(spec->spacing);
    *model.mutable_default_schedule() = schedule;
    model.add_schedulers(spec->scheduler);
  }
  if (const auto it = manifest.schedule.find("timesteps"); it != manifest.schedule.end() && it->is_array())
    for (const Json& tau : *it)
      if (tau.is_number()) m.mutable_schedule()->add_timesteps(tau.get<double>());

  TEMPERA_ASSIGN(const std::vector<ObjectInfo> files, Files(scope, id));
  int64_t total = 0;
  for (const ObjectInfo& file : files) {
    total += file.bytes;
    if (file.key == kWeightsFile) m.set_weight_bytes(file.bytes);
  }
  m.set_total_bytes(total);

  if (const auto text = ReadText(scope, objects_, id, kEvaluationFile); text.ok()) {
    const Result<Json> json = ParseJson(*text, kEvaluationFile);
    const Result<Evaluation> evaluation =
        json.ok() ? EvaluationFromJson(*json, kEvaluationFile) : json.status();
    if (evaluation.ok()) *m.mutable_evaluation() = Summarize(*evaluation);
  }
  if (const auto text = ReadText(scope, objects_, id, kMeasurementsFile); text.ok()) {
    const Result<Json> json = ParseJson(*text, kMeasurementsFile);
    const Result<Measurements> measured =
        json.ok() ? MeasurementsFromJson(*json, kMeasurementsFile) : json.status();
    if (measured.ok()) {
      m.mutable_labels()->insert(measured->job.labels.begin(), measured->job.labels.end());
      if (!measured->job.id.empty()) m.set_quantize_job("quantizeJobs/" + measured->job.id);
      summary->create_ms = ParseTimeMs(measured->job.finished);
    }
  }
  if (summary->create_ms == 0) {  // when its manifest was put
    if (const auto path = objects_.LocalPath(ArtifactKey(id, kManifestFile)); path) {
      std::error_code error;
      const auto time = std::filesystem::last_write_time(*path, error);
      if (!error)
        summary->create_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                                 std::chrono::file_clock::to_sys(time).time_since_epoch())
                                 .count();
    }
  }
  *m.mutable_create_time() = TimeFromMs(summary->create_ms);
  std::lock_guard lock(mutex_);
  return known_.emplace(id, std::move(summary)).first->second;
}

Result<std::vector<std::shared_ptr<const ArtifactSummary>>> ArtifactIndex::All(const CallScope& scope) {
  std::vector<std::string> ids;
  std::string token;
  do {
    TEMPERA_ASSIGN(const ArtifactPage page, ListArtifacts(scope, objects_, token, 1000));
    ids.insert(ids.end(), page.ids.begin(), page.ids.end());
    token = page.next_page_token;
  } while (!token.empty());
  std::vector<std::shared_ptr<const ArtifactSummary>> all;
  for (const std::string& id : ids) {
    TEMPERA_TRY(scope.Check());
    Result<std::shared_ptr<const ArtifactSummary>> summary = Get(scope, id);
    if (summary.ok())
      all.push_back(*std::move(summary));
    else if (!absl::IsNotFound(summary.status()))
      Log(LogLevel::kWarn, "artifact_unreadable", {{"artifact", id}, {"error", Message(summary.status())}});
  }
  {
    // What is gone is forgotten.
    std::lock_guard lock(mutex_);
    std::erase_if(known_,
                  [&](const auto& item) { return !std::binary_search(ids.begin(), ids.end(), item.first); });
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::pair(b->create_ms, b->message.id()) < std::pair(a->create_ms, a->message.id());
  });
  return all;
}

Result<std::map<std::string, std::vector<std::string>>> ArtifactIndex::Aliases(const std::string& id) {
  TEMPERA_ASSIGN(const std::vector<Alias> aliases, jobs_.ListAliases(id));
  std::map<std::string, std::vector<std::string>> by_id;
  for (const Alias& alias : aliases) by_id[alias.artifact_id].push_back(alias.name);
  return by_id;
}

Result<v1::Artifact> ArtifactIndex::Full(const CallScope& scope, const std::string& id) {
  TEMPERA_ASSIGN(const Manifest manifest, ReadManifest(scope, objects_, id));
  TEMPERA_ASSIGN(const std::shared_ptr<const ArtifactSummary> summary, Get(scope, id));
  v1::Artifact artifact = summary->message;
  TEMPERA_ASSIGN(const auto aliases, Aliases(id));
  if (const auto it = aliases.find(id); it != aliases.end())
    artifact.mutable_aliases()->Assign(it->second.begin(), it->second.end());
  TEMPERA_ASSIGN(const std::vector<ObjectInfo> files, Files(scope, id));
  for (const ObjectInfo& info : files) {
    v1::ArtifactFile& file = *artifact.add_files();
    file.set_path(info.key);
    file.set_bytes(info.bytes);
    if (const auto it = manifest.files.find(info.key); it != manifest.files.end())
      file.set_sha256(it->second.sha256);
  }
  TEMPERA_ASSIGN(const std::vector<FeatureBaseline> baseline, ParseBaseline(manifest.baseline));
  for (const FeatureBaseline& row : baseline)
    *artifact.add_baseline() =
        ErrorMessage({.timestep_bin = row.timestep_bin, .block_group = row.block_group, .ratio = row.ratio});
  artifact.set_manifest_json(manifest.Text());
  return artifact;
}

}  // namespace tempera
