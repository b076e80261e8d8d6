#include "rpc/server.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/support/server_interceptor.h>

#include <atomic>

#include "base/call.h"
#include "base/log.h"
#include "rpc/status_map.h"

namespace tempera::rpc {
namespace {

std::string_view CodeClass(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return "ok";
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DATA_LOSS:
      return "server_error";
    default:
      return "client_error";
  }
}

constexpr char kUnknownMethod[] = "unknown";

// Lives as long as one call: counts it, and sees to it that every error carries details, also those that gRPC
// makes. A message of a method that is offered but cannot be parsed is UNIMPLEMENTED to gRPC, without a word.
class CallCounter final : public grpc::experimental::Interceptor {
 public:
  CallCounter(Metrics& metrics, std::string method) : metrics_(metrics), method_(std::move(method)) {
    metrics_.requests_in_flight.Add(1, method_);
  }
  ~CallCounter() override {
    metrics_.requests_in_flight.Add(-1, method_);
    metrics_.requests.Add(1, method_, CodeName(code_));
    metrics_.request_seconds.Observe(std::chrono::duration<double>(CallScope::Clock::now() - start_).count(),
                                     method_, CodeClass(static_cast<grpc::StatusCode>(code_.load())));
  }
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      grpc::Status status = methods->GetSendStatus();
      if (!status.ok() && status.error_details().empty()) {
        const bool unparsed = status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
                              status.error_message().empty() && method_ != kUnknownMethod;
        status =
            ToGrpc(unparsed ? InvalidArgument("request: cannot be parsed, want a message of the method's "
                                              "type whose strings are valid UTF-8")
                            : FromGrpc(status));
        methods->ModifySendStatus(status);
      }
      code_ = status.error_code();
    }
    methods->Proceed();
  }

 private:
  Metrics& metrics_;
  const std::string method_;
  const CallScope::Clock::time_point start_ = CallScope::Clock::now();
  std::atomic<int> code_ = grpc::StatusCode::CANCELLED;  // what a call ends with that never sent a status
};

class CallCounterFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallCounterFactory(Metrics& metrics, std::set<std::string, std::less<>> known)
      : metrics_(metrics), known_(std::move(known)) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    std::string_view method = info->method() == nullptr ? "" : info->method();
    if (method.starts_with('/')) method.remove_prefix(1);
    // Clients can name any method: those that nobody offers share one label.
    return new CallCounter(metrics_, known_.contains(method) ? std::string(method) : kUnknownMethod);
  }

 private:
  Metrics& metrics_;
  const std::set<std::string, std::less<>> known_;
};

// What the libraries would print goes to our log: clients cause it (a message that is no UTF-8), so it is not
// for people to act on.
void RouteLibraryLogs() {
  google::protobuf::SetLogHandler([](google::protobuf::LogLevel, const char*, int, const std::string& text) {
    Log(LogLevel::kDebug, "protobuf", {{"text", text}});
  });
  gpr_set_log_function([](gpr_log_func_args* args) {
    Log(args->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarn : LogLevel::kDebug, "grpc",
        {{"text", args->message}});
  });
}

// The API, from its descriptors.
struct Offer {
  std::set<std::string, std::less<>> methods;  // "tempera.v1.GenerationService/Generate"
  std::vector<std::string> services;           // "tempera.v1.GenerationService"
};

// Our methods get their zero series.
Offer TouchMethods(Metrics& metrics) {
  Offer offer;
  offer.methods = {"grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch",
                   "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* file_name :
       {"tempera/v1/quantization.proto", "tempera/v1/artifact.proto", "tempera/v1/generation.proto",
        "tempera/v1/model.proto", "google/longrunning/operations.proto"}) {
    const auto* file = pool->FindFileByName(file_name);
    if (file == nullptr) continue;
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      offer.services.push_back(service->full_name());
      for (int m = 0; m < service->method_count(); ++m) {
        const std::string method = Cat(service->full_name(), "/", service->method(m)->name());
        metrics.requests.Touch(method, "OK");
        metrics.requests_in_flight.Touch(method);
        offer.methods.insert(method);
      }
    }
  }
  return offer;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                              const std::vector<grpc::Service*>& services, Metrics& metrics) {
  RouteLibraryLogs();
  Offer offer = TouchMethods(metrics);
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  std::unique_ptr<Server> server(new Server);
  grpc::ServerBuilder builder;
  const auto seconds_ms = [](std::chrono::seconds s) {
    return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(s).count());
  };
  builder.SetMaxReceiveMessageSize(options.max_receive_bytes);
  builder.SetMaxSendMessageSize(options.max_send_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 15 * 60'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, seconds_ms(options.max_connection_age));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 24 * 3600'000);
  // Two servers on one port would share its calls between them.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &server->port_);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<CallCounterFactory>(metrics, std::move(offer.methods)));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0)
    return Unavailable("listen ", options.listen,
                       ": cannot bind the address (in use, or not one of this machine)");
  for (const std::string& service : offer.services) server->SetServing(service, true);
  return server;
}

Server::~Server() {
  if (server_ != nullptr) Shutdown(std::chrono::system_clock::now());
}

std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void Server::SetServing(const std::string& name, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(name, serving);
}

// Shutdown() of the health service keeps every name NOT_SERVING, whatever is set later.
void Server::Drain() { server_->GetHealthCheckService()->Shutdown(); }

void Server::Shutdown(std::chrono::system_clock::time_point deadline) {
  if (down_) return;
  down_ = true;
  server_->Shutdown(deadline);
  server_->Wait();
}

}  // namespace tempera::rpc
