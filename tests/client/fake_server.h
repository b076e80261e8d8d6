// A gRPC server inside the test whose answers the test writes.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/generation.grpc.pb.h"
#include "tempera/v1/model.grpc.pb.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {

// Unset handlers answer UNIMPLEMENTED. Handlers run on gRPC's threads, one call at a time in these tests.
struct FakeHandlers {
  template <typename Request, typename Response>
  using Unary = std::function<grpc::Status(const Request&, Response*)>;
  template <typename Request, typename Response>
  using Stream =
      std::function<grpc::Status(grpc::ServerContext*, const Request&, grpc::ServerWriter<Response>*)>;

  Unary<v1::QuantizeRequest, google::longrunning::Operation> quantize;
  Unary<v1::GetQuantizeJobRequest, v1::QuantizeJob> get_job;
  Unary<v1::ListQuantizeJobsRequest, v1::ListQuantizeJobsResponse> list_jobs;
  Unary<v1::CancelQuantizeJobRequest, v1::QuantizeJob> cancel_job;
  Stream<v1::WatchQuantizeJobRequest, v1::WatchQuantizeJobResponse> watch_job;
  Unary<v1::GetArtifactRequest, v1::Artifact> get_artifact;
  Unary<v1::SetAliasRequest, v1::Alias> set_alias;
  Unary<v1::ExplainQuantizationRequest, v1::ExplainQuantizationResponse> explain;
  Stream<v1::GetQualityReportRequest, v1::GetQualityReportResponse> report;
  Stream<v1::GenerateRequest, v1::GenerateResponse> generate;
  Unary<v1::LoadModelRequest, v1::LoadedModel> load_model;
  Unary<v1::ListLoadedModelsRequest, v1::ListLoadedModelsResponse> list_models;
};

class FakeServer {
 public:
  explicit FakeServer(FakeHandlers handlers);
  ~FakeServer();
  // "127.0.0.1:PORT"
  const std::string& address() const { return address_; }

 private:
  struct Services;
  std::unique_ptr<Services> services_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// An operation whose metadata is the job.
google::longrunning::Operation OperationOf(const v1::QuantizeJob& job);

// An error with details, as the real server sends it.
grpc::Status RichError(grpc::StatusCode code, const std::string& message,
                       const std::vector<const google::protobuf::Message*>& details);

// The events of a whole generation of one picture whose file is `bytes`, in pieces of `piece` bytes.
std::vector<v1::GenerateResponse> GenerationOf(const std::string& bytes, uint64_t seed, size_t piece);

}  // namespace tempera
