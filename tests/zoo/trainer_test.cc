// The trainer's promises: an interrupted run is the run that was never interrupted, whatever the threads.
#include "zoo/trainer.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "nn/params.h"
#include "zoo/diffusion.h"

namespace tempera::zoo {
namespace {

namespace fs = std::filesystem;

class TrainerTest : public testing::Test {
 protected:
  fs::path root = fs::temp_directory_path() / ("tempera-trainer-" + std::to_string(::getpid()));

  void SetUp() override {
    fs::remove_all(root);
    fs::create_directories(root);
  }
  void TearDown() override { fs::remove_all(root); }

  // Fits a matrix to noisy products in 70 steps, with a checkpoint after each; fails after step `stop`, as a
  // full disk would make it. Returns the average of the weights.
  Result<at::Tensor> Fit(const std::string& state, int threads, int64_t stop = 0) {
    nn::Params params(7, at::kCPU);
    const at::Tensor w = params.Take("w", {6, 4}, nn::Params::Init::kUniform, 4);
    Lanes lanes(threads, [] {});
    Trainer trainer(params.taken(),
                    {.learning_rate = 0.05, .decay_part = 0.5, .warmup_steps = 5, .total_steps = 70}, lanes);
    const auto loss = [&](int64_t step, int shard) {
      at::Generator generator = ShardGenerator(3, step, 2, shard);
      const at::Tensor x = at::randn({8, 6}, generator);
      return (at::mm(x, w) - 2 * x.narrow(1, 0, 4) - 0.1 * at::randn({8, 4}, generator)).square().mean();
    };
    const auto publish = [&]() -> Status {
      return trainer.step() == stop ? Unavailable("stopped") : OkStatus();
    };
    TEMPERA_TRY(zoo::Run(
        trainer, {.state = root / state, .batch = 16, .save_seconds = 0, .loss = loss, .publish = publish}));
    EXPECT_EQ(trainer.step(), 70);
    return trainer.ema().at("w").clone();
  }
};

TEST_F(TrainerTest, GoesOnAsIfNeverStopped) {
  const auto whole = Fit("whole", 2);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(Message(Fit("parts", 1, 27).status()), "stopped");
  const auto parts = Fit("parts", 1);
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_TRUE(at::equal(*whole, *parts)) << *whole - *parts;
  // And it learns: from 2 away to a fraction.
  EXPECT_LT((*whole - 2 * at::eye(6).narrow(1, 0, 4)).abs().max().item<double>(), 0.5);
}

TEST_F(TrainerTest, RefusesAnotherModelsState) {
  ASSERT_TRUE(SaveTensors(root / "other", {{"parameter/w", at::zeros({2, 2})}}).ok());
  const auto fit = Fit("other", 10, 1);
  EXPECT_EQ(Message(fit.status()), "other: tensor parameter/w: wrong shape");
}

}  // namespace
}  // namespace tempera::zoo
