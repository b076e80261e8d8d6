// What stands around a denoiser: prompts and classes become its conditions, its latents become pictures.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "models/autoencoder.h"
#include "models/family.h"
#include "models/folder.h"
#include "models/text_encoder.h"
#include "nn/context.h"
#include "stages/wish.h"
#include "text/clip_tokenizer.h"

namespace tempera {

// What the denoiser is given for it: rows of one sample, against the wish and for it under guidance.
struct Conditions {
  nn::Conditioning on;
  int64_t rows = 1;
};

class Stages {
 public:
  // Loads what `folder` has beside its network, and checks that it fits the network. `bits`: 32, or 8 where
  // codes may stand instead of a layer's weight (quant/stage_codes.h); such a layer runs in integers, on the
  // range of each row of its input. InvalidArgument names part and field, DataLoss wrong codes.
  static Result<std::unique_ptr<Stages>> Open(const ModelFolder& folder, const DenoiserInfo& network,
                                              int bits = 32);

  bool takes_prompt() const { return !encoders_.empty(); }
  int64_t classes() const;  // 0: takes no class
  // Of the picture for one of the latent; 1 without a first stage.
  int64_t factor() const { return first_stage_ ? first_stage_->info().factor : 1; }
  int64_t latent_channels() const { return latent_channels_; }
  // What a network for inpainting sees beside the sample: the mask and the latent of what it leaves; else 0.
  int64_t beside_channels() const { return beside_channels_; }
  int64_t image_channels() const;
  // Whether there is a first stage that encodes pictures such as it decodes.
  bool reads_pictures() const {
    return first_stage_ && first_stage_->info().input_channels == first_stage_->info().image_channels;
  }
  // Resident bytes of all parts.
  int64_t bytes() const;

  // Whether Encode will take it, and what the caller should know, "prompt: ...": reads the prompts, runs no
  // network. Errors begin with the field of the request.
  Result<std::vector<std::string>> Check(const Wish& wish) const;
  Result<Conditions> Encode(const Wish& wish) const;
  // Rows that Encode will give.
  int64_t Rows(const Wish& wish) const;
  // What each text encoder, by its name, makes of a prompt for the denoiser: [1, T, D].
  Result<std::map<std::string, at::Tensor>> HiddenStates(const std::string& prompt) const;
  // latent: [B, C, h, w], as the sampler leaves it -> [B, C', H, W], about -1 to 1.
  at::Tensor Decode(const at::Tensor& latent) const;
  // What Decode takes at its peak for a picture of H x W pixels, its own result included: a prediction from
  // above.
  int64_t DecodeBytes(const std::array<int64_t, 2>& size) const;
  // About the same for the price of one small product: a linear map of each position to a colour, [B, C', h,
  // w], fitted when it is first asked for to what the first stage makes of noise. Without a first stage the
  // latent.
  at::Tensor Project(const at::Tensor& latent) const;
  // image: [1, C', H, W], -1 to 1; noise: of the latent's shape, for the spread that the first stage sees ->
  // [1, C, h, w] as the sampler sees it. REQUIRES: reads_pictures.
  at::Tensor EncodeImage(const at::Tensor& image, const at::Tensor& noise) const;
  // What a network for inpainting sees beside the sample, [1, beside_channels, h, w]: the mask and the latent
  // of what it leaves. image, mask: [1, C', H, W], [1, 1, H, W] of 0 and 1; undefined: everything is painted
  // anew. noise: as above. REQUIRES: beside_channels.
  at::Tensor Beside(const at::Tensor& image, const at::Tensor& mask, const at::Tensor& noise) const;

 private:
  struct Encoder {
    std::string name;
    std::shared_ptr<const ClipTokenizer> tokenizer;
    std::unique_ptr<TextEncoder> network;
  };
  // Hidden states of all encoders side by side, and the last one's pooled vector. `skip`: layers left out
  // more than usual.
  struct Text {
    at::Tensor hidden, pooled;  // [1, T, D], [1, P]
  };
  // `chunks`: prompts in chunks, at least so many; 0: one, cut.
  Result<Text> EncodeText(const std::vector<std::string>& prompts, const char* field, int64_t skip,
                          int64_t chunks) const;
  Result<int64_t> ChunksOf(const std::vector<std::string>& prompts, const char* field) const;
  Result<Conditions> EncodePrompt(const Wish& wish) const;
  // One a text encoder.
  std::vector<std::string> Prompts(const std::string& first, const std::optional<std::string>& second) const;
  bool Guided(const Wish& wish) const { return wish.guidance > 1 && guidance_width_ == 0; }

  PipelineKind kind_ = PipelineKind::kPixel;
  bool zeros_for_no_negative_ = false;
  at::Tensor FitProjection() const;

  int64_t latent_channels_ = 0, beside_channels_ = 0, guidance_width_ = 0, label_classes_ = 0;
  std::unique_ptr<Autoencoder> first_stage_;
  std::vector<Encoder> encoders_;
  at::Tensor class_embedding_;  // [classes + 1, D]; the last row stands for no class
  mutable std::once_flag projection_once_;
  mutable at::Tensor projection_;  // [C', C + 1]: the last column is added
};

}  // namespace tempera
