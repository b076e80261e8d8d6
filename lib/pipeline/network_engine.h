// An engine over one network and the stages around it: what loading fills, resolving reads and generating
// runs.
#pragma once

#include <atomic>

#include "models/family.h"
#include "nn/large_blocks.h"
#include "pipeline/engine.h"
#include "schedulers/scheduler.h"
#include "stages/stages.h"
#include "tib/features.h"

namespace tempera {

class NetworkEngine final : public Engine {
 public:
  nn::FreedMemoryRelease after_all_others_;  // members go in the opposite order
  EngineInfo info_;
  std::unique_ptr<Denoiser> network_;
  std::unique_ptr<Stages> stages_;
  Json scheduler_config_;
  // What an artifact was calibrated on, with the cache of its features and, where the metric is on, the exact
  // ones.
  std::shared_ptr<const Scheduler> schedule_;
  Json scheduler_options_;
  FeatureCache cache_;
  std::optional<FeatureTable> reference_;
  // Where time depends on the prompt, and at other timesteps, both are made for each request, from the layers
  // and from these.
  bool features_of_request_ = false;
  int temporal_bits_ = 0;
  double features_guidance_ = 0;  // scale that the features hold, where they depend on it; else 0
  at::Tensor of_tau_;  // [K, E] where only what the prompt changes of time is made for each request
  bool metric_ = false;
  std::unique_ptr<Denoiser> reference_layers_;  // full-precision time layers, where the artifact has them
  std::vector<std::string> group_of_feature_;
  mutable std::atomic<int64_t> temporal_macs_{0};

  const EngineInfo& info() const override { return info_; }
  Result<ResolvedGeneration> Resolve(const GenerationRequest& request) const override;
  Result<GenerationResult> Generate(const CallScope& scope, const ResolvedGeneration& request,
                                    const GenerationEvents& events) const override;
  bool CorruptCacheForTest(int64_t entry) const override;
  int64_t TemporalMultiplications() const override { return temporal_macs_; }

 private:
  // The temporal features of one request.
  struct Features {
    const FeatureCache* cache;
    const FeatureTable* reference;               // null: no metric
    std::vector<int64_t> condition = {};         // column in both of each row
    std::vector<StepPlace> places = {};          // of timesteps that are not the calibrated ones; else empty
    std::optional<FeatureCache> own_cache = {};  // where it is not the artifact's
    std::optional<FeatureTable> own_reference = {};
  };
  Result<Features> FeaturesFor(const CallScope& scope, const ResolvedGeneration& request,
                               const Conditions& conditions) const;
  // How a run begins: its sample, and what the picture that it changes is held to.
  struct Begin {
    at::Tensor x;
    at::Tensor image, noise;  // latent of the picture and the noise on it; undefined: there is no picture
    at::Tensor mask;          // [1, 1, h, w], 1 where it is painted anew; undefined: everywhere
    at::Tensor beside;        // what a network for inpainting sees beside the sample; else undefined
  };
  Begin BeginWith(const ResolvedGeneration& request, NoiseSource& noise) const;
  Status ResolveSchedule(const GenerationRequest& request, ResolvedGeneration& r) const;
  Status ResolveWish(const GenerationRequest& request, Wish& wish) const;
  Status ResolveImage(const GenerationRequest& request, ResolvedGeneration& r) const;
  std::vector<FeatureError> StepErrors(const ServingSource& source, double timestep, int64_t train,
                                       double* total) const;
};

}  // namespace tempera
