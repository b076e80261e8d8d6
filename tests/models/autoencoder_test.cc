// First stages against diffusers: those of small pipelines, and one configuration field after the other
// (golden/autoencoder).
#include "models/autoencoder.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "golden/formula.h"
#include "golden/reader.h"

namespace tempera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Built = Result<std::unique_ptr<Autoencoder>>;

// A case that was cut out of a whole pipeline, and its first stage.
class Stage {
 public:
  explicit Stage(const std::string& name)
      : folder_("golden/pipelines/" + name), golden("golden/autoencoder/" + name) {
    at::set_num_threads(1);  // as the golden was computed
    const std::string component = name.starts_with("ldm") ? "vqvae" : "vae";
    auto source = WeightSource::Open(folder_ / component, "diffusion_pytorch_model", component);
    EXPECT_TRUE(source.ok()) << source.status();
    if (!source.ok()) return;
    nn::Params params(*source, at::kCPU);
    Built built = BuildAutoencoder(golden::ReadJson(folder_ / component / "config.json"),
                                   component + "/config.json", params);
    EXPECT_TRUE(built.ok()) << built.status();
    if (built.ok()) autoencoder_ = *std::move(built);
  }
  bool ok() const { return autoencoder_ != nullptr && !::testing::Test::HasFailure(); }
  Autoencoder& operator*() const { return *autoencoder_; }
  Autoencoder* operator->() const { return autoencoder_.get(); }
  double Tolerance(const std::string& tensor) const { return golden.json["tensors"][tensor]["tolerance"]; }

 private:
  const std::filesystem::path folder_;
  std::unique_ptr<Autoencoder> autoencoder_;

 public:
  const golden::Case golden;
};

// What the named layer read.
class InputOf final : public nn::Listener {
 public:
  explicit InputOf(std::string name) : name_(std::move(name)) {}
  void OnSlot(const nn::Slot& slot, const at::Tensor& input, const at::Tensor&) override {
    if (slot.name == name_) seen = input;
  }
  at::Tensor seen;

 private:
  std::string name_;
};

struct Run {
  const char* folder;
  const char* run;
};

class PipelineStage : public ::testing::TestWithParam<Run> {};

TEST_P(PipelineStage, PictureAgrees) {
  const Stage stage(GetParam().folder);
  ASSERT_TRUE(stage.ok());
  const auto name = [](const char* tensor) { return Cat(GetParam().run, ".", tensor); };
  const at::Tensor z = stage->FromLatent(stage.golden.Get(name("latent")));
  const at::Tensor vae_in = stage.golden.Get(name("vae_in"));
  // One division of the same numbers.
  EXPECT_LE(golden::Difference(z, vae_in), 1e-6 * vae_in.abs().max().item<double>());

  nn::ForwardContext ctx;
  const at::Tensor image = stage->Decode(ctx, vae_in);
  EXPECT_LE(golden::Difference(image, stage.golden.Get(name("image_float"))),
            stage.Tolerance(name("image_float")));
  const at::Tensor bytes = ((image / 2 + 0.5).clamp(0, 1).permute({0, 2, 3, 1}) * 255).round();
  EXPECT_LE(golden::Difference(bytes, stage.golden.Get(name("image_uint8"))), 1);
  // What is there to compare with: a picture, and not one of a single value.
  EXPECT_GT(bytes.std().item<double>(), 10);
}

INSTANTIATE_TEST_SUITE_P(Runs, PipelineStage,
                         ::testing::Values(Run{"sd1", "pndm"}, Run{"sd2", "ddim"}, Run{"sd2", "dpmsolver"},
                                           Run{"sdxl", "steps6"}, Run{"sdxl_turbo", "steps1"},
                                           Run{"sdxl_turbo", "steps4"}, Run{"ldm_vq", "ddim"},
                                           Run{"ldm_class", "ddim"}),
                         [](const auto& run) { return Cat(run.param.folder, "_", run.param.run); });

TEST(KlStage, EncoderAgrees) {
  for (const char* name : {"sd1", "sd2"}) {
    SCOPED_TRACE(name);
    const Stage stage(name);
    ASSERT_TRUE(stage.ok());
    nn::ForwardContext ctx;
    const Gaussian posterior = stage->Encode(ctx, stage.golden.Get("encode.x"));
    EXPECT_LE(golden::Difference(at::cat({posterior.mean, posterior.logvar}, 1),
                                 stage.golden.Get("encode.moments")),
              stage.Tolerance("encode.moments"));
  }
}

TEST(VqStage, EncoderAgrees) {
  const Stage stage("ldm_vq");
  ASSERT_TRUE(stage.ok());
  nn::ForwardContext ctx;
  const Gaussian latents = stage->Encode(ctx, stage.golden.Get("encode.x"));
  EXPECT_LE(golden::Difference(latents.mean, stage.golden.Get("encode.latents_out")),
            stage.Tolerance("encode.latents_out"));
  EXPECT_FALSE(latents.logvar.defined());
  EXPECT_TRUE(latents.Sample(at::ones_like(latents.mean)).equal(latents.mean));
}

// The decoder reads codebook vectors, and those that diffusers chose.
TEST(VqStage, CodebookVectorsAgree) {
  for (const auto& [folder, pass, input] : {std::tuple{"ldm_vq", "decode", "x"},
                                            {"ldm_vq", "ddim", "ddim.vae_in"},
                                            {"ldm_class", "ddim", "ddim.vae_in"}}) {
    SCOPED_TRACE(Cat(folder, " ", pass));
    const Stage stage(folder);
    ASSERT_TRUE(stage.ok());
    InputOf post_quant("post_quant_conv");
    nn::ForwardContext ctx;
    ctx.listener = &post_quant;
    const at::Tensor z = stage.golden.Get(input);
    const at::Tensor out = stage->Decode(ctx, z);
    const at::Tensor indices = stage.golden.Get(Cat(pass, ".vq_indices"));
    const at::Tensor vectors = stage->parameters().at("quantize.embedding.weight").index_select(0, indices);
    EXPECT_TRUE(post_quant.seen.permute({0, 2, 3, 1}).reshape({-1, z.size(1)}).equal(vectors));
    const std::string quantized = Cat(pass, ".vq_quantized");
    EXPECT_LE(golden::Difference(post_quant.seen, stage.golden.Get(quantized)), stage.Tolerance(quantized));
    if (const std::string whole = Cat(pass, ".out"); stage.golden.Has(whole)) {
      EXPECT_LE(golden::Difference(out, stage.golden.Get(whole)), stage.Tolerance(whole));
    }
  }
}

TEST(VqStage, WithoutCodebookAgrees) {
  const Stage stage("ldm_vq");
  ASSERT_TRUE(stage.ok());
  nn::ForwardContext ctx;
  EXPECT_LE(golden::Difference(stage->Decode(ctx, stage.golden.Get("x"), /*quantize=*/false),
                               stage.golden.Get("decode.not_quantized.out")),
            stage.Tolerance("decode.not_quantized.out"));
}

// More positions than distances are held at once go to the same vectors.
TEST(VqStage, LargePictureIsQuantizedInPieces) {
  const int64_t entries = 1 << 17;  // 128 positions at once
  const Json config{{"_class_name", "VQModel"},
                    {"block_out_channels", {4}},
                    {"norm_num_groups", 2},
                    {"num_vq_embeddings", entries}};
  nn::Params params(uint64_t{1}, at::kCPU);
  const Built built = BuildAutoencoder(config, "vqvae/config.json", params);
  ASSERT_TRUE(built.ok()) << built.status();
  const at::NoGradGuard no_grad;
  const at::Tensor codebook = (*built)->parameters().at("quantize.embedding.weight");
  const at::Tensor chosen = at::arange(20 * 15, at::kLong) * 397;
  const at::Tensor z = codebook.index_select(0, chosen).view({1, 20, 15, 3}).permute({0, 3, 1, 2});
  InputOf post_quant("post_quant_conv");
  nn::ForwardContext ctx;
  ctx.listener = &post_quant;
  (*built)->Decode(ctx, z);
  EXPECT_TRUE(post_quant.seen.equal(z));
}

const golden::Case& Golden() {
  static const golden::Case g("golden/autoencoder");
  return g;
}

const Json& CaseNamed(const std::string& name) {
  for (const Json& c : Golden().json["cases"])
    if (c["name"] == name) return c;
  ADD_FAILURE() << "no case " << name;
  return Golden().json;
}

const Json& ParametersOf(const Json& c) {
  return Golden().json["parameters"][c["parameters"].get<std::string>()];
}

Json ConfigOf(const Json& c) {
  Json config = Golden().json["base"];
  config.update(c["config"]);
  config["_class_name"] = c["class"];
  return config;
}

Built Build(const Json& config, const Json& parameters) {
  at::set_num_threads(1);
  const TempFolder folder;
  TEMPERA_ASSIGN(const auto source, golden::WriteWeights(folder, "vae", parameters));
  nn::Params params(source, at::kCPU);
  return BuildAutoencoder(config, "vae/config.json", params);
}

at::Tensor MomentsOf(const Gaussian& posterior) {
  return posterior.logvar.defined() ? at::cat({posterior.mean, posterior.logvar}, 1) : posterior.mean;
}

// All that the case recorded, as this network computes it.
std::map<std::string, at::Tensor> Outputs(const Autoencoder& autoencoder, const std::string& name) {
  const auto input = [&](const char* tensor) { return Golden().Get(Cat(name, ".", tensor)); };
  nn::ForwardContext ctx;
  std::map<std::string, at::Tensor> out{
      {"moments", MomentsOf(autoencoder.Encode(ctx, input("image")))},
      {"decoded", autoencoder.Decode(ctx, input("z"))},
      {"seen", autoencoder.ToLatent(input("z"))},
      {"unscaled", autoencoder.FromLatent(input("z"))},
  };
  if (Golden().Has(name + ".tiled_z")) {
    out["tiled_moments"] = MomentsOf(autoencoder.EncodeTiled(ctx, input("tiled_image")));
    out["tiled_decoded"] = autoencoder.DecodeTiled(ctx, input("tiled_z"));
  }
  return out;
}

class AutoencoderOption : public ::testing::TestWithParam<Json> {};

TEST_P(AutoencoderOption, OutputsAgree) {
  const Json& c = GetParam();
  const Built built = Build(ConfigOf(c), ParametersOf(c));
  ASSERT_TRUE(built.ok()) << built.status();
  const std::string name = c["name"];
  const auto outputs = Outputs(**built, name);
  EXPECT_EQ(outputs.size(), c["tolerance"].size());
  for (const auto& [tensor, value] : outputs)
    EXPECT_LE(golden::Difference(value, Golden().Get(Cat(name, ".", tensor))),
              c["tolerance"][tensor].get<double>())
        << tensor;
}

// With the case's fields left out the numbers are others, or the parameters do not fit: so OutputsAgree can
// fail.
TEST_P(AutoencoderOption, FieldsMatter) {
  const Json& c = GetParam();
  const std::string name = c["name"];
  const std::set<std::string> without_effect{"kl", "kl_size_pair", "kl_tiles", "vq",
                                             "vq_lookup_from_codebook"};
  Json config = Golden().json["base"];
  config["_class_name"] = c["class"];
  const Built built = Build(config, ParametersOf(c));
  if (!built.ok()) {
    EXPECT_TRUE(absl::IsInvalidArgument(built.status())) << built.status();
    return;
  }
  double most = 0;  // of the differences, by the tolerance
  for (const auto& [tensor, value] : Outputs(**built, name))
    most = std::max(most, golden::Difference(value, Golden().Get(Cat(name, ".", tensor))) /
                              c["tolerance"][tensor].get<double>());
  if (without_effect.contains(name)) {
    EXPECT_LE(most, 1);
  } else {
    EXPECT_GT(most, 10);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, AutoencoderOption,
                         ::testing::ValuesIn(Golden().json["cases"].get<std::vector<Json>>()),
                         [](const auto& c) { return c.param["name"].template get<std::string>(); });

TEST(Autoencoder, InfoTellsTheConfiguration) {
  const auto info = [](const char* name) {
    const Json& c = CaseNamed(name);
    Built built = Build(ConfigOf(c), ParametersOf(c));
    EXPECT_TRUE(built.ok()) << built.status();
    return built.ok() ? (*built)->info() : AutoencoderInfo{};
  };
  const AutoencoderInfo channels = info("kl_channels"), shift = info("kl_shift"),
                        vq = info("vq_wide_entries");
  EXPECT_EQ(channels.family, "kl");
  EXPECT_EQ(channels.input_channels, 1);
  EXPECT_EQ(channels.image_channels, 2);
  EXPECT_EQ(channels.latent_channels, 5);
  EXPECT_EQ(channels.factor, 2);
  EXPECT_EQ(channels.sample_size, 16);
  EXPECT_EQ(channels.scaling_factor, 0.18215);
  EXPECT_FALSE(channels.shift_factor.has_value());
  EXPECT_EQ(shift.shift_factor, 0.1159);
  EXPECT_EQ(info("kl_mean_std").latents_std.size(), 4u);
  EXPECT_EQ(info("kl_three_levels").factor, 4);
  EXPECT_EQ(vq.family, "vq");
  EXPECT_EQ(vq.latent_channels, 5);  // of the codebook, not of the decoder
}

// Beyond the limits a variance is as good as none, or as none at all.
TEST(Autoencoder, LogVarianceIsClamped) {
  const Json& c = CaseNamed("kl");
  const Built built = Build(ConfigOf(c), ParametersOf(c));
  ASSERT_TRUE(built.ok()) << built.status();
  Autoencoder& kl = **built;
  nn::ForwardContext ctx;
  const at::Tensor image = Golden().Get("kl.image");
  const at::Tensor mean = kl.Encode(ctx, image).mean;
  nn::Slot* quant = kl.FindSlot("quant_conv");
  const at::Tensor bias = quant->bias;
  for (const auto& [added, limit] : {std::pair{100.0, 20.0}, {-100.0, -30.0}}) {
    quant->bias = bias + at::cat({at::zeros({4}), at::full({4}, added)});
    const Gaussian posterior = kl.Encode(ctx, image);
    EXPECT_TRUE(posterior.mean.equal(mean));
    EXPECT_TRUE(posterior.logvar.equal(at::full_like(mean, limit)));
    const at::Tensor sample = posterior.Sample(at::ones_like(mean));
    EXPECT_LE(golden::Difference(sample, mean + std::exp(limit / 2)),
              1e-6 * sample.abs().max().item<double>());
  }
}

// Whatever multiplies is in a slot: what is not are norms and the codebook.
TEST(Autoencoder, EveryLayerIsASlot) {
  for (const char* name : {"kl", "vq_attention_blocks"}) {
    const Json& c = CaseNamed(name);
    const Built built = Build(ConfigOf(c), ParametersOf(c));
    ASSERT_TRUE(built.ok()) << built.status();
    Autoencoder& autoencoder = **built;
    for (const auto& [parameter, tensor] : autoencoder.parameters()) {
      if (tensor.dim() < 2 || parameter == "quantize.embedding.weight") continue;
      ASSERT_TRUE(parameter.ends_with(".weight")) << parameter;
      EXPECT_NE(autoencoder.FindSlot(parameter.substr(0, parameter.size() - 7)), nullptr) << parameter;
    }
    for (const auto& [slot, role] : {std::pair{"encoder.conv_in", nn::Role::kConvIn},
                                     {"encoder.conv_out", nn::Role::kConvOut},
                                     {"quant_conv", nn::Role::kConvOut},
                                     {"post_quant_conv", nn::Role::kConvIn},
                                     {"decoder.conv_in", nn::Role::kConvIn},
                                     {"decoder.conv_out", nn::Role::kConvOut},
                                     {"decoder.up_blocks.0.upsamplers.0.conv", nn::Role::kSampler},
                                     {"decoder.up_blocks.1.resnets.0.conv_shortcut", nn::Role::kShortcut}}) {
      ASSERT_NE(autoencoder.FindSlot(slot), nullptr) << slot;
      EXPECT_EQ(autoencoder.FindSlot(slot)->role, role) << slot;
    }
  }
}

// Checkpoints of 2022 name the attention's layers otherwise.
TEST(Autoencoder, OldAttentionNamesAreKnown) {
  const Stage stage("sd1");
  ASSERT_TRUE(stage.ok());
  std::vector<TensorOut> tensors;
  for (const auto& [name, tensor] : stage->parameters()) {
    std::string old = name;
    for (const auto& [now, before] : {std::pair{".to_q.", ".query."},
                                      {".to_k.", ".key."},
                                      {".to_v.", ".value."},
                                      {".to_out.0.", ".proj_attn."}})
      if (const size_t at = old.find(now); at != std::string::npos)
        old.replace(at, std::string_view(now).size(), before);
    tensors.push_back(nn::ToTensorOut(old, tensor));
  }
  const TempFolder folder;
  folder.Write("vae/diffusion_pytorch_model.safetensors", SafetensorsBytes(std::move(tensors)));
  const auto source = WeightSource::Open(folder / "vae", "diffusion_pytorch_model", "vae");
  ASSERT_TRUE(source.ok()) << source.status();
  nn::Params params(*source, at::kCPU);
  const Built built =
      BuildAutoencoder(golden::ReadJson("golden/pipelines/sd1/vae/config.json"), "vae/config.json", params);
  ASSERT_TRUE(built.ok()) << built.status();
  nn::ForwardContext ctx;
  const at::Tensor z = stage.golden.Get("pndm.vae_in");
  EXPECT_TRUE((*built)->Decode(ctx, z).equal(stage->Decode(ctx, z)));
}

TEST(AutoencoderTiles, WhatFitsIsComputedWhole) {
  const Stage stage("sd1");
  ASSERT_TRUE(stage.ok());
  nn::ForwardContext ctx;
  const at::Tensor z = stage.golden.Get("pndm.vae_in"), image = stage.golden.Get("encode.x");
  EXPECT_TRUE(stage->DecodeTiled(ctx, z).equal(stage->Decode(ctx, z)));
  EXPECT_TRUE(stage->EncodeTiled(ctx, image).mean.equal(stage->Encode(ctx, image).mean));
  // Every picture is larger than one position.
  EXPECT_EQ(stage->DecodeTiled(ctx, z, {.side = 1}).sizes(), stage->Decode(ctx, z).sizes());
}

TEST(AutoencoderTiles, TwoSidesOfEverySize) {
  const Stage stage("sd1");
  ASSERT_TRUE(stage.ok());
  nn::ForwardContext ctx;
  const at::Tensor z = at::sin(at::arange(4 * 23 * 23, at::kFloat) * 1.7).view({1, 4, 23, 23});
  for (int64_t side = 3; side < 8; ++side)
    for (const auto& [height, width] :
         {std::pair<int64_t, int64_t>{side + 1, 1}, {side, 2 * side}, {23, side - 1}, {17, 22}}) {
      const at::Tensor out =
          stage->DecodeTiled(ctx, z.narrow(2, 0, height).narrow(3, 0, width), {.side = side});
      EXPECT_EQ(out.sizes(), (at::IntArrayRef{1, 3, 2 * height, 2 * width}));
      EXPECT_TRUE(out.isfinite().all().item<bool>());
      const Gaussian back = stage->EncodeTiled(ctx, out, {.side = side});
      EXPECT_EQ(back.mean.sizes(), (at::IntArrayRef{1, 4, height, width}));
    }
}

// How much a picture's difference to the whole one changes from each row to the next (dim 2), or column (dim
// 3): the rows at the edges of tiles, and the others.
struct Jumps {
  double least_at_edges = std::numeric_limits<double>::infinity(), most_at_edges = 0, most_elsewhere = 0;
};
Jumps JumpsOf(const at::Tensor& difference, int64_t dim, const std::set<int64_t>& edges) {
  Jumps jumps;
  for (int64_t i = 1; i < difference.size(dim); ++i) {
    const double jump =
        (difference.select(dim, i) - difference.select(dim, i - 1)).abs().mean().item<double>();
    if (edges.contains(i)) {
      jumps.least_at_edges = std::min(jumps.least_at_edges, jump);
      jumps.most_at_edges = std::max(jumps.most_at_edges, jump);
    } else {
      jumps.most_elsewhere = std::max(jumps.most_elsewhere, jump);
    }
  }
  return jumps;
}

// A seam is an edge of a tile at which the picture jumps more than it does anywhere else.
TEST(AutoencoderTiles, OverlapsLeaveNoSeams) {
  const Stage stage("sd1");
  ASSERT_TRUE(stage.ok());
  nn::ForwardContext ctx;
  const at::Tensor z = at::upsample_bicubic2d(
      2 * at::sin(at::arange(4 * 7 * 7, at::kFloat) * 1.7).view({1, 4, 7, 7}), {40, 40}, false);
  const at::Tensor whole = stage->Decode(ctx, z);
  // Tiles of 16 positions, 32 pixels: each begins 24 pixels after the one before and goes over for 8.
  const at::Tensor blended = stage->DecodeTiled(ctx, z, {.side = 16}) - whole;
  const at::Tensor abutted = stage->DecodeTiled(ctx, z, {.side = 16, .overlap = 0}) - whole;
  for (const int64_t dim : {2, 3}) {
    const Jumps without = JumpsOf(abutted, dim, {32, 64});
    EXPECT_GT(without.least_at_edges, without.most_elsewhere);  // so the next line can fail
    const Jumps with = JumpsOf(blended, dim, {24, 32, 48, 56, 72});
    EXPECT_LT(with.most_at_edges, with.most_elsewhere);
  }
}

int64_t PeakBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// The scores of 128 x 128 positions, as those of a picture of 1024 x 1024, are 1 GiB.
TEST(Autoencoder, AttentionHoldsNoScores) {
  at::set_num_threads(1);
  const Json config{{"_class_name", "AutoencoderKL"}, {"block_out_channels", {4}}, {"norm_num_groups", 2}};
  nn::Params params(uint64_t{1}, at::kCPU);
  const Built built = BuildAutoencoder(config, "vae/config.json", params);
  ASSERT_TRUE(built.ok()) << built.status();
  const at::NoGradGuard no_grad;
  nn::ForwardContext ctx;
  const at::Tensor z = at::sin(at::arange(4 * 128 * 128, at::kFloat)).view({1, 4, 128, 128});
  const int64_t before = PeakBytes();
  EXPECT_TRUE((*built)->Decode(ctx, z).isfinite().all().item<bool>());
  EXPECT_LT(PeakBytes() - before, 256 << 20);
}

struct Refused {
  const char* name;
  const char* changes;  // merged into the configuration of a case
  const char* says;
  const char* of = "kl";  // the case
};

class RefusedAutoencoder : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedAutoencoder, NamesFileAndField) {
  Json config = ConfigOf(CaseNamed(GetParam().of));
  config.update(Json::parse(GetParam().changes));
  nn::Params params(uint64_t{1}, at::kCPU);
  const Built built = BuildAutoencoder(config, "vae/config.json", params);
  ASSERT_FALSE(built.ok());
  EXPECT_TRUE(absl::IsInvalidArgument(built.status()));
  EXPECT_THAT(Message(built.status()), AllOf(StartsWith("vae/config.json: "), HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedAutoencoder,
    ::testing::Values(
        Refused{"OtherClass", R"({"_class_name":"AutoencoderTiny"})",
                "_class_name is not supported, got \"AutoencoderTiny\", want AutoencoderKL, VQModel"},
        Refused{"NoClass", R"({"_class_name":null})", "_class_name is missing"},
        Refused{"UnknownField", R"({"block_channels":[4]})", "block_channels"},
        Refused{"FieldOfTheOtherClass", R"({"num_vq_embeddings":8})", "num_vq_embeddings"},
        Refused{"ShiftOfVq", R"({"shift_factor":0.5})", "shift_factor", "vq"},
        Refused{"WrongType", R"({"latent_channels":"4"})",
                "latent_channels is wrong, got \"4\", want an integer"},
        Refused{"NoLatent", R"({"latent_channels":0})",
                "latent_channels is out of range, got 0, want 1 to 32768"},
        Refused{"HugeChannels", R"({"block_out_channels":[4,9223372036854775807]})",
                "block_out_channels is out of range, got 9223372036854775807, want 1 to 65536"},
        Refused{"NoLevels", R"({"block_out_channels":[]})", "block_out_channels has 0 entries, want 1 to 16"},
        Refused{"LevelsDiffer", R"({"up_block_types":["UpDecoderBlock2D"]})",
                "up_block_types has 1 entries, want 2 as block_out_channels has"},
        Refused{"BlockOfAUnet", R"({"down_block_types":["DownBlock2D","DownEncoderBlock2D"]})",
                "down_block_types is not supported, got \"DownBlock2D\", want DownEncoderBlock2D, "
                "AttnDownEncoderBlock2D"},
        Refused{"BlockOfTheOtherHalf", R"({"up_block_types":["DownEncoderBlock2D","UpDecoderBlock2D"]})",
                "up_block_types is not supported, got \"DownEncoderBlock2D\", want UpDecoderBlock2D, "
                "AttnUpDecoderBlock2D"},
        Refused{"GroupsDoNotDivide", R"({"norm_num_groups":3})",
                "encoder.down_blocks.0.resnets.0.norm1: the groups do not divide the channels, got 3 groups "
                "for 4"},
        Refused{"Activation", R"({"act_fn":"elu"})", "act_fn is not supported, got \"elu\""},
        Refused{"SpatialNorm", R"({"norm_type":"spatial"})",
                "norm_type is not supported, got \"spatial\", want group", "vq"},
        Refused{"NoCodebook", R"({"num_vq_embeddings":0})", "num_vq_embeddings is out of range, got 0", "vq"},
        Refused{"ScaledToNothing", R"({"scaling_factor":0})",
                "scaling_factor is out of range, got 0, want a number other than 0"},
        Refused{"MeanAlone", R"({"latents_mean":[0,0,0,0]})",
                "latents_std has 0 entries, want 4, one a latent channel"},
        Refused{"MeanTooShort", R"({"latents_mean":[0],"latents_std":[1,1,1,1]})",
                "latents_mean has 1 entries, want 4, one a latent channel"},
        Refused{"NoDeviation", R"({"latents_mean":[0,0,0,0],"latents_std":[1,0,1,1]})",
                "latents_std is out of range, got 0, want > 0"},
        Refused{"TwoShifts", R"({"latents_mean":[0,0,0,0],"latents_std":[1,1,1,1],"shift_factor":1})",
                "shift_factor does not go together with latents_mean"},
        Refused{"ThreeSides", R"({"sample_size":[8,8,8]})",
                "sample_size is wrong, want one side or [height, width]"},
        Refused{"NegativeSide", R"({"sample_size":-1})",
                "sample_size is out of range, got -1, want 1 to 16384"}),
    [](const auto& param) { return std::string(param.param.name); });

// Errors of weights name the file as the user knows it.
TEST(AutoencoderWeights, ErrorsNameTheFile) {
  const Json& c = CaseNamed("vq");
  const auto says = [&](const Json& parameters) { return Message(Build(ConfigOf(c), parameters).status()); };
  const std::string file = "vae/diffusion_pytorch_model.safetensors: tensor ";
  Json parameters = ParametersOf(c);
  parameters.erase("quantize.embedding.weight");
  EXPECT_EQ(says(parameters), file + "quantize.embedding.weight: is missing, want [256, 3]");
  parameters = ParametersOf(c);
  parameters["decoder.conv_in.weight"] = {8, 4, 3, 3};
  EXPECT_EQ(says(parameters),
            file + "decoder.conv_in.weight: wrong shape, got [8, 4, 3, 3], want [8, 3, 3, 3]");
  parameters = ParametersOf(c);
  parameters["loss.logvar"] = {1};
  EXPECT_EQ(says(parameters), file + "loss.logvar: the model has no such parameter");
}

}  // namespace
}  // namespace tempera
