// The composition root: builds everything in order, runs it, drains it.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/status.h"
#include "server/compute.h"
#include "server/config.h"

namespace grpc {
class Channel;
}

namespace tempera {

struct Metrics;

// Members are built in the order of use and destroyed in reverse.
class App {
 public:
  // Takes the data folder, opens the stores, listens. FailedPrecondition: another server has the folder;
  // Unavailable: an address is taken. REQUIRES: CheckConfig(config).
  static Result<std::unique_ptr<App>> Create(const ServerConfig& config, Compute compute);
  // Drain must have ended, or Run never begun.
  ~App();

  // Serves until a drain has ended; SIGTERM and SIGINT begin one, a second of them ends the process at once.
  // Blocks.
  void Run(bool handle_signals);
  // What a first SIGTERM does. Thread-safe; returns at once.
  void Drain();

  int grpc_port() const;
  int http_port() const;
  std::shared_ptr<grpc::Channel> InProcessChannel();
  Metrics& metrics();

 private:
  struct State;
  explicit App(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tempera
