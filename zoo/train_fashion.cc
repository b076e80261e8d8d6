// Trains zoo/fashion: a class-conditional UNet2DModel on Fashion-MNIST at 32x32, saved as a diffusers folder.
//   train-fashion --out zoo/fashion --state FILE [--steps N] [--batch B] [--threads N] [--seed S] [--data
//   FOLDER]
// Stops after N steps in all; called again it goes on from the state file.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "base/json.h"
#include "models/family.h"
#include "zoo/dataset.h"
#include "zoo/trainer.h"

namespace tempera::zoo {
namespace {

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

// v-prediction on a cosine schedule: well conditioned at every timestep, the noisiest included.
Json SchedulerConfig() {
  return {{"_class_name", "DDIMScheduler"},
          {"_diffusers_version", "0.42.1"},
          {"beta_end", 0.02},
          {"beta_schedule", "squaredcos_cap_v2"},
          {"beta_start", 0.0001},
          {"clip_sample", true},
          {"clip_sample_range", 1.0},
          {"dynamic_thresholding_ratio", 0.995},
          {"num_train_timesteps", 1000},
          {"prediction_type", "v_prediction"},
          {"rescale_betas_zero_snr", false},
          {"sample_max_value", 1.0},
          {"set_alpha_to_one", true},
          {"steps_offset", 0},
          {"thresholding", false},
          {"timestep_spacing", "trailing"},
          {"trained_betas", nullptr}};
}

// Cumulative products of 1 - beta for the cosine schedule with betas capped at 0.999 (Nichol and Dhariwal
// 2021).
at::Tensor CosineAlphas(int64_t steps) {
  const auto bar = [&](double t) { return std::pow(std::cos((t + 0.008) / 1.008 * M_PI / 2), 2); };
  std::vector<float> alphas;
  double product = 1;
  for (int64_t i = 0; i < steps; ++i) {
    const double n = static_cast<double>(steps);
    product *=
        1 - std::min(1 - bar((static_cast<double>(i) + 1) / n) / bar(static_cast<double>(i) / n), 0.999);
    alphas.push_back(static_cast<float>(product));
  }
  return at::tensor(alphas);
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
  TEMPERA_TRY(WriteFileAtomic(out / "scheduler/scheduler_config.json", SchedulerConfig().dump(2) + "\n",
                              "scheduler_config.json"));
  return SaveTensors(out / "unet/diffusion_pytorch_model.safetensors", weights);
}

struct Options {
  std::filesystem::path out, state, data = "/usr/share/datasets/fashion-mnist";
  int64_t steps = 6000, batch = 64, threads = 2, save_every = 250;
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
  Trainer trainer(params.taken(), {.learning_rate = 2e-3, .total_steps = o.steps}, lanes);
  std::vector<float> curve;
  if (const auto extra = trainer.Load(o.state); extra.ok()) {
    const at::Tensor saved = extra->at("curve");
    curve.assign(saved.const_data_ptr<float>(), saved.const_data_ptr<float>() + saved.numel());
    std::printf("going on from step %lld\n", static_cast<long long>(trainer.step()));
  } else if (!absl::IsNotFound(extra.status())) {
    return extra.status();
  }
  const at::Tensor alphas = CosineAlphas(1000);
  const int64_t shards = 2, rows = o.batch / shards;
  double window = 0;
  auto begin = std::chrono::steady_clock::now();
  while (trainer.step() < o.steps) {
    const int64_t step = trainer.step();
    const auto loss = [&](int shard) {
      // Every draw depends on seed, step and shard alone: a resumed run is the run that was never stopped.
      at::Generator generator =
          at::detail::createCPUGenerator(o.seed * 1000003 + static_cast<uint64_t>(step * shards + shard));
      const at::Tensor pick = at::randint(data.pictures.size(0), {rows}, generator, at::kLong);
      const at::Tensor x0 = data.pictures.index_select(0, pick);
      // Timesteps in strata: the loss of a batch varies less.
      const at::Tensor t = ((at::arange(rows, at::kFloat) + at::rand({rows}, generator)) *
                            (1000.0 / static_cast<double>(rows)))
                               .to(at::kLong)
                               .clamp(0, 999);
      const at::Tensor noise = at::randn(x0.sizes(), generator);
      const at::Tensor a = alphas.index_select(0, t).view({-1, 1, 1, 1});
      nn::ForwardContext ctx;
      ctx.timestep = t.to(at::kFloat);
      ctx.on.label = data.labels.index_select(0, pick);
      const at::Tensor v = network->Forward(ctx, a.sqrt() * x0 + (1 - a).sqrt() * noise);
      return (v - (a.sqrt() * noise - (1 - a).sqrt() * x0)).square().mean();
    };
    TEMPERA_ASSIGN(const double value, trainer.Step(loss));
    window += value;
    if (trainer.step() % 50 == 0) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      begin = std::chrono::steady_clock::now();
      curve.push_back(static_cast<float>(window / 50));
      std::printf("step %lld of %lld  loss %.4f  %.0f pictures/s\n", static_cast<long long>(trainer.step()),
                  static_cast<long long>(o.steps), window / 50,
                  50.0 * static_cast<double>(o.batch) / seconds);
      std::fflush(stdout);
      window = 0;
    }
    if (trainer.step() % o.save_every == 0 || trainer.step() == o.steps) {
      TEMPERA_TRY(trainer.Save(o.state, {{"curve", at::tensor(curve)}}));
      TEMPERA_TRY(WriteFolder(o.out, trainer.ema()));
    }
  }
  return OkStatus();
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
      {"--save-every", [&](const char* v) { o.save_every = std::atoll(v); }},
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
