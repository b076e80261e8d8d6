#include "pipeline/feature_network.h"

#include <ATen/Functions.h>

#include "base/files.h"
#include "base/json.h"
#include "nn/params.h"

namespace tempera {
namespace {

class ConvFeatureExtractor final : public FeatureExtractor {
 public:
  Info info_;
  int64_t in_channels = 0, side = 0;
  std::vector<at::Tensor> weights, biases;  // three convolutions, features, classes

  const Info& info() const override { return info_; }
  Result<Output> Run(const CallScope& scope, std::span<const Picture> pictures, Lanes& lanes) const override {
    const auto count = static_cast<int64_t>(pictures.size());
    Output out;
    out.features.resize(static_cast<size_t>(count * info_.dimension));
    out.predicted.resize(static_cast<size_t>(count));
    const Status ran = lanes.ParallelFor(count, [&](int64_t i) -> Status {
      TEMPERA_TRY(scope.Check());
      const Picture& p = pictures[static_cast<size_t>(i)];
      if (p.width != side || p.height != side || p.channels != in_channels)
        return InvalidArgument("feature network: got a picture of ", p.width, "x", p.height, " and ",
                               p.channels, " channels, want ", side, "x", side, " and ", in_channels);
      return nn::TorchEdge("feature network", [&]() -> Status {
        const at::NoGradGuard guard;
        at::Tensor x =
            at::from_blob(const_cast<uint8_t*>(p.pixels.data()), {1, side, side, in_channels}, at::kByte)
                .permute({0, 3, 1, 2})
                .to(at::kFloat)
                .div(127.5)
                .sub(1)
                .contiguous();
        for (size_t l = 0; l < 3; ++l) {
          x = at::relu(at::conv2d(x, weights[l], biases[l], 1, 1));
          if (l < 2) x = at::max_pool2d(x, 2);
        }
        const at::Tensor feature = at::relu(at::linear(x.mean({2, 3}), weights[3], biases[3]));
        const at::Tensor logits = at::linear(feature, weights[4], biases[4]);
        std::copy_n(feature.const_data_ptr<float>(), info_.dimension,
                    out.features.begin() + i * info_.dimension);
        out.predicted[static_cast<size_t>(i)] = logits.argmax(1).item<int64_t>();
        return OkStatus();
      });
    });
    TEMPERA_TRY(ran);
    return out;
  }
};

}  // namespace

Result<std::shared_ptr<const FeatureExtractor>> FeatureExtractor::Open(
    const std::filesystem::path& model_folder) {
  const std::filesystem::path folder = model_folder / "feature_network";
  if (!std::filesystem::exists(folder / "config.json")) return std::shared_ptr<const FeatureExtractor>();
  const std::string label = "feature_network/config.json";
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / "config.json", label, 1 << 20));
  TEMPERA_ASSIGN(const Json json, ParseJson(text, label));
  auto network = std::make_shared<ConvFeatureExtractor>();
  std::string class_name;
  std::vector<int64_t> channels;
  Fields f(json, label);
  f.Need("_class_name", class_name);
  f.Need("metric", network->info_.metric);
  f.Need("in_channels", network->in_channels);
  f.Need("side", network->side);
  f.Need("channels", channels);
  f.Need("features", network->info_.dimension);
  f.Need("classes", network->info_.classes);
  f.Need("real_pictures", network->info_.real_pictures);
  TEMPERA_TRY(f.Finish());
  if (class_name != "TemperaFeatureNetwork")
    return InvalidArgument(label, ": _class_name: got \"", class_name, "\", want TemperaFeatureNetwork");
  if (channels.size() != 3)
    return InvalidArgument(label, ": channels: got ", channels.size(), " entries, want 3");
  for (const int64_t n : {network->in_channels, network->side, channels[0], channels[1], channels[2],
                          network->info_.dimension, network->info_.classes})
    if (n < 1 || n > 4096)
      return InvalidArgument(label, ": a size is out of range, got ", n, ", want 1 to 4096");
  TEMPERA_ASSIGN(const auto source,
                 WeightSource::OpenFile(folder / "model.safetensors", "feature_network/model.safetensors"));
  nn::Params params(source, at::kCPU);
  int64_t before = network->in_channels;
  const auto take = [&](const std::string& name, const Shape& shape) {
    network->weights.push_back(params.Take(name + ".weight", shape));
    network->biases.push_back(params.Take(name + ".bias", {shape[0]}));
  };
  for (size_t l = 0; l < 3; ++l) {
    take(Cat("conv", l + 1), {channels[l], before, 3, 3});
    before = channels[l];
  }
  const int64_t d = network->info_.dimension;
  take("features", {d, before});
  take("classes", {network->info_.classes, d});
  const at::Tensor mean = params.Take("real.mean", {d}), covariance = params.Take("real.covariance", {d, d});
  TEMPERA_TRY(params.Finish());
  network->info_.real_mean.assign(mean.const_data_ptr<float>(), mean.const_data_ptr<float>() + d);
  network->info_.real_covariance.assign(covariance.const_data_ptr<float>(),
                                        covariance.const_data_ptr<float>() + d * d);
  return std::shared_ptr<const FeatureExtractor>(network);
}

}  // namespace tempera
