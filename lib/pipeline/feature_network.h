// The feature network that a model's folder may ship: features for a Frechet distance, and a class for a
// picture.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "base/status.h"
#include "pipeline/engine.h"

namespace tempera {

// `<model>/feature_network/`: config.json ("_class_name": "TemperaFeatureNetwork", "metric", "in_channels",
// "side", "channels" [c1, c2, c3], "features" D, "classes", "real_pictures") and model.safetensors with
//   conv1..3.weight [c, c_before, 3, 3] and .bias, each followed by ReLU and (1, 2) a 2x2 max pool; the mean
//   over places; features.weight [D, c3] and .bias, ReLU: the feature; classes.weight [classes, D] and .bias;
//   real.mean [D] and real.covariance [D, D]: of the features of real_pictures real pictures.
// Immutable, thread-safe.
class FeatureExtractor {
 public:
  // Null if the folder ships none. Errors name the file.
  static Result<std::shared_ptr<const FeatureExtractor>> Open(const std::filesystem::path& model_folder);
  virtual ~FeatureExtractor() = default;

  struct Info {
    std::string metric;     // "FD-fashion"
    int64_t dimension = 0;  // D
    int64_t classes = 0;
    int64_t real_pictures = 0;
    std::vector<float> real_mean, real_covariance;  // [D], [D, D]
  };
  virtual const Info& info() const = 0;
  struct Output {
    std::vector<float> features;     // [n, D]
    std::vector<int64_t> predicted;  // [n]
  };
  // InvalidArgument if a picture has not the network's side and channels.
  virtual Result<Output> Run(const CallScope& scope, std::span<const Picture> pictures,
                             Lanes& lanes) const = 0;
};

}  // namespace tempera
