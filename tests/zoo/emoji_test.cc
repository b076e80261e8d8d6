// zoo/emoji as it lies in the repository: it opens, paints, and what is painted follows from the request.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "pipeline/engine.h"

namespace tempera {
namespace {

const CallScope kScope;

GenerationResult Paint(const Engine& engine, const std::string& prompt, double guidance, uint64_t seed) {
  GenerationRequest request;
  request.prompt = prompt;
  request.guidance = guidance;
  request.seed = seed;
  request.steps = 6;
  const auto resolved = engine.Resolve(request);
  EXPECT_TRUE(resolved.ok()) << resolved.status();
  const auto result = engine.Generate(kScope, *resolved, {});
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

TEST(EmojiTest, PaintsWhatTheRequestSays) {
  InitComputeThread();
  const auto engine = Engine::LoadModel(kScope, "../zoo/emoji");
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->info().pipeline, "StableDiffusionPipeline");
  EXPECT_TRUE((*engine)->info().takes_prompt);

  const GenerationResult apple = Paint(**engine, "red apple, twemoji", 4, 1);
  EXPECT_EQ(apple.picture.width, 64);
  EXPECT_EQ(apple.picture.height, 64);
  EXPECT_EQ(apple.picture.channels, 3);
  // Emoji lie on white and are not white themselves.
  const auto& pixels = apple.picture.pixels;
  const auto white = std::count_if(pixels.begin(), pixels.end(), [](uint8_t p) { return p > 230; });
  EXPECT_GT(white, static_cast<int64_t>(pixels.size()) / 10);
  EXPECT_LT(white, static_cast<int64_t>(pixels.size()) * 9 / 10);

  EXPECT_EQ(Paint(**engine, "red apple, twemoji", 4, 1).picture.pixels, pixels);
  std::set<std::string> latents{apple.latent_sha256};
  for (const auto& other :
       {Paint(**engine, "red apple, twemoji", 4, 2), Paint(**engine, "panda, twemoji", 4, 1),
        Paint(**engine, "red apple, fluent3d", 4, 1), Paint(**engine, "red apple, twemoji", 1, 1)})
    EXPECT_TRUE(latents.insert(other.latent_sha256).second);
}

}  // namespace
}  // namespace tempera
