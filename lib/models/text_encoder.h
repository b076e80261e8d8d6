// Text encoders: token ids in, the embeddings that a denoiser is conditioned on out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "models/network.h"
#include "nn/context.h"
#include "nn/params.h"

namespace tempera {

struct TextEncoderInfo {
  int64_t width = 0;       // D, of a token's embedding
  int64_t projection = 0;  // P, of the pooled embedding; 0: not projected, D
  int64_t layers = 0;
  int64_t vocabulary = 0;  // token ids 0 .. vocabulary - 1
  int64_t positions = 0;   // tokens of the longest prompt
  int64_t eos_id = 0;      // as configured; 2 means: the greatest id of each row
};

// Which hidden state becomes the tokens' embeddings. Stable Diffusion takes {clip_skip, true}, SDXL
// {clip_skip + 1, false}.
struct HiddenState {
  int64_t skip = 0;  // layers left out, counted from the last; all of them leaves the embeddings
  bool final_norm = true;
};

class TextEncoder : public Network {
 public:
  struct Output {
    at::Tensor hidden;  // [B, T, D] f32
    // The last layer at the end of each prompt (the first eos; the first token where there is none), whatever
    // was skipped: [B, P] f32, or [B, D] without projection.
    at::Tensor pooled;
  };

  const TextEncoderInfo& info() const { return info_; }

  // ids: [B, T] i64, T up to info().positions. A token sees itself and those before it; padding is read as
  // any other token. InvalidArgument: ids of another shape or outside of the vocabulary, more layers skipped
  // than there are.
  virtual Result<Output> Encode(nn::ForwardContext& ctx, const at::Tensor& ids,
                                const HiddenState& which = {}) const = 0;

 protected:
  TextEncoderInfo info_;
};

// transformers' CLIPTextModel or CLIPTextModelWithProjection, whichever `config` names ("config.json" of its
// folder, `label` names it in errors); a configuration that names neither has a projection if the parameters
// do. Parameters may have the prefix "text_model." or not (fresh ones do); "position_ids" beside them is
// passed over. Every parameter of the source must have its place (params.Finish is part of it).
// InvalidArgument names field or tensor.
Result<std::unique_ptr<TextEncoder>> BuildTextEncoder(const Json& config, const std::string& label,
                                                      nn::Params& params);

}  // namespace tempera
