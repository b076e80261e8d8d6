// The unet family against diffusers: every recorded intermediate, output, latent and picture of golden/unet.
#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <charconv>
#include <set>

#include "golden/reader.h"
#include "models/family.h"
#include "nn/params.h"
#include "schedulers/scheduler.h"

namespace tempera {
namespace {

// A golden case and its network, in full precision.
class Network {
 public:
  explicit Network(const std::string& name) : folder_("golden/unet/" + name), golden(folder_) {
    auto source = WeightSource::Open(folder_ / "unet", "diffusion_pytorch_model", "unet");
    EXPECT_TRUE(source.ok()) << source.status();
    if (!source.ok()) return;
    at::set_num_threads(1);  // as the golden was computed
    nn::Params params(*source, at::kCPU);
    auto built = BuildDenoiser(golden::ReadJson(folder_ / "unet/config.json"), "unet/config.json", params);
    EXPECT_TRUE(built.ok()) << built.status();
    if (built.ok()) denoiser_ = *std::move(built);
  }
  bool ok() const { return denoiser_ != nullptr && ::testing::Test::HasFailure() == false; }

  // t: one timestep for all rows, or one each. label: [B] i64 or undefined.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& t, const at::Tensor& label,
                        nn::Listener* listener = nullptr) const {
    nn::ForwardContext ctx;
    ctx.timestep = t.to(at::kFloat).expand({x.size(0)}).contiguous();
    ctx.on.label = label;
    if (label.defined())
      ctx.condition.assign(label.const_data_ptr<int64_t>(), label.const_data_ptr<int64_t>() + label.numel());
    ctx.listener = listener;
    return denoiser_->Forward(ctx, x);
  }

  double Tolerance(const std::string& tensor) const { return golden.json["tensors"][tensor]["tolerance"]; }
  const Denoiser& denoiser() const { return *denoiser_; }
  Json SchedulerConfig() const { return golden::ReadJson(folder_ / "scheduler/scheduler_config.json"); }

 private:
  const std::filesystem::path folder_;
  std::unique_ptr<Denoiser> denoiser_;

 public:
  const golden::Case golden;
};

// Keeps what the pass shows, by name.
class Recorder final : public nn::Listener {
 public:
  void OnSlot(const nn::Slot& slot, const at::Tensor&, const at::Tensor& output) override {
    Keep(slot.name, output);
  }
  void OnValue(std::string_view name, const at::Tensor& value) override { Keep(std::string(name), value); }
  std::map<std::string, at::Tensor> seen;

 private:
  void Keep(const std::string& name, const at::Tensor& value) {
    EXPECT_TRUE(seen.emplace(name, value).second) << name << " is shown twice in one pass";
  }
};

// "t250.eps" -> 250
int64_t TimestepOf(const std::string& name) {
  int64_t t = -1;
  std::from_chars(name.data() + 1, name.data() + name.size(), t);
  return t;
}

// Every forward pass that the case recorded: "<pass>.eps" and, in the same pass, "<pass>.temporal.<layer>".
void CheckPasses(const std::string& name, size_t passes, size_t temporal_tensors) {
  const Network net(name);
  ASSERT_TRUE(net.ok());
  const at::Tensor x = net.golden.Get("x");
  const at::Tensor label = net.golden.Has("class_labels") ? net.golden.Get("class_labels") : at::Tensor();
  size_t passes_seen = 0, temporal_seen = 0;
  for (const auto& [tensor, facts] : net.golden.json["tensors"].items()) {
    if (!tensor.ends_with(".eps")) continue;
    SCOPED_TRACE(Cat(name, " ", tensor));
    const std::string pass = tensor.substr(0, tensor.size() - 4);
    const at::Tensor t =
        pass == "mixed" ? net.golden.Get("mixed.timesteps") : at::full({1}, TimestepOf(pass), at::kLong);
    Recorder recorder;
    const at::Tensor eps = net(x, t, label, &recorder);
    ++passes_seen;
    EXPECT_LE(golden::Difference(eps, net.golden.Get(tensor)), net.Tolerance(tensor));

    const std::string prefix = pass + ".temporal.";
    for (const auto& [inner, inner_facts] : net.golden.json["tensors"].items()) {
      if (!inner.starts_with(prefix)) continue;
      const std::string layer = inner.substr(prefix.size());
      ASSERT_TRUE(recorder.seen.contains(layer)) << layer << " is not shown";
      EXPECT_LE(golden::Difference(recorder.seen[layer], net.golden.Get(inner)), net.Tolerance(inner))
          << inner;
      ++temporal_seen;
    }
    // The time path run alone gives the very features of the whole pass.
    nn::ForwardContext alone;
    alone.timestep = t.to(at::kFloat).expand({x.size(0)}).contiguous();
    alone.on.label = label;
    const std::vector<at::Tensor> features = net.denoiser().TemporalFeatures(alone);
    ASSERT_EQ(features.size(), net.denoiser().temporal_slots().size());
    for (size_t i = 0; i < features.size(); ++i)
      EXPECT_TRUE(features[i].equal(recorder.seen[net.denoiser().temporal_slots()[i]->name])) << i;
  }
  EXPECT_EQ(passes_seen, passes);
  EXPECT_EQ(temporal_seen, temporal_tensors);
}

// 5 passes of 3 trunk values and a feature for each of the 11 residual blocks.
TEST(UnetGolden, UnconditionalPasses) { CheckPasses("ddpm", 5, 5 * (3 + 11)); }
// 3 passes and one with a timestep for each row; 8 blocks, and the class embedding is a value too.
TEST(UnetGolden, ClassConditionalPasses) { CheckPasses("class_cond", 4, 4 * (4 + 8)); }
TEST(UnetGolden, HalfPrecisionWeights) { CheckPasses("fp16", 3, 0); }
TEST(UnetGolden, BrainFloatWeights) { CheckPasses("bf16", 3, 0); }
TEST(UnetGolden, ShardedWeights) { CheckPasses("sharded", 3, 0); }

struct Run {
  const char* folder;
  const char* scheduler;  // row of the table, and the prefix of the run's tensors
  bool initial_noise;     // recorded apart from latents[0]
};

class UnetRun : public ::testing::TestWithParam<Run> {
 protected:
  UnetRun() : net_(GetParam().folder) {}

  void SetUp() override {
    ASSERT_TRUE(net_.ok());
    const Json& json = net_.golden.json;
    const Json& steps = json["steps"];
    SchedulerRequest request;
    request.config = net_.SchedulerConfig();
    request.name = GetParam().scheduler;
    request.steps = (steps.is_object() ? steps[GetParam().scheduler] : steps).get<int64_t>();
    const auto scheduler = CreateScheduler(request);
    ASSERT_TRUE(scheduler.ok()) << scheduler.status();
    scheduler_ = *scheduler;
    seed_ = json["seeds"]["sampling"].get<uint64_t>();
    latents_ = Tensor("latents");
    outputs_ = Tensor("model_output");
    if (net_.golden.Has("class_labels")) label_ = net_.golden.Get("class_labels");
    ASSERT_EQ(latents_.size(0), static_cast<int64_t>(scheduler_->timesteps().size()) + 1);
  }

  at::Tensor Tensor(const std::string& name) const { return net_.golden.Get(Name(name)); }
  double Tolerance(const std::string& name) const { return net_.Tolerance(Name(name)); }
  at::Tensor Output(const at::Tensor& x, int64_t k) const {
    return net_(scheduler_->ScaleInput(x, k), at::full({1}, scheduler_->timesteps()[k], at::kDouble), label_);
  }
  int64_t steps() const { return static_cast<int64_t>(scheduler_->timesteps().size()); }

  Network net_;
  std::shared_ptr<const Scheduler> scheduler_;
  uint64_t seed_ = 0;
  at::Tensor latents_, outputs_, label_;

 private:
  std::string Name(const std::string& name) const { return Cat(GetParam().scheduler, ".", name); }
};

TEST_P(UnetRun, TimestepsEqual) {
  const at::Tensor want = Tensor("timesteps");
  ASSERT_EQ(want.numel(), steps());
  for (int64_t k = 0; k < steps(); ++k)
    EXPECT_EQ(scheduler_->timesteps()[k], static_cast<double>(want[k].item<int64_t>()));
}

TEST_P(UnetRun, StartIsTheSeedsNoise) {
  NoiseSource noise(seed_);
  const at::Tensor start = noise.Randn(latents_[0].sizes());
  if (GetParam().initial_noise) {
    EXPECT_LE(golden::Difference(start, Tensor("initial_noise")), Tolerance("initial_noise"));
  }
  EXPECT_LE(golden::Difference(start * scheduler_->init_noise_sigma(), latents_[0]), Tolerance("latents"));
}

// Each step from the recorded latent k, compared with the recorded output and latent k + 1.
TEST_P(UnetRun, StepsAgree) {
  NoiseSource noise(seed_);
  SamplerState state;
  noise.Randn(latents_[0].sizes());
  for (int64_t k = 0; k < steps(); ++k) {
    const at::Tensor output = Output(latents_[k], k);
    EXPECT_LE(golden::Difference(output, outputs_[k]), Tolerance("model_output")) << k;
    const at::Tensor next = scheduler_->Step(output, k, latents_[k], noise, state);
    EXPECT_LE(golden::Difference(next, latents_[k + 1]), Tolerance("latents")) << k;
  }
}

// From the seed to the picture, with nothing given back.
TEST_P(UnetRun, PictureAgrees) {
  NoiseSource noise(seed_);
  SamplerState state;
  at::Tensor x = noise.Randn(latents_[0].sizes()) * scheduler_->init_noise_sigma();
  for (int64_t k = 0; k < steps(); ++k) {
    x = scheduler_->Step(Output(x, k), k, x, noise, state);
    EXPECT_LE(golden::Difference(x, latents_[k + 1]), Tolerance("latents")) << k;
  }
  EXPECT_LE(golden::Difference(x, Tensor("image_float")), Tolerance("image_float"));
  const at::Tensor bytes = ((x / 2 + 0.5).clamp(0, 1).permute({0, 2, 3, 1}) * 255).round();
  EXPECT_LE(golden::Difference(bytes, Tensor("image_uint8")), 1);
}

INSTANTIATE_TEST_SUITE_P(Runs, UnetRun,
                         ::testing::Values(Run{"ddpm", "ddim", true}, Run{"ddpm", "ddpm", true},
                                           Run{"class_cond", "ddim", false}),
                         [](const auto& run) { return Cat(run.param.folder, "_", run.param.scheduler); });

// What a step adds is the network's: the draws inside of DDPM's steps are those recorded.
TEST(UnetGolden, NoiseOfStepsFollowsTheStart) {
  const golden::Case golden("golden/unet/ddpm");
  const at::Tensor want = golden.Get("ddpm.noise");
  NoiseSource noise(golden.json["seeds"]["sampling"].get<uint64_t>());
  noise.Randn(want[0].sizes());
  const double tolerance = golden.json["tensors"]["ddpm.noise"]["tolerance"];
  for (int64_t k = 0; k < want.size(0); ++k)
    EXPECT_LE(golden::Difference(noise.Randn(want[k].sizes()), want[k]), tolerance) << k;
}

}  // namespace
}  // namespace tempera
