#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "metrics/metrics.h"
#include "server/calls.h"
#include "server/fakes.h"
#include "storage/object_store.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/model.grpc.pb.h"

namespace tempera {
namespace {

using testing::Call;
using testing::TestServer;
using Stub = v1::ArtifactService::Stub;
using Models = v1::ModelService::Stub;

class Artifacts : public ::testing::Test {
 protected:
  Result<v1::Artifact> Get(const std::string& artifact) {
    v1::GetArtifactRequest request;
    request.set_artifact(artifact);
    return Call(*stub_, &Stub::GetArtifact, request);
  }
  Result<v1::Alias> SetAlias(const std::string& alias, const std::string& artifact) {
    v1::SetAliasRequest request;
    request.set_alias(alias);
    request.set_artifact(artifact);
    return Call(*stub_, &Stub::SetAlias, request);
  }
  Status Delete(const std::string& artifact, bool force = false) {
    v1::DeleteArtifactRequest request;
    request.set_artifact(artifact);
    request.set_force(force);
    return Call(*stub_, &Stub::DeleteArtifact, request).status();
  }
  // The files of the report; their pieces are checked.
  std::map<std::string, std::string> Report(const v1::GetQualityReportRequest& request, Status* status) {
    grpc::ClientContext context;
    auto reader = stub_->GetQualityReport(&context, request);
    std::map<std::string, std::string> files;
    for (v1::GetQualityReportResponse m; reader->Read(&m);) {
      std::string& file = files[m.path()];
      EXPECT_EQ(m.offset(), static_cast<int64_t>(file.size()));
      EXPECT_LE(m.data().size(), 1u << 20);
      file += m.data();
      if (m.last()) {
        EXPECT_EQ(m.sha256(), Sha256Hex(file));
        EXPECT_EQ(m.total_bytes(), static_cast<int64_t>(file.size()));
      }
    }
    *status = rpc::FromGrpc(reader->Finish());
    return files;
  }

  TestServer server_;
  std::unique_ptr<Stub> stub_ = v1::ArtifactService::NewStub(server_.channel());
  std::unique_ptr<Models> models_ = v1::ModelService::NewStub(server_.channel());
};

TEST_F(Artifacts, TellsEverythingOfOne) {
  const std::string id = server_.PublishArtifact();
  ASSERT_TRUE(SetAlias("fashion:stable", id).ok());
  const auto got = Get("fashion:stable");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->id(), id);
  EXPECT_EQ(Sha256Hex(got->manifest_json()), id);
  EXPECT_EQ(got->spec().method(), "tfmq");
  EXPECT_EQ(got->schedule().steps(), 5);
  EXPECT_EQ(got->schedule().timesteps_size(), 5);
  EXPECT_EQ(got->aliases_size(), 1);
  EXPECT_EQ(got->labels().at("team"), "vision");
  EXPECT_EQ(got->quantize_job(), "quantizeJobs/0123456789abcdef");
  EXPECT_EQ(got->create_time().seconds(), 1769853600);  // 2026-01-31T10:00:00Z
  EXPECT_EQ(got->model().channels(), 1);
  EXPECT_EQ(got->model().height(), 32);
  EXPECT_EQ(got->model().width(), 48);
  EXPECT_EQ(got->model().class_names(1), "b");
  ASSERT_EQ(got->baseline_size(), 1);
  EXPECT_EQ(got->baseline(0).ratio(), 1e-3);
  EXPECT_EQ(got->files_size(), 7);
  int64_t total = 0;
  for (const auto& file : got->files()) {
    total += file.bytes();
    EXPECT_EQ(file.sha256().empty(), !file.path().ends_with(".safetensors")) << file.path();
  }
  EXPECT_EQ(got->total_bytes(), total);
}

TEST_F(Artifacts, ListsWithFilterOrderAndPages) {
  const std::string a = server_.PublishArtifact("tfmq"), b = server_.PublishArtifact("minmax");
  ASSERT_TRUE(SetAlias("one", a).ok());
  const auto list = [&](const std::string& filter, int size = 0, const std::string& token = "") {
    v1::ListArtifactsRequest request;
    request.set_filter(filter);
    request.set_page_size(size);
    request.set_page_token(token);
    return Call(*stub_, &Stub::ListArtifacts, request);
  };
  EXPECT_EQ(list("")->artifacts_size(), 2);
  ASSERT_EQ(list("method = tfmq")->artifacts_size(), 1);
  EXPECT_EQ(list("method = tfmq")->artifacts(0).aliases(0), "one");
  EXPECT_EQ(list("alias = one")->artifacts(0).id(), a);
  EXPECT_EQ(list("alias != one")->artifacts(0).id(), b);
  EXPECT_EQ(list("model = classes AND labels.team = \"vision\"")->artifacts_size(), 2);
  EXPECT_EQ(list("labels.team != vision")->artifacts_size(), 0);
  EXPECT_EQ(list("create_time >= \"2026-01-31T10:00:00Z\"")->artifacts_size(), 2);
  EXPECT_EQ(list("create_time < \"2026-01-31T10:00:00Z\"")->artifacts_size(), 0);
  EXPECT_EQ(rpc::Field(list("state = RUNNING").status()), "filter");
  EXPECT_EQ(rpc::Field(list("", -1).status()), "page_size");
  const auto first = list("", 1);
  ASSERT_TRUE(first.ok());
  ASSERT_FALSE(first->next_page_token().empty());
  const auto second = list("", 1, first->next_page_token());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->next_page_token(), "");
  EXPECT_NE(first->artifacts(0).id(), second->artifacts(0).id());
  EXPECT_EQ(rpc::Field(list("method = tfmq", 1, first->next_page_token()).status()), "page_token");
}

TEST_F(Artifacts, VerifyFindsAFlippedByteInAnyFile) {
  const std::string id = server_.PublishArtifact();
  v1::VerifyArtifactRequest request;
  request.set_artifact(id);
  const auto sound = Call(*stub_, &Stub::VerifyArtifact, request);
  ASSERT_TRUE(sound.ok()) << sound.status();
  EXPECT_EQ(sound->files_size(), 6);
  for (const char* name :
       {"weights.safetensors", "tables.safetensors", "manifest.json", "measurements.json", "report.html"}) {
    const auto path = server_.data() / "store" / "artifacts" / id / name;
    std::string bytes = *ReadFile(path, name);
    bytes[bytes.size() / 2] ^= 1;
    ASSERT_TRUE(WriteFileAtomic(path, bytes, name).ok());
    const auto damaged = Call(*stub_, &Stub::VerifyArtifact, request);
    EXPECT_EQ(damaged.status().code(), absl::StatusCode::kDataLoss) << damaged.status();
    EXPECT_EQ(rpc::Reason(damaged.status()), rpc::kArtifactDamaged);
    EXPECT_NE(Message(damaged.status()).find(name), std::string::npos);
    EXPECT_EQ(Message(damaged.status()).find("/store/"), std::string::npos) << "no path of this machine";
    v1::ExplainQuantizationRequest explain;
    explain.set_artifact(id);
    const bool read = std::string(name).ends_with(".safetensors") || std::string(name) == "manifest.json";
    EXPECT_EQ(absl::IsDataLoss(Call(*stub_, &Stub::ExplainQuantization, explain).status()), read) << name;
    v1::GetQualityReportRequest report;
    report.set_artifact(id);
    Status sent;
    Report(report, &sent);
    EXPECT_EQ(absl::IsDataLoss(sent), !std::string(name).ends_with(".safetensors")) << name << " " << sent;
    // Nor does it paint.
    const auto got = testing::Generate(server_.channel(), testing::GenerateOf(id, 1));
    EXPECT_EQ(got.status.code(), absl::StatusCode::kDataLoss) << got.status;
    EXPECT_EQ(rpc::Reason(got.status), rpc::kArtifactDamaged);
    bytes[bytes.size() / 2] ^= 1;
    ASSERT_TRUE(WriteFileAtomic(path, bytes, name).ok());
  }
  EXPECT_EQ(server_.app().metrics().cache_verify_failures.Value("unknown"), 5);
  EXPECT_TRUE(testing::Generate(server_.channel(), testing::GenerateOf(id, 1)).status.ok());
}

TEST_F(Artifacts, AliasesMoveInOneStep) {
  const std::string a = server_.PublishArtifact("tfmq"), b = server_.PublishArtifact("minmax");
  auto alias = SetAlias("m:stable", a);
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(alias->previous_artifact(), "");
  alias = SetAlias("m:stable", b.substr(0, 16));
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(alias->artifact(), b);
  EXPECT_EQ(alias->previous_artifact(), a);
  EXPECT_EQ(Get("m:stable")->id(), b);
  v1::SetAliasRequest request;
  request.set_alias("m:stable");
  request.set_artifact(a);
  request.set_expected_artifact(a);
  const auto lost = Call(*stub_, &Stub::SetAlias, request);
  EXPECT_EQ(lost.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(rpc::Reason(lost.status()), rpc::kAliasMoved);
  EXPECT_EQ(SetAlias("m:stable", "")->artifact(), "");
  EXPECT_EQ(Get("m:stable").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(rpc::Field(SetAlias("bad alias", a).status()), "alias");
  EXPECT_EQ(rpc::Field(SetAlias(std::string(20, 'a'), a).status()), "alias");
  EXPECT_EQ(SetAlias("m:x", std::string(64, '0')).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(Artifacts, DeleteMindsAliasesAndUse) {
  const std::string id = server_.PublishArtifact();
  ASSERT_TRUE(SetAlias("m:stable", id).ok());
  EXPECT_EQ(rpc::Field(Delete("m:stable")), "artifact");
  EXPECT_EQ(Delete(id).code(), absl::StatusCode::kFailedPrecondition);
  // In use: even by force.
  server_.controls().step.Close();
  const auto generator = v1::GenerationService::NewStub(server_.channel());
  grpc::ClientContext context;
  auto reader = generator->Generate(&context, testing::GenerateOf(id, 1));
  server_.controls().step.AwaitWaiting(1);
  const Status used = Delete(id, true);
  EXPECT_EQ(used.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(rpc::Reason(used), rpc::kArtifactInUse);
  EXPECT_TRUE(Get("m:stable").ok()) << "a refused delete changes nothing";
  server_.controls().step.Open();
  v1::GenerateResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(Delete(id, true).ok());
  EXPECT_EQ(Get(id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Get("m:stable").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(testing::Generate(server_.channel(), testing::GenerateOf(id, 1)).status.code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Delete(id).code(), absl::StatusCode::kNotFound);
}

TEST_F(Artifacts, ReportComesFileByFile) {
  const std::string id = server_.PublishArtifact();
  v1::GetQualityReportRequest request;
  request.set_artifact(id);
  Status status;
  auto files = Report(request, &status);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(files.size(), 4u);
  EXPECT_GT(files.at("report.html").size(), 3u << 20);
  EXPECT_EQ(files.at("report.json"), "");
  EXPECT_FALSE(files.contains("weights.safetensors"));
  request.add_paths("manifest.json");
  files = Report(request, &status);
  EXPECT_EQ(files.size(), 1u);
  EXPECT_EQ(Sha256Hex(files.at("manifest.json")), id);
  for (const char* path : {"nothing.txt", "../manifest.json", "weights.safetensors"}) {
    request.add_paths(path);
    EXPECT_TRUE(Report(request, &status).empty());
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << path;
    request.mutable_paths()->RemoveLast();
  }
  request.set_artifact("nobody");
  Report(request, &status);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
}

TEST_F(Artifacts, ExplainsLayersAndSteps) {
  const std::string id = server_.PublishArtifact();
  v1::ExplainQuantizationRequest request;
  request.set_artifact(id.substr(0, 12));
  auto got = Call(*stub_, &Stub::ExplainQuantization, request);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->artifact(), id);
  ASSERT_EQ(got->layers_size(), 3);
  const v1::LayerExplanation& conv = got->layers(1);
  EXPECT_EQ(conv.layer(), "conv");
  EXPECT_EQ(conv.weight_bits(), 4);
  ASSERT_EQ(conv.weight_scales_size(), 4);
  EXPECT_EQ(conv.weight_scales(1), 0.25);
  EXPECT_EQ(conv.weight_zero_points(0), 8);
  ASSERT_EQ(conv.steps_size(), 10);  // five steps of two parts
  EXPECT_EQ(conv.steps(2).step(), 1);
  EXPECT_EQ(conv.steps(2).timestep(), 601);
  EXPECT_EQ(conv.steps(2).scale(), 2);
  EXPECT_EQ(conv.steps(2).zero_point(), 20);
  EXPECT_EQ(conv.steps(2).range_low(), -40);
  EXPECT_EQ(conv.steps(2).range_high(), 2 * (255 - 20));
  EXPECT_EQ(conv.steps(3).part(), 1);
  EXPECT_EQ(conv.steps(3).zero_point(), 128);
  ASSERT_EQ(got->layers(2).steps_size(), 5);
  EXPECT_EQ(got->layers(2).steps(2).strategy(), "reconstruct");
  EXPECT_EQ(got->layers(2).steps(3).strategy(), "cache");
  EXPECT_EQ(got->layers(0).steps_size(), 0);
  request.set_layer("down");
  request.set_step(4);
  got = Call(*stub_, &Stub::ExplainQuantization, request);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->layers_size(), 1);
  request.set_layer("con");
  EXPECT_EQ(rpc::Reason(Call(*stub_, &Stub::ExplainQuantization, request).status()), rpc::kLayerNotFound);
  request.set_layer("conv");
  EXPECT_EQ(Call(*stub_, &Stub::ExplainQuantization, request)->layers(0).steps_size(), 2);
  request.set_step(5);
  EXPECT_EQ(rpc::Field(Call(*stub_, &Stub::ExplainQuantization, request).status()), "step");
  request.clear_step();
  request.clear_layer();
  request.set_page_size(2);
  got = Call(*stub_, &Stub::ExplainQuantization, request);
  ASSERT_EQ(got->layers_size(), 2);
  request.set_page_token(got->next_page_token());
  EXPECT_EQ(Call(*stub_, &Stub::ExplainQuantization, request)->layers(0).layer(), "time");
}

TEST_F(Artifacts, ModelsAreLoadedListedAndUnloaded) {
  const std::string id = server_.PublishArtifact();
  ASSERT_TRUE(SetAlias("m:stable", id).ok());
  v1::LoadModelRequest load;
  load.set_ref("m:stable");
  load.set_request_id("load-1");
  for (int i = 0; i < 2; ++i) {
    const auto loaded = Call(*models_, &Models::LoadModel, load);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->artifact(), id);
    EXPECT_EQ(loaded->aliases(0), "m:stable");
    EXPECT_EQ(loaded->memory_bytes(), 1030);
    EXPECT_EQ(loaded->active_generations(), 0);
  }
  EXPECT_EQ(server_.controls().loads.count(), 1);
  load.set_ref(server_.model("plain"));
  EXPECT_EQ(rpc::Reason(Call(*models_, &Models::LoadModel, load).status()), rpc::kRequestIdReused);
  load.clear_request_id();
  ASSERT_TRUE(Call(*models_, &Models::LoadModel, load).ok());

  const auto list = Call(*models_, &Models::ListLoadedModels, v1::ListLoadedModelsRequest());
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->models_size(), 2);
  EXPECT_EQ(list->models(0).ref(), "plain");
  EXPECT_EQ(list->memory_used_bytes(), 2030);
  const auto caches = Call(*models_, &Models::ListTemporalCaches, v1::ListTemporalCachesRequest());
  ASSERT_TRUE(caches.ok());
  ASSERT_EQ(caches->caches_size(), 1);
  EXPECT_EQ(caches->caches(0).artifact(), id);
  EXPECT_EQ(caches->caches(0).entries(), 5);
  EXPECT_TRUE(caches->caches(0).complete());
  EXPECT_EQ(caches->total_bytes(), 10);
  v1::ListLoadedModelsRequest one;
  one.set_page_size(1);
  const auto first = Call(*models_, &Models::ListLoadedModels, one);
  one.set_page_token(first->next_page_token());
  EXPECT_EQ(Call(*models_, &Models::ListLoadedModels, one)->models(0).artifact(), id);
  one.set_page_token("foreign");
  EXPECT_EQ(rpc::Field(Call(*models_, &Models::ListLoadedModels, one).status()), "page_token");

  v1::UnloadModelRequest unload;
  unload.set_ref("m:stable");
  EXPECT_TRUE(Call(*models_, &Models::UnloadModel, unload).ok());
  const auto again = Call(*models_, &Models::UnloadModel, unload);
  EXPECT_EQ(again.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(rpc::Reason(again.status()), rpc::kModelNotLoaded);
}

}  // namespace
}  // namespace tempera
