#include "tib/features_io.h"

#include <ATen/Functions.h>

namespace tempera {

void ExportCache(const FeatureCache& cache, const Denoiser& network, nn::TensorMap& out) {
  for (size_t i = 0; i < cache.columns.size(); ++i) {
    const FeatureCache::Column& column = cache.columns[i];
    const std::string& name = network.temporal_slots()[i]->name;
    std::vector<int64_t> chosen;
    for (const int64_t row : column.row_of_step) chosen.push_back(row >= 0 ? 1 : 0);
    out["select." + name] = at::tensor(chosen, at::kLong).to(at::kByte);
    out[Cat("cache.", name, ".codes")] = column.codes;
    if (cache.bits == 32) continue;
    out[Cat("cache.", name, ".scale")] = column.scale;
    out[Cat("cache.", name, ".zero")] = column.zero;
  }
}

Result<FeatureCache> ImportCache(const Denoiser& network, int bits, int64_t steps,
                                 const nn::TensorFinder& find) {
  FeatureCache cache;
  cache.bits = bits;
  cache.steps = steps;
  cache.classes = std::max<int64_t>(1, network.info().classes);
  const auto tensor = [&](const std::string& name, at::ScalarType type,
                          at::IntArrayRef shape) -> Result<at::Tensor> {
    TEMPERA_ASSIGN(at::Tensor t, find(name));
    if (t.scalar_type() != type || t.sizes() != shape)
      return DataLoss("tensor ", name, ": wrong type or shape, got ", t.sizes(), ", want ", shape);
    return t.clone();  // resident, and its own: the file may go
  };
  for (const nn::Slot* slot : network.temporal_slots()) {
    FeatureCache::Column column;
    column.width = slot->out_channels;
    TEMPERA_ASSIGN(const at::Tensor chosen, tensor("select." + slot->name, at::kByte, {steps}));
    int64_t rows = 0;
    for (int64_t k = 0; k < steps; ++k)
      column.row_of_step.push_back(chosen.const_data_ptr<uint8_t>()[k] != 0 ? rows++ : -1);
    const int64_t stride = bits <= 4 ? (column.width + 1) / 2 : column.width;
    const std::string name = Cat("cache.", slot->name, ".");
    TEMPERA_ASSIGN(column.codes,
                   tensor(name + "codes", bits == 32 ? at::kHalf : at::kByte, {rows, cache.classes, stride}));
    if (bits != 32) {
      TEMPERA_ASSIGN(column.scale, tensor(name + "scale", at::kFloat, {rows, cache.classes}));
      TEMPERA_ASSIGN(column.zero, tensor(name + "zero", at::kByte, {rows, cache.classes}));
    }
    cache.columns.push_back(std::move(column));
  }
  return cache;
}

nn::TensorMap ExportReference(const Denoiser& network, const std::vector<std::string>& parameters,
                              const FeatureTable& exact, bool any_timestep) {
  int64_t of_features = 0, of_layers = 0;
  for (const at::Tensor& f : exact.features) of_features += f.numel();
  for (const std::string& name : parameters) of_layers += network.parameters().at(name).numel();
  nn::TensorMap out;
  if (any_timestep || of_layers < of_features) {
    for (const std::string& name : parameters)
      out[name] = network.parameters().at(name).to(at::kHalf).contiguous();
  } else {
    for (size_t i = 0; i < exact.features.size(); ++i)
      out["reference." + network.temporal_slots()[i]->name] = exact.features[i].to(at::kHalf).contiguous();
  }
  return out;
}

bool HoldsFeatures(const WeightSource& source) {
  return source.tensors().lower_bound("reference.") != source.tensors().end() &&
         source.tensors().lower_bound("reference.")->first.starts_with("reference.");
}

Result<std::unique_ptr<Denoiser>> BuildReferenceLayers(const Json& config, const Denoiser& network,
                                                       std::shared_ptr<const WeightSource> source) {
  nn::Params params(source, network.device());
  params.SetAbsent([&](const std::string& name) { return !source->tensors().contains(name); });
  return BuildDenoiser(config, source->label(), params);
}

Result<FeatureTable> ImportReference(const CallScope& scope, const Json& config, const Denoiser& network,
                                     const std::vector<double>& timesteps,
                                     std::shared_ptr<const WeightSource> source) {
  const auto steps = static_cast<int64_t>(timesteps.size());
  const int64_t classes = std::max<int64_t>(1, network.info().classes);
  if (!HoldsFeatures(*source)) {
    TEMPERA_ASSIGN(const auto layers, BuildReferenceLayers(config, network, source));
    return ComputeFeatures(scope, *layers, timesteps, OwnConditions(*layers), nullptr);
  }
  FeatureTable table{.steps = steps, .classes = classes, .features = {}};
  for (const nn::Slot* slot : network.temporal_slots()) {
    TEMPERA_ASSIGN(const TensorView view, source->Find("reference." + slot->name));
    if (view.dtype != Dtype::kF16 || view.shape != Shape{steps, classes, slot->out_channels})
      return DataLoss(source->label(), ": tensor reference.", slot->name, ": wrong type or shape, got ",
                      ShapeText(view.shape));
    table.features.push_back(nn::ToTensor(view).to(at::kFloat));
  }
  return table;
}

}  // namespace tempera
