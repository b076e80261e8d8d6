// The parameters of goldens that store none: those that formula.py says.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/temp_folder.h"
#include "weights/weights.h"

namespace tempera::golden {

inline std::vector<float> Weight(const std::string& name, const Shape& shape) {
  uint64_t seed = 0xCBF29CE484222325;
  for (const char byte : name) seed = (seed ^ static_cast<uint8_t>(byte)) * 0x100000001B3;
  size_t count = 1, fan_in = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    count *= static_cast<size_t>(shape[i]);
    if (i > 0) fan_in *= static_cast<size_t>(shape[i]);
  }
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    const double u = static_cast<double>((z ^ z >> 31) >> 40) / 8388608.0 - 1;
    values[i] = static_cast<float>(name.ends_with("bias") ? 0.15 * u
                                   : shape.size() == 1    ? 1 + 0.3 * u
                                                          : u * std::sqrt(3.0 / static_cast<double>(fan_in)));
  }
  return values;
}

// Writes a file with these parameters, {"name": shape}, as that of the model's `component`, and opens it.
inline Result<std::shared_ptr<const WeightSource>> WriteWeights(const TempFolder& folder,
                                                                const std::string& component,
                                                                const Json& parameters) {
  std::vector<std::vector<float>> numbers;
  std::vector<TensorOut> tensors;
  for (const auto& [name, json] : parameters.items()) {
    const Shape shape = json.get<Shape>();
    numbers.push_back(Weight(name, shape));
    tensors.push_back({.name = name,
                       .dtype = Dtype::kF32,
                       .shape = shape,
                       .bytes = {reinterpret_cast<const uint8_t*>(numbers.back().data()),
                                 numbers.back().size() * sizeof(float)}});
  }
  folder.Write(component + "/diffusion_pytorch_model.safetensors", SafetensorsBytes(std::move(tensors)));
  return WeightSource::Open(folder / component, "diffusion_pytorch_model", component);
}

}  // namespace tempera::golden
