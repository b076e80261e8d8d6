// Whole latent and text-to-image pipelines against diffusers (golden/pipelines): conditions, every step from
// the recorded latent before it, whole runs, and the picture that the engine paints.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include "base/temp_folder.h"
#include "golden/changed_folder.h"
#include "golden/reader.h"
#include "pipeline/engine.h"
#include "schedulers/scheduler.h"
#include "stages/guidance.h"
#include "stages/stages.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;

struct Run {
  const char* folder;
  const char* run;        // prefix of the run's tensors
  const char* scheduler;  // sub-folder with its configuration
  int64_t steps;
  double eta;
};

class Pipeline {
 public:
  explicit Pipeline(const std::string& name) : path(fs::path("golden/pipelines") / name), golden(path) {
    at::set_num_threads(1);  // as the golden was computed
    auto opened = OpenModelFolder(path);
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) return;
    folder = *std::move(opened);
    nn::Params params(folder.network.weights, at::kCPU);
    auto built = BuildDenoiser(folder.network.config, folder.network.label, params);
    EXPECT_TRUE(built.ok()) << built.status();
    if (!built.ok()) return;
    network = *std::move(built);
    auto around = Stages::Open(folder, network->info());
    EXPECT_TRUE(around.ok()) << around.status();
    if (around.ok()) stages = *std::move(around);
  }

  double Tolerance(const std::string& tensor) const { return golden.json["tensors"][tensor]["tolerance"]; }
  void Near(const at::Tensor& got, const std::string& tensor) const {
    EXPECT_LE(golden::Difference(got, golden.Get(tensor)), Tolerance(tensor)) << tensor;
  }
  // What the case asks for.
  Wish Asked() const {
    Wish wish;
    const Json& json = golden.json;
    wish.prompt = json.value("prompt", "");
    if (json.contains("negative_prompt") && json["negative_prompt"].is_string())
      wish.negative = json["negative_prompt"].get<std::string>();
    if (json.contains("guidance") && json["guidance"].is_number()) wish.guidance = json["guidance"];
    wish.size = {json.value("height", 16), json.value("width", 16)};
    if (golden.Has("add_time_ids")) {
      const at::Tensor ids = golden.Get("add_time_ids").to(at::kLong);
      const int64_t* v = ids.const_data_ptr<int64_t>();
      wish.original_size = {v[0], v[1]};
      wish.crop = {v[2], v[3]};
      wish.target_size = {v[4], v[5]};
    }
    return wish;
  }

  const fs::path path;
  const golden::Case golden;
  ModelFolder folder;
  std::unique_ptr<Denoiser> network;
  std::unique_ptr<Stages> stages;
};

class PipelineRun : public ::testing::TestWithParam<Run> {
 protected:
  PipelineRun() : p_(GetParam().folder) {}
  void SetUp() override {
    ASSERT_NE(p_.stages, nullptr);
    SchedulerRequest request;
    request.config = golden::ReadJson(p_.path / GetParam().scheduler / "scheduler_config.json");
    request.steps = GetParam().steps;
    request.eta = GetParam().eta;
    const auto scheduler = CreateScheduler(request);
    ASSERT_TRUE(scheduler.ok()) << scheduler.status();
    scheduler_ = *scheduler;
    latents_ = p_.golden.Get(Name("latents"));
    ASSERT_EQ(latents_.size(0), static_cast<int64_t>(scheduler_->timesteps().size()) + 1);
    // A case may run several classes at once: rows of conditions, class by class.
    std::vector<nn::Conditioning> all;
    for (int64_t row = 0; row < latents_.size(1); ++row) {
      Wish wish = p_.Asked();
      if (p_.golden.Has("class_labels"))
        wish.class_label = p_.golden.Get("class_labels").const_data_ptr<int64_t>()[row];
      const auto conditions = p_.stages->Encode(wish);
      ASSERT_TRUE(conditions.ok()) << conditions.status();
      each_ = conditions->rows;
      guidance_ = wish.guidance;
      all.push_back(conditions->on);
    }
    on_ = nn::Conditioning::Cat(all);
  }

  std::string Name(const std::string& tensor) const { return Cat(GetParam().run, ".", tensor); }
  at::Tensor Output(const at::Tensor& x, int64_t k) const {
    const at::Tensor in = scheduler_->ScaleInput(x, k).repeat_interleave(each_, 0);
    nn::ForwardContext ctx;
    ctx.timestep = at::full({in.size(0)}, scheduler_->timesteps()[static_cast<size_t>(k)], at::kFloat);
    ctx.on = on_;
    const at::Tensor output = p_.network->Forward(ctx, in);
    return each_ == 2 ? Guide(output, guidance_) : output;
  }
  uint64_t Seed() const { return p_.golden.json["seeds"]["sampling"].get<uint64_t>(); }

  Pipeline p_;
  std::shared_ptr<const Scheduler> scheduler_;
  nn::Conditioning on_;
  int64_t each_ = 1;
  double guidance_ = 1;
  at::Tensor latents_;
};

TEST_P(PipelineRun, TimestepsAgree) {
  const at::Tensor want = p_.golden.Get(Name("timesteps"));
  ASSERT_EQ(want.numel(), static_cast<int64_t>(scheduler_->timesteps().size()));
  for (int64_t k = 0; k < want.numel(); ++k)
    EXPECT_NEAR(scheduler_->timesteps()[static_cast<size_t>(k)], want[k].item<double>(),
                p_.Tolerance(Name("timesteps")));
}

TEST_P(PipelineRun, WholeRunAgrees) {
  NoiseSource noise(Seed());
  SamplerState state;
  at::Tensor x = noise.Randn(latents_[0].sizes()) * scheduler_->init_noise_sigma();
  EXPECT_LE(golden::Difference(x, latents_[0]), p_.Tolerance(Name("latents")));
  for (int64_t k = 0; k + 1 < latents_.size(0); ++k) {
    const at::Tensor output = Output(x, k);
    EXPECT_LE(golden::Difference(output, p_.golden.Get(Name("model_output"))[k]),
              p_.Tolerance(Name("model_output")))
        << k;
    x = scheduler_->Step(output, k, x, noise, state);
    EXPECT_LE(golden::Difference(x, latents_[k + 1]), p_.Tolerance(Name("latents"))) << k;
  }
  const at::Tensor image = p_.stages->Decode(x);
  EXPECT_LE(golden::Difference(image, p_.golden.Get(Name("image_float"))), p_.Tolerance(Name("image_float")));
}

INSTANTIATE_TEST_SUITE_P(Runs, PipelineRun,
                         ::testing::Values(Run{"ldm_vq", "ddim", "scheduler", 10, 1},
                                           Run{"ldm_class", "ddim", "scheduler", 10, 0},
                                           Run{"sd1", "pndm", "scheduler", 8, 0},
                                           Run{"sd2", "ddim", "scheduler", 8, 0},
                                           Run{"sd2", "dpmsolver", "scheduler_dpmsolver", 8, 0},
                                           Run{"sdxl", "steps6", "scheduler", 6, 0},
                                           Run{"sdxl_turbo", "steps1", "scheduler", 1, 0},
                                           Run{"sdxl_turbo", "steps4", "scheduler", 4, 0}),
                         [](const auto& run) { return Cat(run.param.folder, "_", run.param.run); });

class PipelinePrompts : public ::testing::TestWithParam<const char*> {};

TEST_P(PipelinePrompts, ConditionsAgree) {
  const Pipeline p(GetParam());
  ASSERT_NE(p.stages, nullptr);
  Wish wish = p.Asked();
  wish.guidance = 5;
  const auto both = p.stages->Encode(wish);
  ASSERT_TRUE(both.ok()) << both.status();
  ASSERT_EQ(both->rows, 2);
  p.Near(both->on.context.narrow(0, 0, 1), "negative.embeds");
  p.Near(both->on.context.narrow(0, 1, 1), "prompt.embeds");
  wish.guidance = 1;
  const auto one = p.stages->Encode(wish);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->rows, 1);
  p.Near(one->on.context, "prompt.embeds");
  if (!p.golden.Has("add_time_ids")) return;
  p.Near(both->on.pooled.narrow(0, 0, 1), "negative.pooled");
  p.Near(both->on.pooled.narrow(0, 1, 1), "prompt.pooled");
  p.Near(one->on.sizes, "add_time_ids");
  // Nothing, an empty text and a text are three things here.
  const Json& observed = p.golden.json["force_zeros_for_empty_prompt"]["observed"];
  for (const char* kind : {"none", "empty", "text"}) {
    wish.guidance = 5;
    wish.negative.reset();
    if (const Json& text = observed[kind]["negative_prompt"]; text.is_string())
      wish.negative = text.get<std::string>();
    const auto conditions = p.stages->Encode(wish);
    ASSERT_TRUE(conditions.ok()) << conditions.status();
    p.Near(conditions->on.context.narrow(0, 0, 1), Cat("negative_", kind, ".embeds"));
    p.Near(conditions->on.pooled.narrow(0, 0, 1), Cat("negative_", kind, ".pooled"));
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, PipelinePrompts, ::testing::Values("sd1", "sd2", "sdxl", "sdxl_turbo"),
                         [](const auto& c) { return std::string(c.param); });

// The engine's own loop: the picture's bytes, and what it says of itself.
TEST(EngineGolden, PaintsThePicturesOfStableDiffusion) {
  const CallScope scope;
  for (const auto& [folder, run, steps] :
       {std::tuple("sd1", "pndm", 8), std::tuple("sd2", "ddim", 8), std::tuple("sdxl_turbo", "steps4", 4),
        std::tuple("sdxl", "steps6", 6)}) {
    SCOPED_TRACE(folder);
    const Pipeline p(folder);
    const auto engine = Engine::LoadModel(scope, p.path);
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_TRUE((*engine)->info().takes_prompt);
    EXPECT_EQ((*engine)->info().height, 32);
    const Wish wish = p.Asked();
    GenerationRequest request;
    request.prompt = wish.prompt;
    request.negative_prompt = wish.negative;
    request.guidance = wish.guidance;
    request.original_size = wish.original_size;
    request.crop = wish.crop;
    request.target_size = wish.target_size;
    request.height = 32;
    request.width = 32;
    request.seed = p.golden.json["seeds"]["sampling"].get<uint64_t>();
    request.steps = steps;
    const auto resolved = (*engine)->Resolve(request);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    const auto result = (*engine)->Generate(scope, *resolved, {});
    ASSERT_TRUE(result.ok()) << result.status();
    const at::Tensor want = p.golden.Get(Cat(run, ".image_uint8"))[0].contiguous();
    ASSERT_EQ(static_cast<int64_t>(result->picture.pixels.size()), want.numel());
    for (int64_t i = 0; i < want.numel(); ++i)
      EXPECT_LE(std::abs(result->picture.pixels[static_cast<size_t>(i)] - want.const_data_ptr<uint8_t>()[i]),
                1);
  }
}

// Image-to-image: the first stage's draw, the noise of the first step, and the rest of the schedule.
TEST(EngineGolden, BeginsFromAPicture) {
  const CallScope scope;
  const Json runs = golden::ReadJson("golden/pipelines/image_to_image.json")["runs"];
  const auto source = WeightSource::OpenFile("golden/pipelines/image_to_image.safetensors", "image_to_image");
  ASSERT_TRUE(source.ok()) << source.status();
  auto picture = std::make_shared<Picture>(Picture{.width = 32, .height = 32, .channels = 3, .pixels = {}});
  const TensorView view = *(*source)->Find("picture");
  picture->pixels.assign(view.bytes.begin(), view.bytes.end());
  for (const Json& run : runs) {
    const std::string name = run["folder"];
    SCOPED_TRACE(name);
    const auto engine = Engine::LoadModel(scope, fs::path("golden/pipelines") / name);
    ASSERT_TRUE(engine.ok()) << engine.status();
    GenerationRequest request;
    request.prompt = run["prompt"].get<std::string>();
    request.guidance = run["guidance"].get<double>();
    request.steps = run["steps"].get<int>();
    request.seed = run["seed"].get<uint64_t>();
    request.strength = run["strength"].get<double>();
    EXPECT_FALSE((*engine)->Resolve(request).ok());  // of what picture?
    request.init_image = picture;
    const auto resolved = (*engine)->Resolve(request);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    const auto result = (*engine)->Generate(scope, *resolved, {});
    ASSERT_TRUE(result.ok()) << result.status();
    const TensorView want = *(*source)->Find(name);
    ASSERT_EQ(result->picture.pixels.size(), want.bytes.size());
    int largest = 0;
    for (size_t i = 0; i < want.bytes.size(); ++i)
      largest = std::max(largest, std::abs(result->picture.pixels[i] - want.bytes[i]));
    EXPECT_LE(largest, 1);
    for (const double strength : {0.0, -0.5, 1.5, static_cast<double>(NAN)}) {
      request.strength = strength;
      EXPECT_FALSE((*engine)->Resolve(request).ok()) << strength;
    }
    request.strength.reset();
    request.height = 48;
    EXPECT_FALSE((*engine)->Resolve(request).ok());
  }
}

// Inpainting: what is kept is held to the picture at each step, or shown to a network made for it.
TEST(EngineGolden, PaintsInsideOfAMask) {
  const CallScope scope;
  const Json runs = golden::ReadJson("golden/pipelines/inpainting.json")["runs"];
  const auto source = WeightSource::OpenFile("golden/pipelines/inpainting.safetensors", "inpainting");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto picture = [&](const char* name, int64_t channels) {
    auto p =
        std::make_shared<Picture>(Picture{.width = 32, .height = 32, .channels = channels, .pixels = {}});
    const TensorView view = *(*source)->Find(name);
    p->pixels.assign(view.bytes.begin(), view.bytes.end());
    return p;
  };
  for (size_t i = 0; i < runs.size(); ++i) {
    const Json& run = runs[i];
    SCOPED_TRACE(run.dump());
    fs::path folder = fs::path("golden/pipelines") / run["folder"].get<std::string>();
    const TempFolder wide;
    if (run["wide"].get<bool>()) {
      ASSERT_NO_FATAL_FAILURE(golden::WriteWideFolder(folder, wide / "wide"));
      folder = wide / "wide";
    }
    const auto engine = Engine::LoadModel(scope, folder);
    ASSERT_TRUE(engine.ok()) << engine.status();
    GenerationRequest request;
    request.prompt = run["prompt"].get<std::string>();
    request.guidance = run["guidance"].get<double>();
    request.steps = run["steps"].get<int>();
    request.seed = run["seed"].get<uint64_t>();
    if (run.contains("scheduler")) request.scheduler = run["scheduler"].get<std::string>();
    request.height = request.width = 32;
    request.mask = picture("mask", 1);
    EXPECT_FALSE((*engine)->Resolve(request).ok());  // of what picture?
    request.init_image = picture("picture", 3);
    EXPECT_EQ((*engine)->Resolve(request)->strength, 1);
    request.strength = run["strength"].get<double>();
    const auto resolved = (*engine)->Resolve(request);
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    const auto result = (*engine)->Generate(scope, *resolved, {});
    ASSERT_TRUE(result.ok()) << result.status();
    const TensorView want = *(*source)->Find(Cat("run", i));
    ASSERT_EQ(result->picture.pixels.size(), want.bytes.size());
    int largest = 0;
    for (size_t p = 0; p < want.bytes.size(); ++p)
      largest = std::max(largest, std::abs(result->picture.pixels[p] - want.bytes[p]));
    EXPECT_LE(largest, 1);
    request.mask = std::make_shared<Picture>(
        Picture{.width = 8, .height = 8, .channels = 1, .pixels = std::vector<uint8_t>(64)});
    EXPECT_FALSE((*engine)->Resolve(request).ok());
  }
}

// A projection tells more of the picture than its mean colour does, on a latent that it was not fitted to.
TEST(EngineGolden, PreviewsByProjection) {
  Pipeline p("sd1");
  NoiseSource noise(7);
  const at::Tensor latent =
      at::upsample_bilinear2d(noise.Randn({1, 4, 4, 4}), at::IntArrayRef{16, 16}, /*align_corners=*/false);
  const at::Tensor small = p.stages->Project(latent);
  const at::Tensor want = at::avg_pool2d(p.stages->Decode(latent).clamp(-1, 1), p.stages->factor());
  ASSERT_EQ(small.sizes(), want.sizes());
  const double left = (small - want).square().mean().item<double>();
  const double spread = (want - want.mean({2, 3}, true)).square().mean().item<double>();
  EXPECT_LT(left, spread);
  EXPECT_TRUE(at::equal(p.stages->Project(latent), small));
}

// As diffusers: the classes of Stable Diffusion read the scale alone, XL means and deviations too.
TEST(StagesOfSd, ReadOfTheAutoencoderWhatTheirClassReads) {
  const auto decoded = [](const char* name, const Json& fields) {
    const Pipeline p(name);
    ModelFolder changed = p.folder;
    for (ModelPart& part : changed.stages)
      if (part.is_first_stage()) part.config.update(fields);
    const auto stages = Stages::Open(changed, p.network->info());
    EXPECT_TRUE(stages.ok()) << stages.status();
    NoiseSource noise(7);
    return (*stages)->Decode(noise.Randn({1, 4, 4, 4}));
  };
  const Json shift{{"shift_factor", 0.5}};
  const Json means{{"latents_mean", {0.5, 0.5, 0.5, 0.5}}, {"latents_std", {2.0, 2.0, 2.0, 2.0}}};
  for (const char* name : {"sd1", "sdxl"})
    EXPECT_TRUE(at::equal(decoded(name, shift), decoded(name, Json::object()))) << name;
  EXPECT_TRUE(at::equal(decoded("sd1", means), decoded("sd1", Json::object())));
  EXPECT_FALSE(at::equal(decoded("sdxl", means), decoded("sdxl", Json::object())));
}

}  // namespace
}  // namespace tempera
