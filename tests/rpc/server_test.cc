#include "rpc/server.h"

#include <google/rpc/error_details.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "rpc/call.h"
#include "rpc/status_map.h"
#include "rpc/stream_writer.h"
#include "tempera/v1/artifact.grpc.pb.h"

namespace tempera::rpc {
namespace {

class Service final : public v1::ArtifactService::CallbackService {
 public:
  explicit Service(Lanes& pool) : pool_(pool) {}

  grpc::ServerUnaryReactor* GetArtifact(grpc::CallbackServerContext* context,
                                        const v1::GetArtifactRequest* request,
                                        v1::Artifact* response) override {
    auto* call = new UnaryCall(*context, *request);
    pool_.Post([this, call, request, response] {
      if (request->artifact() == "wait") {
        while (call->scope().Check().ok()) std::this_thread::yield();
        return call->FinishWith(call->scope().Check());
      }
      if (request->artifact().empty()) return call->FinishWith(InvalidArgument("artifact: is empty"));
      response->set_id(call->info().request_id);
      response->set_manifest_json(call->info().trace_id);
      call->FinishWith(OkStatus());
    });
    return call;
  }
  grpc::ServerWriteReactor<v1::GetQualityReportResponse>* GetQualityReport(
      grpc::CallbackServerContext* context, const v1::GetQualityReportRequest* request) override {
    using Message = v1::GetQualityReportResponse;
    auto* stream = new PullStream<Message>(*context, *request, pool_,
                                           [i = 0, fail = request->artifact() == "fail"](
                                               const CallScope&) mutable -> Result<std::optional<Message>> {
                                             if (i == 3 && fail) return DataLoss("file: damaged");
                                             if (i == 5) return std::nullopt;
                                             Message message;
                                             message.set_offset(i++);
                                             return message;
                                           });
    stream->Start();
    return stream;
  }

 private:
  Lanes& pool_;
};

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    auto server =
        Server::Start({.listen = "127.0.0.1:0", .max_receive_bytes = 1 << 20}, {&service_}, metrics_);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->port()),
                                   grpc::InsecureChannelCredentials());
    stub_ = v1::ArtifactService::NewStub(channel_);
  }
  // Calls any method with raw bytes.
  grpc::Status Raw(const std::string& method, const std::string& bytes, std::string* answer = nullptr) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    grpc::Slice slice(bytes);
    auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer buffer;
    grpc::Status status;
    call->Finish(&buffer, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    std::vector<grpc::Slice> slices;
    if (answer != nullptr && status.ok() && buffer.Dump(&slices).ok())
      for (const auto& s : slices) answer->append(reinterpret_cast<const char*>(s.begin()), s.size());
    return status;
  }

  Metrics metrics_{BuildInfo{}};
  Lanes pool_{2, nullptr};
  Service service_{pool_};
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ArtifactService::Stub> stub_;
};

TEST_F(ServerTest, IdsComeInAndGoOut) {
  const std::string trace = "0af7651916cd43dd8448eb211c80319c";
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "abc-1");
  context.AddMetadata("traceparent", "00-" + trace + "-b7ad6b7169203331-01");
  v1::GetArtifactRequest request;
  request.set_artifact("x");
  v1::Artifact response;
  ASSERT_TRUE(stub_->GetArtifact(&context, request, &response).ok());
  EXPECT_EQ(response.id(), "abc-1");
  EXPECT_EQ(response.manifest_json(), trace);
  EXPECT_EQ(context.GetServerInitialMetadata().find("x-request-id")->second, "abc-1");
}

TEST_F(ServerTest, BadIdsAreReplaced) {
  for (const std::string& id : {std::string(), std::string("has space"), std::string(200, 'a')}) {
    grpc::ClientContext context;
    context.AddMetadata("x-request-id", id);
    context.AddMetadata("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01");
    v1::GetArtifactRequest request;
    request.set_artifact("x");
    v1::Artifact response;
    ASSERT_TRUE(stub_->GetArtifact(&context, request, &response).ok());
    EXPECT_EQ(response.id().size(), 32u);
    EXPECT_EQ(response.manifest_json(), "");
  }
}

TEST_F(ServerTest, ErrorsCarryDetails) {
  grpc::ClientContext context;
  v1::Artifact response;
  const grpc::Status status = stub_->GetArtifact(&context, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Field(FromGrpc(status)), "artifact");
  EXPECT_EQ(Reason(FromGrpc(status)), kInvalidField);
}

// gRPC itself refuses what does not parse; the code, a text and details are put on on the way out. The second
// is a string that is not UTF-8.
TEST_F(ServerTest, UnparsableMessagesAreInvalidArguments) {
  for (const char* bytes : {"\xff\xff\xff\xff", "\x0a\x01\xff"}) {
    const grpc::Status status = Raw("/tempera.v1.ArtifactService/GetArtifact", bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_NE(status.error_message().find("UTF-8"), std::string::npos) << status.error_message();
    EXPECT_TRUE(Reason(FromGrpc(status)));
  }
  std::string answer;
  EXPECT_TRUE(Raw("/tempera.v1.ArtifactService/GetArtifact", "\x0a\x01x", &answer).ok());
  EXPECT_FALSE(answer.empty());
}

TEST_F(ServerTest, UnknownMethodsMakeOneSeriesAtMost) {
  const int64_t before = metrics_.requests.series();
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(Raw("/tempera.v1.ArtifactService/M" + std::to_string(i), "").error_code(),
              grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_LE(metrics_.requests.series(), before + 1);
}

TEST_F(ServerTest, CountsEachCallWithItsFinalCode) {
  const std::string method = "tempera.v1.ArtifactService/GetArtifact";
  EXPECT_NE(metrics_.Text().find("tempera_requests_total{code=\"OK\",method=\"" + method + "\"} 0"),
            std::string::npos);
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::GetArtifactRequest request;
    request.set_artifact(i == 0 ? "" : "x");
    v1::Artifact response;
    stub_->GetArtifact(&context, request, &response);
  }
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    v1::GetArtifactRequest request;
    request.set_artifact("wait");
    v1::Artifact response;
    EXPECT_EQ(stub_->GetArtifact(&context, request, &response).error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
  EXPECT_EQ(metrics_.requests.Value(method, "OK"), 2);
  EXPECT_EQ(metrics_.requests.Value(method, "INVALID_ARGUMENT"), 1);
  // The client's clock may end the call before the server's does.
  EXPECT_EQ(
      metrics_.requests.Value(method, "DEADLINE_EXCEEDED") + metrics_.requests.Value(method, "CANCELLED"), 1);
  EXPECT_EQ(metrics_.request_seconds.Count(method, "ok"), 2);
  EXPECT_EQ(metrics_.requests_in_flight.Value(method), 0);
}

TEST_F(ServerTest, PullStreamEndsWithItsStatus) {
  for (const char* artifact : {"fine", "fail"}) {
    grpc::ClientContext context;
    v1::GetQualityReportRequest request;
    request.set_artifact(artifact);
    auto reader = stub_->GetQualityReport(&context, request);
    int64_t n = 0;
    for (v1::GetQualityReportResponse message; reader->Read(&message); ++n) EXPECT_EQ(message.offset(), n);
    const grpc::Status status = reader->Finish();
    EXPECT_EQ(n, std::string(artifact) == "fine" ? 5 : 3);
    EXPECT_EQ(status.error_code(), n == 5 ? grpc::StatusCode::OK : grpc::StatusCode::DATA_LOSS);
  }
}

TEST_F(ServerTest, PullStreamSurvivesClientsThatLeave) {
  for (int n = 0; n < 20; ++n) {
    grpc::ClientContext context;
    auto reader = stub_->GetQualityReport(&context, {});
    v1::GetQualityReportResponse message;
    for (int i = 0; i < n % 4; ++i) reader->Read(&message);
    context.TryCancel();
    reader->Finish();
  }
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

// The wire form of grpc.health.v1: a request is field 1, the service's name; an answer is field 1, 1 =
// SERVING.
TEST_F(ServerTest, HealthFollowsServicesModelsAndDrain) {
  const auto check = [&](const std::string& name) {
    std::string request = name.empty() ? "" : std::string("\x0a") + static_cast<char>(name.size()) + name;
    std::string answer;
    const grpc::Status status = Raw("/grpc.health.v1.Health/Check", request, &answer);
    return status.ok() ? answer : std::string(CodeName(status.error_code()));
  };
  const std::string serving = "\x08\x01", not_serving = "\x08\x02";
  EXPECT_EQ(check(""), serving);
  EXPECT_EQ(check("model:fashion"), "NOT_FOUND");
  server_->SetServing("model:fashion", true);
  EXPECT_EQ(check("model:fashion"), serving);
  server_->SetServing("model:fashion", false);
  EXPECT_EQ(check("model:fashion"), not_serving);
  server_->SetServing("model:fashion", true);
  server_->Drain();
  server_->SetServing("model:fashion", true);  // no way back
  EXPECT_EQ(check(""), not_serving);
  EXPECT_EQ(check("model:fashion"), not_serving);
}

TEST_F(ServerTest, OversizedMessagesAreRefused) {
  grpc::ClientContext context;
  v1::GetArtifactRequest request;
  request.set_artifact(std::string(2 << 20, 'x'));
  v1::Artifact response;
  EXPECT_EQ(stub_->GetArtifact(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ServerTest, TakenPortIsAnError) {
  Service other(pool_);
  const auto second =
      Server::Start({.listen = "127.0.0.1:" + std::to_string(server_->port())}, {&other}, metrics_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace tempera::rpc
