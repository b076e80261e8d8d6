#include "stages/stages.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <set>

#include "kernels/kernels.h"
#include "nn/slot_io.h"
#include "schedulers/scheduler.h"
#include "stages/guidance.h"

namespace tempera {
namespace {

// The latent is decoded in tiles from this many positions on: what 1024 x 1024 pixels of Stable Diffusion
// need.
constexpr int64_t kWholeLatent = 128 * 128;
// Values of the widest layer at full size that decoding holds at once.
constexpr int64_t kDecodeValues = 5;
// A context of so many chunks costs each step about as much as the pixels of a small picture.
constexpr size_t kMostChunks = 8;

// Layers of a source whose codes stand there instead of their weight; `params` then looks for none.
std::set<std::string> CodedLayers(nn::Params& params) {
  constexpr std::string_view kWeight = ".weight", kCodes = ".weight.codes";
  std::set<std::string> layers;
  for (const auto& [name, view] : params.source()->tensors()) {
    if (!name.ends_with(kCodes)) continue;
    const std::string layer = name.substr(0, name.size() - kCodes.size());
    for (const char* tensor : {"codes", "scale", "zero"}) params.MarkUsed(Cat(layer, ".weight.", tensor));
    layers.insert(layer);
  }
  params.SetAbsent([layers, kWeight](const std::string& name) {
    return name.ends_with(kWeight) && layers.contains(name.substr(0, name.size() - kWeight.size()));
  });
  return layers;
}

// What a pipeline's class reads of its autoencoder's configuration: Stable Diffusion only scales latents, XL
// normalizes them by channel too; neither shifts them, whatever the configuration says. Source: diffusers
// 0.42.1, which paints so.
Json SeenConfig(Json config, PipelineKind kind) {
  if (kind == PipelineKind::kPrompt || kind == PipelineKind::kPromptPair) config.erase("shift_factor");
  if (kind == PipelineKind::kPrompt)
    for (const char* key : {"latents_mean", "latents_std"}) config.erase(key);
  return config;
}

Status RunOnCodes(Network& network, const std::set<std::string>& layers, const ModelPart& part) {
  return nn::TorchEdge(part.name, [&]() -> Status {
    const nn::TensorFinder find = nn::FinderOf(part.weights);
    for (const std::string& layer : layers) {
      nn::Slot* slot = network.FindSlot(layer);
      if (slot == nullptr || slot->role == nn::Role::kMatmul || slot->k() > kernels::kMostColumns)
        return DataLoss(part.name, ": tensor ", layer, ".weight.codes: is of no layer that runs in integers");
      slot->weight_bits = slot->activation_bits = 8;
      slot->dynamic = true;
      if (const Status read = nn::ImportPacked(*slot, find); !read.ok()) return Annotate(read, part.name);
    }
    return OkStatus();
  });
}

}  // namespace

Result<std::unique_ptr<Stages>> Stages::Open(const ModelFolder& folder, const DenoiserInfo& network,
                                             int bits) {
  std::unique_ptr<Stages> s(new Stages());
  s->kind_ = folder.pipeline->kind;
  s->latent_channels_ = network.in_channels;
  s->guidance_width_ = network.guidance_width;
  s->label_classes_ = network.classes;
  const std::string& label = folder.network.label;
  for (const ModelPart& part : folder.stages) {
    nn::Params params(part.weights, at::kCPU);
    std::set<std::string> coded;
    if (bits == 8 && part.has_layers()) coded = CodedLayers(params);
    if (part.is_first_stage()) {
      TEMPERA_ASSIGN(s->first_stage_,
                     BuildAutoencoder(SeenConfig(part.config, s->kind_), part.label, params));
      TEMPERA_TRY(RunOnCodes(*s->first_stage_, coded, part));
      const int64_t channels = s->first_stage_->info().latent_channels;
      s->latent_channels_ = channels;
      if (folder.pipeline->repaints && network.in_channels == 2 * channels + 1)
        s->beside_channels_ = channels + 1;
      if (channels + s->beside_channels_ != network.in_channels)
        return InvalidArgument(label, ": in_channels does not fit ", part.name, ", got ", network.in_channels,
                               ", want ", channels);
      if (channels != network.out_channels && 2 * channels != network.out_channels)
        return InvalidArgument(label, ": out_channels does not fit ", part.name, ", got ",
                               network.out_channels, ", want ", channels);
    } else if (part.name == "class_embedder") {
      int64_t rows = 0, width = 0;
      Fields f(part.config, part.label);
      f.Need("num_embeddings", rows);
      f.Need("embedding_dim", width);
      f.Within("num_embeddings", rows, 2, 1 << 20);
      if (width != network.context_width)
        f.Fail("embedding_dim",
               Cat("does not fit the network, got ", width, ", want ", network.context_width));
      TEMPERA_TRY(f.Finish());
      s->class_embedding_ = params.Take("embedding.weight", {rows, width});
      TEMPERA_TRY(params.Finish());
    } else {
      Encoder encoder{.name = part.name, .tokenizer = nullptr, .network = nullptr};
      TEMPERA_ASSIGN(encoder.network, BuildTextEncoder(part.config, part.label, params));
      TEMPERA_TRY(RunOnCodes(*encoder.network, coded, part));
      const std::string tokenizer = "tokenizer" + part.name.substr(std::string("text_encoder").size());
      TEMPERA_ASSIGN(encoder.tokenizer, ClipTokenizer::Open(folder.path / tokenizer, tokenizer));
      const TextEncoderInfo& info = encoder.network->info();
      if (encoder.tokenizer->vocabulary() > info.vocabulary)
        return InvalidArgument(part.label, ": vocab_size does not fit ", tokenizer, ", got ", info.vocabulary,
                               ", want at least ", encoder.tokenizer->vocabulary());
      if (encoder.tokenizer->max_length() > info.positions)
        return InvalidArgument(part.label, ": max_position_embeddings does not fit ", tokenizer, ", got ",
                               info.positions, ", want at least ", encoder.tokenizer->max_length());
      s->encoders_.push_back(std::move(encoder));
    }
  }
  if (s->takes_prompt()) {
    int64_t width = 0;
    for (const Encoder& e : s->encoders_) width += e.network->info().width;
    if (width != network.context_width)
      return InvalidArgument(label, ": cross_attention_dim does not fit the text encoders, got ",
                             network.context_width, ", want ", width);
  }
  if (s->kind_ == PipelineKind::kPromptPair) {
    const int64_t pooled = s->encoders_.back().network->info().projection;
    if (network.added_width != pooled + 6 * network.size_width)
      return InvalidArgument(label,
                             ": projection_class_embeddings_input_dim does not fit text_encoder_2, got ",
                             network.added_width, ", want ", pooled + 6 * network.size_width,
                             " for its projection and six sizes");
    Fields index(folder.index, "model_index.json");
    s->zeros_for_no_negative_ = true;
    index.Get("force_zeros_for_empty_prompt", s->zeros_for_no_negative_);
    TEMPERA_TRY(index.status());
  } else if (network.added_width > 0) {
    return InvalidArgument(label, ": addition_embed_type does not fit ", folder.pipeline->class_name,
                           ", which has no second text encoder");
  }
  return s;
}

int64_t Stages::classes() const {
  return class_embedding_.defined() ? class_embedding_.size(0) - 1 : label_classes_;
}

int64_t Stages::image_channels() const {
  return first_stage_ ? first_stage_->info().image_channels : latent_channels_;
}

int64_t Stages::bytes() const {
  int64_t total = class_embedding_.defined() ? static_cast<int64_t>(class_embedding_.nbytes()) : 0;
  if (first_stage_) total += first_stage_->resident_bytes();
  for (const Encoder& e : encoders_) total += e.network->resident_bytes();
  return total;
}

std::vector<std::string> Stages::Prompts(const std::string& first,
                                         const std::optional<std::string>& second) const {
  std::vector<std::string> prompts{first};
  if (encoders_.size() > 1) prompts.push_back(second.value_or(first));
  return prompts;
}

Result<std::vector<std::string>> Stages::Check(const Wish& wish) const {
  std::vector<std::string> warnings;
  for (size_t i = 0; i < encoders_.size(); ++i) {
    const int64_t layers = encoders_[i].network->info().layers;
    const int64_t most = kind_ == PipelineKind::kPromptPair ? layers - 1 : layers;
    if (wish.clip_skip < 0 || wish.clip_skip > most)
      return InvalidArgument("clip_skip: got ", wish.clip_skip, ", want 0 to ", most, ", ", encoders_[i].name,
                             " has ", layers, " layers");
  }
  for (const auto& [field, prompts] :
       {std::pair("prompt", Prompts(wish.prompt, wish.prompt_2)),
        std::pair("negative_prompt", Prompts(wish.negative.value_or(""), wish.negative_2))}) {
    if (wish.long_prompt) TEMPERA_TRY(ChunksOf(prompts, field).status());
    for (size_t i = 0; i < encoders_.size(); ++i) {
      const Encoder& e = encoders_[i];
      const auto read = e.tokenizer->Encode(prompts[i]);
      if (!read.ok()) return Annotate(read.status(), field);
      if (!read->dropped.empty() && !wish.long_prompt)
        warnings.push_back(Cat(field, ": cut to the ", e.tokenizer->max_length(), " tokens that ", e.name,
                               " reads, left out \"", read->dropped.substr(0, 200), "\""));
    }
  }
  return warnings;
}

Result<int64_t> Stages::ChunksOf(const std::vector<std::string>& prompts, const char* field) const {
  size_t most = 1;
  for (size_t i = 0; i < encoders_.size(); ++i) {
    const auto chunks = encoders_[i].tokenizer->EncodeLong(prompts[i]);
    if (!chunks.ok()) return Annotate(chunks.status(), field);
    if (chunks->size() > kMostChunks)
      return InvalidArgument(field, ": too long, got ", chunks->size(), " chunks of ",
                             encoders_[i].tokenizer->max_length(), " tokens, want at most ", kMostChunks);
    most = std::max(most, chunks->size());
  }
  return static_cast<int64_t>(most);
}

Result<Stages::Text> Stages::EncodeText(const std::vector<std::string>& prompts, const char* field,
                                        int64_t skip, int64_t chunks) const {
  const bool pair = kind_ == PipelineKind::kPromptPair;
  std::vector<at::Tensor> hidden;
  Text text;
  for (size_t i = 0; i < encoders_.size(); ++i) {
    const Encoder& e = encoders_[i];
    std::vector<std::vector<int64_t>> rows;
    if (chunks == 0) {
      const auto one = e.tokenizer->Encode(prompts[i]);
      if (!one.ok()) return Annotate(one.status(), field);
      rows.push_back(one->ids);
    } else {
      auto all = e.tokenizer->EncodeLong(prompts[i]);
      if (!all.ok()) return Annotate(all.status(), field);
      rows = *std::move(all);
      if (static_cast<int64_t>(rows.size()) < chunks) {
        TEMPERA_ASSIGN(const auto empty, e.tokenizer->Encode(""));
        rows.resize(static_cast<size_t>(chunks), empty.ids);
      }
    }
    std::vector<at::Tensor> ids;
    for (const auto& row : rows) ids.push_back(at::tensor(row, at::kLong));
    nn::ForwardContext ctx;
    const HiddenState which{.skip = skip + (pair ? 1 : 0), .final_norm = !pair};
    auto out = e.network->Encode(ctx, at::stack(ids), which);
    if (!out.ok()) return Annotate(out.status(), e.name);
    hidden.push_back(out->hidden.reshape({1, -1, out->hidden.size(2)}));
    text.pooled = out->pooled.narrow(0, 0, 1);
  }
  text.hidden = hidden.size() == 1 ? hidden[0] : at::cat(hidden, -1);
  return text;
}

Result<Conditions> Stages::EncodePrompt(const Wish& wish) const {
  Conditions c;
  const std::vector<std::string> prompts = Prompts(wish.prompt, wish.prompt_2);
  const std::vector<std::string> negatives = Prompts(wish.negative.value_or(""), wish.negative_2);
  const bool guided = Guided(wish);
  int64_t chunks = 0;
  if (wish.long_prompt) {
    TEMPERA_ASSIGN(chunks, ChunksOf(prompts, "prompt"));
    if (guided) {
      TEMPERA_ASSIGN(const int64_t more, ChunksOf(negatives, "negative_prompt"));
      chunks = std::max(chunks, more);
    }
  }
  TEMPERA_ASSIGN(Text text, EncodeText(prompts, "prompt", wish.clip_skip, chunks));
  if (guided) {
    Text against;
    if (zeros_for_no_negative_ && !wish.negative && !wish.negative_2) {
      against = {at::zeros_like(text.hidden), at::zeros_like(text.pooled)};
    } else {
      TEMPERA_ASSIGN(against, EncodeText(negatives, "negative_prompt", 0, chunks));
    }
    text = {at::cat({against.hidden, text.hidden}), at::cat({against.pooled, text.pooled})};
    c.rows = 2;
  }
  c.on.context = text.hidden;
  if (guidance_width_ > 0) c.on.guidance = GuidanceEmbedding(wish.guidance, guidance_width_);
  if (kind_ == PipelineKind::kPromptPair) {
    c.on.pooled = text.pooled;
    std::vector<float> sizes;
    for (const std::array<int64_t, 2>& pair :
         {wish.original_size.value_or(wish.size), wish.crop.value_or(std::array<int64_t, 2>{}),
          wish.target_size.value_or(wish.size)})
      sizes.insert(sizes.end(), {static_cast<float>(pair[0]), static_cast<float>(pair[1])});
    c.on.sizes = at::tensor(sizes).unsqueeze(0).expand({c.rows, -1}).contiguous();
  }
  return c;
}

int64_t Stages::Rows(const Wish& wish) const {
  return (takes_prompt() ? Guided(wish) : class_embedding_.defined() && wish.guidance > 1) ? 2 : 1;
}

Result<Conditions> Stages::Encode(const Wish& wish) const {
  return nn::TorchEdge("prompt", [&]() -> Result<Conditions> {
    const at::NoGradGuard guard;
    if (takes_prompt()) return EncodePrompt(wish);
    Conditions c;
    if (class_embedding_.defined()) {
      std::vector<int64_t> rows{*wish.class_label};
      if (wish.guidance > 1) rows.insert(rows.begin(), class_embedding_.size(0) - 1);
      c.rows = static_cast<int64_t>(rows.size());
      c.on.context = class_embedding_.index_select(0, at::tensor(rows, at::kLong)).unsqueeze(1);
    } else if (wish.class_label) {
      c.on.label = at::tensor({*wish.class_label}, at::kLong);
    }
    return c;
  });
}

Result<std::map<std::string, at::Tensor>> Stages::HiddenStates(const std::string& prompt) const {
  return nn::TorchEdge("prompt", [&]() -> Result<std::map<std::string, at::Tensor>> {
    const at::NoGradGuard guard;
    TEMPERA_ASSIGN(const Text text, EncodeText(Prompts(prompt, {}), "prompt", 0, 0));
    std::map<std::string, at::Tensor> hidden;
    int64_t begin = 0;
    for (const Encoder& e : encoders_) {
      const int64_t width = e.network->info().width;
      hidden[e.name] = text.hidden.narrow(-1, begin, width);
      begin += width;
    }
    return hidden;
  });
}

at::Tensor Stages::Decode(const at::Tensor& latent) const {
  if (!first_stage_) return latent;
  nn::ForwardContext ctx;
  const at::Tensor z = first_stage_->FromLatent(latent);
  return latent.size(2) * latent.size(3) > kWholeLatent ? first_stage_->DecodeTiled(ctx, z)
                                                        : first_stage_->Decode(ctx, z);
}

int64_t Stages::DecodeBytes(const std::array<int64_t, 2>& size) const {
  const int64_t pixels = size[0] * size[1];
  int64_t bytes = 4 * image_channels() * pixels;
  if (!first_stage_) return bytes;
  const int64_t whole = kWholeLatent * factor() * factor();  // larger ones go by tiles, which are no larger
  return bytes + kDecodeValues * first_stage_->info().picture_width * 4 * std::min(pixels, whole);
}

at::Tensor Stages::FitProjection() const {
  // Half of it smooth, as pictures are; a side of 24 positions gives over a hundred equations for each
  // unknown.
  constexpr int64_t kSide = 24;
  NoiseSource noise(0);
  const std::vector<int64_t> coarse{1, latent_channels_, kSide / 4, kSide / 4},
      fine{1, latent_channels_, kSide, kSide};
  const at::Tensor smooth =
      at::upsample_bilinear2d(noise.Randn(coarse), at::IntArrayRef{kSide, kSide}, false);
  const at::Tensor z = smooth + 0.5 * noise.Randn(fine);
  nn::ForwardContext ctx;
  const at::Tensor colours =
      at::avg_pool2d(first_stage_->Decode(ctx, first_stage_->FromLatent(z)).clamp(-1, 1), factor());
  const at::Tensor a = at::cat({z[0].flatten(1), at::ones({1, kSide * kSide})});  // [C + 1, positions]
  const at::Tensor at = a.transpose(0, 1);
  return at::linalg_solve(at::matmul(a, at), at::matmul(a, colours[0].flatten(1).transpose(0, 1)))
      .transpose(0, 1)
      .contiguous();
}

at::Tensor Stages::Project(const at::Tensor& latent) const {
  if (!first_stage_) return latent;
  std::call_once(projection_once_, [&] { projection_ = FitProjection(); });
  const at::Tensor z = latent.cpu();
  const at::Tensor ones = at::ones({z.size(0), 1, z.size(2), z.size(3)});
  return at::matmul(projection_, at::cat({z, ones}, 1).flatten(2))
      .view({z.size(0), -1, z.size(2), z.size(3)});
}

at::Tensor Stages::EncodeImage(const at::Tensor& image, const at::Tensor& noise) const {
  nn::ForwardContext ctx;
  const Gaussian z = noise.size(2) * noise.size(3) > kWholeLatent ? first_stage_->EncodeTiled(ctx, image)
                                                                  : first_stage_->Encode(ctx, image);
  return first_stage_->ToLatent(z.Sample(noise));
}

at::Tensor Stages::Beside(const at::Tensor& image, const at::Tensor& mask, const at::Tensor& noise) const {
  const int64_t h = noise.size(2), w = noise.size(3), f = factor();
  if (!mask.defined())
    return at::cat(
        {at::ones({1, 1, h, w}), EncodeImage(at::zeros({1, image_channels(), h * f, w * f}), noise)}, 1);
  // The nearest pixel, as diffusers scales a mask.
  return at::cat({mask.slice(2, 0, {}, f).slice(3, 0, {}, f), EncodeImage(image * (1 - mask), noise)}, 1);
}

}  // namespace tempera
