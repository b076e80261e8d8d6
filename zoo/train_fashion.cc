// Trains zoo/fashion: a class-conditional UNet2DModel on Fashion-MNIST at 32x32, saved as a diffusers folder.
//   train-fashion --out zoo/fashion --state FILE [--steps N] [--batch B] [--threads N] [--seed S] [--data
//   FOLDER]
// Stops after N steps in all; called again it goes on from the state file.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cstdio>

#include "base/files.h"
#include "base/json.h"
#include "models/family.h"
#include "zoo/dataset.h"
#include "zoo/diffusion.h"
#include "zoo/trainer.h"

namespace tempera::zoo {
namespace {

constexpr int kShards = 2;
constexpr const char* kLabels[] = {"T-shirt/top", "trouser", "pullover", "dress", "coat",
                                   "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};

Json NetworkConfig() {
  return {{"_class_name", "UNet2DModel"},
          {"_diffusers_version", "0.42.1"},
          {"act_fn", "silu"},
          {"add_attention", true},
          {"attention_head_dim", 32},
          {"attn_norm_num_groups", nullptr},
          {"block_out_channels", {32, 64, 96}},
          {"center_input_sample", false},
          {"class_embed_type", nullptr},
          {"down_block_types", {"DownBlock2D", "DownBlock2D", "AttnDownBlock2D"}},
          {"downsample_padding", 1},
          {"downsample_type", "conv"},
          {"dropout", 0.0},
          {"flip_sin_to_cos", true},
          {"freq_shift", 0},
          {"in_channels", 1},
          {"layers_per_block", 1},
          {"mid_block_scale_factor", 1},
          {"mid_block_type", "UNetMidBlock2D"},
          {"norm_eps", 1e-5},
          {"norm_num_groups", 8},
          {"num_class_embeds", 10},
          {"num_train_timesteps", nullptr},
          {"out_channels", 1},
          {"resnet_time_scale_shift", "default"},
          {"sample_size", 32},
          {"time_embedding_dim", nullptr},
          {"time_embedding_type", "positional"},
          {"up_block_types", {"AttnUpBlock2D", "UpBlock2D", "UpBlock2D"}},
          {"upsample_type", "conv"}};
}

Status WriteFolder(const std::filesystem::path& out, const std::map<std::string, at::Tensor>& weights) {
  TEMPERA_TRY(MakeFolders(out / "unet", "out"));
  TEMPERA_TRY(MakeFolders(out / "scheduler", "out"));
  const Json index{{"_class_name", "DDIMPipeline"},
                   {"_diffusers_version", "0.42.1"},
                   {"scheduler", {"diffusers", "DDIMScheduler"}},
                   {"unet", {"diffusers", "UNet2DModel"}}};
  TEMPERA_TRY(WriteFileAtomic(out / "model_index.json", index.dump(2) + "\n", "model_index.json"));
  TEMPERA_TRY(WriteFileAtomic(out / "labels.json", Json(kLabels).dump(2) + "\n", "labels.json"));
  TEMPERA_TRY(WriteFileAtomic(out / "unet/config.json", NetworkConfig().dump(2) + "\n", "config.json"));
  TEMPERA_TRY(WriteFileAtomic(out / "scheduler/scheduler_config.json",
                              VelocityScheduler(/*clip=*/true).dump(2) + "\n", "scheduler_config.json"));
  return SaveTensors(out / "unet/diffusion_pytorch_model.safetensors", weights);
}

struct Options {
  std::filesystem::path out, state, data = "/usr/share/datasets/fashion-mnist";
  int64_t steps = 6000, batch = 64, threads = 2;
  uint64_t seed = 1;
};

Status Train(const Options& o) {
  TEMPERA_ASSIGN(const Dataset data, LoadFashion(o.data, "train"));
  nn::Params params(o.seed, at::kCPU);
  TEMPERA_ASSIGN(const std::unique_ptr<Denoiser> network,
                 BuildDenoiser(NetworkConfig(), "config.json", params));
  int64_t count = 0;
  for (const auto& [name, p] : params.taken()) count += p.numel();
  std::printf("%lld parameters, %.2f MB as f32\n", static_cast<long long>(count),
              static_cast<double>(count) * 4e-6);

  Lanes lanes(static_cast<int>(o.threads), [] { at::set_num_threads(1); });
  Trainer trainer(params.taken(), {.learning_rate = 2e-3, .total_steps = o.steps, .shards = kShards}, lanes);
  const at::Tensor alphas = CosineAlphas();
  const auto loss = [&](int64_t step, int shard) {
    at::Generator generator = ShardGenerator(o.seed, step, kShards, shard);
    const at::Tensor pick = at::randint(data.pictures.size(0), {o.batch / kShards}, generator, at::kLong);
    return VelocityLoss(data.pictures.index_select(0, pick), alphas, generator,
                        [&](const at::Tensor& x, const at::Tensor& timestep) {
                          nn::ForwardContext ctx;
                          ctx.timestep = timestep;
                          ctx.on.label = data.labels.index_select(0, pick);
                          return network->Forward(ctx, x);
                        });
  };
  return Run(trainer, {.state = o.state, .batch = o.batch, .save_seconds = 240, .loss = loss, .publish = [&] {
                         return WriteFolder(o.out, trainer.ema());
                       }});
}

}  // namespace
}  // namespace tempera::zoo

int main(int argc, char** argv) {
  tempera::zoo::Options o;
  const std::map<std::string, std::function<void(const char*)>> flags{
      {"--out", [&](const char* v) { o.out = v; }},
      {"--state", [&](const char* v) { o.state = v; }},
      {"--data", [&](const char* v) { o.data = v; }},
      {"--steps", [&](const char* v) { o.steps = std::atoll(v); }},
      {"--batch", [&](const char* v) { o.batch = std::atoll(v); }},
      {"--threads", [&](const char* v) { o.threads = std::atoll(v); }},
      {"--seed", [&](const char* v) { o.seed = std::strtoull(v, nullptr, 10); }},
  };
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto it = flags.find(argv[i]);
    if (it == flags.end()) {
      std::fprintf(stderr, "train-fashion: unknown flag %s\n", argv[i]);
      return 1;
    }
    it->second(argv[i + 1]);
  }
  if (o.out.empty() || o.state.empty() || o.batch < 2 || o.threads < 1) {
    std::fprintf(
        stderr,
        "usage: train-fashion --out FOLDER --state FILE [--steps N] [--batch B] [--threads N] [--seed S]\n");
    return 1;
  }
  at::set_num_threads(1);
  const tempera::Status status = tempera::zoo::Train(o);
  if (!status.ok()) std::fprintf(stderr, "train-fashion: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
