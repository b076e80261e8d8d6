// A folder of golden/pipelines whose network sees mask and masked picture beside the sample.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "golden/formula.h"
#include "golden/reader.h"

namespace tempera::golden {

// Copies `from` to `to` and widens conv_in by five channels, as pipelines/inpainting.py does.
inline void WriteWideFolder(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  Json index = ReadJson(from / "model_index.json"), config = ReadJson(from / "unet/config.json");
  index["_class_name"] = "StableDiffusionInpaintPipeline";
  config["in_channels"] = 9;
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(to / name, std::ios::binary | std::ios::trunc) << bytes;
  };
  write("model_index.json", index.dump());
  write("unet/config.json", config.dump());
  const auto source = WeightSource::Open(from / "unet", "diffusion_pytorch_model", "unet");
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<TensorOut> tensors;
  const TensorView first = *(*source)->Find("conv_in.weight");
  const int64_t out = first.shape[0], each = 3 * 3;
  const std::vector<float> beside = Weight("conv_in.beside", {out, 5, 3, 3});
  std::vector<float> wide;
  const auto* own = reinterpret_cast<const float*>(first.bytes.data());
  for (int64_t n = 0; n < out; ++n) {
    wide.insert(wide.end(), own + n * 4 * each, own + (n + 1) * 4 * each);
    wide.insert(wide.end(), beside.begin() + n * 5 * each, beside.begin() + (n + 1) * 5 * each);
  }
  for (const auto& [name, view] : (*source)->tensors())
    if (name != "conv_in.weight")
      tensors.push_back({.name = name, .dtype = view.dtype, .shape = view.shape, .bytes = view.bytes});
  tensors.push_back({.name = "conv_in.weight",
                     .dtype = Dtype::kF32,
                     .shape = {out, 9, 3, 3},
                     .bytes = {reinterpret_cast<const uint8_t*>(wide.data()), wide.size() * sizeof(float)}});
  write("unet/diffusion_pytorch_model.safetensors", SafetensorsBytes(std::move(tensors)));
}

}  // namespace tempera::golden
