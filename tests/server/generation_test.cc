#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "base/files.h"
#include "metrics/metrics.h"
#include "server/calls.h"
#include "server/fakes.h"

namespace tempera {

std::vector<std::string> testing::Generated::images() const {
  std::vector<std::string> files;
  bool open = false;
  for (const auto& e : events) {
    if (!e.has_image()) continue;
    const v1::ImageChunk& chunk = e.image();
    if (!open) files.emplace_back();
    EXPECT_EQ(chunk.picture(), static_cast<int>(files.size()) - 1);
    EXPECT_EQ(chunk.offset(), static_cast<int64_t>(files.back().size()));
    EXPECT_LE(chunk.data().size(), 1u << 20);
    files.back() += chunk.data();
    open = !chunk.last();
    if (chunk.last()) {
      EXPECT_EQ(static_cast<int64_t>(files.back().size()), chunk.total_bytes());
      EXPECT_EQ(chunk.sha256(), Sha256Hex(files.back()));
    }
  }
  EXPECT_FALSE(open);
  return files;
}

namespace {

using testing::Call;
using testing::Generate;
using testing::Generated;
using testing::GenerateOf;
using testing::TestServer;
using Stub = v1::GenerationService::Stub;

TEST(Generate, SendsEveryEventInOrder) {
  TestServer server;
  v1::GenerateRequest request = GenerateOf(server.model("plain"), -1, 7);
  request.set_steps(4);
  request.set_preview_interval(2);
  request.set_request_id("my-request");
  const Generated got = Generate(server.channel(), request);
  ASSERT_TRUE(got.status.ok()) << got.status;
  std::string order;
  for (size_t i = 0; i < got.events.size(); ++i) {
    EXPECT_EQ(got.events[i].sequence(), static_cast<int64_t>(i));
    order += "??apvis"[got.events[i].event_case()];  // accepted is field 2
  }
  EXPECT_EQ(order, "appvppis");
  EXPECT_EQ(got.accepted().seed(), 7u);
  EXPECT_EQ(got.accepted().model(), "plain");
  EXPECT_EQ(got.accepted().artifact(), "");
  EXPECT_EQ(got.accepted().request_id(), "my-request");
  EXPECT_EQ(got.accepted().schedule().scheduler(), "ddim");
  EXPECT_EQ(got.accepted().schedule().steps(), 4);
  EXPECT_EQ(got.accepted().count(), 1);
  EXPECT_EQ(got.accepted().format(), v1::PNG);
  EXPECT_EQ(got.accepted().queue_position(), 0);
  EXPECT_FALSE(got.accepted().has_class_label());
  for (int k = 0; k < 4; ++k) {
    EXPECT_EQ(got.progress()[k].step(), k);
    EXPECT_FALSE(got.progress()[k].has_temporal_feature_error())
        << "a full-precision model has no such error";
  }
  ASSERT_EQ(got.images().size(), 1u);
  EXPECT_EQ(got.summary().pictures(0).sha256(), Sha256Hex(got.images()[0]));
  EXPECT_EQ(got.summary().pictures(0).latent_sha256(), Sha256Hex("latent7"));
  EXPECT_TRUE(got.trailers.contains("x-compute-seconds"));
  // No series, not zero.
  EXPECT_EQ(server.app().metrics().temporal_error.series(), 0);
}

TEST(Generate, PictureJHasSeedPlusJ) {
  TestServer server;
  v1::GenerateRequest request = GenerateOf(server.model("plain"), -1, ~uint64_t{0});
  request.set_count(3);
  const Generated got = Generate(server.channel(), request);
  ASSERT_TRUE(got.status.ok()) << got.status;
  ASSERT_EQ(got.summary().pictures_size(), 3);
  EXPECT_EQ(got.summary().pictures(0).seed(), ~uint64_t{0});
  EXPECT_EQ(got.summary().pictures(1).seed(), 0u);
  EXPECT_EQ(got.summary().pictures(2).seed(), 1u);
  const Generated alone = Generate(server.channel(), GenerateOf(server.model("plain"), -1, 1));
  EXPECT_EQ(alone.images().at(0), got.images().at(2));
}

TEST(Generate, SeedIsDrawnWhenUnset) {
  TestServer server;
  v1::GenerateRequest request;
  request.set_ref(server.model("plain"));
  const uint64_t a = Generate(server.channel(), request).accepted().seed();
  const uint64_t b = Generate(server.channel(), request).accepted().seed();
  EXPECT_NE(a, b);
}

TEST(Generate, LargePicturesComeInPieces) {
  TestServer server;
  server.controls().picture_side = 1000;  // 3 MB
  const Generated got = Generate(server.channel(), GenerateOf(server.model("plain")));
  ASSERT_TRUE(got.status.ok()) << got.status;
  EXPECT_EQ(got.images().at(0).size(), 3'000'000u);
}

TEST(Generate, ArtifactsGoByIdPrefixAndAlias) {
  TestServer server;
  const std::string id = server.PublishArtifact();
  for (const std::string& ref : {id, "artifacts/" + id, id.substr(0, 12)}) {
    const Generated got = Generate(server.channel(), GenerateOf(ref, 3));
    ASSERT_TRUE(got.status.ok()) << got.status;
    EXPECT_EQ(got.accepted().artifact(), id);
    EXPECT_EQ(got.trailers.at("x-artifact-digest"), id);
    EXPECT_EQ(got.progress().at(0).temporal_feature_error(), 1e-3);
    EXPECT_EQ(got.progress().at(0).errors_size(), 2);
  }
  Metrics& m = server.app().metrics();
  const std::string label = id.substr(0, 12);
  EXPECT_EQ(m.temporal_error.Count("classes", label, "19", "down"), 3);
  EXPECT_EQ(m.temporal_error_baseline.Value("classes", label, "19", "up"), 2e-3);
  EXPECT_EQ(m.steps.Value("classes"), 15);
  EXPECT_EQ(m.images.Value("classes"), 3);
  EXPECT_EQ(m.step_seconds.Count("classes", label), 15);
  EXPECT_EQ(server.controls().loads.count(), 1);
}

TEST(Generate, BadRequestsNameTheField) {
  TestServer server;
  const auto field = [&](std::function<void(v1::GenerateRequest&)> change) {
    v1::GenerateRequest request = GenerateOf(server.model("plain"));
    change(request);
    const Generated got = Generate(server.channel(), request);
    EXPECT_EQ(got.status.code(), absl::StatusCode::kInvalidArgument) << got.status;
    EXPECT_TRUE(got.events.empty());
    EXPECT_EQ(Message(got.status).find(server.root().string() + "/.."), std::string::npos);
    return rpc::Field(got.status).value_or("none");
  };
  EXPECT_EQ(field([](auto& r) { r.set_ref(""); }), "ref");
  EXPECT_EQ(field([](auto& r) { r.set_ref("s3://bucket/x"); }), "ref");
  EXPECT_EQ(field([&](auto& r) { r.set_ref(server.model("broken")); }), "ref");
  EXPECT_EQ(field([](auto& r) { r.set_count(0); }), "count");
  EXPECT_EQ(field([](auto& r) { r.set_count(65); }), "count");
  EXPECT_EQ(field([](auto& r) { r.set_format(static_cast<v1::ImageFormat>(9)); }), "format");
  EXPECT_EQ(field([](auto& r) { r.set_preview_interval(-1); }), "preview_interval");
  EXPECT_EQ(field([](auto& r) { r.set_preview_kind(static_cast<v1::PreviewKind>(7)); }), "preview_kind");
  EXPECT_EQ(field([](auto& r) { r.set_request_id(std::string(37, 'x')); }), "request_id");
  EXPECT_EQ(field([](auto& r) { r.set_scheduler("nope"); }), "scheduler");
  EXPECT_EQ(field([](auto& r) { r.set_steps(0); }), "steps");
  EXPECT_EQ(field([](auto& r) { r.set_steps(1001); }), "steps");
  EXPECT_EQ(field([](auto& r) { r.set_eta(std::nan("")); }), "eta");
  EXPECT_EQ(field([](auto& r) { r.set_class_label(0); }), "class_label");
  EXPECT_EQ(field([&](auto& r) { r.set_ref(server.model("classes")); }), "class_label");
  EXPECT_EQ(field([&](auto& r) {
              r.set_ref(server.model("classes"));
              r.set_class_label(-1);
            }),
            "class_label");
  EXPECT_EQ(field([&](auto& r) {
              r.set_ref(server.model("classes"));
              r.set_class_label(10);
            }),
            "class_label");
}

TEST(Generate, PicturesTooLargeForTheMemoryBudgetAreRefusedBefore) {
  TestServer server([](ServerConfig& c) { c.memory_budget_bytes = 5000; });
  server.controls().painting_bytes = 4000;  // and 1000 of the model
  EXPECT_TRUE(Generate(server.channel(), GenerateOf(server.model("plain"))).status.ok());
  server.controls().painting_bytes = 4001;
  const int before = server.controls().steps.count();
  const Generated got = Generate(server.channel(), GenerateOf(server.model("plain")));
  EXPECT_EQ(got.status.code(), absl::StatusCode::kInvalidArgument) << got.status;
  EXPECT_EQ(rpc::Field(got.status).value_or("none"), "width");
  EXPECT_TRUE(got.events.empty());
  EXPECT_EQ(server.controls().steps.count(), before);
}

TEST(Generate, UnknownRefsAreNotFoundAndOutsideOnesDenied) {
  TestServer server;
  std::filesystem::create_directories(server.data() / "secret");
  std::filesystem::create_directory_symlink(server.data() / "secret", server.root() / "link");
  const auto code = [&](const std::string& ref) {
    const Generated got = Generate(server.channel(), GenerateOf(ref));
    EXPECT_TRUE(rpc::Reason(got.status)) << got.status;
    return got.status.code();
  };
  EXPECT_EQ(code(std::string(64, '0')), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("000000000000"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("nobody:stable"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(server.model("nothing")), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(server.model("link")), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code(server.root().string() + "/../data"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code("/etc"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code("file:///etc/passwd"), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(code("../data"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("link"), absl::StatusCode::kNotFound);
}

TEST(Generate, ModelsGoByPathUriAndNameUnderTheRoot) {
  TestServer server;
  for (const std::string& ref :
       {server.model("plain"), "file://" + server.model("plain"), std::string("plain")})
    EXPECT_TRUE(Generate(server.channel(), GenerateOf(ref)).status.ok()) << ref;
  EXPECT_EQ(server.controls().loads.count(), 1);
}

TEST(Generate, ValidateOnlyPaintsNothing) {
  TestServer server;
  v1::GenerateRequest request = GenerateOf(server.model("plain"));
  request.set_validate_only(true);
  const Generated got = Generate(server.channel(), request);
  EXPECT_TRUE(got.status.ok());
  EXPECT_EQ(got.events.size(), 1u);
  EXPECT_EQ(got.accepted().schedule().steps(), 5);
  EXPECT_EQ(server.controls().steps.count(), 0);
}

// One that runs, two that wait: the places fall, the last is refused.
TEST(Generate, WaitsItsTurnAndIsRefusedWhenTheQueueIsFull) {
  TestServer server([](ServerConfig& c) { c.max_queued_generations = 2; });
  server.controls().step.Close();
  const auto stub = v1::GenerationService::NewStub(server.channel());
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < 3; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub->Generate(contexts.back().get(), GenerateOf(server.model("plain"))));
    v1::GenerateResponse event;
    ASSERT_TRUE(readers.back()->Read(&event));
    EXPECT_EQ(event.accepted().queue_position(), i);
    if (i == 0) server.controls().step.AwaitWaiting(1);
  }
  const Generated refused = Generate(server.channel(), GenerateOf(server.model("plain")));
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rpc::Reason(refused.status), rpc::kQueueFull);
  EXPECT_TRUE(rpc::RetryDelay(refused.status));
  EXPECT_EQ(server.app().metrics().queue_depth.Value("plain"), 2);
  server.controls().step.Open();
  for (int i = 0; i < 3; ++i) {
    int last = i;
    for (v1::GenerateResponse event; readers[i]->Read(&event);)
      if (event.has_accepted()) {
        EXPECT_LE(event.accepted().queue_position(), last);
        last = event.accepted().queue_position();
      }
    EXPECT_TRUE(readers[i]->Finish().ok());
  }
}

TEST(Generate, CancelEndsTheStepInWorkAndNoOtherBegins) {
  TestServer server;
  server.controls().until_stopped = true;
  const auto stub = v1::GenerationService::NewStub(server.channel());
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, GenerateOf(server.model("plain")));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  server.Stop();
  EXPECT_EQ(server.app().metrics().cancelled.Value("plain", "client"), 1);
  EXPECT_EQ(server.controls().steps.count(), 0);
}

TEST(Generate, CancelOfOneThatWaitsLeavesTheQueueAtOnce) {
  TestServer server;
  server.controls().step.Close();
  const auto stub = v1::GenerationService::NewStub(server.channel());
  grpc::ClientContext running_context, context;
  auto running = stub->Generate(&running_context, GenerateOf(server.model("plain")));
  server.controls().step.AwaitWaiting(1);
  auto reader = stub->Generate(&context, GenerateOf(server.model("plain")));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.accepted().queue_position(), 1);
  context.TryCancel();
  reader->Finish();
  while (server.app().metrics().cancelled.Value("plain", "client") < 1) std::this_thread::yield();
  EXPECT_EQ(server.app().metrics().queue_depth.Value("plain"), 0);
  server.controls().step.Open();
  while (running->Read(&event)) {
  }
  EXPECT_TRUE(running->Finish().ok());
}

TEST(Generate, DeadlineEndsIt) {
  TestServer server;
  server.controls().until_stopped = true;
  const auto stub = v1::GenerationService::NewStub(server.channel());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
  auto reader = stub->Generate(&context, GenerateOf(server.model("plain")));
  v1::GenerateResponse event;
  ASSERT_TRUE(reader->Read(&event)) << "accepted well before the deadline";
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  server.Stop();
  EXPECT_EQ(server.app().metrics().cancelled.Value("plain", "deadline"), 1);
}

// Clients that vanish at any moment leave nothing behind.
TEST(Generate, ClientsThatVanish) {
  TestServer server([](ServerConfig& c) { c.threads = 2; });
  {
    std::vector<std::jthread> clients;
    for (int t = 0; t < 4; ++t)
      clients.emplace_back([&server, t] {
        const auto stub = v1::GenerationService::NewStub(server.channel());
        for (int i = 0; i < 25; ++i) {
          grpc::ClientContext context;
          auto reader = stub->Generate(&context, GenerateOf(server.model("plain"), -1, i));
          v1::GenerateResponse event;
          for (int n = 0; n < (i * 5 + t) % 8; ++n) reader->Read(&event);
          context.TryCancel();
          reader->Finish();
        }
      });
  }
  const Generated got = Generate(server.channel(), GenerateOf(server.model("plain")));
  EXPECT_TRUE(got.status.ok()) << got.status;
  server.Stop();
  EXPECT_EQ(server.app().metrics().queue_depth.Value("plain"), 0);
  EXPECT_EQ(server.app().metrics().requests_in_flight.Value("tempera.v1.GenerationService/Generate"), 0);
}

TEST(Capabilities, OfTheServerAndOfAModel) {
  TestServer server;
  const auto stub = v1::GenerationService::NewStub(server.channel());
  auto got = Call(*stub, &Stub::GetCapabilities, v1::GetCapabilitiesRequest());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->methods_size(), 2);
  EXPECT_EQ(got->max_count(), 64);
  EXPECT_FALSE(got->has_model());
  EXPECT_EQ(server.controls().loads.count(), 0);
  v1::GetCapabilitiesRequest request;
  request.set_ref(server.model("classes"));
  got = Call(*stub, &Stub::GetCapabilities, request);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->model().classes(), 10);
  request.set_ref("nothing");
  EXPECT_EQ(Call(*stub, &Stub::GetCapabilities, request).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace tempera
