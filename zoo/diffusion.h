// What training a denoiser needs beside the network: v-prediction on the cosine schedule, well conditioned at
// every timestep, the noisiest included.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "base/json.h"

namespace tempera::zoo {

inline constexpr int64_t kTrainSteps = 1000;

// scheduler_config.json of a DDIMScheduler with trailing spacing; `clip`: predictions of x0 are clipped to
// -1 .. 1.
Json VelocityScheduler(bool clip);

// Cumulative products of 1 - beta, [kTrainSteps], betas capped at 0.999. Source: arXiv 2102.09672.
at::Tensor CosineAlphas();

// x0 [B, ...] at random timesteps: the loss of what `network(x, timestep)` predicts, whose target is
// sqrt(a) noise - sqrt(1 - a) x0 (arXiv 2202.00512). Timesteps are drawn in strata: the loss varies less.
at::Tensor VelocityLoss(
    const at::Tensor& x0, const at::Tensor& alphas, at::Generator& generator,
    const std::function<at::Tensor(const at::Tensor& x, const at::Tensor& timestep)>& network);

// The random numbers of one shard of one step, from seed, step and shard alone.
at::Generator ShardGenerator(uint64_t seed, int64_t step, int64_t shards, int shard);

}  // namespace tempera::zoo
