// What the services share, and how each call runs: checked, on the io threads, answered once.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "base/executors.h"
#include "base/log.h"
#include "base/status.h"
#include "jobs/job_store.h"
#include "metrics/metrics.h"
#include "rpc/call.h"
#include "rpc/status_map.h"
#include "server/compute.h"
#include "server/config.h"
#include "server/model_manager.h"
#include "server/refs.h"
#include "storage/object_store.h"

namespace tempera {

// Everything is owned by the App and outlives the services. Thread-safe.
struct Backend {
  const ServerConfig& config;
  const Compute& compute;
  JobStore& jobs;
  ObjectStore& objects;
  const Refs& refs;
  ModelManager& models;
  Metrics& metrics;
  Lanes& io;  // may block on disk
  std::atomic<bool> draining{false};
  std::atomic<int> io_waiting{0};

  // Unavailable with a delay for the retry once the server drains.
  Status CheckServing() const;
  // Runs on the io threads; false if too many wait.
  bool PostIo(std::function<void()> work);
};

inline constexpr int kMaxIoWaiting = 1024;

// A unary call: `body(call)` runs on the io threads and must see to call.FinishWith(), there or later.
template <typename Body>
grpc::ServerUnaryReactor* RunAsync(Backend& backend, grpc::CallbackServerContext& context,
                                   const google::protobuf::Message& request, std::string_view request_id,
                                   Body body) {
  auto* call = new rpc::UnaryCall(context, request, request_id);
  Status status = backend.CheckServing();
  if (status.ok()) status = rpc::CheckRequestId(request_id);
  if (!status.ok()) {
    call->FinishWith(status);
    return call;
  }
  const bool posted = backend.PostIo([call, body = std::move(body)] {
    const LogContext log(call->info().request_id, call->info().trace_id);
    if (Status ended = call->scope().Check(); !ended.ok()) return call->FinishWith(ended);
    body(*call);
  });
  if (!posted)
    call->FinishWith(rpc::WithReason(
        ResourceExhausted("server: too many calls wait, want at most ", kMaxIoWaiting), rpc::kQueueFull));
  return call;
}

// A unary call whose body returns its Status.
template <typename Body>
grpc::ServerUnaryReactor* Run(Backend& backend, grpc::CallbackServerContext& context,
                              const google::protobuf::Message& request, std::string_view request_id,
                              Body body) {
  return RunAsync(backend, context, request, request_id,
                  [body = std::move(body)](rpc::UnaryCall& call) { call.FinishWith(body(call)); });
}

// The key of a mutating request; nothing if it has no id. The body's digest leaves the id out.
std::optional<RequestKey> KeyOf(std::string_view method, const google::protobuf::Message& request,
                                const std::string& request_id);
// An error of the store about a request id.
Status RequestIdError(const Status& status);

// Runs `body` once for a request id: asked again, it answers from the store.
template <typename Body>
Status Once(Backend& backend, std::string_view method, const google::protobuf::Message& request,
            const std::string& request_id, google::protobuf::Message& response, const Body& body) {
  const std::optional<RequestKey> key = KeyOf(method, request, request_id);
  if (!key) return body();
  Result<std::optional<std::string>> answer = backend.jobs.FindAnswer(*key);
  if (!answer.ok()) return RequestIdError(answer.status());
  if (answer->has_value()) {
    if (!response.ParseFromString(**answer)) return DataLoss("request_id: its stored answer cannot be read");
    return OkStatus();
  }
  TEMPERA_TRY(body());
  return RequestIdError(backend.jobs.SaveAnswer(*key, response.SerializeAsString()));
}

// 0 stands for 50, more than 1000 for 1000. InvalidArgument for negative ones.
Result<int64_t> PageSize(int32_t page_size);
// A token of a list kept in memory: bound to what selected the list.
std::string PageToken(const std::string& selection, const std::string& after);
// What `after` was, empty for an empty token. InvalidArgument for a foreign one.
Result<std::string> ReadPageToken(const std::string& selection, const std::string& token);

}  // namespace tempera
