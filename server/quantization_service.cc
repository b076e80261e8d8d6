#include "server/quantization_service.h"

#include <filesystem>

#include "rpc/stream_writer.h"
#include "server/filters.h"
#include "server/messages.h"

namespace tempera {

using google::longrunning::Operation;

namespace {

constexpr std::chrono::milliseconds kWatchSilence{10'000};
constexpr std::chrono::minutes kLongestWait{10};

Result<JobPage> ListJobs(Backend& backend, const std::string& filter, const std::string& order_by,
                         int32_t page_size, const std::string& page_token) {
  JobQuery query;
  query.filter = AliasToName(filter);
  if (!order_by.empty()) query.order_by = order_by;
  query.page_token = page_token;
  TEMPERA_ASSIGN(query.page_size, PageSize(page_size));
  return backend.jobs.List(query);
}

// On a disk that is all but full a job could neither run nor be told to have failed.
Status CheckDisk(const std::string& data) {
  constexpr uintmax_t kLeastBytes = 1 << 20;
  std::error_code error;
  const auto space = std::filesystem::space(data, error);
  if (error || space.available >= kLeastBytes) return OkStatus();
  return ResourceExhausted("data folder: the disk is full, got ", space.available,
                           " bytes free, want at least ", kLeastBytes);
}

}  // namespace

Status JobError(const Status& status, const std::string& name) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return rpc::WithResource(rpc::WithReason(status, rpc::kJobNotFound), "quantizeJob", name);
    case absl::StatusCode::kFailedPrecondition:
      return rpc::WithResource(rpc::WithReason(status, rpc::kJobNotFinished), "quantizeJob", name);
    case absl::StatusCode::kAborted:
      return rpc::WithResource(rpc::WithReason(status, rpc::kEtagMismatch), "quantizeJob", name);
    default:
      return status;
  }
}

Operation OperationMessage(Backend& backend, ArtifactIndex& artifacts, const Job& job) {
  Operation operation;
  if (!job.id.empty()) operation.set_name("operations/" + job.id);
  const v1::QuantizeJob message = JobMessage(job, backend.compute.parse_spec(job.spec, "spec"));
  operation.mutable_metadata()->PackFrom(message);
  operation.set_done(!job.id.empty() && IsTerminal(job.state));
  if (!operation.done()) return operation;
  if (job.state != JobState::kSucceeded) {
    *operation.mutable_error() = message.error();
    return operation;
  }
  v1::Artifact artifact;
  artifact.set_name("artifacts/" + job.artifact_id);
  artifact.set_id(job.artifact_id);
  // Its files may have been deleted since; the operation's result does not change by that.
  if (const auto known = artifacts.Get({}, job.artifact_id); known.ok()) artifact = (*known)->message;
  operation.mutable_response()->PackFrom(artifact);
  return operation;
}

v1::QuantizeJob QuantizationService::Message(const Job& job) const {
  return JobMessage(job, backend_.compute.parse_spec(job.spec, "spec"));
}

Status QuantizationService::DoQuantize(const CallScope& scope, const v1::QuantizeRequest& request,
                                       Operation& response) {
  TEMPERA_ASSIGN(const ModelRef model, backend_.refs.ResolveModel(request.model(), "model"));
  NewJob job;
  job.model = request.model();
  job.name = request.alias();
  job.labels.insert(request.labels().begin(), request.labels().end());
  if (!job.name.empty()) {
    if (Status status = CheckAliasName(job.name); !status.ok()) return rpc::WithField(status, "alias");
  }
  if (Status status = CheckLabels(job.labels); !status.ok()) return rpc::WithField(status, "labels");
  Result<QuantSpec> spec = backend_.compute.resolve_spec(RequestFrom(request.spec()), model.folder);
  if (!spec.ok()) {
    // Either a field of the spec, or something in the model's folder.
    if (!rpc::FieldOf(spec.status(), *request.GetDescriptor()).empty()) return spec.status();
    return rpc::WithField(rpc::WithReason(spec.status(), rpc::kBadModel), "model");
  }
  job.spec = backend_.compute.spec_to_json(*spec);
  job.method = spec->method;
  TEMPERA_TRY(CheckDisk(backend_.config.data));
  TEMPERA_TRY(scope.Check());

  if (request.validate_only()) {
    Job preview;
    preview.model = job.model;
    preview.name = job.name;
    preview.labels = job.labels;
    preview.request_id = request.request_id();
    response.mutable_metadata()->PackFrom(JobMessage(preview, spec));
    response.set_done(true);
    return OkStatus();
  }
  const Result<Created> created = backend_.jobs.Create(job, KeyOf("Quantize", request, request.request_id()));
  if (!created.ok()) return RequestIdError(created.status());
  if (!created->replayed)
    Log(LogLevel::kInfo, "job_created",
        {{"job", created->job.id}, {"model", model.shown}, {"method", job.method}});
  response = OperationMessage(backend_, artifacts_, created->job);
  return OkStatus();
}

grpc::ServerUnaryReactor* QuantizationService::Quantize(grpc::CallbackServerContext* context,
                                                        const v1::QuantizeRequest* request,
                                                        Operation* response) {
  return Run(backend_, *context, *request, request->request_id(),
             [this, request, response](rpc::UnaryCall& call) {
               return DoQuantize(call.scope(), *request, *response);
             });
}

grpc::ServerUnaryReactor* QuantizationService::GetQuantizeJob(grpc::CallbackServerContext* context,
                                                              const v1::GetQuantizeJobRequest* request,
                                                              v1::QuantizeJob* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall&) -> Status {
    TEMPERA_ASSIGN(const std::string id, JobIdFrom(request->name()));
    const Result<Job> job = backend_.jobs.Get(id);
    if (!job.ok()) return JobError(job.status(), request->name());
    *response = Message(*job);
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* QuantizationService::ListQuantizeJobs(grpc::CallbackServerContext* context,
                                                                const v1::ListQuantizeJobsRequest* request,
                                                                v1::ListQuantizeJobsResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall&) -> Status {
    TEMPERA_ASSIGN(const JobPage page, ListJobs(backend_, request->filter(), request->order_by(),
                                                request->page_size(), request->page_token()));
    for (const Job& job : page.jobs) *response->add_quantize_jobs() = Message(job);
    response->set_next_page_token(page.next_page_token);
    response->set_total_size(page.total_size);
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* QuantizationService::CancelQuantizeJob(grpc::CallbackServerContext* context,
                                                                 const v1::CancelQuantizeJobRequest* request,
                                                                 v1::QuantizeJob* response) {
  return Run(backend_, *context, *request, request->request_id(), [this, request, response](rpc::UnaryCall&) {
    return Once(backend_, "CancelQuantizeJob", *request, request->request_id(), *response, [&]() -> Status {
      TEMPERA_ASSIGN(const std::string id, JobIdFrom(request->name()));
      Result<Job> job = backend_.jobs.Cancel(id, request->etag());
      // A finished job stays as it is and is returned.
      if (absl::IsFailedPrecondition(job.status())) job = backend_.jobs.Get(id);
      if (!job.ok()) return JobError(job.status(), request->name());
      Log(LogLevel::kInfo, "job_cancel_asked", {{"job", id}});
      *response = Message(*job);
      return OkStatus();
    });
  });
}

grpc::ServerUnaryReactor* QuantizationService::DeleteQuantizeJob(grpc::CallbackServerContext* context,
                                                                 const v1::DeleteQuantizeJobRequest* request,
                                                                 google::protobuf::Empty* response) {
  return Run(backend_, *context, *request, request->request_id(), [this, request, response](rpc::UnaryCall&) {
    return Once(backend_, "DeleteQuantizeJob", *request, request->request_id(), *response, [&]() -> Status {
      TEMPERA_ASSIGN(const std::string id, JobIdFrom(request->name()));
      return JobError(backend_.jobs.Delete(id, request->etag()), request->name());
    });
  });
}

grpc::ServerWriteReactor<v1::WatchQuantizeJobResponse>* QuantizationService::WatchQuantizeJob(
    grpc::CallbackServerContext* context, const v1::WatchQuantizeJobRequest* request) {
  using Writer = rpc::StreamWriter<v1::WatchQuantizeJobResponse>;
  auto* writer = new Writer(*context, *request);
  Writer::Handle out = writer->handle();
  const std::string name = request->name();
  const Result<std::string> id = JobIdFrom(name);
  Status status = backend_.CheckServing();
  if (status.ok()) status = id.status();
  if (!status.ok()) {
    out.Finish(status);
    return writer;
  }
  // The watch ends with the client, and the client's stop ends the watch, whichever comes first.
  struct Following {
    std::optional<std::stop_callback<std::function<void()>>> on_stop;
  };
  auto following = std::make_shared<Following>();
  const uint64_t watch =
      watch_.Add(*id, kWatchSilence, [this, out, name, following](const Result<Job>& job) mutable {
        if (!job.ok()) {
          // The store is busy: the next look may do.
          if (absl::IsUnavailable(job.status()) && rpc::Reason(job.status()) != rpc::kDraining)
            return !out.closed();
          out.Finish(JobError(job.status(), name));
          return false;
        }
        v1::WatchQuantizeJobResponse message;
        *message.mutable_job() = Message(*job);
        const bool final = IsTerminal(job->state);
        const auto sent = final ? out.Send(std::move(message)) : out.TrySend(std::move(message));
        if (sent == rpc::SendResult::kClosed || final) out.Finish(OkStatus());
        return sent != rpc::SendResult::kClosed && !final;
      });
  following->on_stop.emplace(writer->info().scope.stop, [&watches = watch_, out, watch] {
    Writer::Handle call = out;  // the removal may destroy this function
    watches.Remove(watch);
    call.Finish(absl::CancelledError("cancelled by the caller"));
  });
  return writer;
}

grpc::ServerUnaryReactor* OperationsService::ListOperations(
    grpc::CallbackServerContext* context, const google::longrunning::ListOperationsRequest* request,
    google::longrunning::ListOperationsResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall&) -> Status {
    if (!request->name().empty() && request->name() != "operations")
      return InvalidArgument("name: got ", Quoted(request->name()), ", want operations or nothing");
    TEMPERA_ASSIGN(const JobPage page,
                   ListJobs(backend_, request->filter(), {}, request->page_size(), request->page_token()));
    for (const Job& job : page.jobs)
      *response->add_operations() = OperationMessage(backend_, artifacts_, job);
    response->set_next_page_token(page.next_page_token);
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* OperationsService::GetOperation(
    grpc::CallbackServerContext* context, const google::longrunning::GetOperationRequest* request,
    Operation* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall&) -> Status {
    TEMPERA_ASSIGN(const std::string id, OperationIdFrom(request->name()));
    const Result<Job> job = backend_.jobs.Get(id);
    if (!job.ok()) return JobError(job.status(), request->name());
    *response = OperationMessage(backend_, artifacts_, *job);
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* OperationsService::DeleteOperation(
    grpc::CallbackServerContext* context, const google::longrunning::DeleteOperationRequest* request,
    google::protobuf::Empty*) {
  return Run(backend_, *context, *request, {}, [this, request](rpc::UnaryCall&) -> Status {
    TEMPERA_ASSIGN(const std::string id, OperationIdFrom(request->name()));
    return JobError(backend_.jobs.Delete(id), request->name());
  });
}

grpc::ServerUnaryReactor* OperationsService::CancelOperation(
    grpc::CallbackServerContext* context, const google::longrunning::CancelOperationRequest* request,
    google::protobuf::Empty*) {
  return Run(backend_, *context, *request, {}, [this, request](rpc::UnaryCall&) -> Status {
    TEMPERA_ASSIGN(const std::string id, OperationIdFrom(request->name()));
    const Status status = backend_.jobs.Cancel(id).status();
    return absl::IsFailedPrecondition(status) ? OkStatus() : JobError(status, request->name());
  });
}

grpc::ServerUnaryReactor* OperationsService::WaitOperation(
    grpc::CallbackServerContext* context, const google::longrunning::WaitOperationRequest* request,
    Operation* response) {
  return RunAsync(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) {
    using Clock = CallScope::Clock;
    const Result<std::string> id = OperationIdFrom(request->name());
    if (!id.ok()) return call.FinishWith(id.status());
    std::chrono::milliseconds wait = kLongestWait;
    if (request->has_timeout()) {
      const auto& timeout = request->timeout();
      if (timeout.seconds() < 0 || timeout.nanos() < 0 || timeout.nanos() >= 1'000'000'000)
        return call.FinishWith(InvalidArgument("timeout: got ", timeout.seconds(), " s and ", timeout.nanos(),
                                               " ns, want a time >= 0"));
      if (timeout.seconds() < 600)
        wait = std::chrono::milliseconds(timeout.seconds() * 1000 + timeout.nanos() / 1'000'000);
    }
    // A little before the call's own deadline, so that the answer still arrives.
    const Clock::time_point end =
        std::min(Clock::now() + wait, call.scope().deadline - std::chrono::milliseconds(100));
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    // Looks at least once a second whether the caller is still there.
    watch_.Add(*id, std::clamp(left, std::chrono::milliseconds(1), std::chrono::milliseconds(1000)),
               [this, &call, request, response, end](const Result<Job>& job) {
                 if (!job.ok()) {
                   call.FinishWith(JobError(job.status(), request->name()));
                   return false;
                 }
                 const Status gone = call.scope().Check();
                 if (gone.ok() && !IsTerminal(job->state) && Clock::now() < end) return true;
                 *response = OperationMessage(backend_, artifacts_, *job);
                 call.FinishWith(absl::IsCancelled(gone) ? gone : OkStatus());
                 return false;
               });
  });
}

}  // namespace tempera
