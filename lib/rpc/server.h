// The gRPC server: limits, keepalive, health, reflection, and every call counted with its final code.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "metrics/metrics.h"

namespace tempera::rpc {

struct ServerOptions {
  std::string listen = "127.0.0.1:50051";  // HOST:PORT; port 0: any free one
  int max_receive_bytes = 16 << 20;
  int max_send_bytes = 64 << 20;
  int max_concurrent_streams = 256;  // of one connection
  bool reflection = true;
  // Connections older than this are told to reconnect, so that clients spread over new servers; their calls
  // may go on.
  std::chrono::seconds max_connection_age{30 * 60};
};

// Thread-safe.
class Server {
 public:
  // Listens. Unavailable names the address. Services and metrics must outlive the server. Every method of
  // `services` gets its zero series.
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                               const std::vector<grpc::Service*>& services, Metrics& metrics);
  // Shutdown(now).
  ~Server();

  int port() const { return port_; }
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // grpc.health.v1: "" and each service serve from the start; models ("model:<name>") come and go. After
  // Drain every name is NOT_SERVING and stays so.
  void SetServing(const std::string& name, bool serving);
  void Drain();

  // Refuses new calls, waits for the running ones until `deadline`, then cancels them; returns when all have
  // ended.
  void Shutdown(std::chrono::system_clock::time_point deadline);

 private:
  Server() = default;

  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  bool down_ = false;
};

}  // namespace tempera::rpc
