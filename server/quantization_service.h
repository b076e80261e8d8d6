// Quantize jobs and their long-running operations.
#pragma once

#include <google/longrunning/operations.grpc.pb.h>

#include "server/artifact_index.h"
#include "server/backend.h"
#include "server/job_watch.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {

// The job as an operation: metadata a QuantizeJob, response its Artifact.
google::longrunning::Operation OperationMessage(Backend& backend, ArtifactIndex& artifacts, const Job& job);
// Errors of the job store about job `name`.
Status JobError(const Status& status, const std::string& name);

// Thread-safe.
class QuantizationService final : public v1::QuantizationService::CallbackService {
 public:
  QuantizationService(Backend& backend, ArtifactIndex& artifacts, JobWatch& watch)
      : backend_(backend), artifacts_(artifacts), watch_(watch) {}

  grpc::ServerUnaryReactor* Quantize(grpc::CallbackServerContext* context, const v1::QuantizeRequest* request,
                                     google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* GetQuantizeJob(grpc::CallbackServerContext* context,
                                           const v1::GetQuantizeJobRequest* request,
                                           v1::QuantizeJob* response) override;
  grpc::ServerUnaryReactor* ListQuantizeJobs(grpc::CallbackServerContext* context,
                                             const v1::ListQuantizeJobsRequest* request,
                                             v1::ListQuantizeJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelQuantizeJob(grpc::CallbackServerContext* context,
                                              const v1::CancelQuantizeJobRequest* request,
                                              v1::QuantizeJob* response) override;
  grpc::ServerUnaryReactor* DeleteQuantizeJob(grpc::CallbackServerContext* context,
                                              const v1::DeleteQuantizeJobRequest* request,
                                              google::protobuf::Empty* response) override;
  grpc::ServerWriteReactor<v1::WatchQuantizeJobResponse>* WatchQuantizeJob(
      grpc::CallbackServerContext* context, const v1::WatchQuantizeJobRequest* request) override;

 private:
  v1::QuantizeJob Message(const Job& job) const;
  Status DoQuantize(const CallScope& scope, const v1::QuantizeRequest& request,
                    google::longrunning::Operation& response);

  Backend& backend_;
  ArtifactIndex& artifacts_;
  JobWatch& watch_;
};

// Thread-safe.
class OperationsService final : public google::longrunning::Operations::CallbackService {
 public:
  OperationsService(Backend& backend, ArtifactIndex& artifacts, JobWatch& watch)
      : backend_(backend), artifacts_(artifacts), watch_(watch) {}

  grpc::ServerUnaryReactor* ListOperations(grpc::CallbackServerContext* context,
                                           const google::longrunning::ListOperationsRequest* request,
                                           google::longrunning::ListOperationsResponse* response) override;
  grpc::ServerUnaryReactor* GetOperation(grpc::CallbackServerContext* context,
                                         const google::longrunning::GetOperationRequest* request,
                                         google::longrunning::Operation* response) override;
  grpc::ServerUnaryReactor* DeleteOperation(grpc::CallbackServerContext* context,
                                            const google::longrunning::DeleteOperationRequest* request,
                                            google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* CancelOperation(grpc::CallbackServerContext* context,
                                            const google::longrunning::CancelOperationRequest* request,
                                            google::protobuf::Empty* response) override;
  grpc::ServerUnaryReactor* WaitOperation(grpc::CallbackServerContext* context,
                                          const google::longrunning::WaitOperationRequest* request,
                                          google::longrunning::Operation* response) override;

 private:
  Backend& backend_;
  ArtifactIndex& artifacts_;
  JobWatch& watch_;
};

}  // namespace tempera
