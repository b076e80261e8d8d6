// Folders of golden/pipelines with another network in them.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "golden/formula.h"
#include "golden/reader.h"

namespace tempera::golden {

// Copies `from` to `to` with another pipeline class, with `fields` in the network's configuration and one of
// its tensors replaced or added.
inline void WriteChangedFolder(const std::filesystem::path& from, const std::filesystem::path& to,
                               const std::string& pipeline, const Json& fields, const std::string& tensor,
                               const Shape& shape, const std::vector<float>& values) {
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  Json index = ReadJson(from / "model_index.json"), config = ReadJson(from / "unet/config.json");
  index["_class_name"] = pipeline;
  config.update(fields);
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(to / name, std::ios::binary | std::ios::trunc) << bytes;
  };
  write("model_index.json", index.dump());
  write("unet/config.json", config.dump());
  const auto source = WeightSource::Open(from / "unet", "diffusion_pytorch_model", "unet");
  ASSERT_TRUE(source.ok()) << source.status();
  std::vector<TensorOut> tensors;
  for (const auto& [name, view] : (*source)->tensors())
    if (name != tensor)
      tensors.push_back({.name = name, .dtype = view.dtype, .shape = view.shape, .bytes = view.bytes});
  tensors.push_back(
      {.name = tensor,
       .dtype = Dtype::kF32,
       .shape = shape,
       .bytes = {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)}});
  write("unet/diffusion_pytorch_model.safetensors", SafetensorsBytes(std::move(tensors)));
}

// The network of `from`, which sees a latent of four channels, sees mask and masked picture beside it:
// conv_in is wider by five channels, as pipelines/inpainting.py makes it.
inline void WriteWideFolder(const std::filesystem::path& from, const std::filesystem::path& to) {
  const auto source = WeightSource::Open(from / "unet", "diffusion_pytorch_model", "unet");
  ASSERT_TRUE(source.ok()) << source.status();
  const TensorView first = *(*source)->Find("conv_in.weight");
  const int64_t out = first.shape[0], each = 3 * 3;
  const std::vector<float> beside = Weight("conv_in.beside", {out, 5, 3, 3});
  std::vector<float> wide;
  const auto* own = reinterpret_cast<const float*>(first.bytes.data());
  for (int64_t n = 0; n < out; ++n) {
    wide.insert(wide.end(), own + n * 4 * each, own + (n + 1) * 4 * each);
    wide.insert(wide.end(), beside.begin() + n * 5 * each, beside.begin() + (n + 1) * 5 * each);
  }
  WriteChangedFolder(from, to, "StableDiffusionInpaintPipeline", {{"in_channels", 9}}, "conv_in.weight",
                     {out, 9, 3, 3}, wide);
}

// The network of `from` has its guidance scale embedded with the timestep, as one distilled from guidance.
inline void WriteGuidedFolder(const std::filesystem::path& from, const std::filesystem::path& to) {
  const Json config = ReadJson(from / "unet/config.json");
  const int64_t width = config["block_out_channels"][0].get<int64_t>();
  WriteChangedFolder(from, to, "StableDiffusionPipeline", {{"time_cond_proj_dim", 16}},
                     "time_embedding.cond_proj.weight", {width, 16},
                     Weight("time_embedding.cond_proj.weight", {width, 16}));
}

}  // namespace tempera::golden
