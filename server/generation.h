// One Generate call from acceptance to its last event. Private to GenerationService.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "rpc/stream_writer.h"
#include "server/backend.h"
#include "server/generation_queue.h"
#include "tempera/v1/generation.pb.h"

namespace tempera {

// Events may come from several threads (the lane, the queue, the clock): each is numbered and sent under one
// lock, so numbers rise in the order of sending. Thread-safe, but Run runs once.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  using Writer = rpc::StreamWriter<v1::GenerateResponse>;

  Generation(Backend& backend, Writer::Handle out, const rpc::CallInfo& info,
             const v1::GenerateRequest& request);

  const v1::GenerateRequest& request() const { return request_; }
  // Stops when the client leaves, the deadline passes or the server has drained long enough.
  const CallScope& scope() const { return scope_; }
  const rpc::CallInfo& info() const { return info_; }

  // Takes the engine and resolves the request; the settings that `accepted` tells. REQUIRES: once, before the
  // rest.
  Status Prepare(ModelLease lease);
  // Whether the picture fits into the memory budget beside its model; others that are painted or loaded then
  // are not counted.
  Status CheckMemory() const;
  const std::string& model() const { return lease_.engine().info().name; }
  int64_t steps() const { return static_cast<int64_t>(resolved_.steps) * count_; }

  // From now on the stop removes it from the queue.
  void Queued(GenerationQueue& queue, uint64_t ticket);
  void SendAccepted(int queue_position);
  // Says something if 10 s have passed in silence.
  void KeepAlive();
  // On a lane: paints, sends everything, finishes.
  void Run();
  // Ends the call; the first one counts.
  void Finish(Status status);
  // The server drains no longer.
  void StopForDrain();

 private:
  Status Paint(v1::Summary& summary);
  Result<v1::PictureSummary> PaintOne(int picture);
  Status SendImage(int picture, uint64_t seed, const std::string& bytes, const std::string& sha256);
  // False: the call is over.
  bool Send(v1::GenerateResponse event, bool droppable);
  void LeaveQueue();

  Backend& backend_;
  Writer::Handle out_;
  const rpc::CallInfo info_;
  const v1::GenerateRequest request_;
  const CallScope::Clock::time_point arrival_ = CallScope::Clock::now();
  std::stop_source stop_;
  CallScope scope_;
  std::atomic<bool> drained_ = false;

  ModelLease lease_;
  ResolvedGeneration resolved_;
  ImageFormat format_ = ImageFormat::kPng;
  int count_ = 1;
  v1::Accepted accepted_;
  CallScope::Clock::time_point queued_at_{}, started_at_{};

  std::atomic<GenerationQueue*> queue_ = nullptr;
  std::atomic<uint64_t> ticket_ = 0;
  std::atomic<bool> finished_ = false;

  std::mutex mutex_;  // guards what follows
  int64_t sequence_ = 0;
  int position_ = 0;
  bool accepted_sent_ = false;
  CallScope::Clock::time_point last_sent_ = CallScope::Clock::now();

  // Last: it is gone before what it touches.
  std::optional<std::stop_callback<std::function<void()>>> on_client_stop_;
};

}  // namespace tempera
