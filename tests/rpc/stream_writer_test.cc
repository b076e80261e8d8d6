#include "rpc/stream_writer.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <set>
#include <thread>

#include "metrics/metrics.h"
#include "rpc/server.h"
#include "tempera/v1/generation.grpc.pb.h"

namespace tempera::rpc {
namespace {

using v1::GenerateRequest;
using v1::GenerateResponse;
using Writer = StreamWriter<GenerateResponse>;

GenerateResponse Numbered(int64_t sequence, size_t bytes = 0) {
  GenerateResponse message;
  message.set_sequence(sequence);
  if (bytes > 0) message.mutable_image()->set_data(std::string(bytes, 'x'));
  return message;
}

// Hands each call's writer to the test.
class Service final : public v1::GenerationService::CallbackService {
 public:
  std::function<void(Writer::Handle, const CallInfo&)> on_call;
  StreamLimits limits;

  grpc::ServerWriteReactor<GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                       const GenerateRequest* request) override {
    auto* writer = new Writer(*context, *request, request->request_id(), limits);
    on_call(writer->handle(), writer->info());
    return writer;
  }
};

class PacedStreamTest : public ::testing::Test {
 protected:
  void Start(std::chrono::milliseconds pace) {
    service_.limits.pace = pace;
    auto server = Server::Start({.listen = "127.0.0.1:0"}, {&service_}, metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::GenerationService::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                                                               grpc::InsecureChannelCredentials()));
  }
  // Waits until every call has left the server.
  void Drain() { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10)); }

  Metrics metrics_{BuildInfo{}};
  Service service_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::GenerationService::Stub> stub_;
};

// The parameter: the pace in milliseconds.
class StreamWriterTest : public PacedStreamTest, public ::testing::WithParamInterface<int> {
 protected:
  void Start() { PacedStreamTest::Start(std::chrono::milliseconds(GetParam())); }
};

INSTANTIATE_TEST_SUITE_P(PaceMs, StreamWriterTest, ::testing::Values(0, 1, 20),
                         [](const auto& tested) { return std::to_string(tested.param); });

TEST_P(StreamWriterTest, DeliversInOrderThenTheStatusAndTrailers) {
  std::jthread producer;
  service_.on_call = [&](Writer::Handle out, const CallInfo&) {
    producer = std::jthread([out]() mutable {
      for (int i = 0; i < 500; ++i) EXPECT_EQ(out.Send(Numbered(i)), SendResult::kQueued);
      out.Finish(NotFound("thing: not there"), {{"x-queue-seconds", "0.5"}});
      out.Finish(OkStatus());  // the first one stands
      EXPECT_EQ(out.Send(Numbered(999)), SendResult::kClosed);
      EXPECT_TRUE(out.closed());
    });
  };
  Start();
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "from-header");
  auto reader = stub_->Generate(&context, GenerateRequest());
  GenerateResponse message;
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.sequence(), i);
  }
  EXPECT_FALSE(reader->Read(&message));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(FromGrpc(status)), "NOT_FOUND");
  EXPECT_EQ(context.GetServerTrailingMetadata().find("x-queue-seconds")->second, "0.5");
  EXPECT_EQ(context.GetServerInitialMetadata().find("x-request-id")->second, "from-header");
  producer.join();
  Drain();
  EXPECT_EQ(metrics_.requests.Value("tempera.v1.GenerationService/Generate", "NOT_FOUND"), 1);
}

TEST_P(StreamWriterTest, ManyThreadsMayFeedOneCall) {
  std::vector<std::jthread> producers;
  service_.on_call = [&](Writer::Handle out, const CallInfo&) {
    producers.emplace_back([out]() mutable {
      {
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t)
          threads.emplace_back([out, t]() mutable {
            for (int i = 0; i < 100; ++i) EXPECT_EQ(out.Send(Numbered(100 * t + i)), SendResult::kQueued);
          });
      }
      out.Finish(OkStatus());
    });
  };
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  std::set<int64_t> seen;
  for (GenerateResponse message; reader->Read(&message);) EXPECT_TRUE(seen.insert(message.sequence()).second);
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(seen.size(), 400u);
  Drain();
}

// The client does not read: droppable messages are dropped at the bound, and what was queued arrives when it
// reads.
TEST_P(StreamWriterTest, DropsProgressOfASlowReaderButNoResult) {
  service_.limits = {.droppable_messages = 8, .max_bytes = 1 << 30};
  std::atomic<int> queued = 0, dropped = 0;
  std::promise<void> produced;
  std::jthread producer;
  service_.on_call = [&](Writer::Handle out, const CallInfo&) {
    producer = std::jthread([&, out]() mutable {
      // 64 KiB each: soon beyond what the transport buffers.
      for (int i = 0; i < 2000 && dropped < 10; ++i) {
        const SendResult result = out.TrySend(Numbered(i, 64 << 10));
        queued += result == SendResult::kQueued;
        dropped += result == SendResult::kDropped;
      }
      EXPECT_EQ(out.Send(Numbered(-1)), SendResult::kQueued);
      out.Finish(OkStatus());
      produced.set_value();
    });
  };
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  produced.get_future().wait();
  EXPECT_EQ(dropped, 10);
  int got = 0;
  int64_t last = 0;
  for (GenerateResponse message; reader->Read(&message); ++got) last = message.sequence();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(got, queued + 1);
  EXPECT_EQ(last, -1);
}

TEST_P(StreamWriterTest, ResultsThatPileUpEndTheCall) {
  service_.limits = {.droppable_messages = 8, .max_bytes = 4 << 20};
  std::promise<void> produced;
  std::jthread producer;
  service_.on_call = [&](Writer::Handle out, const CallInfo& info) {
    producer = std::jthread([&, out, scope = info.scope]() mutable {
      int64_t i = 0;
      while (out.Send(Numbered(i, 1 << 20)) == SendResult::kQueued) ++i;
      EXPECT_GE(i, 3);         // each is a little more than 1 MiB
      out.Finish(OkStatus());  // too late: the call ends as it must
      produced.set_value();
    });
  };
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  produced.get_future().wait();
  for (GenerateResponse message; reader->Read(&message);) {
  }
  const Status status = FromGrpc(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Reason(status), kSlowReader);
}

TEST_P(StreamWriterTest, CancelStopsTheProducer) {
  std::vector<std::jthread> producers;
  std::mutex mutex;
  std::atomic<int> stopped = 0;
  service_.on_call = [&](Writer::Handle out, const CallInfo& info) {
    std::lock_guard lock(mutex);
    producers.emplace_back([&, out, scope = info.scope]() mutable {
      for (int64_t i = 0; scope.Check().ok(); ++i) out.TrySend(Numbered(i));
      ++stopped;
      out.Finish(scope.Check());
    });
  };
  Start();
  // Clients that leave after a few messages, or before the first.
  for (int n = 0; n < 20; ++n) {
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, GenerateRequest());
    GenerateResponse message;
    for (int i = 0; i < n % 5; ++i) ASSERT_TRUE(reader->Read(&message));
    context.TryCancel();
    while (reader->Read(&message)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  Drain();
  {
    std::lock_guard lock(mutex);
    const size_t begun = producers.size();
    producers.clear();
    EXPECT_EQ(static_cast<size_t>(stopped), begun);  // a call cancelled on its way may never have begun
    EXPECT_GE(begun, 16u);
  }
}

TEST_P(StreamWriterTest, DeadlineStopsTheProducer) {
  std::promise<Status> end;
  std::jthread producer;
  service_.on_call = [&](Writer::Handle out, const CallInfo& info) {
    producer = std::jthread([&, out, scope = info.scope]() mutable {
      int64_t i = 0;
      while (scope.Check().ok()) out.TrySend(Numbered(i++));
      end.set_value(CancelReason(scope, scope.Check()));
      out.Finish(scope.Check());
    });
  };
  Start();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  auto reader = stub_->Generate(&context, GenerateRequest());
  for (GenerateResponse message; reader->Read(&message);) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(end.get_future().get().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_P(StreamWriterTest, HandlesOutliveTheCall) {
  std::optional<Writer::Handle> kept;
  service_.on_call = [&](Writer::Handle out, const CallInfo&) {
    kept = out;
    out.Finish(OkStatus());
  };
  Start();
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  GenerateResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
  Drain();
  EXPECT_EQ(kept->Send(Numbered(1)), SendResult::kClosed);
  EXPECT_EQ(kept->TrySend(Numbered(1)), SendResult::kClosed);
  kept->Finish(OkStatus());
}

// What may be dropped waits for what may not, or for its end; both come long before the pace.
TEST_F(PacedStreamTest, WhatMayBeDroppedTravelsWithWhatFollows) {
  std::optional<Writer::Handle> out;
  std::promise<void> begun;
  service_.on_call = [&](Writer::Handle handle, const CallInfo&) {
    out = handle;
    handle.Send(Numbered(0));
    for (int i = 1; i < 4; ++i) EXPECT_EQ(handle.TrySend(Numbered(i)), SendResult::kQueued);
    begun.set_value();
  };
  Start(std::chrono::hours(1));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.sequence(), 0);
  begun.get_future().wait();
  EXPECT_EQ(out->Send(Numbered(4)), SendResult::kQueued);
  for (int i = 1; i < 5; ++i) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.sequence(), i);
  }
  for (int i = 5; i < 7; ++i) EXPECT_EQ(out->TrySend(Numbered(i)), SendResult::kQueued);
  out->Finish(OkStatus());
  for (int i = 5; i < 7; ++i) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.sequence(), i);
  }
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
}

// Nothing follows: the alarm sends it.
TEST_F(PacedStreamTest, NothingWaitsForWhatDoesNotCome) {
  std::optional<Writer::Handle> out;
  service_.on_call = [&](Writer::Handle handle, const CallInfo&) {
    out = handle;
    handle.Send(Numbered(0));
    for (int i = 1; i < 4; ++i) EXPECT_EQ(handle.TrySend(Numbered(i)), SendResult::kQueued);
  };
  Start(std::chrono::milliseconds(10));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, GenerateRequest());
  GenerateResponse message;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_EQ(message.sequence(), i);
  }
  out->Finish(OkStatus());
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_TRUE(reader->Finish().ok());
}

}  // namespace
}  // namespace tempera::rpc
