#include "server/artifact_service.h"

#include <algorithm>
#include <set>

#include "artifact/artifact.h"
#include "base/files.h"
#include "rpc/stream_writer.h"
#include "server/explain.h"
#include "server/filters.h"
#include "server/messages.h"
#include "storage/artifacts.h"
#include "worker/agent.h"

namespace tempera {
namespace {

constexpr int64_t kChunkBytes = 1 << 20;

std::string MediaType(const std::string& path) {
  static constexpr std::pair<std::string_view, const char*> kTypes[] = {
      {".html", "text/html"}, {".json", "application/json"}, {".png", "image/png"}};
  for (const auto& [suffix, type] : kTypes)
    if (path.ends_with(suffix)) return type;
  return "application/octet-stream";
}

// A file of the report: everything but the tensors and the digests.
// The model's own parts lie in sub-folders.
bool IsReportFile(const std::string& path) {
  if (path.find('/') != path.npos) return path.starts_with("pictures/");
  return !path.ends_with(".safetensors") && path != kDigestsFile;
}

// The pieces of some files, one after the other.
class ReportReader {
 public:
  ReportReader(ObjectStore& objects, std::string id, std::vector<ObjectInfo> files,
               std::map<std::string, FileEntry> digests)
      : objects_(objects), id_(std::move(id)), files_(std::move(files)), digests_(std::move(digests)) {}

  Result<std::optional<v1::GetQualityReportResponse>> Next(const CallScope& scope) {
    if (file_ == files_.size()) return std::nullopt;
    const ObjectInfo& file = files_[file_];
    if (hash_ == nullptr) hash_ = std::make_unique<Sha256>();
    TEMPERA_ASSIGN(const std::string data,
                   objects_.GetRange(scope, ArtifactKey(id_, file.key), offset_, kChunkBytes));
    v1::GetQualityReportResponse message;
    message.set_path(file.key);
    message.set_media_type(MediaType(file.key));
    message.set_total_bytes(file.bytes);
    message.set_offset(offset_);
    hash_->Update(data.data(), data.size());
    offset_ += static_cast<int64_t>(data.size());
    message.set_data(data);
    if (offset_ < file.bytes && data.empty())
      return DataLoss(file.key, ": ends at ", offset_, " bytes, want ", file.bytes);
    if (offset_ >= file.bytes) {
      message.set_last(true);
      const std::string sha256 = hash_->Hex();
      if (const auto it = digests_.find(file.key); it != digests_.end() && it->second.sha256 != sha256)
        return rpc::WithReason(
            DataLoss(file.key, ": sha256 is wrong, got ", sha256, ", want ", it->second.sha256),
            rpc::kArtifactDamaged);
      message.set_sha256(sha256);
      hash_.reset();
      offset_ = 0;
      ++file_;
    }
    return message;
  }

 private:
  ObjectStore& objects_;
  const std::string id_;
  const std::vector<ObjectInfo> files_;  // key: the path in the artifact
  const std::map<std::string, FileEntry> digests_;
  size_t file_ = 0;
  int64_t offset_ = 0;
  std::unique_ptr<Sha256> hash_;
};

}  // namespace

grpc::ServerUnaryReactor* ArtifactService::GetArtifact(grpc::CallbackServerContext* context,
                                                       const v1::GetArtifactRequest* request,
                                                       v1::Artifact* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) -> Status {
    TEMPERA_ASSIGN(const std::string id,
                   backend_.refs.ResolveArtifact(call.scope(), request->artifact(), "artifact"));
    TEMPERA_ASSIGN(*response, artifacts_.Full(call.scope(), id));
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* ArtifactService::ListArtifacts(grpc::CallbackServerContext* context,
                                                         const v1::ListArtifactsRequest* request,
                                                         v1::ListArtifactsResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) -> Status {
    TEMPERA_ASSIGN(const int64_t limit, PageSize(request->page_size()));
    TEMPERA_ASSIGN(const std::vector<JobCondition> filter, ParseArtifactFilter(request->filter()));
    TEMPERA_ASSIGN(const bool descending, Descending(request->order_by()));
    const std::string selection = Cat("artifacts\n", request->filter(), "\n", descending);
    TEMPERA_ASSIGN(const std::string after, ReadPageToken(selection, request->page_token()));
    TEMPERA_ASSIGN(auto all, artifacts_.All(call.scope()));
    TEMPERA_ASSIGN(const auto aliases, artifacts_.Aliases());
    if (!descending) std::reverse(all.begin(), all.end());
    // A token names the last artifact of its page by time and id: others may have come or gone since.
    const auto key = [](const ArtifactSummary& a) { return Cat(a.create_ms, "-", a.message.id()); };
    bool begun = after.empty();
    const auto is_after = [&](const ArtifactSummary& a) {
      const size_t dash = after.find('-');
      const int64_t ms = std::atoll(after.substr(0, dash).c_str());
      const std::string id = dash == std::string::npos ? "" : after.substr(dash + 1);
      const auto mine = std::pair(a.create_ms, a.message.id()), last = std::pair(ms, id);
      return descending ? mine < last : last < mine;
    };
    for (const auto& artifact : all) {
      if (!begun && !is_after(*artifact)) continue;
      begun = true;
      const auto it = aliases.find(artifact->message.id());
      const std::vector<std::string> names = it == aliases.end() ? std::vector<std::string>() : it->second;
      if (!Matches(filter, *artifact, names)) continue;
      if (response->artifacts_size() == limit) {
        const v1::Artifact& last = response->artifacts(response->artifacts_size() - 1);
        const auto known = artifacts_.Get(call.scope(), last.id());
        response->set_next_page_token(PageToken(selection, known.ok() ? key(**known) : ""));
        break;
      }
      v1::Artifact& message = *response->add_artifacts();
      message = artifact->message;
      message.mutable_aliases()->Assign(names.begin(), names.end());
    }
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* ArtifactService::VerifyArtifact(grpc::CallbackServerContext* context,
                                                          const v1::VerifyArtifactRequest* request,
                                                          v1::VerifyArtifactResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) -> Status {
    const CallScope& scope = call.scope();
    TEMPERA_ASSIGN(const std::string id,
                   backend_.refs.ResolveArtifact(scope, request->artifact(), "artifact"));
    const DataFolder data{backend_.config.data};
    TEMPERA_ASSIGN(const std::filesystem::path folder,
                   OpenArtifact(scope, backend_.objects, id, data.cache()));
    const Result<Manifest> manifest = tempera::VerifyArtifact(scope, folder, id);
    if (!manifest.ok()) {
      return absl::IsDataLoss(manifest.status())
                 ? rpc::WithResource(rpc::WithReason(manifest.status(), rpc::kArtifactDamaged), "artifact",
                                     id)
                 : manifest.status();
    }
    response->set_artifact(id);
    int64_t bytes = 0;
    const auto add = [&](const std::string& path, const std::string& sha256, int64_t size) {
      v1::ArtifactFile& file = *response->add_files();
      file.set_path(path);
      file.set_sha256(sha256);
      file.set_bytes(size);
      bytes += size;
    };
    add(kManifestFile, id, static_cast<int64_t>(manifest->Text().size()));
    for (const auto& [path, entry] : manifest->files) add(path, entry.sha256, entry.bytes);
    TEMPERA_ASSIGN(const auto beside, ReadDigests(folder, kDigestsFile));
    for (const auto& [path, entry] : beside) add(path, entry.sha256, entry.bytes);
    response->set_bytes(bytes);
    return OkStatus();
  });
}

Status ArtifactService::DoDelete(const CallScope& scope, const v1::DeleteArtifactRequest& request) {
  TEMPERA_ASSIGN(const std::string id,
                 backend_.refs.ResolveArtifact(scope, request.artifact(), "artifact", /*with_alias=*/false));
  TEMPERA_ASSIGN(const std::vector<Alias> aliases, backend_.jobs.ListAliases(id));
  if (!aliases.empty() && !request.force())
    return rpc::WithResource(
        rpc::WithReason(FailedPrecondition("artifact ", id.substr(0, 12), ": alias ", aliases.front().name,
                                           " points to it, want force or another target"),
                        rpc::kArtifactInUse),
        "artifact", id);
  ModelRef ref;
  ref.is_artifact = true;
  ref.id = ref.shown = id;
  TEMPERA_TRY(rpc::WithResource(backend_.models.UnloadIdle(ref), "artifact", id));
  for (const Alias& alias : aliases) {
    // One that moved away meanwhile stays.
    const Status moved = backend_.jobs.MoveAlias({alias.name, "", id}).status();
    if (!moved.ok() && !absl::IsAborted(moved) && !absl::IsNotFound(moved)) return moved;
  }
  TEMPERA_TRY(tempera::DeleteArtifact(scope, backend_.objects, id));
  Log(LogLevel::kInfo, "artifact_deleted", {{"artifact", id}});
  if (!aliases.empty()) aliases_changed_();
  return OkStatus();
}

grpc::ServerUnaryReactor* ArtifactService::DeleteArtifact(grpc::CallbackServerContext* context,
                                                          const v1::DeleteArtifactRequest* request,
                                                          google::protobuf::Empty* response) {
  return Run(backend_, *context, *request, request->request_id(),
             [this, request, response](rpc::UnaryCall& call) {
               return Once(backend_, "DeleteArtifact", *request, request->request_id(), *response,
                           [&] { return DoDelete(call.scope(), *request); });
             });
}

Status ArtifactService::DoSetAlias(const CallScope& scope, const v1::SetAliasRequest& request,
                                   v1::Alias& response) {
  if (Status status = CheckAliasName(request.alias()); !status.ok()) return rpc::WithField(status, "alias");
  AliasMove move{.name = request.alias(), .artifact_id = {}, .expected = {}};
  if (!request.artifact().empty()) {
    TEMPERA_ASSIGN(move.artifact_id, backend_.refs.ResolveArtifact(scope, request.artifact(), "artifact"));
  }
  if (request.has_expected_artifact()) move.expected = request.expected_artifact();
  const Result<Alias> before = backend_.jobs.GetAlias(request.alias());
  const Result<Alias> alias = backend_.jobs.MoveAlias(move);
  if (absl::IsAborted(alias.status()))
    return rpc::WithResource(rpc::WithReason(alias.status(), rpc::kAliasMoved), "alias", request.alias());
  if (absl::IsNotFound(alias.status()))
    return rpc::WithResource(rpc::WithReason(alias.status(), rpc::kAliasNotFound), "alias", request.alias());
  if (!alias.ok()) return alias.status();
  response.set_alias(alias->name);
  response.set_artifact(alias->artifact_id);
  if (before.ok()) response.set_previous_artifact(before->artifact_id);
  *response.mutable_update_time() = TimeFromMs(alias->update_ms);
  Log(LogLevel::kInfo, "alias_set", {{"alias", alias->name}, {"artifact", alias->artifact_id}});
  aliases_changed_();
  return OkStatus();
}

grpc::ServerUnaryReactor* ArtifactService::SetAlias(grpc::CallbackServerContext* context,
                                                    const v1::SetAliasRequest* request, v1::Alias* response) {
  return Run(backend_, *context, *request, request->request_id(),
             [this, request, response](rpc::UnaryCall& call) {
               return Once(backend_, "SetAlias", *request, request->request_id(), *response,
                           [&] { return DoSetAlias(call.scope(), *request, *response); });
             });
}

// What every file of an artifact must be, manifest.json too.
Result<std::map<std::string, FileEntry>> ArtifactService::Digests(const CallScope& scope,
                                                                  const std::string& id) {
  TEMPERA_ASSIGN(const Manifest manifest, ReadManifest(scope, backend_.objects, id));
  const DataFolder data{backend_.config.data};
  TEMPERA_ASSIGN(const std::filesystem::path folder, OpenArtifact(scope, backend_.objects, id, data.cache()));
  TEMPERA_ASSIGN(auto digests, ReadDigests(folder, kDigestsFile));
  digests.insert(manifest.files.begin(), manifest.files.end());
  return digests;
}

grpc::ServerWriteReactor<v1::GetQualityReportResponse>* ArtifactService::GetQualityReport(
    grpc::CallbackServerContext* context, const v1::GetQualityReportRequest* request) {
  using Message = v1::GetQualityReportResponse;
  auto next = [this, request, reader = std::shared_ptr<ReportReader>()](
                  const CallScope& scope) mutable -> Result<std::optional<Message>> {
    if (reader == nullptr) {
      TEMPERA_ASSIGN(const std::string id,
                     backend_.refs.ResolveArtifact(scope, request->artifact(), "artifact"));
      TEMPERA_ASSIGN(std::vector<ObjectInfo> files, artifacts_.Files(scope, id));
      std::erase_if(files, [](const ObjectInfo& f) { return !IsReportFile(f.key); });
      if (request->paths_size() > 0) {
        std::vector<ObjectInfo> wanted;
        for (const std::string& path : request->paths()) {
          const auto it =
              std::find_if(files.begin(), files.end(), [&](const ObjectInfo& f) { return f.key == path; });
          if (it == files.end())
            return rpc::WithField(
                rpc::WithReason(NotFound("paths: the report has no file ", Quoted(path)), rpc::kFileNotFound),
                "paths");
          wanted.push_back(*it);
        }
        files = std::move(wanted);
      }
      TEMPERA_ASSIGN(auto digests, Digests(scope, id));
      reader = std::make_shared<ReportReader>(backend_.objects, id, std::move(files), std::move(digests));
    }
    return reader->Next(scope);
  };
  auto* stream = new rpc::PullStream<Message>(*context, *request, backend_.io, std::move(next));
  const Status status = backend_.CheckServing();
  status.ok() ? stream->Start() : stream->Refuse(status);
  return stream;
}

grpc::ServerUnaryReactor* ArtifactService::ExplainQuantization(grpc::CallbackServerContext* context,
                                                               const v1::ExplainQuantizationRequest* request,
                                                               v1::ExplainQuantizationResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) -> Status {
    const CallScope& scope = call.scope();
    TEMPERA_ASSIGN(const std::string id,
                   backend_.refs.ResolveArtifact(scope, request->artifact(), "artifact"));
    TEMPERA_ASSIGN(const Manifest manifest, ReadManifest(scope, backend_.objects, id));
    const DataFolder data{backend_.config.data};
    TEMPERA_ASSIGN(const std::filesystem::path folder,
                   OpenArtifact(scope, backend_.objects, id, data.cache()));
    TEMPERA_TRY(Explain(folder, manifest, *request, *response));
    response->set_artifact(id);
    return OkStatus();
  });
}

}  // namespace tempera
