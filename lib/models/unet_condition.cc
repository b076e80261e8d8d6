// The unet_condition family: diffusers' UNet2DConditionModel, parameter names equal to its state dict.
#include <ATen/Functions.h>

#include <cmath>
#include <numbers>
#include <optional>

#include "models/timed_unet.h"
#include "models/transformer_block.h"
#include "models/unet_condition_config.h"

namespace tempera {
namespace {

using nn::Builder;
using nn::ForwardContext;
using nn::Role;
using nn::Slot;

// diffusers gives the norm before a transformer this, whatever norm_eps says.
constexpr double kTransformerNormEps = 1e-6;

class UnetCondition final : public TimedUnet {
 public:
  UnetCondition(UnetConditionConfig config, const std::string& label, nn::Params& params);
  at::Tensor OfTau(ForwardContext& ctx) const override {
    return tau_slots_.empty() ? at::Tensor() : EmbedTau(ctx);
  }

 private:
  struct Skip {
    int value;
    int64_t channels;
  };
  // The program while it is written.
  struct Assembly {
    Builder b;
    int h = 0;             // the value that the next block reads
    int64_t channels = 0;  // of h
    std::vector<Skip> skips;
  };

  void AddTime(Assembly& a);
  void AddDown(Assembly& a, int64_t level);
  void AddMiddle(Assembly& a);
  void AddUp(Assembly& a, int64_t level);
  void AddRes(Assembly& a, const std::string& name, const char* group, int64_t out, double rescale,
              std::optional<Skip> skip = {});
  // As diffusers' Transformer2DModel. `level` of the down path, whose widths it takes.
  void AddTransformer(Assembly& a, const std::string& name, const char* group, int64_t level, int64_t blocks,
                      bool only_cross_attention);
  at::Tensor Embed(ForwardContext& ctx) const override;
  // The part of the embedding that follows from tau (and the guidance scale) alone.
  at::Tensor EmbedTau(ForwardContext& ctx) const;
  at::Tensor Project(const at::Tensor& t) const;
  at::Tensor Context(ForwardContext& ctx) const;

  UnetConditionConfig c_;
  std::optional<nn::Activation> embedding_act_, post_act_;
  at::Tensor fourier_, class_embedding_, context_weight_, context_bias_;
  Sinusoid sinusoid_, size_sinusoid_;
  Slot *time1_ = nullptr, *time2_ = nullptr, *guidance_ = nullptr, *class1_ = nullptr, *class2_ = nullptr,
       *added1_ = nullptr, *added2_ = nullptr;
};

UnetCondition::UnetCondition(UnetConditionConfig config, const std::string& label, nn::Params& params)
    : TimedUnet(*nn::FindActivation(config.act_fn)), c_(std::move(config)) {
  info_ = UnetInfo("unet_condition", c_);
  info_.context_width = c_.encoder_hid_dim.value_or(c_.cross_attention_dim[0]);
  info_.guidance_width = c_.time_cond_proj_dim.value_or(0);
  if (c_.addition_embed_type) {
    info_.added_width = c_.projection_class_embeddings_input_dim;
    info_.size_width = c_.addition_time_embed_dim;
  }
  // A label that is embedded as a timestep.
  if (c_.class_embed_type && info_.classes == 0) info_.classes = 1000;
  if (c_.time_embedding_act_fn) embedding_act_ = *nn::FindActivation(*c_.time_embedding_act_fn);
  if (c_.timestep_post_act) post_act_ = *nn::FindActivation(*c_.timestep_post_act);

  Assembly a{.b = Builder(params, slots_, label), .skips = {}};
  AddTime(a);
  BeginUnits();
  const int64_t base = c_.block_out_channels[0];
  const auto boundary = [&](const char* name, Role role, int64_t in, int64_t out, int64_t kernel) {
    const int64_t pad = kernel / 2;
    return a.b.Conv(name, role, in, out, kernel, 1, {pad, pad, pad, pad});
  };
  Slot* conv_in = boundary("conv_in", Role::kConvIn, c_.in_channels, base, c_.conv_in_kernel);
  a.h = AddUnit("conv_in", "in", {0},
                [conv_in, center = c_.center_input_sample](ForwardContext& ctx, const Values& in) {
                  return nn::Run(*conv_in, ctx, center ? 2 * in[0] - 1.0 : in[0]);
                });
  a.channels = base;
  a.skips = {{a.h, base}};
  for (int64_t i = 0; i < c_.levels(); ++i) AddDown(a, i);
  if (c_.mid_block_type) AddMiddle(a);
  for (int64_t i = 0; i < c_.levels(); ++i) AddUp(a, i);
  const nn::GroupNorm norm(a.b, "conv_norm_out", base, c_.norm_num_groups, c_.norm_eps);
  Slot* conv_out = boundary("conv_out", Role::kConvOut, base, c_.out_channels, c_.conv_out_kernel);
  AddUnit("conv_out", "out", {a.h}, [norm, conv_out, act = act_](ForwardContext& ctx, const Values& in) {
    return nn::Run(*conv_out, ctx, act(norm(in[0])));
  });
  FinishProgram();
  Adopt(params);
}

void UnetCondition::AddTime(Assembly& a) {
  nn::Params& params = a.b.params();
  const int64_t base = c_.block_out_channels[0];
  int64_t width = c_.time_embedding_dim.value_or(4 * base), time_in = base;
  if (c_.time_embedding_type == "fourier") {
    time_in = width = c_.time_embedding_dim.value_or(2 * base);
    fourier_ = params.Take("time_proj.weight", {width / 2}, nn::Params::Init::kNormal);
  } else {
    sinusoid_ = Sinusoid(base, c_.flip_sin_to_cos, c_.freq_shift, params.device());
  }
  const auto linear = [&](const char* name, Role role, int64_t in, int64_t out, bool bias = true) {
    Slot* slot = a.b.Linear(name, role, in, out, bias);
    temporal_trunk_.push_back(slot);
    return slot;
  };
  if (c_.time_cond_proj_dim)
    guidance_ = linear("time_embedding.cond_proj", Role::kTimeFirst, *c_.time_cond_proj_dim, time_in, false);
  time1_ = linear("time_embedding.linear_1", Role::kTimeFirst, time_in, width);
  time2_ = linear("time_embedding.linear_2", Role::kTime, width, width);
  if (c_.class_embed_type) {
    class1_ = linear("class_embedding.linear_1", Role::kTimeFirst, time_in, width);
    class2_ = linear("class_embedding.linear_2", Role::kTime, width, width);
  } else if (c_.num_class_embeds) {
    class_embedding_ =
        params.Take("class_embedding.weight", {*c_.num_class_embeds, width}, nn::Params::Init::kNormal);
  }
  embedding_dim_ = c_.class_embeddings_concat ? 2 * width : width;
  if (c_.addition_embed_type) {
    size_sinusoid_ = Sinusoid(c_.addition_time_embed_dim, c_.flip_sin_to_cos, c_.freq_shift, params.device());
    added1_ =
        linear("add_embedding.linear_1", Role::kTimeFirst, c_.projection_class_embeddings_input_dim, width);
    added2_ = linear("add_embedding.linear_2", Role::kTime, width, width);
    if (guidance_ == nullptr) tau_slots_ = {time1_, time2_};
  }
  if (c_.encoder_hid_dim) {
    context_weight_ = params.Take("encoder_hid_proj.weight", {c_.cross_attention_dim[0], *c_.encoder_hid_dim},
                                  nn::Params::Init::kUniform, *c_.encoder_hid_dim);
    context_bias_ = params.Take("encoder_hid_proj.bias", {c_.cross_attention_dim[0]},
                                nn::Params::Init::kUniform, *c_.encoder_hid_dim);
  }
}

void UnetCondition::AddRes(Assembly& a, const std::string& name, const char* group, int64_t out,
                           double rescale, std::optional<Skip> skip) {
  const ResOptions options{.groups1 = c_.norm_num_groups,
                           .groups2 = c_.norm_num_groups,
                           .eps = c_.norm_eps,
                           .rescale = rescale,
                           .scale_shift = c_.resnet_time_scale_shift == "scale_shift",
                           .split = skip ? a.channels : 0};
  std::vector<int> inputs{a.h};
  if (skip) inputs.push_back(skip->value);
  a.h =
      AddResUnit(a.b, name, group, std::move(inputs), a.channels + (skip ? skip->channels : 0), out, options);
  a.channels = out;
}

at::Tensor Tokens(const at::Tensor& x) { return x.flatten(2).transpose(1, 2).contiguous(); }
at::Tensor Pixels(const at::Tensor& tokens, const at::Tensor& like) {
  return tokens.transpose(1, 2).reshape({tokens.size(0), -1, like.size(2), like.size(3)});
}

void UnetCondition::AddTransformer(Assembly& a, const std::string& name, const char* group, int64_t level,
                                   int64_t blocks, bool only_cross_attention) {
  const int64_t heads = c_.attention_heads[static_cast<size_t>(level)], head_dim = a.channels / heads;
  const int64_t inner = heads * head_dim;  // fewer than the channels where the heads do not divide them
  const int64_t context = c_.cross_attention_dim[static_cast<size_t>(level)];
  const int outside = a.h;
  const nn::GroupNorm norm(a.b, name + ".norm", a.channels, c_.norm_num_groups, kTransformerNormEps);
  const auto projection = [&](const std::string& layer, int64_t in, int64_t out) {
    return c_.use_linear_projection ? a.b.Linear(layer, Role::kLinear, in, out)
                                    : a.b.Conv(layer, Role::kLinear, in, out, 1, 1, {});
  };
  Slot* proj_in = projection(name + ".proj_in", a.channels, inner);
  int h = AddUnit(name + ".proj_in", group, {a.h}, [norm, proj_in](ForwardContext& ctx, const Values& in) {
    const at::Tensor x = norm(in[0]);
    return proj_in->linear ? nn::Run(*proj_in, ctx, Tokens(x)) : Tokens(nn::Run(*proj_in, ctx, x));
  });
  for (int64_t n = 0; n < blocks; ++n) {
    const std::string block_name = Cat(name, ".transformer_blocks.", n);
    const TransformerBlock block(a.b, block_name, inner, heads, head_dim, context, only_cross_attention);
    h = AddUnit(block_name, group, {h}, [this, block](ForwardContext& ctx, const Values& in) {
      return block(ctx, in[0], Context(ctx));
    });
  }
  Slot* proj_out = projection(name + ".proj_out", inner, a.channels);
  a.h = AddUnit(name + ".proj_out", group, {h, outside}, [proj_out](ForwardContext& ctx, const Values& in) {
    const at::Tensor y = proj_out->linear ? Pixels(nn::Run(*proj_out, ctx, in[0]), in[1])
                                          : nn::Run(*proj_out, ctx, Pixels(in[0], in[1]));
    return y + in[1];
  });
}

void UnetCondition::AddDown(Assembly& a, int64_t level) {
  const auto l = static_cast<size_t>(level);
  const std::string name = Cat("down_blocks.", level);
  const int64_t out = c_.block_out_channels[l];
  for (int64_t j = 0; j < c_.layers_per_block[l]; ++j) {
    AddRes(a, Cat(name, ".resnets.", j), "down", out, 1);
    if (c_.down_block_types[l] == "CrossAttnDownBlock2D")
      AddTransformer(a, Cat(name, ".attentions.", j), "down", level,
                     c_.transformers_down[l][static_cast<size_t>(j)], c_.only_cross_attention[l]);
    a.skips.push_back({a.h, out});
  }
  if (level + 1 == c_.levels()) return;
  // Padding 0 means one row and column at the far edges.
  const std::array<int64_t, 4> pad =
      c_.downsample_padding == 0 ? std::array<int64_t, 4>{0, 0, 1, 1} : std::array<int64_t, 4>{1, 1, 1, 1};
  const std::string sampler = name + ".downsamplers.0";
  Slot* conv = a.b.Conv(sampler + ".conv", Role::kSampler, out, out, 3, 2, pad);
  a.h = AddUnit(sampler, "down", {a.h},
                [conv](ForwardContext& ctx, const Values& in) { return nn::Run(*conv, ctx, in[0]); });
  a.skips.push_back({a.h, out});
}

void UnetCondition::AddMiddle(Assembly& a) {
  const int64_t channels = a.channels;
  AddRes(a, "mid_block.resnets.0", "mid", channels, c_.mid_block_scale_factor);
  if (c_.mid_block_type != "UNetMidBlock2DCrossAttn") return;
  AddTransformer(a, "mid_block.attentions.0", "mid", c_.levels() - 1, c_.transformers_mid, false);
  AddRes(a, "mid_block.resnets.1", "mid", channels, c_.mid_block_scale_factor);
}

void UnetCondition::AddUp(Assembly& a, int64_t level) {
  const std::string name = Cat("up_blocks.", level);
  const auto l = static_cast<size_t>(level);
  const int64_t mirror = c_.levels() - 1 - level;  // the down level of the same size
  const auto m = static_cast<size_t>(mirror);
  const int64_t out = c_.block_out_channels[m];
  for (int64_t j = 0; j < c_.layers_per_block[m] + 1; ++j) {
    const Skip skip = a.skips.back();
    a.skips.pop_back();
    AddRes(a, Cat(name, ".resnets.", j), "up", out, 1, skip);
    if (c_.up_block_types[l] == "CrossAttnUpBlock2D")
      AddTransformer(a, Cat(name, ".attentions.", j), "up", mirror,
                     c_.transformers_up[l][static_cast<size_t>(j)], c_.only_cross_attention[m]);
  }
  if (level + 1 == c_.levels()) return;
  const std::string sampler = name + ".upsamplers.0";
  Slot* conv = a.b.Conv(sampler + ".conv", Role::kSampler, out, out, 3, 1, {1, 1, 1, 1});
  // To the size of what it meets next, which is not twice its own where a side was odd.
  a.h = AddUnit(sampler, "up", {a.h, a.skips.back().value}, [conv](ForwardContext& ctx, const Values& in) {
    return nn::Run(*conv, ctx, at::upsample_nearest2d(in[0], {in[1].size(2), in[1].size(3)}));
  });
}

at::Tensor UnetCondition::Project(const at::Tensor& t) const {
  if (!fourier_.defined()) return sinusoid_(t);
  const at::Tensor angle = t.unsqueeze(1) * fourier_.unsqueeze(0) * 2 * std::numbers::pi;
  return c_.flip_sin_to_cos ? at::cat({at::cos(angle), at::sin(angle)}, 1)
                            : at::cat({at::sin(angle), at::cos(angle)}, 1);
}

at::Tensor UnetCondition::EmbedTau(ForwardContext& ctx) const {
  if (ctx.of_tau.defined()) return ctx.of_tau;
  at::Tensor t = Project(ctx.timestep);
  Note(ctx, "time_proj", t);
  if (guidance_ != nullptr && ctx.on.guidance.defined()) t = t + nn::Run(*guidance_, ctx, ctx.on.guidance);
  t = nn::Run(*time2_, ctx, act_(nn::Run(*time1_, ctx, t)));
  if (post_act_) t = (*post_act_)(t);
  Note(ctx, "time_embedding", t);
  return t;
}

at::Tensor UnetCondition::Embed(ForwardContext& ctx) const {
  at::Tensor embedding = EmbedTau(ctx);
  if (class_embedding_.defined() || class1_ != nullptr) {
    const at::Tensor of_class =
        class_embedding_.defined()
            ? at::embedding(class_embedding_, ctx.on.label)
            : nn::Run(*class2_, ctx, act_(nn::Run(*class1_, ctx, Project(ctx.on.label.to(at::kFloat)))));
    Note(ctx, "class_embedding", of_class);
    embedding = c_.class_embeddings_concat ? at::cat({embedding, of_class}, 1) : embedding + of_class;
  }
  if (added1_ != nullptr) {
    const at::Tensor sizes = size_sinusoid_(ctx.on.sizes.reshape({-1}));
    Note(ctx, "add_time_proj", sizes);
    const at::Tensor in = at::cat({ctx.on.pooled, sizes.view({ctx.on.pooled.size(0), -1})}, 1);
    const at::Tensor added = nn::Run(*added2_, ctx, at::silu(nn::Run(*added1_, ctx, in)));
    Note(ctx, "add_embedding", added);
    embedding = embedding + added;
  }
  return embedding_act_ ? (*embedding_act_)(embedding) : embedding;
}

at::Tensor UnetCondition::Context(ForwardContext& ctx) const {
  if (!context_weight_.defined()) return ctx.on.context;
  return at::linear(ctx.on.context, context_weight_, context_bias_);
}

}  // namespace

extern const ModelFamily kUnetConditionFamily{.name = "unet_condition",
                                              .class_name = "UNet2DConditionModel",
                                              .folder = "unet",
                                              .build = &BuildUnet<UnetCondition, UnetConditionConfig>};

}  // namespace tempera
