#include "zoo/emoji_model.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "models/autoencoder.h"
#include "nn/params.h"

namespace tempera::zoo {
namespace {

namespace fs = std::filesystem;

// The trainer moves a scale of the latent into the weights: the same pictures, other latents.
TEST(EmojiModelTest, AutoencoderIsRescaledExactly) {
  at::set_num_threads(1);
  const at::NoGradGuard guard;
  const fs::path root = fs::temp_directory_path() / ("tempera-emoji-" + std::to_string(::getpid()));
  fs::create_directories(root);
  nn::Params fresh(5, at::kCPU);
  std::map<std::string, at::Tensor> weights;
  ASSERT_TRUE(BuildAutoencoder(EmojiAutoencoderConfig(), "vae/config.json", fresh).ok());
  // f16 holds these and what scaling makes of them: only the logarithms are rounded.
  for (const auto& [name, p] : fresh.taken()) weights[name] = p.detach().to(at::kHalf).to(at::kFloat);
  for (const char* name : {"quant_conv.bias", "post_quant_conv.bias"}) weights[name].zero_();
  weights["post_quant_conv.weight"].mul_(64).round_().div_(64);
  const at::Tensor mean = at::tensor({0.5, -1.0, 0.0, 2.0}, at::kFloat),
                   std = at::tensor({1.0, 2.0, 0.5, 4.0}, at::kFloat);
  const auto open = [&](const at::Tensor& m, const at::Tensor& s) -> std::unique_ptr<Autoencoder> {
    EXPECT_TRUE(WriteAutoencoder(root, weights, m, s).ok());
    auto source = WeightSource::Open(root / "vae", "diffusion_pytorch_model", "vae");
    EXPECT_TRUE(source.ok()) << source.status();
    nn::Params params(*source, at::kCPU);
    return *BuildAutoencoder(EmojiAutoencoderConfig(), "vae/config.json", params);
  };
  const auto plain = open(at::zeros({4}), at::ones({4}));
  const auto scaled = open(mean, std);
  fs::remove_all(root);

  const at::Tensor x = at::rand({2, 3, 64, 64}) * 2 - 1;
  nn::ForwardContext ctx;
  const Gaussian a = plain->Encode(ctx, x), b = scaled->Encode(ctx, x);
  const auto by_channel = [](const at::Tensor& t) { return t.view({1, 4, 1, 1}); };
  constexpr double kRounding = 1e-5;  // of f32 sums of a few terms around 1, with room
  EXPECT_LT(((a.mean - by_channel(mean)) / by_channel(std) - b.mean).abs().max().item<double>(), kRounding);
  EXPECT_LT((a.logvar - 2 * by_channel(std).log() - b.logvar).abs().max().item<double>(),
            1.0 / 1024);  // f16 at 2
  // Twenty layers of such sums.
  EXPECT_LT((plain->Decode(ctx, a.mean) - scaled->Decode(ctx, b.mean)).abs().max().item<double>(),
            20 * kRounding);
}

}  // namespace
}  // namespace tempera::zoo
