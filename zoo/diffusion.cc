#include "zoo/diffusion.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace tempera::zoo {

Json VelocityScheduler(bool clip) {
  return {{"_class_name", "DDIMScheduler"},
          {"_diffusers_version", "0.42.1"},
          {"beta_end", 0.02},
          {"beta_schedule", "squaredcos_cap_v2"},
          {"beta_start", 0.0001},
          {"clip_sample", clip},
          {"clip_sample_range", 1.0},
          {"dynamic_thresholding_ratio", 0.995},
          {"num_train_timesteps", kTrainSteps},
          {"prediction_type", "v_prediction"},
          {"rescale_betas_zero_snr", false},
          {"sample_max_value", 1.0},
          {"set_alpha_to_one", true},
          {"steps_offset", 0},
          {"thresholding", false},
          {"timestep_spacing", "trailing"},
          {"trained_betas", nullptr}};
}

at::Tensor CosineAlphas() {
  const double n = kTrainSteps;
  const auto bar = [](double t) { return std::pow(std::cos((t + 0.008) / 1.008 * M_PI / 2), 2); };
  std::vector<float> alphas;
  double product = 1;
  for (int64_t i = 0; i < kTrainSteps; ++i) {
    const double at = static_cast<double>(i);
    product *= 1 - std::min(1 - bar((at + 1) / n) / bar(at / n), 0.999);
    alphas.push_back(static_cast<float>(product));
  }
  return at::tensor(alphas);
}

at::Tensor VelocityLoss(
    const at::Tensor& x0, const at::Tensor& alphas, at::Generator& generator,
    const std::function<at::Tensor(const at::Tensor& x, const at::Tensor& timestep)>& network) {
  const int64_t rows = x0.size(0);
  const at::Tensor t = ((at::arange(rows, at::kFloat) + at::rand({rows}, generator)) *
                        (static_cast<double>(kTrainSteps) / static_cast<double>(rows)))
                           .to(at::kLong)
                           .clamp(0, kTrainSteps - 1);
  const at::Tensor noise = at::randn(x0.sizes(), generator);
  const at::Tensor a = alphas.index_select(0, t).view({-1, 1, 1, 1});
  const at::Tensor v = network(a.sqrt() * x0 + (1 - a).sqrt() * noise, t.to(at::kFloat));
  return (v - (a.sqrt() * noise - (1 - a).sqrt() * x0)).square().mean();
}

at::Generator ShardGenerator(uint64_t seed, int64_t step, int64_t shards, int shard) {
  return at::detail::createCPUGenerator(seed * 1000003 + static_cast<uint64_t>(step * shards + shard));
}

}  // namespace tempera::zoo
