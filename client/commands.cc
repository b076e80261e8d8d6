#include "client/commands.h"

#include <limits>
#include <map>
#include <system_error>

#include "base/files.h"
#include "client/json_view.h"
#include "client/paths.h"
#include "client/terminal.h"

namespace tempera {
namespace {

// "quantizeJobs/abc" -> "abc".
std::string BareId(const std::string& name) { return name.substr(name.rfind('/') + 1); }

std::string JobName(const std::string& id) {
  return id.find('/') == std::string::npos ? "quantizeJobs/" + id : id;
}

std::string ShortId(const std::string& artifact) { return artifact.empty() ? "-" : artifact.substr(0, 12); }

std::string StateName(const v1::QuantizeJob& job) { return v1::QuantizeJob::State_Name(job.state()); }

std::string BitsText(const v1::QuantizationSpec& spec) {
  return Cat("W", spec.weight_bits(), "A", spec.activation_bits());
}

std::string Joined(const google::protobuf::RepeatedPtrField<std::string>& words) {
  std::string text;
  for (const auto& w : words) text += (text.empty() ? "" : " ") + w;
  return text;
}

double Seconds(const google::protobuf::Duration& d) {
  return static_cast<double>(d.seconds()) + d.nanos() * 1e-9;
}

double Between(const google::protobuf::Timestamp& from, const google::protobuf::Timestamp& to) {
  return static_cast<double>(to.seconds() - from.seconds()) + (to.nanos() - from.nanos()) * 1e-9;
}

std::string DateText(const google::protobuf::Timestamp& time) {
  std::string text = ToJson(time).get<std::string>().substr(0, 16);  // 2026-01-31T12:00
  text[10] = ' ';
  return text;
}

// Without protobuf's unset fields, for people; of long lists the first items.
std::string SpecText(const v1::QuantizationSpec& spec) {
  constexpr size_t kItems = 12;
  const Json json = ToJson(spec);
  std::string text;
  for (const auto& [key, value] : json.items()) {
    if (value.is_null() || (value.is_array() && value.empty())) continue;
    const bool cut = value.is_array() && value.size() > kItems;
    text += Cat("\n  ", key, ": ", OneLine(cut ? Json(value.begin(), value.begin() + kItems) : value));
    if (cut) text += Cat(" and ", value.size() - kItems, " more");
  }
  return text;
}

// {"job", "state", "artifact"} and, where it failed, "error".
Json JobResult(const v1::QuantizeJob& job) {
  Json out = {{"job", BareId(job.name())},
              {"state", StateName(job)},
              {"artifact", job.artifact().empty() ? Json(nullptr) : Json(job.artifact())}};
  if (job.has_error()) out["error"] = ErrorJson(FromRpcStatus(job.error()));
  return out;
}

void ShowProgress(ProgressBar& bar, const v1::QuantizeJob& job) {
  std::string detail = job.unit();
  if (job.units_total() > 0)
    detail += Cat(detail.empty() ? "" : "  ", job.units_done(), "/", job.units_total());
  if (job.has_eta()) detail += Cat(detail.empty() ? "" : "  ", "ETA ", TimeText(Seconds(job.eta())));
  std::string stage = job.stage();
  if (job.state() == v1::QuantizeJob::QUEUED) stage = "queued";
  if (job.state() == v1::QuantizeJob::CANCELLING) stage = "cancelling";
  bar.Show(stage.empty() ? "starting" : stage, job.fraction(), detail);
}

void PrintJob(std::ostream& out, const v1::QuantizeJob& job) {
  out << "job       " << BareId(job.name()) << "\n"
      << "state     " << StateName(job) << "\n"
      << "model     " << job.model() << "\n";
  if (!job.artifact().empty()) out << "artifact  " << job.artifact() << "\n";
  if (!job.alias().empty()) out << "alias     " << job.alias() << "\n";
  for (const auto& [key, value] :
       std::map<std::string, std::string>(job.labels().begin(), job.labels().end()))
    out << "label     " << key << "=" << value << "\n";
  if (job.has_create_time()) out << "created   " << DateText(job.create_time()) << " UTC\n";
  if (job.has_start_time() && job.has_end_time())
    out << "took      " << TimeText(Between(job.start_time(), job.end_time())) << "\n";
  if (!IsFinal(job.state()) && !job.stage().empty())
    out << "progress  " << static_cast<int>(job.fraction() * 100) << " %, " << job.stage() << " "
        << job.units_done() << "/" << job.units_total() << " " << job.unit() << "\n";
  if (!job.worker().empty()) out << "worker    " << job.worker() << " (attempt " << job.attempts() << ")\n";
  if (job.has_error()) out << "error     " << ErrorText(FromRpcStatus(job.error())) << "\n";
  out << "spec" << SpecText(job.spec()) << "\n";
}

void PrintEvaluation(std::ostream& out, const v1::EvaluationSummary& e) {
  if (e.has_psnr_db())
    out << "PSNR      " << NumberText(e.psnr_db()) << " dB over " << e.pictures() << " pairs\n";
  if (e.has_ssim()) out << "SSIM      " << NumberText(e.ssim()) << "\n";
  if (e.has_frechet_distance())
    out << "FD        " << NumberText(e.frechet_distance()) << " (full precision "
        << NumberText(e.reference_frechet_distance()) << ")\n";
  if (e.has_class_accuracy())
    out << "classes   " << NumberText(100 * e.class_accuracy()) << " % right (full precision "
        << NumberText(100 * e.reference_class_accuracy()) << " %)\n";
  if (e.has_temporal_feature_error())
    out << "temporal  error " << NumberText(e.temporal_feature_error()) << ", " << e.temporal_mismatches()
        << " mismatched steps\n";
}

// Follows a job to its end.
Result<int> Follow(const Session& s, const v1::QuantizeJob& first, bool job_lines) {
  const std::string id = BareId(first.name());
  auto end = [&]() -> Result<v1::QuantizeJob> {
    if (IsFinal(first.state())) return first;
    ProgressBar bar(s.err, s.width);
    return s.client.WatchJob(s.scope, first.name(), [&](const v1::QuantizeJob& job) {
      if (job_lines) {
        s.out << OneLine(ToJson(job)) << std::endl;
      } else if (!IsFinal(job.state())) {
        ShowProgress(bar, job);
      }
    });
  }();
  if (!end.ok() && s.scope.stop.stop_requested()) {
    s.err << "job " << id << " goes on; follow it with `tempera jobs watch " << id
          << "`, stop it with `tempera jobs cancel " << id << "`" << std::endl;
    return kExitInterrupted;
  }
  TEMPERA_ASSIGN(const v1::QuantizeJob job, std::move(end));
  const int code = job.state() == v1::QuantizeJob::SUCCEEDED ? kExitDone : kExitJobFailed;
  if (job.has_error())
    s.err << "tempera: job " << id << ": " << ErrorText(FromRpcStatus(job.error())) << std::endl;
  if (s.json) {
    if (!job_lines) s.out << OneLine(JobResult(job)) << std::endl;
    return code;
  }
  s.out << "job       " << id << " " << StateName(job);
  if (job.has_start_time() && job.has_end_time())
    s.out << " after " << TimeText(Between(job.start_time(), job.end_time()));
  s.out << "\n";
  if (job.state() != v1::QuantizeJob::SUCCEEDED) return code;
  s.out << "artifact  " << job.artifact() << "\n";
  if (!job.alias().empty()) s.out << "alias     " << job.alias() << "\n";
  const auto artifact = s.client.GetArtifact(s.scope, job.artifact());
  if (artifact.ok()) {
    s.out << "weights   " << SizeText(artifact->weight_bytes()) << "\n";
    PrintEvaluation(s.out, artifact->evaluation());
  }
  const std::string ref = job.alias().empty() ? job.artifact().substr(0, 12) : job.alias();
  s.out << "paint with `tempera generate " << ref << "`, read the report with `tempera report " << ref
        << " --out DIR`" << std::endl;
  return code;
}

// Calls `next(token)` page by page; it returns the next token, empty to stop.
Status Pages(const std::function<Result<std::string>(const std::string&)>& next) {
  std::string token;
  do {
    TEMPERA_ASSIGN(std::string following, next(token));
    if (!following.empty() && following == token)
      return Internal("page token: got the same twice, want a new one");
    token = std::move(following);
  } while (!token.empty());
  return OkStatus();
}

int PageSize(int limit, int have) { return limit == 0 ? 1000 : std::min(limit - have, 1000); }

}  // namespace

int ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kUnimplemented:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return kExitRefused;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnavailable;
    case absl::StatusCode::kDataLoss:
      return kExitDamaged;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitInternal;
  }
}

Result<int> RunQuantize(const Session& s, const QuantizeArgs& args) {
  v1::QuantizeRequest request = args.request;
  request.set_model(RefToSend(request.model(), s.cwd));
  TEMPERA_ASSIGN(const v1::QuantizeJob job, s.client.Quantize(s.scope, request));
  if (request.validate_only()) {
    if (s.json) {
      s.out << OneLine(ToJson(job)) << std::endl;
    } else {
      s.out << "the request is sound; it would quantize " << job.model() << " with" << SpecText(job.spec())
            << std::endl;
    }
    return kExitDone;
  }
  if (args.detach) {
    if (s.json) {
      s.out << OneLine(JobResult(job)) << std::endl;
    } else {
      s.out << BareId(job.name()) << std::endl;
    }
    return kExitDone;
  }
  s.err << "job " << BareId(job.name()) << ": " << job.spec().method() << " " << BitsText(job.spec())
        << " of " << job.model() << std::endl;
  return Follow(s, job, false);
}

Result<int> RunJobsList(const Session& s, const ListArgs& args) {
  std::vector<std::vector<std::string>> rows{
      {"JOB", "STATE", "DONE", "METHOD", "MODEL", "CREATED (UTC)", "ARTIFACT"}};
  int have = 0;
  TEMPERA_TRY(Pages([&](const std::string& token) -> Result<std::string> {
    v1::ListQuantizeJobsRequest request;
    request.set_filter(args.filter);
    request.set_page_size(PageSize(args.limit, have));
    request.set_page_token(token);
    TEMPERA_ASSIGN(const v1::ListQuantizeJobsResponse page, s.client.ListJobs(s.scope, request));
    for (const auto& job : page.quantize_jobs()) {
      ++have;
      if (s.json) {
        s.out << OneLine(ToJson(job)) << "\n";
        continue;
      }
      rows.push_back({BareId(job.name()), StateName(job), Cat(static_cast<int>(job.fraction() * 100), " %"),
                      Cat(job.spec().method(), " ", BitsText(job.spec())), BareId(job.model()),
                      DateText(job.create_time()), ShortId(job.artifact())});
    }
    return args.limit != 0 && have >= args.limit ? std::string() : page.next_page_token();
  }));
  if (!s.json) PrintTable(s.out, rows);
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunJobsShow(const Session& s, const std::string& id) {
  TEMPERA_ASSIGN(const v1::QuantizeJob job, s.client.GetJob(s.scope, JobName(id)));
  if (s.json) {
    s.out << OneLine(ToJson(job)) << std::endl;
  } else {
    PrintJob(s.out, job);
  }
  return kExitDone;
}

Result<int> RunJobsWatch(const Session& s, const std::string& id) {
  v1::QuantizeJob job;
  job.set_name(JobName(id));
  return Follow(s, job, s.json);
}

Result<int> RunJobsCancel(const Session& s, const std::string& id) {
  v1::CancelQuantizeJobRequest request;
  request.set_name(JobName(id));
  TEMPERA_ASSIGN(const v1::QuantizeJob job, s.client.CancelJob(s.scope, request));
  if (s.json) {
    s.out << OneLine(JobResult(job)) << std::endl;
  } else {
    s.out << BareId(job.name()) << " " << StateName(job) << std::endl;
  }
  return kExitDone;
}

Result<int> RunJobsDelete(const Session& s, const std::string& id) {
  v1::DeleteQuantizeJobRequest request;
  request.set_name(JobName(id));
  TEMPERA_TRY(s.client.DeleteJob(s.scope, request));
  if (s.json) {
    s.out << OneLine({{"job", BareId(id)}, {"deleted", true}}) << std::endl;
  } else {
    s.out << "deleted " << BareId(id) << std::endl;
  }
  return kExitDone;
}

Result<int> RunArtifactsList(const Session& s, const ListArgs& args) {
  std::vector<std::vector<std::string>> rows{
      {"ARTIFACT", "MODEL", "METHOD", "SCHEDULE", "WEIGHTS", "PSNR", "CREATED (UTC)", "ALIASES"}};
  int have = 0;
  TEMPERA_TRY(Pages([&](const std::string& token) -> Result<std::string> {
    v1::ListArtifactsRequest request;
    request.set_filter(args.filter);
    request.set_page_size(PageSize(args.limit, have));
    request.set_page_token(token);
    TEMPERA_ASSIGN(const v1::ListArtifactsResponse page, s.client.ListArtifacts(s.scope, request));
    for (const auto& a : page.artifacts()) {
      ++have;
      if (s.json) {
        s.out << OneLine(ToJson(a)) << "\n";
        continue;
      }
      rows.push_back({ShortId(a.id()), a.model().name(), Cat(a.spec().method(), " ", BitsText(a.spec())),
                      Cat(a.schedule().scheduler(), " ", a.schedule().steps()), SizeText(a.weight_bytes()),
                      a.evaluation().has_psnr_db() ? Cat(NumberText(a.evaluation().psnr_db()), " dB") : "-",
                      DateText(a.create_time()), Joined(a.aliases())});
    }
    return args.limit != 0 && have >= args.limit ? std::string() : page.next_page_token();
  }));
  if (!s.json) PrintTable(s.out, rows);
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunArtifactsShow(const Session& s, const std::string& id) {
  TEMPERA_ASSIGN(const v1::Artifact a, s.client.GetArtifact(s.scope, id));
  if (s.json) {
    s.out << OneLine(ToJson(a)) << std::endl;
    return kExitDone;
  }
  s.out << "artifact  " << a.id() << "\n"
        << "model     " << a.model().name() << " (" << a.model().family() << ", " << a.model().width() << "x"
        << a.model().height() << "x" << a.model().channels() << ", " << a.model().classes() << " classes)\n"
        << "schedule  " << a.schedule().scheduler() << ", " << a.schedule().steps() << " steps, eta "
        << NumberText(a.schedule().eta()) << ", " << a.schedule().spacing() << "\n";
  if (a.aliases_size() > 0) s.out << "aliases   " << Joined(a.aliases()) << "\n";
  if (!a.quantize_job().empty()) s.out << "job       " << BareId(a.quantize_job()) << "\n";
  s.out << "created   " << DateText(a.create_time()) << " UTC\n"
        << "size      " << SizeText(a.total_bytes()) << ", weights " << SizeText(a.weight_bytes()) << "\n";
  PrintEvaluation(s.out, a.evaluation());
  s.out << "spec" << SpecText(a.spec()) << "\nfiles\n";
  std::vector<std::vector<std::string>> rows;
  for (const auto& f : a.files()) rows.push_back({"  " + f.path(), SizeText(f.bytes()), ShortId(f.sha256())});
  PrintTable(s.out, rows);
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunArtifactsVerify(const Session& s, const std::string& id) {
  TEMPERA_ASSIGN(const v1::VerifyArtifactResponse r, s.client.VerifyArtifact(s.scope, id));
  if (s.json) {
    s.out << OneLine(ToJson(r)) << std::endl;
  } else {
    s.out << r.artifact() << " is sound: " << r.files_size() << " files, " << SizeText(r.bytes())
          << std::endl;
  }
  return kExitDone;
}

Result<int> RunArtifactsDelete(const Session& s, const std::string& id, bool force) {
  v1::DeleteArtifactRequest request;
  request.set_artifact(id);
  request.set_force(force);
  TEMPERA_TRY(s.client.DeleteArtifact(s.scope, request));
  if (s.json) {
    s.out << OneLine({{"artifact", id}, {"deleted", true}}) << std::endl;
  } else {
    s.out << "deleted " << id << std::endl;
  }
  return kExitDone;
}

Result<int> RunAlias(const Session& s, const std::string& alias, const std::string& artifact,
                     const std::optional<std::string>& expected) {
  v1::SetAliasRequest request;
  request.set_alias(alias);
  request.set_artifact(artifact);
  if (expected) request.set_expected_artifact(*expected);
  TEMPERA_ASSIGN(const v1::Alias set, s.client.SetAlias(s.scope, request));
  if (s.json) {
    s.out << OneLine(ToJson(set)) << std::endl;
    return kExitDone;
  }
  s.out << set.alias() << (set.artifact().empty() ? " removed" : Cat(" -> ", set.artifact()));
  if (!set.previous_artifact().empty()) s.out << " (was " << ShortId(set.previous_artifact()) << ")";
  s.out << std::endl;
  return kExitDone;
}

Result<int> RunReport(const Session& s, const std::string& id, const std::string& out) {
  const std::filesystem::path folder = s.cwd / out;
  v1::GetQualityReportRequest request;
  request.set_artifact(id);
  int files = 0;
  int64_t bytes = 0;
  std::string page;
  const auto save = [&](const ReportFile& file) -> Status {
    TEMPERA_TRY(CheckInside(file.path));
    const std::filesystem::path target = folder / file.path;
    TEMPERA_TRY(MakeFolders(target.parent_path(), out));
    TEMPERA_TRY(WriteFileAtomic(target, file.bytes, file.path));
    ++files;
    bytes += static_cast<int64_t>(file.bytes.size());
    if (file.path == "report.html") page = target.string();
    if (s.json)
      s.out << OneLine(
                   {{"path", target.string()}, {"media_type", file.media_type}, {"bytes", file.bytes.size()}})
            << "\n";
    return OkStatus();
  };
  TEMPERA_TRY(s.client.GetReport(s.scope, request, save));
  if (!s.json)
    s.out << files << " files, " << SizeText(bytes) << "; open " << (page.empty() ? out : page) << "\n";
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunExplain(const Session& s, const std::string& id, const std::string& layer,
                       std::optional<int> step) {
  std::vector<std::vector<std::string>> rows;
  TEMPERA_TRY(Pages([&](const std::string& token) -> Result<std::string> {
    v1::ExplainQuantizationRequest request;
    request.set_artifact(id);
    request.set_layer(layer);
    if (step) request.set_step(*step);
    request.set_page_token(token);
    TEMPERA_ASSIGN(const v1::ExplainQuantizationResponse page, s.client.Explain(s.scope, request));
    for (const auto& l : page.layers()) {
      if (s.json) {
        s.out << OneLine(ToJson(l)) << "\n";
        continue;
      }
      const std::string error = l.has_error() ? NumberText(l.error()) : "-";
      const std::string bits = Cat("W", l.weight_bits() == 0 ? "32" : std::to_string(l.weight_bits()), "A",
                                   l.activation_bits() == 0 ? "32" : std::to_string(l.activation_bits()));
      if (l.steps().empty())
        rows.push_back({l.layer(), l.role(), bits, error, "-", "-", "-", "-", "-", "-", "-"});
      for (const auto& t : l.steps())
        rows.push_back(
            {l.layer(), l.role(), bits, error,
             Cat(t.step(), t.part() > 0 ? Cat(".", t.part()) : "",
                 t.has_class_label() ? Cat(" c", t.class_label()) : ""),
             t.scale() > 0 ? NumberText(t.scale()) : "-", t.scale() > 0 ? Cat(t.zero_point()) : "-",
             t.scale() > 0 ? Cat("[", NumberText(t.range_low()), ", ", NumberText(t.range_high()), "]") : "-",
             t.has_clipping_ratio() ? Cat(NumberText(100 * t.clipping_ratio()), " %") : "-",
             t.has_error() ? NumberText(t.error()) : "-", t.strategy().empty() ? "-" : t.strategy()});
    }
    return page.next_page_token();
  }));
  if (!s.json) {
    rows.insert(rows.begin(), {"LAYER", "ROLE", "BITS", "ERROR", "STEP", "SCALE", "ZERO", "RANGE", "CLIPPED",
                               "TEMPORAL", "STRATEGY"});
    PrintTable(s.out, rows);
  }
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunModelsList(const Session& s) {
  std::vector<std::vector<std::string>> rows{
      {"REF", "MODEL", "MEMORY", "WEIGHTS", "CACHE", "IN USE", "LAST USE (UTC)", "ALIASES"}};
  int64_t used = 0, budget = 0;
  TEMPERA_TRY(Pages([&](const std::string& token) -> Result<std::string> {
    v1::ListLoadedModelsRequest request;
    request.set_page_token(token);
    TEMPERA_ASSIGN(const v1::ListLoadedModelsResponse page, s.client.ListModels(s.scope, request));
    used = page.memory_used_bytes();
    budget = page.memory_budget_bytes();
    for (const auto& m : page.models()) {
      if (s.json) {
        s.out << OneLine(ToJson(m)) << "\n";
        continue;
      }
      rows.push_back({m.artifact().empty() ? m.ref() : ShortId(m.artifact()), m.info().name(),
                      SizeText(m.memory_bytes()), SizeText(m.weight_bytes()), SizeText(m.cache_bytes()),
                      Cat(m.active_generations()), DateText(m.last_use_time()), Joined(m.aliases())});
    }
    return page.next_page_token();
  }));
  if (!s.json) {
    PrintTable(s.out, rows);
    s.out << SizeText(used) << " of " << (budget == 0 ? "no limit" : SizeText(budget)) << "\n";
  }
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunModelsCaches(const Session& s) {
  std::vector<std::vector<std::string>> rows{
      {"ARTIFACT", "MODEL", "STEPS", "CLASSES", "ENTRIES", "SIZE", "COMPLETE"}};
  TEMPERA_TRY(Pages([&](const std::string& token) -> Result<std::string> {
    v1::ListTemporalCachesRequest request;
    request.set_page_token(token);
    TEMPERA_ASSIGN(const v1::ListTemporalCachesResponse page, s.client.ListCaches(s.scope, request));
    for (const auto& c : page.caches()) {
      if (s.json) {
        s.out << OneLine(ToJson(c)) << "\n";
        continue;
      }
      rows.push_back({ShortId(c.artifact()), c.model(), Cat(c.steps()), Cat(c.classes()), Cat(c.entries()),
                      SizeText(c.bytes()), c.complete() ? "yes" : "no"});
    }
    return page.next_page_token();
  }));
  if (!s.json) PrintTable(s.out, rows);
  s.out << std::flush;
  return kExitDone;
}

Result<int> RunModelsLoad(const Session& s, const std::string& ref) {
  v1::LoadModelRequest request;
  request.set_ref(RefToSend(ref, s.cwd));
  TEMPERA_ASSIGN(const v1::LoadedModel m, s.client.LoadModel(s.scope, request));
  if (s.json) {
    s.out << OneLine(ToJson(m)) << std::endl;
  } else {
    s.out << (m.artifact().empty() ? m.ref() : m.artifact()) << " is loaded: " << SizeText(m.memory_bytes())
          << std::endl;
  }
  return kExitDone;
}

Result<int> RunModelsUnload(const Session& s, const std::string& ref) {
  v1::UnloadModelRequest request;
  request.set_ref(RefToSend(ref, s.cwd));
  TEMPERA_TRY(s.client.UnloadModel(s.scope, request));
  if (s.json) {
    s.out << OneLine({{"ref", request.ref()}, {"unloaded", true}}) << std::endl;
  } else {
    s.out << "unloaded " << ref << std::endl;
  }
  return kExitDone;
}

Result<int> RunCapabilities(const Session& s, const std::string& ref) {
  TEMPERA_ASSIGN(const v1::Capabilities c, s.client.GetCapabilities(s.scope, RefToSend(ref, s.cwd)));
  const Json json = ToJson(c);
  if (s.json) {
    s.out << OneLine(json) << std::endl;
    return kExitDone;
  }
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      s.out << key << "\n";
      for (const auto& [inner, v] : value.items()) s.out << "  " << inner << ": " << OneLine(v) << "\n";
    } else if (!value.is_null() && value != "") {
      s.out << key << ": " << OneLine(value) << "\n";
    }
  }
  s.out << std::flush;
  return kExitDone;
}

}  // namespace tempera
