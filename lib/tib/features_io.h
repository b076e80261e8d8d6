// The feature cache and the reference features as named tensors.
//
//   cache.<slot>.codes  U8 [R, C, N] (two codes a byte at <= 4 bits), F16 [R, C, N] at 32 bits
//   cache.<slot>.scale  F32 [R, C]      cache.<slot>.zero  U8 [R, C]
//   select.<slot>       U8 [K]: 1 where step k is cached (R = how many), 0 where the layers run
//   reference.<slot>    F16 [K, C, N]: full-precision features; or, where that is smaller, the parameters of
//   the time
//                       path as F16 under their state-dict names, from which the features are computed on
//                       load
#pragma once

#include "nn/slot_io.h"
#include "tib/features.h"

namespace tempera {

void ExportCache(const FeatureCache& cache, const Denoiser& network, nn::TensorMap& out);
// DataLoss names the tensor that is missing or does not fit.
Result<FeatureCache> ImportCache(const Denoiser& network, int bits, int64_t steps,
                                 const nn::TensorFinder& find);

// The layers where requests may need other features than `exact`, else the smaller of the two forms.
// `parameters`: TibTrace's. REQUIRES: the network's float parameters are there.
nn::TensorMap ExportReference(const Denoiser& network, const std::vector<std::string>& parameters,
                              const FeatureTable& exact, bool any_timestep);
// Which form a reference has.
bool HoldsFeatures(const WeightSource& source);
// The time layers of `source` in a network that has nothing else. `config` is the network's.
Result<std::unique_ptr<Denoiser>> BuildReferenceLayers(const Json& config, const Denoiser& network,
                                                       std::shared_ptr<const WeightSource> source);
// The features as the error metric compares them. `config` is the network's, to run the layers where those
// are stored.
Result<FeatureTable> ImportReference(const CallScope& scope, const Json& config, const Denoiser& network,
                                     const std::vector<double>& timesteps,
                                     std::shared_ptr<const WeightSource> source);

}  // namespace tempera
