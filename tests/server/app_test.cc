#include "server/app.h"

#include <grpcpp/impl/client_unary_call.h>
#include <gtest/gtest.h>

#include <future>
#include <set>
#include <thread>

#include "metrics/metrics.h"
#include "server/calls.h"
#include "server/data_lock.h"
#include "server/fakes.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {
namespace {

using testing::Call;
using testing::Generate;
using testing::GenerateOf;
using testing::TestServer;

// grpc.health.v1 by its wire form: 1 = SERVING, 2 = NOT_SERVING, 0 = no such service.
int Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::internal::RpcMethod method("/grpc.health.v1.Health/Check", grpc::internal::RpcMethod::NORMAL_RPC);
  const std::string text =
      service.empty() ? "" : std::string("\x0a") + static_cast<char>(service.size()) + service;
  grpc::Slice slice(text);
  grpc::ByteBuffer request(&slice, 1), response;
  grpc::ClientContext context;
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      channel.get(), method, &context, request, &response);
  if (!status.ok()) return 0;
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(response.Dump(&slices).ok());
  return slices.empty() || slices[0].size() < 2 ? 0 : slices[0].begin()[1];
}

template <typename Condition>
void Await(const Condition& condition) {
  while (!condition()) std::this_thread::yield();  // the test's own time limit ends it
}

TEST(App, ServesProbesAndMetrics) {
  TestServer server;
  EXPECT_EQ(server.Http("/livez"), (std::pair<int, std::string>{200, "ok\n"}));
  EXPECT_EQ(server.Http("/readyz"), (std::pair<int, std::string>{200, "ok\n"}));
  const auto [code, text] = server.Http("/metrics");
  EXPECT_EQ(code, 200);
  for (const char* line :
       {"tempera_build_info{", "tempera_quantize_jobs{state=\"queued\"} 0",
        "tempera_requests_total{code=\"OK\",method=\"tempera.v1.GenerationService/Generate\"} 0",
        "tempera_object_store_requests_total{op=\"list\",result=\"ok\"}"})
    EXPECT_NE(text.find(line), std::string::npos) << line;
  EXPECT_EQ(server.Http("/secret").first, 404);
}

TEST(App, HealthNamesServicesAndLoadedModels) {
  TestServer server;
  const std::string id = server.PublishArtifact();
  EXPECT_EQ(Health(server.channel(), ""), 1);
  for (const char* service :
       {"tempera.v1.GenerationService", "tempera.v1.QuantizationService", "tempera.v1.ArtifactService",
        "tempera.v1.ModelService", "google.longrunning.Operations"})
    EXPECT_EQ(Health(server.channel(), service), 1) << service;
  EXPECT_EQ(Health(server.channel(), "model:" + id), 0);
  ASSERT_TRUE(Generate(server.channel(), GenerateOf(id, 1)).status.ok());
  ASSERT_TRUE(Generate(server.channel(), GenerateOf(server.model("plain"))).status.ok());
  Await([&] { return Health(server.channel(), "model:" + id) == 1; });
  Await([&] { return Health(server.channel(), "model:plain") == 1; });
}

TEST(App, ReadyOnceEverythingThatWasToBeLoadedIs) {
  testing::TempFolder folder;
  std::string id;
  {
    TestServer probe;
    id = probe.PublishArtifact();
  }
  TestServer server([](ServerConfig& c) { c.load = {"plain", "fashion:stable"}; });
  EXPECT_EQ(server.Http("/livez").first, 200);
  const auto [code, text] = server.Http("/readyz");
  EXPECT_EQ(code, 503);
  EXPECT_NE(text.find("fashion:stable"), std::string::npos) << text;
  // What is missing may still come.
  EXPECT_EQ(server.PublishArtifact(), id);
  const auto stub = v1::ArtifactService::NewStub(server.channel());
  v1::SetAliasRequest alias;
  alias.set_alias("fashion:stable");
  alias.set_artifact(id);
  ASSERT_TRUE(Call(*stub, &v1::ArtifactService::Stub::SetAlias, alias).ok());
  Await([&] { return server.Http("/readyz").first == 200; });
  EXPECT_EQ(server.controls().loads.count(), 2);
}

TEST(App, TwoServersOnOneFolderAreRefused) {
  TestServer server;
  ServerConfig config;
  config.data = server.data().string();
  config.listen = config.metrics_listen = "127.0.0.1:0";
  const auto second = App::Create(config, testing::FakeCompute(std::make_shared<testing::Controls>()));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(Message(second.status()).find(std::to_string(::getpid())), std::string::npos) << second.status();
  server.Stop();
}

TEST(App, TakenAddressesAreErrorsAndLeaveTheFolderFree) {
  TestServer server;
  testing::TempFolder folder;
  ServerConfig config;
  config.data = folder.path().string();
  for (const bool metrics : {false, true}) {
    config.listen = config.metrics_listen = "127.0.0.1:0";
    (metrics ? config.metrics_listen : config.listen) =
        "127.0.0.1:" + std::to_string(metrics ? server.app().http_port() : server.app().grpc_port());
    const auto taken = App::Create(config, testing::FakeCompute(std::make_shared<testing::Controls>()));
    ASSERT_FALSE(taken.ok());
    EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable) << taken.status();
  }
  EXPECT_TRUE(DataLock::Take(folder.path()).ok());
}

// Health first, then the refusal of what is new; what runs is finished.
TEST(App, DrainFinishesWhatRuns) {
  TestServer server;
  server.controls().step.Close();
  const auto stub = v1::GenerationService::NewStub(server.channel());
  grpc::ClientContext running_context, waiting_context;
  auto running = stub->Generate(&running_context, GenerateOf(server.model("plain")));
  server.controls().step.AwaitWaiting(1);
  auto waiting = stub->Generate(&waiting_context, GenerateOf(server.model("plain")));
  v1::GenerateResponse event;
  ASSERT_TRUE(waiting->Read(&event));
  server.app().Drain();
  Await([&] { return Health(server.channel(), "") == 2; });
  EXPECT_EQ(Health(server.channel(), "tempera.v1.GenerationService"), 2);
  const auto [code, text] = server.Http("/readyz");
  EXPECT_EQ(code, 503);
  EXPECT_NE(text.find("draining"), std::string::npos);
  EXPECT_EQ(server.Http("/livez").first, 200);
  Await([&] {
    return Generate(server.channel(), GenerateOf(server.model("plain"))).status.code() ==
           absl::StatusCode::kUnavailable;
  });
  const Status refused = Generate(server.channel(), GenerateOf(server.model("plain"))).status;
  EXPECT_EQ(rpc::Reason(refused), rpc::kDraining);
  EXPECT_TRUE(rpc::RetryDelay(refused));
  const auto quantizer = v1::QuantizationService::NewStub(server.channel());
  EXPECT_EQ(Call(*quantizer, &v1::QuantizationService::Stub::ListQuantizeJobs, v1::ListQuantizeJobsRequest())
                .status()
                .code(),
            absl::StatusCode::kUnavailable);
  server.controls().step.Open();
  for (auto* reader : {running.get(), waiting.get()}) {
    bool image = false;
    while (reader->Read(&event)) image |= event.has_image();
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_TRUE(image);
  }
  server.Stop();
}

TEST(App, DrainEndsWhatTakesTooLong) {
  TestServer server([](ServerConfig& c) { c.drain_seconds = 0; });
  server.controls().step.Close();
  const auto stub = v1::GenerationService::NewStub(server.channel());
  grpc::ClientContext running_context, waiting_context;
  auto running = stub->Generate(&running_context, GenerateOf(server.model("plain")));
  server.controls().step.AwaitWaiting(1);
  auto waiting = stub->Generate(&waiting_context, GenerateOf(server.model("plain")));
  v1::GenerateResponse event;
  ASSERT_TRUE(waiting->Read(&event));
  server.app().Drain();
  while (waiting->Read(&event)) {
  }
  EXPECT_EQ(waiting->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  server.controls().step.Open();
  while (running->Read(&event)) {
  }
  EXPECT_EQ(running->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  server.Stop();
  EXPECT_EQ(server.app().metrics().cancelled.Value("plain", "drain"), 2);
}

TEST(App, DrainEndsWatchersAndWaiters) {
  TestServer server;
  const auto stub = v1::QuantizationService::NewStub(server.channel());
  v1::QuantizeRequest request;
  request.set_model(server.model("plain"));
  const auto operation = Call(*stub, &v1::QuantizationService::Stub::Quantize, request);
  ASSERT_TRUE(operation.ok());
  v1::QuantizeJob job;
  operation->metadata().UnpackTo(&job);
  grpc::ClientContext context;
  v1::WatchQuantizeJobRequest watch;
  watch.set_name(job.name());
  auto reader = stub->WatchQuantizeJob(&context, watch);
  v1::WatchQuantizeJobResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server.Stop();
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(rpc::Reason(rpc::FromGrpc(reader->Finish())), rpc::kDraining);
}

// Every metric of the catalogue that a server without GPU and S3 can have is there after one generation and
// one job.
TEST(App, MetricsAfterWork) {
  TestServer server([](ServerConfig& c) { c.no_worker = false; });
  const auto stub = v1::QuantizationService::NewStub(server.channel());
  v1::QuantizeRequest request;
  request.set_model(server.model("classes"));
  request.set_alias("m:x");
  ASSERT_TRUE(Call(*stub, &v1::QuantizationService::Stub::Quantize, request).ok());
  Await([&] { return server.app().metrics().jobs_finished.Value("succeeded", "tfmq") == 1; });
  ASSERT_TRUE(Generate(server.channel(), GenerateOf("m:x", 1)).status.ok());
  const std::string text = server.Http("/metrics").second;
  for (const char* name : {"tempera_temporal_feature_error_ratio_count{",
                           "tempera_temporal_feature_error_baseline_ratio{",
                           "tempera_denoise_step_duration_seconds_count{",
                           "tempera_generation_duration_seconds_count{",
                           "tempera_feature_cache_bytes{",
                           "tempera_feature_cache_entries{",
                           "tempera_model_loaded{",
                           "tempera_model_bytes{",
                           "tempera_model_load_duration_seconds_count{",
                           "tempera_generation_queue_depth{",
                           "tempera_generation_queued_steps{",
                           "tempera_generation_queue_wait_seconds_count{",
                           "tempera_images_total{",
                           "tempera_pixels_total{",
                           "tempera_denoise_steps_total{",
                           "tempera_quantize_jobs_finished_total{",
                           "tempera_quantize_job_duration_seconds_count{",
                           "tempera_quantize_stage_duration_seconds_count{",
                           "tempera_worker_leases{",
                           "tempera_worker_last_heartbeat_timestamp_seconds{",
                           "tempera_object_store_bytes_total{",
                           "tempera_model_memory_used_bytes "})
    EXPECT_NE(text.find(name), std::string::npos) << name;
  EXPECT_EQ(text.find("tempera_quantize_job_progress_ratio{"), std::string::npos)
      << "gone when the job has ended";
}

}  // namespace
}  // namespace tempera
