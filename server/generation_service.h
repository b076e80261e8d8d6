// Generate and GetCapabilities: checks the request, waits its turn, streams the events of a generation.
#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>

#include "server/backend.h"
#include "server/generation_queue.h"
#include "tempera/v1/generation.grpc.pb.h"

namespace tempera {

class Generation;

// How many generations live. Thread-safe.
struct LivingCount {
  std::mutex mutex;
  std::condition_variable changed;
  int count = 0;
};

// Thread-safe. Must be destroyed after the gRPC server has shut down and the queue is empty.
class GenerationService final : public v1::GenerationService::CallbackService {
 public:
  GenerationService(Backend& backend, GenerationQueue& queue) : backend_(backend), queue_(queue) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* GetCapabilities(grpc::CallbackServerContext* context,
                                            const v1::GetCapabilitiesRequest* request,
                                            v1::Capabilities* response) override;

  // Call about once a second: sends a sign of life where a client has heard nothing for 10 s.
  void Tick();
  // Returns when no call that was taken lives any more, or at the deadline; false then.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);
  // The drain has run out: what waits or runs ends as UNAVAILABLE.
  void StopAll();

 private:
  Status CheckRequest(const v1::GenerateRequest& request) const;
  void Begin(const std::shared_ptr<Generation>& generation);
  void Enqueue(const std::shared_ptr<Generation>& generation);
  std::vector<std::shared_ptr<Generation>> Living() const;

  Backend& backend_;
  GenerationQueue& queue_;
  mutable std::mutex mutex_;
  std::list<std::weak_ptr<Generation>> generations_;
  const std::shared_ptr<LivingCount> living_ = std::make_shared<LivingCount>();
};

}  // namespace tempera
