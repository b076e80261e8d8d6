// The unet family with one configuration field after the other, against diffusers (golden/unet/options).
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <map>
#include <set>

#include "golden/reader.h"
#include "models/family.h"
#include "nn/params.h"

namespace tempera {
namespace {

const golden::Case& Golden() {
  static const golden::Case g("golden/unet/options");
  return g;
}

Json ConfigOf(const Json& c) {
  Json config = Golden().json["base"];
  config.update(c["config"]);
  config["_class_name"] = "UNet2DModel";
  return config;
}

Result<std::unique_ptr<Denoiser>> Build(const Json& config, const std::string& weights) {
  TEMPERA_ASSIGN(const auto source,
                 WeightSource::OpenFile(Cat("golden/unet/options/", weights, ".safetensors"), weights));
  nn::Params params(source, at::kCPU);
  return BuildDenoiser(config, "unet/config.json", params);
}

class UnetOption : public ::testing::TestWithParam<Json> {};

TEST_P(UnetOption, OutputAgrees) {
  const Json& c = GetParam();
  const std::string name = c["name"];
  auto denoiser = Build(ConfigOf(c), c["weights"]);
  ASSERT_TRUE(denoiser.ok()) << denoiser.status();
  nn::ForwardContext ctx;
  ctx.timestep = Golden().Get(name + ".timesteps");
  if (c.contains("class_labels")) ctx.on.label = Golden().Get(name + ".class_labels");
  const at::Tensor eps = (*denoiser)->Forward(ctx, Golden().Get(name + ".x"));
  EXPECT_LE(golden::Difference(eps, Golden().Get(name + ".eps")), c["tolerance"].get<double>());
}

// With the case's field left out the numbers are others, or the parameters do not fit: so OutputAgrees can
// fail.
TEST_P(UnetOption, FieldMatters) {
  const Json& c = GetParam();
  const std::string name = c["name"];
  const std::set<std::string> without_effect{"defaults_of_base", "dropout", "old_block_names",
                                             "activation_swish", "fractional_timesteps"};
  Json config = Golden().json["base"];
  config["_class_name"] = "UNet2DModel";
  auto denoiser = Build(config, c["weights"]);
  if (!denoiser.ok()) {
    EXPECT_EQ(denoiser.status().code(), absl::StatusCode::kInvalidArgument) << denoiser.status();
    return;
  }
  nn::ForwardContext ctx;
  ctx.timestep = Golden().Get(name + ".timesteps");
  const at::Tensor eps = (*denoiser)->Forward(ctx, Golden().Get(name + ".x"));
  const double difference = golden::Difference(eps, Golden().Get(name + ".eps"));
  const double tolerance = c["tolerance"].get<double>();
  if (without_effect.contains(name)) {
    EXPECT_LE(difference, tolerance);
  } else {
    EXPECT_GT(difference, 10 * tolerance);
  }
}

std::vector<Json> Cases() {
  at::set_num_threads(1);
  return Golden().json["cases"].get<std::vector<Json>>();
}
INSTANTIATE_TEST_SUITE_P(Cases, UnetOption, ::testing::ValuesIn(Cases()),
                         [](const auto& c) { return c.param["name"].template get<std::string>(); });

}  // namespace
}  // namespace tempera
