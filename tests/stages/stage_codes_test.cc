// Text encoders and first stages in 8 bits: what the codes may change in each layer, that integers give what
// quantizing in float gives, and that an artifact's folder opens as that.
#include "quant/stage_codes.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>

#include "base/files.h"
#include "models/autoencoder.h"
#include "models/family.h"
#include "models/text_encoder.h"
#include "nn/params.h"
#include "stages/stages.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr double kEps = std::numeric_limits<float>::epsilon();

at::Tensor ByChannel(const nn::Slot& slot, const at::Tensor& values) {
  return slot.linear ? values.view({-1, 1}) : values.view({-1, 1, 1, 1});
}

// Compares each layer on its own input: the integer one that runs with its original and with the simulation.
class LayerCheck final : public nn::Listener {
 public:
  // By name: the layer with its original weight, and codes beside it.
  std::map<std::string, nn::Slot> coded;
  int64_t checked = 0;

  void OnSlot(const nn::Slot& running, const at::Tensor& x, const at::Tensor& y) override {
    const auto found = coded.find(running.name);
    if (found == coded.end()) return;
    ++checked;
    nn::ForwardContext ctx;
    const nn::Slot& original = found->second;
    const nn::SlotPart& part = original.parts[0];
    const at::Tensor x_hat = FakeQuantize(x, original, part, ctx), w_hat = nn::Dequantize(original);
    const auto products = [&](const at::Tensor& input, const at::Tensor& weight) {
      nn::Slot slot = original;
      slot.state = nn::State::kFloat;
      slot.weight = weight;
      slot.bias = at::Tensor();
      return nn::Run(slot, ctx, input);
    };
    nn::Slot simulated = original;
    simulated.state = nn::State::kSimulate;
    simulated.simulated = w_hat;
    // K products summed in float, each sum rounding once; the last ones are bias and scale.
    at::Tensor size = products(x_hat.abs(), w_hat.abs());
    if (original.bias.defined())
      size = size + (original.linear ? original.bias.abs() : original.bias.abs().view({1, -1, 1, 1}));
    const at::Tensor rounding = size * (kEps * static_cast<double>(original.k() + 8));
    EXPECT_TRUE(((y - nn::Run(simulated, ctx, x)).abs() <= rounding).all().item<bool>()) << running.name;

    // A rounding to steps of s is off by s / 2: |x^ w^ - x w| <= |x^| |w^ - w| + |x^ - x| |w|.
    std::vector<float> steps;
    for (const nn::Range& range : RowRanges(original, part, x, ctx)) steps.push_back(range.scale);
    std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
    if (original.linear)
      shape = x.sizes().vec(), shape.back() = 1;
    else
      shape[0] = x.size(0);
    const at::Tensor half_x = (at::tensor(steps).view(shape) / 2).expand(x.sizes()).contiguous();
    const at::Tensor half_w = (ByChannel(original, part.scale) / 2).expand(w_hat.sizes()).contiguous();
    const at::Tensor weight = original.FloatWeight();
    // The steps themselves are rounded, and the sums on both sides.
    const at::Tensor bound = (products(x_hat.abs(), half_w) + products(half_x, weight.abs())) * 1.001 +
                             2 * rounding +
                             products(x.abs(), weight.abs()) * (kEps * static_cast<double>(original.k() + 8));
    nn::Slot full = original;
    full.state = nn::State::kFloat;
    EXPECT_TRUE(((y - nn::Run(full, ctx, x)).abs() <= bound).all().item<bool>()) << running.name;
  }
};

class StageCodesOf : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    auto opened = OpenModelFolder(fs::path("golden/pipelines") / GetParam());
    ASSERT_TRUE(opened.ok()) << opened.status();
    folder_ = *std::move(opened);
  }
  void TearDown() override { fs::remove_all(root_); }

  // Puts the codes into the network's slots and packs them, `check` keeps what they were.
  static void UseCodes(Network& network, const nn::TensorMap& tensors, LayerCheck& check) {
    const nn::TensorFinder find = [&](const std::string& name) -> Result<at::Tensor> {
      const auto it = tensors.find(name);
      if (it == tensors.end()) return NotFound(name);
      return it->second;
    };
    for (nn::Slot& slot : network.slots()) {
      if (!tensors.contains(slot.name + ".weight.codes")) continue;
      EXPECT_FALSE(tensors.contains(slot.name + ".weight")) << slot.name;
      slot.weight_bits = slot.activation_bits = 8;
      slot.dynamic = true;
      const Status read = nn::ImportWeights(slot, find);
      ASSERT_TRUE(read.ok()) << read;
      check.coded[slot.name] = slot;
      nn::Pack(slot);
    }
  }

  // The parts as an artifact holds them.
  void Write() {
    for (const std::string& name : StageFiles(folder_)) {
      fs::create_directories((root_ / name).parent_path());
      fs::copy_file(folder_.path / name, root_ / name);
    }
    for (const ModelPart& part : folder_.stages) {
      if (!part.has_layers()) continue;
      const auto tensors = StageCodes(part);
      ASSERT_TRUE(tensors.ok()) << tensors.status();
      WritePart(part, *tensors);
    }
  }
  void WritePart(const ModelPart& part, const nn::TensorMap& tensors) {
    std::vector<TensorOut> out;
    for (const auto& [name, tensor] : tensors) out.push_back(nn::ToTensorOut(name, tensor));
    const fs::path file = root_ / part.name / (part.stem + ".safetensors");
    const Status written = WriteFileAtomic(file, SafetensorsBytes(std::move(out)), "part");
    ASSERT_TRUE(written.ok()) << written;
  }
  Result<std::unique_ptr<Stages>> Open(const fs::path& path, int bits) const {
    nn::Params params(folder_.network.weights, at::kCPU);
    TEMPERA_ASSIGN(const auto network, BuildDenoiser(folder_.network.config, folder_.network.label, params));
    TEMPERA_ASSIGN(const ModelFolder parts, OpenStages(path, folder_.index));
    return Stages::Open(parts, network->info(), bits);
  }

  ModelFolder folder_;
  const fs::path root_ = fs::path(::testing::TempDir()) / Cat("stage-codes-", ::getpid());
};

TEST_P(StageCodesOf, EachLayerStaysWithinItsBound) {
  const at::NoGradGuard guard;
  at::manual_seed(1);
  for (const ModelPart& part : folder_.stages) {
    if (!part.has_layers()) continue;
    SCOPED_TRACE(part.name);
    const auto tensors = StageCodes(part);
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    nn::Params params(part.weights, at::kCPU);
    LayerCheck check;
    nn::ForwardContext ctx;
    ctx.listener = &check;
    if (part.is_first_stage()) {
      auto network = BuildAutoencoder(part.config, part.label, params);
      ASSERT_TRUE(network.ok()) << network.status();
      UseCodes(**network, *tensors, check);
      const AutoencoderInfo& info = (*network)->info();
      const int64_t side = 8 * info.factor;
      (*network)->Decode(ctx, at::randn({2, info.latent_channels, 8, 8}));
      (*network)->Encode(ctx, at::rand({2, info.input_channels, side, side}) * 2 - 1);
    } else {
      auto network = BuildTextEncoder(part.config, part.label, params);
      ASSERT_TRUE(network.ok()) << network.status();
      UseCodes(**network, *tensors, check);
      const TextEncoderInfo& info = (*network)->info();
      const at::Tensor ids = at::arange(2 * info.positions) * 37 % info.vocabulary;
      ASSERT_TRUE((*network)->Encode(ctx, ids.view({2, info.positions})).ok());
    }
    // Every layer with codes ran, none twice.
    EXPECT_GT(check.checked, 0);
    EXPECT_EQ(check.checked, static_cast<int64_t>(check.coded.size()));
    for (const char* name : {"encoder.conv_in", "decoder.conv_in", "encoder.conv_out", "decoder.conv_out",
                             "quant_conv", "post_quant_conv"})
      EXPECT_FALSE(check.coded.contains(name)) << name;
  }
}

TEST_P(StageCodesOf, AFolderWithCodesOpens) {
  const at::NoGradGuard guard;
  at::manual_seed(2);
  Write();
  const auto exact = Open(folder_.path, 32), packed = Open(root_, 8);
  ASSERT_TRUE(exact.ok()) << exact.status();
  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_LT((*packed)->bytes(), (*exact)->bytes());
  const auto near = [](const at::Tensor& got, const at::Tensor& want) {
    const double ratio = ((got - want).norm() / want.norm()).item<double>();
    EXPECT_GT(ratio, 0);
    EXPECT_LT(ratio, 0.1);  // a few layers, each off by about a hundredth
  };
  const at::Tensor latent = at::randn({1, (*exact)->latent_channels(), 8, 8});
  near((*packed)->Decode(latent), (*exact)->Decode(latent));
  if ((*exact)->takes_prompt()) {
    const auto want = (*exact)->HiddenStates("a cat on a bench"),
               got = (*packed)->HiddenStates("a cat on a bench");
    ASSERT_TRUE(want.ok()) << want.status();
    ASSERT_TRUE(got.ok()) << got.status();
    for (const auto& [name, hidden] : *want) near(got->at(name), hidden);
  }
  // A folder in float opens either way; codes where none are expected do not.
  EXPECT_TRUE(Open(folder_.path, 8).ok());
  const auto refused = Open(root_, 32);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(refused.status()), HasSubstr(".weight: is missing"));
}

TEST_P(StageCodesOf, WrongCodesAreNamed) {
  Write();
  const ModelPart* part = nullptr;
  for (const ModelPart& stage : folder_.stages)
    if (stage.has_layers()) part = &stage;
  ASSERT_NE(part, nullptr);
  const auto sound = StageCodes(*part);
  ASSERT_TRUE(sound.ok()) << sound.status();
  std::string codes, layer;
  for (const auto& [name, tensor] : *sound)
    if (name.ends_with(".weight.codes")) codes = name, layer = name.substr(0, name.size() - 13);
  const auto expect = [&](const char* what, const std::function<void(nn::TensorMap&)>& change) {
    nn::TensorMap tensors = *sound;
    change(tensors);
    WritePart(*part, tensors);
    const auto opened = Open(root_, 8);
    EXPECT_THAT(Message(opened.status()), HasSubstr(what));
    EXPECT_THAT(Message(opened.status()), HasSubstr(part->name));
  };
  const std::string scale = layer + ".weight.scale", zero = layer + ".weight.zero";
  expect("other", [](nn::TensorMap& t) { t["other.weight.codes"] = at::zeros({1, 1}, at::kByte); });
  expect("wrong type or shape", [&](nn::TensorMap& t) { t[codes] = at::zeros({1, 1}, at::kByte); });
  expect("wrong type or shape", [&](nn::TensorMap& t) { t[codes] = t[codes].to(at::kFloat); });
  expect(scale.c_str(), [&](nn::TensorMap& t) { t.erase(scale); });
  expect(zero.c_str(), [&](nn::TensorMap& t) { t.erase(zero); });
  expect("not finite", [&](nn::TensorMap& t) { t[scale] = t[scale] / 0.0; });
  expect("no such parameter", [&](nn::TensorMap& t) { t[layer + ".weight"] = at::zeros({1}); });
}

INSTANTIATE_TEST_SUITE_P(Pipelines, StageCodesOf, ::testing::Values("sd1", "sdxl", "ldm_vq", "ldm_class"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tempera
