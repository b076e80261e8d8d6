// What an artifact is worth: pictures against full precision at equal seeds, temporal features, layers,
// bytes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "pipeline/engine.h"
#include "pipeline/feature_network.h"
#include "quant/quantizer.h"
#include "report/evaluation.h"
#include "report/measurements.h"

namespace tempera {

inline constexpr int64_t kKeptLatents = 4;

// The pictures of an evaluation: pair i is seed i, class i modulo classes.
struct PaintedPairs {
  std::vector<PicturePair> pairs;
  std::vector<Picture> pictures;
  std::vector<std::vector<float>> latents;  // [C, h, w], of the first pictures, at most kKeptLatents
  std::vector<double> step_milliseconds;    // of every step painted
};
using CountProgress = std::function<void(int64_t done, int64_t total)>;
Result<PaintedPairs> PaintPairs(const CallScope& scope, const Engine& engine, const QuantSpec& spec,
                                int64_t count, Lanes& lanes, const CountProgress& progress);

// Per-step errors by block group, and whether time is mistaken.
TemporalErrors MeasureTemporal(const Denoiser& network, const std::vector<std::string>& groups,
                               const FeatureTable& exact, const FeatureTable& used);

// One method's figures. `features` may be null; `why_none` says why then.
Result<MethodResult> ScoreMethod(const CallScope& scope, const QuantSpec& spec, TemporalErrors temporal,
                                 const PaintedPairs& full, const PaintedPairs& painted,
                                 const FeatureExtractor* features, const std::string& why_none, Lanes& lanes);

// Distance and accuracy of a set of pictures.
struct FeatureScores {
  Score distance, accuracy;
};
Result<FeatureScores> ScoreFeatures(const CallScope& scope, const PaintedPairs& painted,
                                    const FeatureExtractor* features, const std::string& why_none,
                                    Lanes& lanes);

// Pictures of the first pairs, at most ten, as PNG files under folder/pictures: full precision, each method,
// and the amplified difference.
Result<SampleFacts> WriteSamples(const std::filesystem::path& folder, const PaintedPairs& full,
                                 const std::vector<std::pair<std::string, const PaintedPairs*>>& methods);

// Bytes by kind of tensor, from the names that slot_io and features_io give.
ByteFacts CountBytes(const Denoiser& network, const nn::TensorMap& weights, const nn::TensorMap& tables,
                     const nn::TensorMap& reference);

// Processor, memory and the rest of measurements.machine.
MachineFacts DescribeMachine(int64_t threads);

double Median(std::vector<double> values);

}  // namespace tempera
