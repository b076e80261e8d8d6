// Looks into artifacts, names and deletes them.
#pragma once

#include "server/artifact_index.h"
#include "server/backend.h"
#include "tempera/v1/artifact.grpc.pb.h"

namespace tempera {

// Thread-safe.
class ArtifactService final : public v1::ArtifactService::CallbackService {
 public:
  // `aliases_changed` is told after an alias was set or removed.
  ArtifactService(Backend& backend, ArtifactIndex& artifacts, std::function<void()> aliases_changed)
      : backend_(backend), artifacts_(artifacts), aliases_changed_(std::move(aliases_changed)) {}

  grpc::ServerUnaryReactor* GetArtifact(grpc::CallbackServerContext* context,
                                        const v1::GetArtifactRequest* request,
                                        v1::Artifact* response) override;
  grpc::ServerUnaryReactor* ListArtifacts(grpc::CallbackServerContext* context,
                                          const v1::ListArtifactsRequest* request,
                                          v1::ListArtifactsResponse* response) override;
  grpc::ServerUnaryReactor* VerifyArtifact(grpc::CallbackServerContext* context,
                                           const v1::VerifyArtifactRequest* request,
                                           v1::VerifyArtifactResponse* response) override;
  grpc::ServerUnaryReactor* DeleteArtifact(grpc::CallbackServerContext* context,
                                           const v1::DeleteArtifactRequest* request,
                                           google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* SetAlias(grpc::CallbackServerContext* context, const v1::SetAliasRequest* request,
                                     v1::Alias* response) override;
  grpc::ServerWriteReactor<v1::GetQualityReportResponse>* GetQualityReport(
      grpc::CallbackServerContext* context, const v1::GetQualityReportRequest* request) override;
  grpc::ServerUnaryReactor* ExplainQuantization(grpc::CallbackServerContext* context,
                                                const v1::ExplainQuantizationRequest* request,
                                                v1::ExplainQuantizationResponse* response) override;

 private:
  Status DoDelete(const CallScope& scope, const v1::DeleteArtifactRequest& request);
  Status DoSetAlias(const CallScope& scope, const v1::SetAliasRequest& request, v1::Alias& response);
  Result<std::map<std::string, FileEntry>> Digests(const CallScope& scope, const std::string& id);

  Backend& backend_;
  ArtifactIndex& artifacts_;
  const std::function<void()> aliases_changed_;
};

}  // namespace tempera
