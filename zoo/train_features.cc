// Trains zoo/fashion/feature_network: a small classifier whose features give FD-fashion, and class accuracy.
//   train-features --out zoo/fashion/feature_network [--steps N] [--threads N] [--seed S] [--data FOLDER]
// Format: lib/pipeline/feature_network.h. Prints the accuracy on the test split.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "base/json.h"
#include "nn/params.h"
#include "zoo/dataset.h"
#include "zoo/trainer.h"

namespace tempera::zoo {
namespace {

constexpr int64_t kChannels[] = {16, 32, 64}, kFeatures = 32, kClasses = 10;

using Weights = std::map<std::string, at::Tensor>;

Weights Fresh(uint64_t seed) {
  nn::Params params(seed, at::kCPU);
  int64_t before = 1;
  const auto take = [&](const std::string& name, Shape shape, int64_t fan_in) {
    (void)params.Take(name + ".weight", shape, nn::Params::Init::kUniform, fan_in);
    (void)params.Take(name + ".bias", {shape[0]}, nn::Params::Init::kUniform, fan_in);
  };
  for (int l = 0; l < 3; ++l) {
    take(Cat("conv", l + 1), {kChannels[l], before, 3, 3}, before * 9);
    before = kChannels[l];
  }
  take("features", {kFeatures, before}, before);
  take("classes", {kClasses, kFeatures}, kFeatures);
  return params.taken();
}

at::Tensor Features(const Weights& w, at::Tensor x) {
  for (int l = 1; l <= 3; ++l) {
    x = at::relu(at::conv2d(x, w.at(Cat("conv", l, ".weight")), w.at(Cat("conv", l, ".bias")), 1, 1));
    if (l < 3) x = at::max_pool2d(x, 2);
  }
  return at::relu(at::linear(x.mean({2, 3}), w.at("features.weight"), w.at("features.bias")));
}

at::Tensor Logits(const Weights& w, const at::Tensor& features) {
  return at::linear(features, w.at("classes.weight"), w.at("classes.bias"));
}

Status Train(const std::filesystem::path& out, const std::filesystem::path& data_folder, int64_t steps,
             int threads, uint64_t seed) {
  TEMPERA_ASSIGN(const Dataset train, LoadFashion(data_folder, "train"));
  TEMPERA_ASSIGN(const Dataset test, LoadFashion(data_folder, "t10k"));
  Lanes lanes(threads, [] { at::set_num_threads(1); });
  Trainer trainer(Fresh(seed),
                  {.learning_rate = 3e-3, .warmup_steps = 50, .total_steps = steps, .ema_decay = 0.995},
                  lanes);
  constexpr int64_t kRows = 64;
  while (trainer.step() < steps) {
    const int64_t step = trainer.step();
    const auto loss = [&](int shard) {
      at::Generator generator =
          at::detail::createCPUGenerator(seed * 1000003 + static_cast<uint64_t>(step * 2 + shard));
      const at::Tensor pick = at::randint(train.pictures.size(0), {kRows}, generator, at::kLong);
      const at::Tensor x = train.pictures.index_select(0, pick);
      return at::cross_entropy_loss(Logits(trainer.parameters(), Features(trainer.parameters(), x)),
                                    train.labels.index_select(0, pick));
    };
    TEMPERA_ASSIGN(const double value, trainer.Step(loss));
    if (trainer.step() % 100 == 0) {
      std::printf("step %lld of %lld  loss %.4f\n", static_cast<long long>(trainer.step()),
                  static_cast<long long>(steps), value);
      std::fflush(stdout);
    }
  }
  const at::NoGradGuard guard;
  Weights weights = trainer.ema();
  std::vector<at::Tensor> features;
  for (int64_t i = 0; i < test.pictures.size(0); i += 500)
    features.push_back(Features(weights, test.pictures.narrow(0, i, 500)));
  const at::Tensor all = at::cat(features);
  const double accuracy =
      Logits(weights, all).argmax(1).eq(test.labels).to(at::kDouble).mean().item<double>();
  std::printf("accuracy on %lld test pictures: %.4f\n", static_cast<long long>(all.size(0)), accuracy);
  const at::Tensor wide = all.to(at::kDouble), mean = wide.mean(0, true), centred = wide - mean;
  weights["real.mean"] = mean.view({-1}).to(at::kFloat);
  weights["real.covariance"] =
      (at::matmul(centred.t(), centred) / (static_cast<double>(all.size(0)) - 1)).to(at::kFloat);
  TEMPERA_TRY(MakeFolders(out, "out"));
  const Json config{{"_class_name", "TemperaFeatureNetwork"},
                    {"metric", "FD-fashion"},
                    {"in_channels", 1},
                    {"side", 32},
                    {"channels", kChannels},
                    {"features", kFeatures},
                    {"classes", kClasses},
                    {"real_pictures", all.size(0)}};
  TEMPERA_TRY(WriteFileAtomic(out / "config.json", config.dump(2) + "\n", "config.json"));
  return SaveTensors(out / "model.safetensors", weights);
}

}  // namespace
}  // namespace tempera::zoo

int main(int argc, char** argv) {
  std::filesystem::path out, data = "/usr/share/datasets/fashion-mnist";
  int64_t steps = 1500;
  int threads = 2;
  uint64_t seed = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--out")
      out = argv[i + 1];
    else if (flag == "--data")
      data = argv[i + 1];
    else if (flag == "--steps")
      steps = std::atoll(argv[i + 1]);
    else if (flag == "--threads")
      threads = std::atoi(argv[i + 1]);
    else if (flag == "--seed")
      seed = std::strtoull(argv[i + 1], nullptr, 10);
    else
      out.clear(), i = argc;
  }
  if (out.empty() || threads < 1) {
    std::fprintf(stderr,
                 "usage: train-features --out FOLDER [--steps N] [--threads N] [--seed S] [--data FOLDER]\n");
    return 1;
  }
  at::set_num_threads(1);
  const tempera::Status status = tempera::zoo::Train(out, data, steps, threads, seed);
  if (!status.ok()) std::fprintf(stderr, "train-features: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
