#include "models/folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "nn/params.h"
#include "tests/base/temp_folder.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kPipeline[] = "golden/pipelines/sd1";

// A copy of a sound folder, to be broken.
class ModelFolderTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::copy(kPipeline, folder_ / "m", fs::copy_options::recursive); }
  Json Index() { return *ParseJson(*ReadFile(folder_ / "m/model_index.json", "index"), "index"); }
  void SetIndex(const Json& index) { folder_.Write("m/model_index.json", index.dump()); }
  std::string Error() {
    const Result<ModelFolder> opened = OpenModelFolder(folder_ / "m");
    return opened.ok() ? "" : Message(opened.status());
  }
  TempFolder folder_;
};

TEST_F(ModelFolderTest, OpensAsItWasSaved) { EXPECT_EQ(Error(), ""); }

TEST_F(ModelFolderTest, BringsItsOwnPrompts) {
  folder_.Write("m/prompts.json", R"(["red apple, twemoji", "panda"])");
  const Result<ModelFolder> opened = OpenModelFolder(folder_ / "m");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_THAT(opened->prompts, ::testing::ElementsAre("red apple, twemoji", "panda"));
  for (const char* bad : {R"({"a": 1})", R"([1])", "[\"\xff\"]", "red apple"}) {
    folder_.Write("m/prompts.json", bad);
    EXPECT_THAT(Error(), StartsWith("prompts.json: ")) << bad;
  }
}

TEST_F(ModelFolderTest, WithoutAnIndexSaysWhatItHolds) {
  fs::remove(folder_ / "m/model_index.json");
  EXPECT_EQ(
      Error(),
      "model_index.json: does not exist, want the folder of a diffusers pipeline; it holds components "
      "without "
      "their pipeline (unet, vae, text_encoder): save the whole pipeline with pipe.save_pretrained(FOLDER)");
}

TEST_F(ModelFolderTest, AMissingComponentIsNamed) {
  fs::remove_all(folder_ / "m/vae");
  EXPECT_THAT(Error(), StartsWith("vae/config.json: "));
  Json index = Index();
  index.erase("vae");
  SetIndex(index);
  EXPECT_EQ(Error(),
            "model_index.json: component \"vae\" is missing, StableDiffusionPipeline wants a AutoencoderKL");
}

TEST_F(ModelFolderTest, AnotherClassIsNamed) {
  Json index = Index();
  index["unet"] = {"diffusers", "UNet3DConditionModel"};
  SetIndex(index);
  EXPECT_EQ(Error(),
            "model_index.json: component \"unet\" is not supported, got UNet3DConditionModel, want "
            "UNet2DConditionModel");
  index["_class_name"] = "FluxPipeline";
  SetIndex(index);
  EXPECT_THAT(Error(),
              StartsWith("model_index.json: _class_name is not supported, got \"FluxPipeline\", want "));
}

TEST_F(ModelFolderTest, PickledWeightsAloneSayHowToSaveThem) {
  fs::remove(folder_ / "m/unet/diffusion_pytorch_model.safetensors");
  folder_.Write("m/unet/diffusion_pytorch_model.bin", "\x80\x02");
  EXPECT_EQ(Error(),
            "unet/diffusion_pytorch_model.bin: a pickle, which is never read, want "
            "diffusion_pytorch_model.safetensors: save it again with save_pretrained(FOLDER, "
            "safe_serialization=True)");
}

TEST(Params, AMissingOrUnknownTensorOfAnotherLayoutSaysWhichItIs) {
  TempFolder folder;
  const std::vector<float> zero(1);
  folder.Write("model.safetensors",
               SafetensorsBytes({{.name = "input_blocks.0.0.weight",
                                  .dtype = Dtype::kF32,
                                  .shape = {1},
                                  .bytes = {reinterpret_cast<const uint8_t*>(zero.data()), 4}}}));
  const auto source = WeightSource::Open(folder.path(), "model", "unet");
  ASSERT_TRUE(source.ok()) << source.status();
  nn::Params missing(*source, at::kCPU);
  missing.Take("conv_in.weight", {1});
  EXPECT_EQ(Message(missing.Finish()),
            "unet/model.safetensors: tensor conv_in.weight: is missing, want [1]; it looks like a UNet of "
            "guided-diffusion, which is not supported");
  EXPECT_EQ(Message(nn::Params(*source, at::kCPU).Finish()),
            "unet/model.safetensors: tensor input_blocks.0.0.weight: the model has no such parameter; it "
            "looks like a "
            "UNet of guided-diffusion, which is not supported");
}

}  // namespace
}  // namespace tempera
