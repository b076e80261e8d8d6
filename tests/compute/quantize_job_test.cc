// Whole quantize jobs on a small class-conditional network: determinism, resumption, damage, strategies.
#include "worker/quantize_job.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <random>

#include "artifact/artifact.h"
#include "base/files.h"
#include "pipeline/engine.h"
#include "weights/weights.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

const CallScope kScope;

class QuantizeJob : public testing::Test {
 protected:
  fs::path root = fs::temp_directory_path() / ("tempera-job-" + std::to_string(::getpid()));
  fs::path model = fs::absolute("golden/unet/class_cond");

  void SetUp() override {
    fs::remove_all(root);
    fs::create_directories(root);
  }
  void TearDown() override { fs::remove_all(root); }

  QuantRequest Small() const {
    QuantRequest r;
    r.scheduler = "ddim";
    r.steps = 4;
    r.samples_per_step = 8;
    r.max_iterations = 40;
    r.batch = 8;
    r.evaluation_pictures = 4;
    return r;
  }

  Result<QuantizeJobOutput> Run(
      const QuantRequest& request, const std::string& work, int threads = 2, const CallScope& scope = kScope,
      std::function<void(const JobProgress&)> progress = [](const JobProgress&) {}) {
    TEMPERA_ASSIGN(const QuantSpec spec, ResolveSpec(request, model));
    Lanes lanes(threads, &InitComputeThread);
    return RunQuantizeJob(scope,
                          {.job_id = work,
                           .spec = spec,
                           .model_folder = model,
                           .work_folder = root / work,
                           .notes = Json::object()},
                          lanes, progress);
  }

  std::shared_ptr<const Engine> Load(const QuantizeJobOutput& out, bool metric = true) {
    const auto manifest = VerifyArtifact(kScope, out.folder, out.artifact_id);
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    auto engine = Engine::LoadArtifact(kScope, out.folder, out.artifact_id, {.metric = metric});
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *engine : nullptr;
  }

  static GenerationRequest Request(int64_t label, uint64_t seed) {
    GenerationRequest request;
    request.class_label = label;
    request.seed = seed;
    return request;
  }
  static GenerationResult Paint(const Engine& engine, int64_t label, uint64_t seed) {
    InitComputeThread();
    const auto resolved = engine.Resolve(Request(label, seed));
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    auto result = engine.Generate(kScope, *resolved, {});
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }
};

TEST_F(QuantizeJob, GivesTheSameArtifactTwiceAndOnOneOrTwoThreads) {
  const auto first = Run(Small(), "a", 2), second = Run(Small(), "b", 1);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(first->artifact_id, second->artifact_id);
  for (const char* name : {kWeightsFile, kTablesFile, kReferenceFile, kEvaluationFile, kManifestFile})
    EXPECT_EQ(*Sha256File(first->folder / name, name), *Sha256File(second->folder / name, name)) << name;
  QuantRequest other = Small();
  other.seed = 5;
  const auto third = Run(other, "c");
  ASSERT_TRUE(third.ok()) << third.status();
  EXPECT_NE(first->artifact_id, third->artifact_id);
}

TEST_F(QuantizeJob, GoesOnAfterAnyInterruptionWithTheSameArtifact) {
  const auto whole = Run(Small(), "whole");
  ASSERT_TRUE(whole.ok()) << whole.status();
  // Stopped at ever later reports of progress, each time going on from what was saved.
  int64_t stop_after = 3;
  for (;;) {
    std::stop_source stop;
    std::atomic<int64_t> reports{0};
    const auto out = Run(Small(), "pieces", 2, {.stop = stop.get_token()}, [&](const JobProgress&) {
      if (++reports == stop_after) stop.request_stop();
    });
    if (out.ok()) {
      EXPECT_EQ(out->artifact_id, whole->artifact_id);
      break;
    }
    ASSERT_TRUE(absl::IsCancelled(out.status())) << out.status();
    stop_after += 7;
  }
  // A damaged checkpoint is as good as none.
  for (const auto& entry : fs::recursive_directory_iterator(root / "pieces" / "checkpoints")) {
    if (!entry.is_regular_file()) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-3, std::ios::end);
    file.put('\x55');
  }
  const auto again = Run(Small(), "pieces");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->artifact_id, whole->artifact_id);
}

TEST_F(QuantizeJob, AFlippedByteInAnyFileIsFound) {
  const auto out = Run(Small(), "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto manifest = VerifyArtifact(kScope, out->folder, out->artifact_id);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  std::vector<std::string> names{kManifestFile};
  for (const auto& [name, entry] : manifest->files) names.push_back(name);
  for (const char* name : {kMeasurementsFile, kReportJsonFile, kReportHtmlFile}) names.push_back(name);
  std::mt19937 random(1);
  for (const std::string& name : names) {
    const std::string good = *ReadFile(out->folder / name, name);
    std::string bad = good;
    bad[random() % bad.size()] ^= 0x10;
    ASSERT_TRUE(WriteFileAtomic(out->folder / name, bad, name).ok());
    const auto verified = VerifyArtifact(kScope, out->folder, out->artifact_id);
    EXPECT_FALSE(verified.ok()) << name;
    EXPECT_NE(Message(verified.status()).find(name), std::string::npos) << verified.status();
    ASSERT_TRUE(WriteFileAtomic(out->folder / name, good, name).ok());
  }
  EXPECT_TRUE(VerifyArtifact(kScope, out->folder, out->artifact_id).ok());
}

TEST_F(QuantizeJob, AFullCacheRunsNoTimeLayerAndDropsTheirWeights) {
  QuantRequest request = Small();
  request.temporal_strategy = "cache";
  const auto cached = Run(request, "cache");
  ASSERT_TRUE(cached.ok()) << cached.status();
  const auto engine = Load(*cached);
  (void)Paint(*engine, 3, 7);
  EXPECT_EQ(engine->TemporalMultiplications(), 0);
  const auto weights = WeightSource::OpenFile(cached->folder / kWeightsFile, kWeightsFile);
  ASSERT_TRUE(weights.ok());
  for (const auto& [name, view] : (*weights)->tensors())
    EXPECT_TRUE(name.find("time_emb") == std::string::npos &&
                name.find("class_embedding") == std::string::npos)
        << name;

  request.temporal_strategy = "reconstruct";
  const auto layers = Run(request, "reconstruct");
  ASSERT_TRUE(layers.ok()) << layers.status();
  const auto running = Load(*layers);
  const GenerationResult painted = Paint(*running, 3, 7);
  EXPECT_GT(running->TemporalMultiplications(), 0);
  // For what the layers produced, the error is that of what they produced.
  for (const StepEvent& step : painted.steps) {
    ASSERT_TRUE(step.temporal_feature_error.has_value());
    EXPECT_GT(*step.temporal_feature_error, 0);
  }
}

TEST_F(QuantizeJob, TheServedErrorIsTheManifestsAndAFlippedBitShows) {
  const auto out = Run(Small(), "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto engine = Load(*out);
  std::map<std::pair<int, std::string>, std::pair<double, int>> served;
  for (int64_t label = 0; label < 10; ++label)
    for (const StepEvent& step : Paint(*engine, label, 1).steps)
      for (const FeatureError& e : step.errors) {
        served[{e.timestep_bin, e.block_group}].first += e.ratio;
        served[{e.timestep_bin, e.block_group}].second += 1;
      }
  ASSERT_FALSE(engine->info().baseline.empty());
  for (const FeatureBaseline& b : engine->info().baseline) {
    const auto& [sum, count] = served[{b.timestep_bin, b.block_group}];
    ASSERT_GT(count, 0);
    // Both are means over the ten classes; layers on integers and in simulation differ by the rounding of
    // float sums.
    EXPECT_NEAR(sum / count, b.ratio, 1e-3 * b.ratio);
  }
  const double before = *Paint(*engine, 0, 1).steps[0].temporal_feature_error;
  ASSERT_TRUE(engine->CorruptCacheForTest(0));
  EXPECT_GT(*Paint(*engine, 0, 1).steps[0].temporal_feature_error, before);
}

TEST_F(QuantizeJob, TheSameRequestPaintsTheSameBytesOnEveryThread) {
  const auto out = Run(Small(), "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto engine = Load(*out);
  const GenerationResult alone = Paint(*engine, 2, 9);
  Lanes lanes(3, &InitComputeThread);
  const Status status = lanes.ParallelFor(6, [&](int64_t) -> Status {
    const auto resolved = engine->Resolve(Request(2, 9));
    const auto result = engine->Generate(kScope, *resolved, {});
    if (!result.ok()) return result.status();
    return result->latent_sha256 == alone.latent_sha256 ? OkStatus() : Internal("another latent");
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(QuantizeJob, EveryMethodAndWidthQuantizesAndServes) {
  struct Row {
    const char* method;
    int weight_bits, activation_bits;
    bool attention;
    int boundary;
  };
  for (const Row& row :
       {Row{"minmax", 8, 8, false, 0}, Row{"brecq", 6, 6, false, 8}, Row{"tfmq-paper", 8, 8, false, 0},
        Row{"tfmq", 5, 5, true, 0}, Row{"tfmq", 4, 4, false, 8}, Row{"tfmq", 4, 32, false, 0}}) {
    SCOPED_TRACE(testing::Message() << row.method << " W" << row.weight_bits << "A" << row.activation_bits);
    QuantRequest request = Small();
    request.method = row.method;
    request.weight_bits = row.weight_bits;
    request.activation_bits = row.activation_bits;
    request.quantize_attention = row.attention;
    request.boundary_bits = row.boundary;
    request.evaluation_pictures = 2;
    const auto out = Run(request, Cat(row.method, row.weight_bits, row.activation_bits));
    ASSERT_TRUE(out.ok()) << out.status();
    const auto engine = Load(*out);
    ASSERT_NE(engine, nullptr);
    EXPECT_EQ(Paint(*engine, 1, 1).picture.width, 16);
  }
}

TEST_F(QuantizeJob, CoarserWeightsLieFurtherFromTheOriginal) {
  const auto error = [&](int bits) {
    QuantRequest request = Small();
    request.method = "minmax";
    request.weight_bits = bits;
    const auto out = Run(request, Cat("bits", bits));
    EXPECT_TRUE(out.ok()) << out.status();
    const Json evaluation =
        *ParseJson(*ReadFile(out->folder / kEvaluationFile, kEvaluationFile), kEvaluationFile);
    double sum = 0;
    for (const auto& ratio : evaluation["methods"][0]["temporal"]["ratio"]) sum += ratio.get<double>();
    return sum;
  };
  const double at8 = error(8), at4 = error(4);
  EXPECT_LT(at8, at4);
}

TEST_F(QuantizeJob, EqualizedAndDynamicInputsLoseLess) {
  const auto error = [&](const char* method) {
    QuantRequest request = Small();
    request.method = method;
    request.weight_bits = 8;
    request.max_iterations = 0;
    const auto out = Run(request, method);
    EXPECT_TRUE(out.ok()) << out.status();
    const Json evaluation =
        *ParseJson(*ReadFile(out->folder / kEvaluationFile, kEvaluationFile), kEvaluationFile);
    double sum = 0;
    for (const auto& layer : evaluation["layers"])
      if (layer["output_error"].is_number()) sum += layer["output_error"].get<double>();
    return sum;
  };
  const double refined = error("tfmq"), plain = error("tfmq-paper");
  EXPECT_GT(refined, 0);
  EXPECT_LT(refined, plain);
}

TEST_F(QuantizeJob, BadRequestsAreRefusedByField) {
  const auto expect = [&](const char* field, auto change) {
    QuantRequest request = Small();
    change(request);
    const auto spec = ResolveSpec(request, model);
    ASSERT_FALSE(spec.ok()) << field;
    EXPECT_TRUE(absl::IsInvalidArgument(spec.status())) << spec.status();
    EXPECT_NE(Message(spec.status()).find(field), std::string::npos) << spec.status();
  };
  expect("weight_bits", [](QuantRequest& r) { r.weight_bits = 3; });
  expect("activation_bits", [](QuantRequest& r) { r.activation_bits = 16; });
  expect("method", [](QuantRequest& r) { r.method = "magic"; });
  expect("scheduler", [](QuantRequest& r) { r.scheduler = "magic"; });
  expect("steps", [](QuantRequest& r) { r.steps = 0; });
  expect("steps", [](QuantRequest& r) { r.steps = 1001; });
  expect("eta", [](QuantRequest& r) { r.eta = std::nan(""); });
  expect("classes", [](QuantRequest& r) { r.classes = {10}; });
  expect("classes", [](QuantRequest& r) { r.classes = {-1}; });
  expect("temporal_strategy", [](QuantRequest& r) { r.temporal_strategy = "magic"; });
  expect("overrides", [](QuantRequest& r) {
    r.overrides = {{.slot = "nowhere", .weight_bits = 4, .activation_bits = {}}};
  });
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  tempera::InitCompute();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
