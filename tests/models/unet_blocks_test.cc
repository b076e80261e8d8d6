// The unet family's NCSN++ and k-diffusion blocks against diffusers, part by part (golden/unet/blocks), and
// the block lists that it refuses.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>

#include <set>

#include "base/temp_folder.h"
#include "golden/formula.h"
#include "golden/reader.h"
#include "models/family.h"
#include "nn/params.h"
#include "tib/trace.h"

namespace tempera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const golden::Case& Golden() {
  static const golden::Case g("golden/unet/blocks");
  return g;
}

Json ConfigOf(const Json& c) {
  Json config = Golden().json["base"];
  for (const auto& [key, value] : c["config"].items()) config[key] = value;
  config["_class_name"] = "UNet2DModel";
  return config;
}

class UnetBlocks : public ::testing::TestWithParam<size_t> {
 protected:
  const Json& TheCase() const { return Golden().json["cases"][GetParam()]; }
  void SetUp() override {
    at::set_num_threads(1);  // as the golden was computed
    const auto source = golden::WriteWeights(folder_, "unet", TheCase()["parameters"]);
    ASSERT_TRUE(source.ok()) << source.status();
    nn::Params params(*source, at::kCPU);
    auto built = BuildDenoiser(ConfigOf(TheCase()), "unet/config.json", params);
    ASSERT_TRUE(built.ok()) << built.status();
    denoiser_ = *std::move(built);
  }
  at::Tensor Tensor(const char* name) const {
    return Golden().Get(Cat(TheCase()["name"].get<std::string>(), ".", name));
  }
  nn::ForwardContext Context() const {
    nn::ForwardContext ctx;
    ctx.timestep = Tensor("timesteps");
    if (TheCase().contains("class_labels")) ctx.on.label = Tensor("class_labels");
    return ctx;
  }

  TempFolder folder_;
  std::unique_ptr<Denoiser> denoiser_;
};

// Each unit from the values that the units before it wrote.
TEST_P(UnetBlocks, EveryPartAgrees) {
  const Json& parts = TheCase()["parts"];
  const at::Tensor want = Tensor("parts");
  std::map<std::string, size_t> row;
  for (size_t i = 0; i < parts.size(); ++i) row[parts[i][0]] = i;
  nn::ForwardContext ctx = Context();
  std::vector<at::Tensor> values{Tensor("x")};
  std::set<std::string> seen;
  for (const Unit& unit : denoiser_->units()) {
    SCOPED_TRACE(unit.name);
    std::vector<at::Tensor> inputs;
    for (const int value : unit.inputs) inputs.push_back(values.at(static_cast<size_t>(value)));
    values.push_back(unit.run(ctx, inputs));
    ASSERT_TRUE(row.contains(unit.name)) << "diffusers has no such part";
    seen.insert(unit.name);
    const at::Tensor flat = values.back().flatten(), of_part = want[static_cast<int64_t>(row[unit.name])];
    const int64_t samples = of_part.numel();
    std::vector<int64_t> places;
    for (int64_t k = 0; k < samples; ++k) places.push_back((2 * k + 1) * flat.numel() / (2 * samples));
    EXPECT_LE(golden::Difference(flat.index({at::tensor(places, at::kLong)}), of_part),
              parts[row[unit.name]][1].get<double>());
  }
  EXPECT_EQ(seen.size(), parts.size());
  EXPECT_LE(golden::Difference(values.back(), Tensor("eps")), parts.back()[1].get<double>());
  nn::ForwardContext again = Context();
  EXPECT_TRUE(denoiser_->Forward(again, Tensor("x")).equal(values.back()));
}

// Reachability finds the layers that the family lists, and they are those of the embedding and no others.
TEST_P(UnetBlocks, TimePathIsFound) {
  const auto trace = TraceTib(*denoiser_);
  ASSERT_TRUE(trace.ok()) << trace.status();
  std::vector<std::string> of_time;
  for (const Unit& unit : denoiser_->units())
    for (const nn::Slot* slot : unit.slots)
      if (slot->role == nn::Role::kTime) of_time.push_back(slot->name);
  std::vector<std::string> found;
  for (const nn::Slot* slot : trace->features) found.push_back(slot->name);
  EXPECT_EQ(found, of_time);
  EXPECT_EQ(trace->trunk, denoiser_->temporal_trunk());
}

// Every layer is in one unit, but for those of the embedding.
TEST_P(UnetBlocks, UnitsShareOutTheSlots) {
  std::multiset<const nn::Slot*> of_units(denoiser_->temporal_trunk().begin(),
                                          denoiser_->temporal_trunk().end());
  for (const Unit& unit : denoiser_->units()) of_units.insert(unit.slots.begin(), unit.slots.end());
  std::multiset<const nn::Slot*> all;
  for (const nn::Slot& slot : denoiser_->slots()) all.insert(&slot);
  EXPECT_EQ(of_units, all);
}

INSTANTIATE_TEST_SUITE_P(Cases, UnetBlocks, ::testing::Range<size_t>(0, Golden().json["cases"].size()),
                         [](const auto& c) {
                           return Golden().json["cases"][c.param]["name"].template get<std::string>();
                         });

struct Refused {
  const char* name;
  const char* changes;  // merged into the configuration of ncsnpp
  const char* says;
};

class RefusedConfig : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedConfig, NamesFileAndField) {
  Json config = ConfigOf(Golden().json["cases"][0]);
  const Json changes = Json::parse(GetParam().changes);
  for (const auto& [key, value] : changes.items()) config[key] = value;
  nn::Params params(uint64_t{1}, at::kCPU);
  const auto built = BuildDenoiser(config, "unet/config.json", params);
  ASSERT_FALSE(built.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(built.status()));
  EXPECT_THAT(Message(built.status()), AllOf(StartsWith("unet/config.json: "), HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedConfig,
    ::testing::Values(
        Refused{"EncoderBlock", R"({"down_block_types":["DownEncoderBlock2D","DownBlock2D","DownBlock2D"]})",
                "down_block_types is not supported, got \"DownEncoderBlock2D\", want DownBlock2D, "
                "AttnDownBlock2D, ResnetDownsampleBlock2D, SkipDownBlock2D, AttnSkipDownBlock2D or "
                "KDownBlock2D"},
        Refused{"CrossAttention", R"({"up_block_types":["UpBlock2D","UpBlock2D","CrossAttnUpBlock2D"]})",
                "up_block_types is not supported, got \"CrossAttnUpBlock2D\", want UpBlock2D"},
        Refused{"SkipBelowOthers",
                R"({"down_block_types":["DownBlock2D","SkipDownBlock2D","DownBlock2D"],"norm_num_groups":8})",
                "down_block_types does not fit together, got SkipDownBlock2D below DownBlock2D"},
        Refused{"OthersAboveSkip",
                R"({"up_block_types":["SkipUpBlock2D","UpBlock2D","UpBlock2D"],"norm_num_groups":8})",
                "up_block_types does not fit together, got UpBlock2D above SkipUpBlock2D"},
        Refused{"PictureWithoutColours", R"({"in_channels":1})",
                "in_channels does not fit SkipDownBlock2D, got 1, want 3"},
        Refused{"PaintingWithoutColours", R"({"out_channels":6})",
                "out_channels does not fit SkipUpBlock2D, got 6, want 3"},
        Refused{"KarrasAmongOthers", R"({"down_block_types":["KDownBlock2D","KDownBlock2D","KDownBlock2D"]})",
                "up_block_types does not fit together, want KDownBlock2D and KUpBlock2D on every level"},
        Refused{"GroupsAreNull", R"({"up_block_types":["UpBlock2D","SkipUpBlock2D","SkipUpBlock2D"]})",
                "norm_num_groups is null"},
        Refused{"GroupsDoNotDivide", R"({"norm_num_groups":7})",
                "mid_block.resnets.0.norm1: the groups do not divide the channels, got 7 groups for 32 "
                "channels"},
        Refused{"TooFewChannelsForAGroup", R"({"block_out_channels":[3,64,32]})",
                "down_blocks.0.resnets.0.norm1: the groups do not divide the channels, got 0 groups for 3"},
        Refused{"AttentionOf32Groups", R"({"block_out_channels":[32,48,32]})",
                "down_blocks.1.attentions.0.group_norm: the groups do not divide the channels, got 32 groups "
                "for 48"},
        Refused{"HeadIsTooWide", R"({"attention_head_dim":65})",
                "attention_head_dim does not fit down_blocks.1.attentions.0, got 65 for 64 channels"},
        Refused{"OddSide", R"({"sample_size":10})",
                "sample_size does not fit 3 levels, got 10, want a multiple "
                "of 4"},
        Refused{
            "IdentityClass", R"({"class_embed_type":"identity"})",
            "class_embed_type is not supported, got \"identity\", want timestep or none: identity takes an "
            "embedding vector, and a request carries a class label"},
        Refused{"UnknownClass", R"({"class_embed_type":"projection"})",
                "class_embed_type is not supported, got \"projection\", want timestep"}),
    [](const auto& param) { return std::string(param.param.name); });

// A mirrored edge needs two rows: one less than the filter's levels would leave.
TEST(KarrasConfig, SmallPictureIsRefused) {
  Json config = ConfigOf(Golden().json["cases"][4]);
  config["sample_size"] = 2;
  nn::Params params(uint64_t{1}, at::kCPU);
  EXPECT_THAT(Message(BuildDenoiser(config, "unet/config.json", params).status()),
              HasSubstr("sample_size does not fit 2 levels, got 2, want a multiple of 2, at least 4"));
}

// Errors of weights name the file as the user knows it.
TEST(UnetWeights, ErrorsNameTheFile) {
  const Json& c = Golden().json["cases"][5];
  const auto build = [&](const Json& parameters) {
    const TempFolder folder;
    const auto source = golden::WriteWeights(folder, "unet", parameters);
    EXPECT_TRUE(source.ok()) << source.status();
    nn::Params params(*source, at::kCPU);
    return Message(BuildDenoiser(ConfigOf(c), "unet/config.json", params).status());
  };
  const std::string file = "unet/diffusion_pytorch_model.safetensors: tensor ";
  Json parameters = c["parameters"];
  parameters.erase("conv_in.bias");
  EXPECT_EQ(build(parameters), file + "conv_in.bias: is missing, want [32]");
  parameters = c["parameters"];
  parameters["conv_in.bias"] = {31};
  EXPECT_EQ(build(parameters), file + "conv_in.bias: wrong shape, got [31], want [32]");
  parameters = c["parameters"];
  parameters["conv_in.more"] = {2};
  EXPECT_EQ(build(parameters), file + "conv_in.more: the model has no such parameter");
}

}  // namespace
}  // namespace tempera
