// Whole quantize jobs on latent and text-to-image pipelines: what is published paints from prompts, with the
// stages in it.
#include <gtest/gtest.h>

#include <cmath>

#include "artifact/artifact.h"
#include "base/files.h"
#include "golden/changed_folder.h"
#include "pipeline/engine.h"
#include "report/evaluation.h"
#include "worker/quantize_job.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

const CallScope kScope;

class PipelineJob : public testing::Test {
 protected:
  fs::path root = fs::temp_directory_path() / ("tempera-pipeline-job-" + std::to_string(::getpid()));
  void SetUp() override {
    InitComputeThread();
    fs::remove_all(root);
    fs::create_directories(root);
  }
  void TearDown() override { fs::remove_all(root); }

  static fs::path Model(const std::string& name) { return fs::absolute("golden/pipelines/" + name); }

  static QuantRequest Small() {
    QuantRequest r;
    r.weight_bits = 8;
    r.scheduler = "ddim";
    r.steps = 4;
    r.samples_per_step = 3;
    r.max_iterations = 20;
    r.batch = 8;
    r.evaluation_pictures = 2;
    return r;
  }

  Result<QuantizeJobOutput> Run(const QuantRequest& request, const fs::path& model, const std::string& work,
                                int threads = 2) {
    const fs::path folder = model.is_absolute() ? model : Model(model.string());
    TEMPERA_ASSIGN(const QuantSpec spec, ResolveSpec(request, folder));
    Lanes lanes(threads, &InitComputeThread);
    return RunQuantizeJob(kScope,
                          {.job_id = work,
                           .spec = spec,
                           .model_folder = folder,
                           .work_folder = root / work,
                           .notes = Json::object()},
                          lanes, [](const JobProgress&) {});
  }

  static std::shared_ptr<const Engine> Load(const QuantizeJobOutput& out) {
    const auto manifest = VerifyArtifact(kScope, out.folder, out.artifact_id);
    EXPECT_TRUE(manifest.ok()) << manifest.status();
    auto engine = Engine::LoadArtifact(kScope, out.folder, out.artifact_id, {});
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *engine : nullptr;
  }

  static GenerationResult Paint(const Engine& engine, const GenerationRequest& request) {
    const auto resolved = engine.Resolve(request);
    EXPECT_TRUE(resolved.ok()) << resolved.status();
    auto result = engine.Generate(kScope, *resolved, {});
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }
};

double MeanSquare(const Picture& a, const Picture& b) {
  EXPECT_EQ(a.pixels.size(), b.pixels.size());
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) sum += std::pow(int{a.pixels[i]} - int{b.pixels[i]}, 2);
  return sum / static_cast<double>(a.pixels.size());
}

GenerationRequest Ask(const std::string& prompt, uint64_t seed) {
  GenerationRequest request;
  request.prompt = prompt;
  request.seed = seed;
  return request;
}

// 8-bit codes leave about a hundredth of a feature; the features of another step or prompt differ by tenths.
constexpr double kFeatureError = 0.1;

TEST_F(PipelineJob, PromptsAreTheRequestsTheModelsOrNeutralOnes) {
  using Prompts = std::vector<std::string>;
  const auto prompts = [&](const QuantRequest& request) {
    const auto spec = ResolveSpec(request, root / "m");
    EXPECT_TRUE(spec.ok()) << spec.status();
    return spec.ok() ? spec->prompts : Prompts();
  };
  fs::copy(Model("sd1"), root / "m", fs::copy_options::recursive);
  QuantRequest asked = Small();
  asked.prompts = {"a boat"};
  EXPECT_EQ(prompts(Small()).size(), 32u);
  ASSERT_TRUE(WriteFileAtomic(root / "m/prompts.json", R"(["panda", "red apple"])", "prompts").ok());
  EXPECT_EQ(prompts(Small()), (Prompts{"panda", "red apple"}));
  EXPECT_EQ(prompts(asked), Prompts{"a boat"});
}

TEST_F(PipelineJob, StableDiffusionIsServedFromItsCache) {
  const auto out = Run(Small(), "sd1", "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto engine = Load(*out);
  ASSERT_NE(engine, nullptr);
  EXPECT_TRUE(engine->info().takes_prompt);
  EXPECT_GT(engine->info().stage_bytes, 0);
  GenerationRequest request;
  request.prompt = "a cat on a bench";
  request.seed = 3;
  const GenerationResult first = Paint(*engine, request), second = Paint(*engine, request);
  EXPECT_EQ(first.latent_sha256, second.latent_sha256);
  EXPECT_EQ(first.picture.pixels, second.picture.pixels);
  ASSERT_EQ(first.steps.size(), 4u);
  for (const StepEvent& step : first.steps) {
    ASSERT_TRUE(step.temporal_feature_error.has_value());
    EXPECT_LT(*step.temporal_feature_error, kFeatureError);
  }
  // Every feature was cached, so no time layer ran.
  EXPECT_EQ(engine->TemporalMultiplications(), 0);
  // The prompt matters, and so does the size.
  request.prompt = "an old lighthouse";
  EXPECT_NE(Paint(*engine, request).latent_sha256, first.latent_sha256);
  request.height = 48;
  const Picture tall = Paint(*engine, request).picture;
  EXPECT_EQ(tall.height, 48);
  EXPECT_EQ(tall.width, 32);
}

TEST_F(PipelineJob, PartsAroundTheDenoiserInEightBits) {
  QuantRequest quantize = Small();
  quantize.stage_bits = 8;
  const auto two = Run(quantize, "sd1", "a", 2), one = Run(quantize, "sd1", "b", 1);
  ASSERT_TRUE(two.ok()) << two.status();
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(two->artifact_id, one->artifact_id);
  const auto engine = Load(*two);
  ASSERT_NE(engine, nullptr);
  const auto full = Engine::LoadModel(kScope, Model("sd1"));
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_LT(engine->info().stage_bytes, (*full)->info().stage_bytes);
  const auto manifest = VerifyArtifact(kScope, two->folder, two->artifact_id);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->spec["stage_bits"], 8);
  for (const std::string file :
       {"text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"}) {
    EXPECT_EQ(manifest->files.count(file), 1u) << file;
    EXPECT_LT(fs::file_size(two->folder / file), fs::file_size(Model("sd1") / file)) << file;
  }

  const auto text = ReadFile(two->folder / kEvaluationFile, kEvaluationFile);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto json = ParseJson(*text, kEvaluationFile);
  const auto evaluation = EvaluationFromJson(*json, kEvaluationFile);
  ASSERT_TRUE(evaluation.ok()) << evaluation.status();
  EXPECT_EQ(evaluation->calibration.stage_bits, 8);
  ASSERT_EQ(evaluation->parts.size(), 2u);
  for (const PartResult& part : evaluation->parts) {
    EXPECT_LT(part.bytes, part.full_precision_bytes) << part.name;
    ASSERT_TRUE(part.output_error.has_value()) << part.name;
    EXPECT_GT(*part.output_error, 0) << part.name;
    EXPECT_LT(*part.output_error, kFeatureError) << part.name;
    const bool first_stage = part.name == "vae";
    EXPECT_EQ(part.psnr.has_value(), first_stage);
    EXPECT_EQ(part.encoder_error.has_value(), first_stage);
    // |picture| <= 1 and the ratio above: at least 10 log10(4 / kFeatureError^2).
    if (first_stage) {
      EXPECT_GT(*part.psnr, 26);
      EXPECT_LT(*part.encoder_error, kFeatureError);
    }
  }
  const auto page = ReadFile(two->folder / kReportHtmlFile, kReportHtmlFile);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_NE(page->find("<th scope=\"row\">text_encoder</th>"), std::string::npos);

  // Painted through both of them, from noise and from a picture.
  GenerationRequest request;
  request.prompt = "a cat on a bench";
  request.seed = 3;
  const GenerationResult painted = Paint(*engine, request);
  EXPECT_EQ(painted.latent_sha256, Paint(*engine, request).latent_sha256);
  request.init_image = std::make_shared<Picture>(painted.picture);
  request.strength = 0.5;
  EXPECT_EQ(Paint(*engine, request).steps.size(), 2u);

  const auto refused = [](int bits, const fs::path& model) {
    QuantRequest r = Small();
    r.stage_bits = bits;
    return std::string(ResolveSpec(r, model).status().message());
  };
  EXPECT_EQ(refused(4, Model("sd1")), "stage_bits: got 4, want 8 or 32");
  EXPECT_EQ(refused(8, fs::absolute("golden/unet/ddpm")),
            "stage_bits: got 8, but a DDPMPipeline has neither text encoder nor first stage, want 32");
}

TEST_F(PipelineJob, StableDiffusionXlMakesFeaturesOfEachRequest) {
  const auto two = Run(Small(), "sdxl", "a", 2), one = Run(Small(), "sdxl", "b", 1);
  ASSERT_TRUE(two.ok()) << two.status();
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(two->artifact_id, one->artifact_id);
  const auto engine = Load(*two);
  ASSERT_NE(engine, nullptr);
  GenerationRequest request;
  request.prompt = "a prompt that calibration never saw";
  request.guidance = 4;
  request.seed = 1;
  const GenerationResult painted = Paint(*engine, request);
  for (const StepEvent& step : painted.steps) {
    ASSERT_TRUE(step.temporal_feature_error.has_value());
    EXPECT_GT(*step.temporal_feature_error, 0);
    EXPECT_LT(*step.temporal_feature_error, kFeatureError);
  }
  EXPECT_GT(engine->TemporalMultiplications(), 0);
  // What follows from tau alone lies in the tables instead of its layers, which other timesteps take from the
  // reference.
  const auto weights = WeightSource::OpenFile(two->folder / kWeightsFile, kWeightsFile);
  ASSERT_TRUE(weights.ok()) << weights.status();
  for (const auto& [name, view] : (*weights)->tensors())
    EXPECT_FALSE(name.starts_with("time_embedding.")) << name;
  EXPECT_TRUE(engine->info().any_timestep);
  GenerationRequest other = request;
  other.steps = 5;
  for (const StepEvent& step : Paint(*engine, other).steps)
    EXPECT_LT(step.temporal_feature_error.value_or(1), kFeatureError);
  // Near the full-precision picture of the same request, far from that of another prompt.
  const auto full = Engine::LoadModel(kScope, Model("sdxl"));
  ASSERT_TRUE(full.ok()) << full.status();
  request.scheduler = "ddim";
  request.steps = 4;
  const Picture exact = Paint(**full, request).picture;
  request.prompt = "something else";
  EXPECT_LT(MeanSquare(painted.picture, exact), MeanSquare(Paint(**full, request).picture, exact));
}

TEST_F(PipelineJob, TimeLayersThatReadThePromptKeepEightBits) {
  const auto error_of = [&](const char* method) {
    QuantRequest spec = Small();
    spec.method = method;
    spec.weight_bits = 4;
    spec.max_iterations = 0;
    spec.evaluation_pictures = 0;
    const auto out = Run(spec, "sdxl", method);
    EXPECT_TRUE(out.ok()) << out.status();
    const auto engine = out.ok() ? Load(*out) : nullptr;
    if (engine == nullptr) return 0.0;
    double sum = 0;
    for (const StepEvent& step : Paint(*engine, Ask("a prompt that calibration never saw", 1)).steps)
      sum += step.temporal_feature_error.value_or(0);
    return sum;
  };
  // Their step is a sixteenth of the 4-bit one; inputs and the features themselves have 8 bits in both.
  EXPECT_LT(error_of("tfmq"), 0.5 * error_of("tfmq-paper"));
}

// Rows in passes of their own, one after the other or side by side.
TEST_F(PipelineJob, RowsSideBySideAreTheSameRows) {
  const auto out = Run(Small(), "sd1", "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto artifact = Load(*out);
  const auto full = Engine::LoadModel(kScope, Model("sd1"));
  ASSERT_NE(artifact, nullptr);
  ASSERT_TRUE(full.ok()) << full.status();
  for (const Engine* engine : {artifact.get(), full->get()}) {
    InitCompute(/*threads=*/1, /*large=*/0);
    const GenerationResult one = Paint(*engine, Ask("a cat", 1));
    InitCompute(/*threads=*/2, /*large=*/0);
    const GenerationResult two = Paint(*engine, Ask("a cat", 1));
    InitCompute();
    const GenerationResult batch = Paint(*engine, Ask("a cat", 1));
    EXPECT_EQ(one.latent_sha256, two.latent_sha256);
    for (size_t k = 0; k < batch.steps.size(); ++k) {
      EXPECT_EQ(one.steps[k].temporal_feature_error, two.steps[k].temporal_feature_error);
      EXPECT_NEAR(one.steps[k].temporal_feature_error.value_or(0),
                  batch.steps[k].temporal_feature_error.value_or(0), 1e-12);
    }
    // A batch may sum in another order; in a quantized network of random weights a code that flips grows.
    if (engine == full->get()) {
      EXPECT_LT(MeanSquare(batch.picture, two.picture), 1);
    }
  }
}

// What an artifact does at timesteps that it was not calibrated on.
TEST_F(PipelineJob, OtherTimestepsAreServedFromKeptTimeLayersOrRefused) {
  QuantRequest spec = Small();
  const auto dropped = Run(spec, "sd1", "a");
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  spec.keep_time_layers = true;
  const auto kept = Run(spec, "sd1", "b");
  ASSERT_TRUE(kept.ok()) << kept.status();
  const auto strict = Load(*dropped), open = Load(*kept);
  ASSERT_NE(strict, nullptr);
  ASSERT_NE(open, nullptr);
  EXPECT_FALSE(strict->info().any_timestep);
  EXPECT_EQ(strict->info().schedulers, std::vector<std::string>{"ddim"});
  EXPECT_TRUE(open->info().any_timestep);
  EXPECT_GT(open->info().schedulers.size(), 1u);

  GenerationRequest request;
  request.prompt = "a cat on a bench";
  request.seed = 3;
  // The same timesteps under another sampler are calibrated ones.
  request.scheduler = "euler";
  EXPECT_TRUE(strict->Resolve(request).ok()) << strict->Resolve(request).status();
  EXPECT_EQ(Paint(*strict, request).steps.size(), 4u);
  EXPECT_EQ(strict->TemporalMultiplications(), 0);
  EXPECT_NE(Paint(*strict, request).latent_sha256, Paint(*strict, Ask("a cat on a bench", 3)).latent_sha256);

  const auto others = [&](const std::function<void(GenerationRequest&)>& change) {
    GenerationRequest r;
    r.prompt = "a cat on a bench";
    r.seed = 3;
    change(r);
    const auto refused = strict->Resolve(r);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(refused.status().message().find("want of 751, 501, 251, 1"), std::string::npos)
        << refused.status();
    const GenerationResult painted = Paint(*open, r);
    for (const StepEvent& step : painted.steps) {
      EXPECT_TRUE(step.temporal_feature_error.has_value());
      EXPECT_LT(step.temporal_feature_error.value_or(1), kFeatureError);
    }
    return painted;
  };
  const GenerationResult seven = others([](auto& r) { r.steps = 7; });
  EXPECT_EQ(seven.steps.size(), 7u);
  others([](auto& r) {
    r.scheduler = "dpmsolver++";
    r.scheduler_options = Json{{"use_karras_sigmas", true}};
  });
  // Some timesteps were calibrated, some not.
  const GenerationResult mixed = others([](auto& r) { r.steps = 8; });
  EXPECT_EQ(mixed.steps[1].timestep, 751);
  // Nearer to full precision at its own steps than full precision at another count is.
  const auto full = Engine::LoadModel(kScope, Model("sd1"));
  ASSERT_TRUE(full.ok()) << full.status();
  request = Ask("a cat on a bench", 3);
  request.scheduler = "ddim";
  request.steps = 7;
  const Picture exact = Paint(**full, request).picture;
  request.steps = 3;
  EXPECT_LT(MeanSquare(seven.picture, exact), MeanSquare(Paint(**full, request).picture, exact));

  // Options that no scheduler has, and such that are none.
  for (const Json& options : {Json{{"karras", true}}, Json("karras"), Json::array({1})}) {
    request = Ask("a cat", 0);
    request.scheduler_options = options;
    EXPECT_EQ(open->Resolve(request).status().code(), absl::StatusCode::kInvalidArgument) << options;
  }
}

// Where time depends on the guidance scale, features of one scale are no other's.
TEST_F(PipelineJob, EmbeddedGuidanceHasFeaturesOfItsOwn) {
  ASSERT_NO_FATAL_FAILURE(golden::WriteGuidedFolder(Model("sd1"), root / "guided"));
  QuantRequest spec = Small();
  spec.guidance = 3;
  const auto dropped = Run(spec, root / "guided", "a");
  ASSERT_TRUE(dropped.ok()) << dropped.status();
  spec.keep_time_layers = true;
  const auto kept = Run(spec, root / "guided", "b");
  ASSERT_TRUE(kept.ok()) << kept.status();
  const auto strict = Load(*dropped), open = Load(*kept);
  ASSERT_NE(strict, nullptr);
  ASSERT_NE(open, nullptr);
  GenerationRequest request = Ask("a cat", 1);
  EXPECT_EQ(strict->Resolve(request)->wish.guidance, 3);  // what it holds
  const GenerationResult three = Paint(*strict, request);
  EXPECT_EQ(strict->TemporalMultiplications(), 0);
  request.guidance = 5;
  const auto refused = strict->Resolve(request);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.status().message().find("guidance: got 5"), 0u) << refused.status();
  const GenerationResult five = Paint(*open, request);
  EXPECT_NE(five.latent_sha256, three.latent_sha256);
  for (const StepEvent& step : five.steps) EXPECT_LT(step.temporal_feature_error.value_or(1), kFeatureError);
}

// A network that sees mask and masked picture is calibrated on full masks, and paints inside of any.
TEST_F(PipelineJob, InpaintingNetworksAreQuantizedToo) {
  const fs::path model = root / "wide";
  ASSERT_NO_FATAL_FAILURE(golden::WriteWideFolder(Model("sd1"), model));
  QuantRequest request = Small();
  request.guidance = 3;
  const auto out = Run(request, model, "a");
  ASSERT_TRUE(out.ok()) << out.status();
  const auto engine = Load(*out);
  ASSERT_NE(engine, nullptr);
  GenerationRequest paint = Ask("a cat", 1);
  const Picture whole = Paint(*engine, paint).picture;
  auto image = std::make_shared<Picture>(whole), mask = std::make_shared<Picture>(whole);
  for (size_t i = 0; i < mask->pixels.size(); ++i) mask->pixels[i] = i < mask->pixels.size() / 2 ? 255 : 0;
  paint.init_image = image;
  paint.mask = mask;
  paint.prompt = "a dog";
  EXPECT_NE(Paint(*engine, paint).picture.pixels, whole.pixels);
}

TEST_F(PipelineJob, LatentModelsOfClassesAndOfNone) {
  const auto of_class = Run(Small(), "ldm_class", "a");
  ASSERT_TRUE(of_class.ok()) << of_class.status();
  const auto engine = Load(*of_class);
  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(engine->info().classes, 20);
  GenerationRequest request;
  EXPECT_FALSE(engine->Resolve(request).ok());
  request.class_label = 19;
  EXPECT_EQ(Paint(*engine, request).steps.size(), 4u);
  request.class_label = 20;
  EXPECT_FALSE(engine->Resolve(request).ok());

  const auto plain = Run(Small(), "ldm_vq", "b");
  ASSERT_TRUE(plain.ok()) << plain.status();
  const auto latent = Load(*plain);
  ASSERT_NE(latent, nullptr);
  EXPECT_EQ(latent->info().size_step, 2);
  EXPECT_EQ(Paint(*latent, {}).picture.width, 16);
}

TEST_F(PipelineJob, RequestsThatDoNotFitNameTheField) {
  const auto engine = Engine::LoadModel(kScope, Model("sd1"));
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto expect = [&](const char* field, const std::function<void(GenerationRequest&)>& change) {
    GenerationRequest request;
    request.prompt = "a cat";
    change(request);
    const auto resolved = (*engine)->Resolve(request);
    ASSERT_FALSE(resolved.ok()) << field;
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(std::string(resolved.status().message()).substr(0, std::string(field).size()), field)
        << resolved.status();
  };
  expect("prompt", [](auto& r) { r.prompt.reset(); });
  expect("prompt", [](auto& r) { r.prompt = "caf\xc3("; });
  expect("prompt", [](auto& r) { r.prompt = std::string(100000, 'a'); });
  expect("negative_prompt", [](auto& r) { r.negative_prompt = "\xff"; });
  expect("class_label", [](auto& r) { r.class_label = 1; });
  expect("guidance", [](auto& r) { r.guidance = NAN; });
  expect("guidance", [](auto& r) { r.guidance = -1; });
  expect("guidance_rescale", [](auto& r) { r.guidance_rescale = 1.5; });
  expect("height", [](auto& r) { r.height = 33; });
  expect("width", [](auto& r) { r.width = 0; });
  expect("width", [](auto& r) { r.width = 1 << 20; });
  expect("width", [](auto& r) { r.width = r.height = 4096; });
  expect("prompt", [](auto& r) {
    r.long_prompt = true;
    for (int i = 0; i < 700; ++i) *r.prompt += " cat";
  });
  expect("clip_skip", [](auto& r) { r.clip_skip = 99; });
  expect("clip_skip", [](auto& r) { r.clip_skip = -1; });
  // Beyond the tokens that the encoder reads: told, or read in chunks.
  GenerationRequest request;
  for (int i = 0; i < 90; ++i) request.prompt = request.prompt.value_or("") + "cat ";
  const auto cut = (*engine)->Resolve(request);
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ(cut->warnings.size(), 1u);
  EXPECT_EQ(cut->warnings[0].substr(0, 28), "prompt: cut to the 77 tokens");
  request.long_prompt = true;
  request.steps = 2;
  const auto whole = (*engine)->Resolve(request);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_TRUE(whole->warnings.empty());
  EXPECT_TRUE((*engine)->Generate(kScope, *whole, {}).ok());
}

}  // namespace
}  // namespace tempera
