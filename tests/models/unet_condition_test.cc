// The unet_condition family against diffusers: the recorded passes of golden/pipelines, and one configuration
// field after the other (golden/unet_condition).
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>

#include <charconv>
#include <set>

#include "golden/reader.h"
#include "models/family.h"
#include "nn/params.h"

namespace tempera {
namespace {

Result<std::unique_ptr<Denoiser>> Build(const Json& config,
                                        Result<std::shared_ptr<const WeightSource>> source) {
  TEMPERA_TRY(source.status());
  at::set_num_threads(1);  // as the golden was computed
  nn::Params params(*source, at::kCPU);
  return BuildDenoiser(config, "unet/config.json", params);
}

// Keeps what the pass shows, by name.
class Recorder final : public nn::Listener {
 public:
  void OnSlot(const nn::Slot& slot, const at::Tensor&, const at::Tensor& output) override {
    seen[slot.name] = output;
  }
  void OnValue(std::string_view name, const at::Tensor& value) override { seen[std::string(name)] = value; }
  std::map<std::string, at::Tensor> seen;
};

struct Passes {
  const char* name;
  size_t passes, temporal;  // recorded forward passes, and values of the time path in all of them
};

class UnetConditionGolden : public ::testing::TestWithParam<Passes> {};

TEST_P(UnetConditionGolden, PassesAgree) {
  const std::filesystem::path folder = std::string("golden/pipelines/") + GetParam().name;
  const golden::Case golden(folder);
  auto denoiser = Build(golden::ReadJson(folder / "unet/config.json"),
                        WeightSource::Open(folder / "unet", "diffusion_pytorch_model", "unet"));
  ASSERT_TRUE(denoiser.ok()) << denoiser.status();
  const at::Tensor x = golden.Get("x");
  nn::ForwardContext base;
  if (golden.Has("context"))
    base.on.context = golden.Get("context");
  else
    base.on.context = at::cat({golden.Get("negative.embeds"), golden.Get("prompt.embeds")});
  if (golden.Has("add_time_ids")) {
    base.on.pooled = at::cat({golden.Get("negative.pooled"), golden.Get("prompt.pooled")});
    base.on.sizes = golden.Get("add_time_ids").to(at::kFloat).expand({2, -1}).contiguous();
  }
  const Json& tensors = golden.json["tensors"];
  const auto tolerance = [&](const std::string& name) { return tensors[name]["tolerance"].get<double>(); };
  size_t passes = 0, temporal = 0;
  for (const auto& [name, facts] : tensors.items()) {
    if (!name.ends_with(".eps")) continue;
    SCOPED_TRACE(name);
    int64_t t = -1;
    std::from_chars(name.data() + 1, name.data() + name.size(), t);
    nn::ForwardContext ctx = base;
    ctx.timestep = at::full({x.size(0)}, t, at::kFloat);
    Recorder recorder;
    ctx.listener = &recorder;
    EXPECT_LE(golden::Difference((*denoiser)->Forward(ctx, x), golden.Get(name)), tolerance(name));
    ++passes;
    const std::string prefix = name.substr(0, name.size() - 4) + ".temporal.";
    for (const auto& [inner, inner_facts] : tensors.items()) {
      if (!inner.starts_with(prefix)) continue;
      const std::string layer = inner.substr(prefix.size());
      ASSERT_TRUE(recorder.seen.contains(layer)) << layer << " is not shown";
      EXPECT_LE(golden::Difference(recorder.seen[layer], golden.Get(inner)), tolerance(inner)) << inner;
      ++temporal;
    }
    // The time path alone gives the features of the whole pass; so it does from the part that follows from
    // tau.
    nn::ForwardContext alone = base, cached = base;
    alone.timestep = cached.timestep = ctx.timestep;
    cached.of_tau = recorder.seen["time_embedding"];
    const auto features = (*denoiser)->TemporalFeatures(alone), again = (*denoiser)->TemporalFeatures(cached);
    ASSERT_EQ(features.size(), (*denoiser)->temporal_slots().size());
    for (size_t i = 0; i < features.size(); ++i) {
      EXPECT_TRUE(features[i].equal(recorder.seen[(*denoiser)->temporal_slots()[i]->name])) << i;
      EXPECT_TRUE(again[i].equal(features[i])) << i;
    }
  }
  EXPECT_EQ(passes, GetParam().passes);
  EXPECT_EQ(temporal, GetParam().temporal);
}

// 8 residual blocks and three values of the trunk; two more where the prompt's vector is added.
INSTANTIATE_TEST_SUITE_P(Cases, UnetConditionGolden,
                         ::testing::Values(Passes{"sd1", 3, 3 * 11}, Passes{"sd2", 3, 3 * 11},
                                           Passes{"sdxl", 3, 3 * 13}, Passes{"sdxl_turbo", 2, 2 * 13},
                                           Passes{"ldm_class", 3, 3 * 11}),
                         [](const auto& c) { return c.param.name; });

const golden::Case& Options() {
  static const golden::Case g("golden/unet_condition");
  return g;
}

Json ConfigOf(const Json& own) {
  Json config = Options().json["base"];
  config.update(own);
  config["_class_name"] = "UNet2DConditionModel";
  return config;
}

Result<std::unique_ptr<Denoiser>> BuildCase(const Json& c, const Json& config) {
  const std::string weights = c["weights"];
  return Build(config,
               WeightSource::OpenFile(Cat("golden/unet_condition/", weights, ".safetensors"), weights));
}

at::Tensor Output(const Denoiser& denoiser, const std::string& name) {
  const auto get = [&](const char* key) {
    const std::string tensor = Cat(name, ".", key);
    return Options().Has(tensor) ? Options().Get(tensor) : at::Tensor();
  };
  nn::ForwardContext ctx;
  ctx.timestep = get("timesteps");
  ctx.on = {.label = get("class_labels"),
            .context = get("context"),
            .pooled = get("pooled"),
            .sizes = get("sizes"),
            .guidance = get("guidance")};
  return denoiser.Forward(ctx, get("x"));
}

class UnetConditionOption : public ::testing::TestWithParam<Json> {};

TEST_P(UnetConditionOption, OutputAgrees) {
  const Json& c = GetParam();
  auto denoiser = BuildCase(c, ConfigOf(c["config"]));
  ASSERT_TRUE(denoiser.ok()) << denoiser.status();
  const std::string name = c["name"];
  EXPECT_LE(golden::Difference(Output(**denoiser, name), Options().Get(name + ".eps")),
            c["tolerance"].get<double>());
}

// With the case's fields left out the numbers are others, or the parameters do not fit: so OutputAgrees can
// fail.
TEST_P(UnetConditionOption, FieldMatters) {
  const Json& c = GetParam();
  const std::set<std::string> without_effect{"base",       "fractional_timesteps", "odd_sizes",
                                             "not_square", "sample_size_pair",     "upcast_attention"};
  auto denoiser = BuildCase(c, ConfigOf(Json::object()));
  if (!denoiser.ok()) {
    EXPECT_EQ(denoiser.status().code(), absl::StatusCode::kInvalidArgument) << denoiser.status();
    return;
  }
  const std::string name = c["name"];
  const double difference = golden::Difference(Output(**denoiser, name), Options().Get(name + ".eps"));
  const double tolerance = c["tolerance"].get<double>();
  if (without_effect.contains(name)) {
    EXPECT_LE(difference, tolerance);
  } else {
    EXPECT_GT(difference, 10 * tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, UnetConditionOption,
                         ::testing::ValuesIn(Options().json["cases"].get<std::vector<Json>>()),
                         [](const auto& c) { return c.param["name"].template get<std::string>(); });

// What the family does not compute is an error that names the field.
TEST(UnetConditionConfig, RefusesByName) {
  const std::vector<std::pair<const char*, Json>> bad{
      {"addition_embed_type", "text"},
      {"attention_head_dim", Json::array({2})},
      {"attention_head_dim", 5},
      {"attention_type", "gated"},
      {"block_out_channels", Json::array()},
      {"class_embed_type", "projection"},
      {"conv_in_kernel", 4},
      {"cross_attention_dim", Json::array({6, 7})},
      {"cross_attention_norm", "layer_norm"},
      {"down_block_types", Json::array({"SimpleCrossAttnDownBlock2D", "DownBlock2D"})},
      {"dual_cross_attention", true},
      {"encoder_hid_dim_type", "image_proj"},
      {"layers_per_block", Json::array({1, 2, 3})},
      {"mid_block_only_cross_attention", true},
      {"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"},
      {"norm_num_groups", nullptr},
      {"num_attention_heads", 2},
      {"only_cross_attention", Json::array({true})},
      {"resnet_out_scale_factor", 2.0},
      {"resnet_skip_time_act", true},
      {"time_embedding_type", "learned"},
      {"transformer_layers_per_block", Json::array({1})},
      {"transformer_layers_per_block", 0},
      {"up_block_types", Json::array({"UpBlock2D"})},
      {"act_fn", "tanh"},
      {"no_such_field", 1},
  };
  for (const auto& [key, value] : bad) {
    const auto denoiser = BuildCase(Options().json["cases"][0], ConfigOf({{key, value}}));
    ASSERT_FALSE(denoiser.ok()) << key;
    EXPECT_EQ(denoiser.status().code(), absl::StatusCode::kInvalidArgument) << denoiser.status();
    EXPECT_THAT(std::string(denoiser.status().message()),
                ::testing::StartsWith(Cat("unet/config.json: ", key)));
  }
}

}  // namespace
}  // namespace tempera
