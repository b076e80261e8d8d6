// transformers' CLIPTextModel and CLIPTextModelWithProjection, parameter names equal to their state dicts.
#include "models/text_encoder.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/layers.h"

namespace tempera {
namespace {

using nn::Builder;
using nn::ForwardContext;
using nn::Role;
using nn::Slot;

// Fields of config.json with CLIPTextConfig's defaults.
struct ClipConfig {
  std::vector<std::string> architectures;
  int64_t vocab_size = 49408;
  int64_t hidden_size = 512;
  int64_t intermediate_size = 2048;
  int64_t projection_dim = 512;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 8;
  int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";
  double layer_norm_eps = 1e-5;
  int64_t eos_token_id = 49407;
  bool projected = false;  // the class with projection

  // InvalidArgument "<label>: <field> ...". `has_projection`: the parameters have one.
  static Result<ClipConfig> Parse(const Json& json, const std::string& label, bool has_projection);
};

Result<ClipConfig> ClipConfig::Parse(const Json& json, const std::string& label, bool has_projection) {
  ClipConfig c;
  std::string model_type = "clip_text_model";
  bool use_attention_mask = false;
  Fields f(json, label);
  // null is no value: transformers fails on it.
  const auto get = [&](const char* key, auto& value) {
    if (!f.Get(key, value) && json.is_object() && json.contains(key) && json[key].is_null())
      f.Fail(key, "is null, want a value");
  };
  f.Get("architectures", c.architectures);
  f.Get("model_type", model_type);
  c.projected =
      c.architectures.empty() ? has_projection : c.architectures[0] == "CLIPTextModelWithProjection";
  if (c.architectures.size() > 1 ||
      (c.architectures.size() == 1 && !c.projected && c.architectures[0] != "CLIPTextModel"))
    f.Fail("architectures", Cat("is not supported, got ", CanonicalJson(c.architectures),
                                ", want [\"CLIPTextModel\"] or [\"CLIPTextModelWithProjection\"]"));
  if (model_type != "clip_text_model")
    f.Fail("model_type", Cat("is not supported, got \"", model_type, "\", want clip_text_model"));
  get("vocab_size", c.vocab_size);
  get("hidden_size", c.hidden_size);
  get("intermediate_size", c.intermediate_size);
  get("num_hidden_layers", c.num_hidden_layers);
  get("num_attention_heads", c.num_attention_heads);
  get("max_position_embeddings", c.max_position_embeddings);
  get("hidden_act", c.hidden_act);
  get("layer_norm_eps", c.layer_norm_eps);
  get("eos_token_id", c.eos_token_id);
  f.Get("use_attention_mask", use_attention_mask);  // diffusers' pipelines ask for it
  if (c.projected)
    get("projection_dim", c.projection_dim);
  else
    f.Ignore({"projection_dim"});
  const Json* pruned = f.Raw("pruned_heads");
  // Of training; of the tokenizer; of how outputs are handed over; of the file; of models of other kinds.
  f.Ignore({"attention_dropout", "dropout", "initializer_factor", "initializer_range", "use_bfloat16"});
  f.Ignore({"bos_token_id", "pad_token_id", "sep_token_id", "tokenizer_class", "prefix"});
  f.Ignore({"return_dict", "output_hidden_states", "output_attentions", "torchscript", "use_cache"});
  f.Ignore({"torch_dtype", "dtype", "transformers_version", "_name_or_path", "_commit_hash"});
  f.Ignore({"is_decoder", "is_encoder_decoder", "add_cross_attention", "tie_word_embeddings"});
  f.Ignore({"chunk_size_feed_forward", "id2label", "label2id", "num_labels", "problem_type"});
  TEMPERA_TRY(f.Finish());

  if (use_attention_mask) f.Fail("use_attention_mask", "is not supported, got true, want false");
  if (pruned != nullptr && !pruned->empty())
    f.Fail("pruned_heads", Cat("is not supported, got ", CanonicalJson(*pruned), ", want none"));
  // The limits are far above any real model and far below what would exhaust memory before the weights are
  // compared.
  const auto want = [&](const char* key, int64_t value, int64_t high) {
    if (value < 1 || value > high) f.Fail(key, Cat("is out of range, got ", value, ", want 1 to ", high));
  };
  want("vocab_size", c.vocab_size, 1 << 22);
  want("hidden_size", c.hidden_size, 65536);
  want("intermediate_size", c.intermediate_size, 1 << 18);
  if (c.projected) want("projection_dim", c.projection_dim, 65536);
  want("num_hidden_layers", c.num_hidden_layers, 1024);
  want("num_attention_heads", c.num_attention_heads, c.hidden_size);
  want("max_position_embeddings", c.max_position_embeddings, 65536);
  TEMPERA_TRY(f.status());
  if (c.hidden_size % c.num_attention_heads != 0)
    f.Fail("num_attention_heads",
           Cat("does not divide hidden_size, got ", c.num_attention_heads, " for ", c.hidden_size));
  if (!std::isfinite(c.layer_norm_eps) || c.layer_norm_eps <= 0)
    f.Fail("layer_norm_eps", Cat("is out of range, got ", c.layer_norm_eps, ", want > 0"));
  TEMPERA_TRY(f.status());
  if (const auto act = nn::FindActivation(c.hidden_act, "hidden_act"); !act.ok())
    return Annotate(act.status(), label);
  return c;
}

struct Layer {
  Layer(Builder& b, const std::string& name, const ClipConfig& c);
  at::Tensor operator()(ForwardContext& ctx, const at::Tensor& x, nn::Activation act) const;  // [B, T, D]

  nn::LayerNorm norm1, norm2;
  Slot *q, *k, *v, *out, *fc1, *fc2;
  nn::DotAttention attention;
};

Layer::Layer(Builder& b, const std::string& name, const ClipConfig& c) {
  const int64_t width = c.hidden_size;
  const auto linear = [&](const char* end, int64_t from, int64_t to) {
    return b.Linear(name + end, Role::kLinear, from, to);
  };
  norm1 = nn::LayerNorm(b, name + ".layer_norm1", width, c.layer_norm_eps);
  q = linear(".self_attn.q_proj", width, width);
  k = linear(".self_attn.k_proj", width, width);
  v = linear(".self_attn.v_proj", width, width);
  attention = nn::DotAttention(b, name + ".self_attn", c.num_attention_heads, width / c.num_attention_heads,
                               /*is_causal=*/true);
  out = linear(".self_attn.out_proj", width, width);
  norm2 = nn::LayerNorm(b, name + ".layer_norm2", width, c.layer_norm_eps);
  fc1 = linear(".mlp.fc1", width, c.intermediate_size);
  fc2 = linear(".mlp.fc2", c.intermediate_size, width);
}

at::Tensor Layer::operator()(ForwardContext& ctx, const at::Tensor& x, nn::Activation act) const {
  const at::Tensor h = norm1(x);
  const at::Tensor of_q = Run(*q, ctx, h), of_k = Run(*k, ctx, h), of_v = Run(*v, ctx, h);
  const at::Tensor mid = x + Run(*out, ctx, attention(ctx, of_q, of_k, of_v));
  return mid + Run(*fc2, ctx, act(Run(*fc1, ctx, norm2(mid))));
}

class ClipTextEncoder final : public TextEncoder {
 public:
  ClipTextEncoder(const ClipConfig& c, const std::string& label, nn::Params& params);
  Result<Output> Encode(ForwardContext& ctx, const at::Tensor& ids, const HiddenState& which) const override;

 private:
  // Where each row of ids ends, [B]; an id outside of the vocabulary is an error.
  Result<std::vector<int64_t>> Ends(const at::Tensor& ids) const;

  const std::string label_;
  const nn::Activation act_;
  at::Tensor tokens_, positions_;  // [vocabulary, D], [positions, D]
  std::vector<Layer> layers_;
  nn::LayerNorm final_norm_;
  Slot* projection_ = nullptr;
};

ClipTextEncoder::ClipTextEncoder(const ClipConfig& c, const std::string& label, nn::Params& params)
    : label_(label), act_(*nn::FindActivation(c.hidden_act)) {
  info_ = {.width = c.hidden_size,
           .projection = c.projected ? c.projection_dim : 0,
           .layers = c.num_hidden_layers,
           .vocabulary = c.vocab_size,
           .positions = c.max_position_embeddings,
           .eos_id = c.eos_token_id};
  // Transformers 5 saves CLIPTextModel without the prefix.
  constexpr std::string_view kNorm = "final_layer_norm.weight";
  std::string prefix = params.FirstOf({Cat("text_model.", kNorm), std::string(kNorm)});
  prefix.resize(prefix.size() - kNorm.size());
  params.MarkUsed(prefix + "embeddings.position_ids");  // 0, 1, 2 ...

  Builder b(params, slots_, label);
  using Init = nn::Params::Init;
  tokens_ =
      params.Take(prefix + "embeddings.token_embedding.weight", {c.vocab_size, c.hidden_size}, Init::kNormal);
  positions_ = params.Take(prefix + "embeddings.position_embedding.weight",
                           {c.max_position_embeddings, c.hidden_size}, Init::kNormal);
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    layers_.emplace_back(b, Cat(prefix, "encoder.layers.", i), c);
  final_norm_ = nn::LayerNorm(b, prefix + "final_layer_norm", c.hidden_size, c.layer_norm_eps);
  if (c.projected)
    projection_ = b.Linear("text_projection", Role::kLinear, c.hidden_size, c.projection_dim, /*bias=*/false);
  Adopt(params);
}

Result<std::vector<int64_t>> ClipTextEncoder::Ends(const at::Tensor& ids) const {
  const at::Tensor host = ids.cpu().contiguous();
  std::vector<int64_t> ends;
  for (int64_t b = 0; b < host.size(0); ++b) {
    const int64_t* row = host.const_data_ptr<int64_t>() + b * host.size(1);
    const int64_t* end = row + host.size(1);
    for (const int64_t* id = row; id < end; ++id)
      if (*id < 0 || *id >= info_.vocabulary)
        return InvalidArgument(label_, ": a token is not in the vocabulary, got ", *id, ", want 0 to ",
                               info_.vocabulary - 1);
    // Until version 4.31 transformers wrote 2 for whatever the tokenizer has, and took the greatest id for
    // the end; it still does where it reads a 2.
    const int64_t* eos = info_.eos_id == 2 ? std::max_element(row, end) : std::find(row, end, info_.eos_id);
    ends.push_back(eos == end ? 0 : eos - row);
  }
  return ends;
}

Result<TextEncoder::Output> ClipTextEncoder::Encode(ForwardContext& ctx, const at::Tensor& ids,
                                                    const HiddenState& which) const {
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.size(0) < 1 || ids.size(1) < 1 ||
      ids.size(1) > info_.positions)
    return InvalidArgument(label_, ": wrong shape of token ids, got ", at::toString(ids.scalar_type()), " ",
                           ids.sizes(), ", want Long [B, T] with T from 1 to ", info_.positions);
  if (which.skip < 0 || which.skip > info_.layers)
    return InvalidArgument(label_, ": cannot skip so many layers, got ", which.skip, ", want 0 to ",
                           info_.layers);
  return nn::TorchEdge(label_, [&]() -> Result<Output> {
    TEMPERA_ASSIGN(const std::vector<int64_t> ends, Ends(ids));
    at::Tensor h = at::embedding(tokens_, ids.to(device())) + positions_.narrow(0, 0, ids.size(1));
    at::Tensor hidden = h;  // after the last layer that is not skipped
    for (size_t i = 0; i < layers_.size(); ++i) {
      h = layers_[i](ctx, h, act_);
      if (static_cast<int64_t>(i) + which.skip < info_.layers) hidden = h;
    }
    const at::Tensor last = final_norm_(h);
    std::vector<at::Tensor> at_ends;
    for (size_t b = 0; b < ends.size(); ++b) at_ends.push_back(last[static_cast<int64_t>(b)][ends[b]]);
    const at::Tensor pooled = at::stack(at_ends);
    return Output{.hidden = !which.final_norm ? hidden
                            : which.skip == 0 ? last
                                              : final_norm_(hidden),
                  .pooled = projection_ == nullptr ? pooled : Run(*projection_, ctx, pooled)};
  });
}

}  // namespace

Result<std::unique_ptr<TextEncoder>> BuildTextEncoder(const Json& config, const std::string& label,
                                                      nn::Params& params) {
  return nn::TorchEdge(label, [&]() -> Result<std::unique_ptr<TextEncoder>> {
    TEMPERA_ASSIGN(const ClipConfig parsed,
                   ClipConfig::Parse(config, label, params.Has("text_projection.weight")));
    auto encoder = std::make_unique<ClipTextEncoder>(parsed, label, params);
    TEMPERA_TRY(params.Finish());
    return encoder;
  });
}

}  // namespace tempera
