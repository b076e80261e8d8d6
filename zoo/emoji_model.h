// zoo/emoji: the sizes of its networks and the files of its folder.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "base/json.h"
#include "base/status.h"

namespace tempera::zoo {

inline constexpr int64_t kPromptTokens = 32;  // bos and eos counted
inline constexpr int64_t kVocabulary = 2048;
inline constexpr int64_t kLatentChannels = 4;

Json EmojiAutoencoderConfig();
Json EmojiTextConfig();
Json EmojiNetworkConfig();

// Writes vae/; `weights` by name. Channels of the latent are shifted by -mean and divided by std
// ([kLatentChannels] each), exactly, in the two 1x1 convolutions beside it: what a denoiser sees has no other
// scale.
Status WriteAutoencoder(const std::filesystem::path& out, std::map<std::string, at::Tensor> weights,
                        const at::Tensor& mean, const at::Tensor& std);

// Writes unet/, text_encoder/, scheduler/ and model_index.json. Names begin with "unet/" and "text_encoder/".
Status WriteDenoiser(const std::filesystem::path& out, const std::map<std::string, at::Tensor>& weights);

}  // namespace tempera::zoo
