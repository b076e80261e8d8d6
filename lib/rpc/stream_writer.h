// Server-streaming calls: one that any thread may feed, and one that is asked for its next message.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/executors.h"
#include "base/status.h"
#include "rpc/call.h"
#include "rpc/status_map.h"

namespace tempera::rpc {

struct StreamLimits {
  size_t droppable_messages = 64;  // messages that wait before droppable ones are dropped
  size_t max_bytes = 64 << 20;     // bytes that wait before the call ends as RESOURCE_EXHAUSTED
  // What may be dropped waits until so long after the last write began, or until something follows that may
  // not, and travels with what has joined it meanwhile.
  std::chrono::milliseconds pace{0};
};

enum class SendResult {
  kQueued,
  kDropped,  // a droppable message, and the client reads too slowly
  kClosed,   // the call is over: stop producing
};

// gRPC permits one write in flight, so messages wait in a bounded queue: what may be dropped is dropped when
// it is full, and a client that lets results pile up loses its call, not the server its memory. The object
// lives until gRPC calls OnDone; producers hold a Handle, whose Send() says kClosed once the call has ended.
// Some producer must call Finish(). A write costs its producer an encoding and a call of the kernel, and both
// sides a wake-up, some 0.2 ms together: a pace spares that to producers of many small messages.
//
// Thread-safe. Laws: at most one of a write, the finish and an alarm is under way, decided under the lock and
// begun outside of it (gRPC may run reactions inside the call); who decided keeps the object alive, for
// OnDone comes after them.
template <typename Message>
class StreamWriter final : public grpc::ServerWriteReactor<Message> {
  struct Core {
    std::mutex mutex;
    StreamWriter* writer = nullptr;  // null once the call is over
    std::deque<Message> queue;       // front() is the message being written while `busy`
    size_t bytes = 0;
    bool busy = false;                            // a write, the finish or an alarm is under way
    std::unique_ptr<grpc::Alarm> alarm;           // while messages wait for the pace
    std::chrono::steady_clock::time_point began;  // the last write
    bool closing = false;                         // no more messages are taken
    bool cancelled = false;
    std::optional<Status> final_status;
    std::map<std::string, std::string> trailers;

    // REQUIRES: the lock is held, and the call is not over. The writer if the caller is to continue it, null
    // if that is seen to: at once, or when `pace` has passed since the last write began.
    StreamWriter* Claim(std::chrono::milliseconds pace = {}) {
      const auto wait = began + pace - std::chrono::steady_clock::now();
      if (!busy && wait <= wait.zero()) {
        busy = true;
        return writer;
      }
      if (!busy) {
        busy = true;
        alarm = std::make_unique<grpc::Alarm>();
        alarm->Set(std::chrono::system_clock::now() + wait, [to = writer](bool) {
          {
            std::lock_guard lock(to->core_->mutex);
            to->core_->alarm.reset();
          }
          to->Continue();
        });
      } else if (alarm != nullptr && pace == pace.zero()) {
        alarm->Cancel();  // runs it now, on a thread of gRPC's
      }
      return nullptr;
    }
  };

 public:
  class Handle {
   public:
    SendResult Send(Message message) { return Push(std::move(message), false); }
    SendResult TrySend(Message message) { return Push(std::move(message), true); }
    // Ends the call after what is queued; a second call does nothing.
    void Finish(const Status& status, std::map<std::string, std::string> trailers = {}) {
      StreamWriter* start = nullptr;
      {
        std::lock_guard lock(core_->mutex);
        if (core_->writer == nullptr || core_->final_status) return;
        core_->closing = true;
        core_->final_status = status;
        core_->trailers = std::move(trailers);
        start = core_->Claim();
      }
      if (start != nullptr) start->Continue();
    }
    // True once the client is gone or the call is finished.
    bool closed() const {
      std::lock_guard lock(core_->mutex);
      return core_->writer == nullptr || core_->closing || core_->cancelled;
    }

   private:
    friend class StreamWriter;
    explicit Handle(std::shared_ptr<Core> core, StreamLimits limits)
        : core_(std::move(core)), limits_(limits) {}

    SendResult Push(Message message, bool droppable) {
      const size_t size = message.ByteSizeLong();
      StreamWriter* start = nullptr;
      {
        std::lock_guard lock(core_->mutex);
        if (core_->writer == nullptr || core_->closing || core_->cancelled) return SendResult::kClosed;
        if (droppable && core_->queue.size() >= limits_.droppable_messages) return SendResult::kDropped;
        if (core_->bytes + size > limits_.max_bytes && !core_->queue.empty()) {
          if (droppable) return SendResult::kDropped;
          // What waits is of no use without what follows: keep the message in flight, forget the rest.
          const size_t waiting = core_->bytes;
          Forget(*core_, 1);
          core_->closing = true;
          core_->final_status =
              WithReason(ResourceExhausted("stream: ", waiting,
                                           " bytes wait for a client that reads too slowly, want at most ",
                                           limits_.max_bytes),
                         kSlowReader);
          return SendResult::kClosed;
        }
        core_->queue.push_back(std::move(message));
        core_->bytes += size;
        start = core_->Claim(droppable ? limits_.pace : std::chrono::milliseconds(0));
      }
      if (start != nullptr) start->Continue();
      return SendResult::kQueued;
    }

    std::shared_ptr<Core> core_;
    StreamLimits limits_;
  };

  StreamWriter(grpc::CallbackServerContext& context, const google::protobuf::Message& request,
               std::string_view message_request_id = {}, StreamLimits limits = {})
      : context_(context),
        request_(request.GetDescriptor()),
        limits_(limits),
        info_(ReadCall(context, message_request_id, stop_.get_token())) {
    core_->writer = this;
  }

  Handle handle() { return Handle(core_, limits_); }
  const CallInfo& info() const { return info_; }

 private:
  // REQUIRES: busy was set by the caller, under the lock.
  void Continue() {
    const Message* message = nullptr;
    std::optional<Status> final_status;  // after the message, or at once
    std::map<std::string, std::string> trailers;
    grpc::WriteOptions options;
    {
      std::lock_guard lock(core_->mutex);
      if (!core_->queue.empty()) message = &core_->queue.front();
      // The next write takes this one along; not the call's first, which its initial metadata wait for.
      if (core_->queue.size() > 1 && core_->began.time_since_epoch().count() > 0) options.set_buffer_hint();
      if (message != nullptr) core_->began = std::chrono::steady_clock::now();
      if (core_->queue.size() < 2) {
        final_status = core_->final_status;
        trailers = core_->trailers;
      }
      if (message == nullptr && !final_status) {
        core_->busy = false;
        return;
      }
    }
    if (!final_status) {
      this->StartWrite(message, options);
      return;
    }
    for (const auto& [key, value] : trailers) context_.AddTrailingMetadata(key, value);
    const grpc::Status status = ToGrpc(CancelReason(info_.scope, *final_status), request_, info_.request_id);
    if (message != nullptr) {
      this->StartWriteAndFinish(message, {}, status);
    } else {
      this->Finish(status);
    }
  }
  void OnWriteDone(bool ok) override {
    {
      std::lock_guard lock(core_->mutex);
      core_->bytes -= core_->queue.front().ByteSizeLong();
      core_->queue.pop_front();
      if (!ok) Abandon();
    }
    if (!ok) stop_.request_stop();
    Continue();
  }
  void OnCancel() override {
    {
      std::lock_guard lock(core_->mutex);
      Abandon();
    }
    stop_.request_stop();
  }
  void OnDone() override {
    {
      std::lock_guard lock(core_->mutex);
      core_->writer = nullptr;
    }
    delete this;
  }
  // REQUIRES: the lock is held. Forgets what waits, but for the message in flight.
  void Abandon() {
    core_->cancelled = true;
    Forget(*core_, core_->busy ? 1 : 0);
  }
  // REQUIRES: the lock is held. Drops messages from the back until `keep` are left.
  static void Forget(Core& core, size_t keep) {
    for (; core.queue.size() > keep; core.queue.pop_back()) core.bytes -= core.queue.back().ByteSizeLong();
  }

  grpc::CallbackServerContext& context_;
  const google::protobuf::Descriptor* request_;
  const StreamLimits limits_;
  std::stop_source stop_;
  CallInfo info_;
  std::shared_ptr<Core> core_ = std::make_shared<Core>();
};

// A stream whose messages are made one by one as the client takes them, on `pool`; memory holds one at a
// time.
template <typename Message>
class PullStream final : public grpc::ServerWriteReactor<Message> {
 public:
  // The next message; nothing at the end.
  using Next = std::function<Result<std::optional<Message>>(const CallScope&)>;

  PullStream(grpc::CallbackServerContext& context, const google::protobuf::Message& request, Lanes& pool,
             Next next)
      : request_(request.GetDescriptor()),
        pool_(pool),
        next_(std::move(next)),
        info_(ReadCall(context, {}, stop_.get_token())) {}

  // Call once, before the reactor is returned.
  void Start() { Produce(); }
  // Ends the stream before it begins.
  void Refuse(const Status& status) { this->Finish(ToGrpc(status, request_, info_.request_id)); }
  const CallInfo& info() const { return info_; }

 private:
  void Produce() {
    pool_.Post([this] {
      Status status = info_.scope.Check();
      if (status.ok()) {
        Result<std::optional<Message>> message = next_(info_.scope);
        if (message.ok() && message->has_value()) {
          message_ = std::move(**message);
          this->StartWrite(&message_);
          return;
        }
        status = message.status();
      }
      this->Finish(ToGrpc(CancelReason(info_.scope, status), request_, info_.request_id));
    });
  }
  void OnWriteDone(bool ok) override {
    if (!ok) stop_.request_stop();
    Produce();
  }
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

  const google::protobuf::Descriptor* request_;
  Lanes& pool_;
  Next next_;
  std::stop_source stop_;
  CallInfo info_;
  Message message_;
};

}  // namespace tempera::rpc
