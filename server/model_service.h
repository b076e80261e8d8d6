// What is in memory: load, unload, list.
#pragma once

#include "server/artifact_index.h"
#include "server/backend.h"
#include "tempera/v1/model.grpc.pb.h"

namespace tempera {

// Thread-safe.
class ModelService final : public v1::ModelService::CallbackService {
 public:
  ModelService(Backend& backend, ArtifactIndex& artifacts) : backend_(backend), artifacts_(artifacts) {}

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context,
                                      const v1::LoadModelRequest* request,
                                      v1::LoadedModel* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const v1::UnloadModelRequest* request,
                                        google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* ListLoadedModels(grpc::CallbackServerContext* context,
                                             const v1::ListLoadedModelsRequest* request,
                                             v1::ListLoadedModelsResponse* response) override;
  grpc::ServerUnaryReactor* ListTemporalCaches(grpc::CallbackServerContext* context,
                                               const v1::ListTemporalCachesRequest* request,
                                               v1::ListTemporalCachesResponse* response) override;

 private:
  Backend& backend_;
  ArtifactIndex& artifacts_;
};

}  // namespace tempera
