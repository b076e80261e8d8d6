// The unet family: diffusers' UNet2DModel, parameter names equal to its state dict.
#include <ATen/Functions.h>

#include <cmath>
#include <optional>

#include "models/family.h"
#include "nn/layers.h"

namespace tempera {
namespace {

using nn::Builder;
using nn::ForwardContext;
using nn::Role;
using nn::Slot;

// Fields of config.json with the class's defaults.
struct UnetConfig {
  std::vector<int64_t> sample_size;  // height, width; empty: any
  int64_t in_channels = 3, out_channels = 3;
  bool center_input_sample = false;
  std::string time_embedding_type = "positional";
  std::optional<int64_t> time_embedding_dim;
  double freq_shift = 0;
  bool flip_sin_to_cos = true;
  std::vector<std::string> down_block_types{"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D",
                                            "AttnDownBlock2D"};
  std::optional<std::string> mid_block_type = "UNetMidBlock2D";
  std::vector<std::string> up_block_types{"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
  std::vector<int64_t> block_out_channels{224, 448, 672, 896};
  int64_t layers_per_block = 2;
  double mid_block_scale_factor = 1;
  int64_t downsample_padding = 1;
  std::string downsample_type = "conv", upsample_type = "conv";
  double dropout = 0;
  std::string act_fn = "silu";
  std::optional<int64_t> attention_head_dim = 8;
  int64_t norm_num_groups = 32;
  std::optional<int64_t> attn_norm_num_groups;
  double norm_eps = 1e-5;
  std::string resnet_time_scale_shift = "default";
  bool add_attention = true;
  std::optional<std::string> class_embed_type;
  std::optional<int64_t> num_class_embeds;
  std::optional<int64_t> num_train_timesteps;

  static Result<UnetConfig> Parse(const Json& json, const std::string& label);
};

// A block type by its parts.
struct BlockKind {
  const char* name;
  bool attention;
  bool resnet_sampler;  // the sampler is a residual block whatever downsample_type or upsample_type says
};
constexpr BlockKind kDownKinds[] = {{"DownBlock2D", false, false},
                                    {"AttnDownBlock2D", true, false},
                                    {"ResnetDownsampleBlock2D", false, true}};
constexpr BlockKind kUpKinds[] = {
    {"UpBlock2D", false, false}, {"AttnUpBlock2D", true, false}, {"ResnetUpsampleBlock2D", false, true}};

template <size_t N>
const BlockKind* FindKind(const BlockKind (&kinds)[N], std::string_view name) {
  if (name.starts_with("UNetRes")) name.remove_prefix(7);
  for (const BlockKind& kind : kinds)
    if (name == kind.name) return &kind;
  return nullptr;
}

Result<UnetConfig> UnetConfig::Parse(const Json& json, const std::string& label) {
  UnetConfig c;
  Fields f(json, label);
  f.Ignore({"_class_name", "_diffusers_version", "_name_or_path", "_commit_hash"});
  if (const Json* size = f.Raw("sample_size"); size != nullptr) {
    if (size->is_array()) {
      f.Get("sample_size", c.sample_size);
    } else {
      int64_t side = 0;
      if (f.Get("sample_size", side)) c.sample_size = {side, side};
    }
  }
  f.Get("in_channels", c.in_channels);
  f.Get("out_channels", c.out_channels);
  f.Get("center_input_sample", c.center_input_sample);
  f.Get("time_embedding_type", c.time_embedding_type);
  f.Get("time_embedding_dim", c.time_embedding_dim);
  f.Get("freq_shift", c.freq_shift);
  f.Get("flip_sin_to_cos", c.flip_sin_to_cos);
  f.Get("down_block_types", c.down_block_types);
  if (json.is_object() && json.contains("mid_block_type") && json["mid_block_type"].is_null())
    c.mid_block_type.reset();
  f.Get("mid_block_type", c.mid_block_type);
  f.Get("up_block_types", c.up_block_types);
  f.Get("block_out_channels", c.block_out_channels);
  f.Get("layers_per_block", c.layers_per_block);
  f.Get("mid_block_scale_factor", c.mid_block_scale_factor);
  f.Get("downsample_padding", c.downsample_padding);
  f.Get("downsample_type", c.downsample_type);
  f.Get("upsample_type", c.upsample_type);
  f.Get("dropout", c.dropout);
  f.Get("act_fn", c.act_fn);
  if (json.is_object() && json.contains("attention_head_dim") && json["attention_head_dim"].is_null())
    c.attention_head_dim.reset();
  f.Get("attention_head_dim", c.attention_head_dim);
  f.Get("norm_num_groups", c.norm_num_groups);
  f.Get("attn_norm_num_groups", c.attn_norm_num_groups);
  f.Get("norm_eps", c.norm_eps);
  f.Get("resnet_time_scale_shift", c.resnet_time_scale_shift);
  f.Get("add_attention", c.add_attention);
  f.Get("class_embed_type", c.class_embed_type);
  f.Get("num_class_embeds", c.num_class_embeds);
  f.Get("num_train_timesteps", c.num_train_timesteps);
  TEMPERA_TRY(f.Finish());

  // The limits are far above any real model and far below what would exhaust memory before the weights are
  // compared.
  const auto want = [&](const char* key, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high)
      f.Fail(key, Cat("is out of range, got ", value, ", want ", low, " to ", high));
  };
  const auto one_of = [&](const char* key, const std::string& value,
                          std::initializer_list<const char*> values) {
    std::string known;
    for (const char* v : values) {
      if (value == v) return;
      known += Cat(known.empty() ? "" : ", ", v);
    }
    f.Fail(key, Cat("is not supported, got \"", value, "\", want ", known));
  };
  if (c.sample_size.size() != 0 && c.sample_size.size() != 2)
    f.Fail("sample_size", "is wrong, want one side or [height, width]");
  for (const int64_t side : c.sample_size) want("sample_size", side, 1, 16384);
  want("in_channels", c.in_channels, 1, 65536);
  want("out_channels", c.out_channels, 1, 65536);
  want("layers_per_block", c.layers_per_block, 1, 64);
  want("downsample_padding", c.downsample_padding, 0, 1);
  want("norm_num_groups", c.norm_num_groups, 1, 65536);
  if (c.time_embedding_dim) want("time_embedding_dim", *c.time_embedding_dim, 1, 1 << 20);
  if (c.attention_head_dim) want("attention_head_dim", *c.attention_head_dim, 1, 65536);
  if (c.attn_norm_num_groups) want("attn_norm_num_groups", *c.attn_norm_num_groups, 1, 65536);
  if (c.num_class_embeds) want("num_class_embeds", *c.num_class_embeds, 1, 1 << 20);
  one_of("time_embedding_type", c.time_embedding_type, {"positional", "fourier", "learned"});
  one_of("downsample_type", c.downsample_type, {"conv", "resnet"});
  one_of("upsample_type", c.upsample_type, {"conv", "resnet"});
  one_of("resnet_time_scale_shift", c.resnet_time_scale_shift, {"default", "scale_shift"});
  if (c.mid_block_type) one_of("mid_block_type", *c.mid_block_type, {"UNetMidBlock2D"});
  // "identity" wants embedding vectors where a request carries a label.
  if (c.class_embed_type) one_of("class_embed_type", *c.class_embed_type, {"timestep"});
  if (c.time_embedding_type == "learned") {
    if (!c.num_train_timesteps)
      f.Fail("num_train_timesteps", "is missing, a learned time embedding needs it");
    else
      want("num_train_timesteps", *c.num_train_timesteps, 1, 1 << 20);
  }
  if (!std::isfinite(c.norm_eps) || c.norm_eps <= 0)
    f.Fail("norm_eps", Cat("is out of range, got ", c.norm_eps, ", want > 0"));
  if (!std::isfinite(c.mid_block_scale_factor) || c.mid_block_scale_factor == 0)
    f.Fail("mid_block_scale_factor",
           Cat("is out of range, got ", c.mid_block_scale_factor, ", want a number other than 0"));
  if (c.block_out_channels.empty() || c.block_out_channels.size() > 16)
    f.Fail("block_out_channels", Cat("has ", c.block_out_channels.size(), " entries, want 1 to 16"));
  for (const int64_t channels : c.block_out_channels) want("block_out_channels", channels, 1, 65536);
  if (c.down_block_types.size() != c.block_out_channels.size())
    f.Fail("down_block_types", Cat("has ", c.down_block_types.size(), " entries, want ",
                                   c.block_out_channels.size(), " as block_out_channels has"));
  if (c.up_block_types.size() != c.block_out_channels.size())
    f.Fail("up_block_types", Cat("has ", c.up_block_types.size(), " entries, want ",
                                 c.block_out_channels.size(), " as block_out_channels has"));
  for (const std::string& type : c.down_block_types)
    if (FindKind(kDownKinds, type) == nullptr)
      f.Fail("down_block_types", Cat("is not supported, got \"", type,
                                     "\", want DownBlock2D, AttnDownBlock2D or ResnetDownsampleBlock2D"));
  for (const std::string& type : c.up_block_types)
    if (FindKind(kUpKinds, type) == nullptr)
      f.Fail("up_block_types", Cat("is not supported, got \"", type,
                                   "\", want UpBlock2D, AttnUpBlock2D or ResnetUpsampleBlock2D"));
  if (const auto activation = nn::FindActivation(c.act_fn); !activation.ok())
    return Annotate(activation.status(), label);
  TEMPERA_TRY(f.status());
  return c;
}

class Unet;

enum class Resample { kNone, kUp, kDown };

// diffusers' ResnetBlock2D.
struct ResBlock {
  nn::GroupNorm norm1, norm2;
  Slot *conv1 = nullptr, *time = nullptr, *conv2 = nullptr, *shortcut = nullptr;
  Resample resample = Resample::kNone;
  double rescale = 1;
  bool scale_shift = false;
};

class Unet final : public Denoiser {
 public:
  Unet(const UnetConfig& config, nn::Params& params);
  std::vector<at::Tensor> TemporalFeatures(ForwardContext& ctx) const override;

 private:
  ResBlock MakeResBlock(Builder& b, const std::string& name, int64_t in, int64_t out, int64_t skip,
                        Resample resample, double rescale);
  at::Tensor RunResBlock(const ResBlock& block, ForwardContext& ctx, at::Tensor x) const;
  // The time embedding of every row, [B, E]; made once a pass.
  const at::Tensor& Embedding(ForwardContext& ctx) const;
  at::Tensor TemporalFeature(const Slot& slot, ForwardContext& ctx) const;
  // Adds a unit that reads `inputs`; returns the value that it writes.
  int AddUnit(std::string name, std::string group, std::vector<int> inputs, size_t first_slot,
              decltype(Unit::run) run);

  UnetConfig c_;
  nn::Activation act_ = nullptr;
  int64_t embedding_dim_ = 0;
  at::Tensor fourier_, learned_time_, class_embedding_;
  at::Tensor frequencies_;  // [half] of the sinusoidal embedding
  Slot *time1_ = nullptr, *time2_ = nullptr, *class1_ = nullptr, *class2_ = nullptr;
};

void Note(ForwardContext& ctx, std::string_view name, const at::Tensor& value) {
  if (ctx.listener != nullptr) ctx.listener->OnValue(name, value);
}

Unet::Unet(const UnetConfig& config, nn::Params& params) : c_(config) {
  device_ = params.device();
  act_ = *nn::FindActivation(c_.act_fn);
  info_ = {.family = "unet",
           .in_channels = c_.in_channels,
           .out_channels = c_.out_channels,
           .block_groups = {"down", "mid", "up"}};
  if (!c_.sample_size.empty()) {
    info_.height = c_.sample_size[0];
    info_.width = c_.sample_size[1];
  }
  info_.classes = c_.num_class_embeds.value_or(0);
  // A label that is embedded as a timestep ranges over the timesteps where the configuration names no count.
  if (c_.class_embed_type && info_.classes == 0) info_.classes = c_.num_train_timesteps.value_or(1000);

  Builder b(params, slots_);
  const int64_t base = c_.block_out_channels[0];
  embedding_dim_ = c_.time_embedding_dim.value_or(4 * base);
  int64_t time_in = base;
  if (c_.time_embedding_type == "fourier") {
    fourier_ = params.Take("time_proj.weight", {base}, nn::Params::Init::kNormal);
    time_in = 2 * base;
  } else if (c_.time_embedding_type == "learned") {
    learned_time_ =
        params.Take("time_proj.weight", {*c_.num_train_timesteps, base}, nn::Params::Init::kNormal);
  } else {
    // exp(-ln(10000) * i / (half - freq_shift)), in f32 as the reference computes it.
    const int64_t half = base / 2;
    frequencies_ = at::exp(at::arange(half, at::kFloat) * -std::log(10000.0) /
                           (static_cast<double>(half) - c_.freq_shift))
                       .to(device_);
  }
  time1_ = b.Linear("time_embedding.linear_1", Role::kTimeFirst, time_in, embedding_dim_);
  time2_ = b.Linear("time_embedding.linear_2", Role::kTime, embedding_dim_, embedding_dim_);
  if (!c_.class_embed_type && c_.num_class_embeds) {
    class_embedding_ = params.Take("class_embedding.weight", {*c_.num_class_embeds, embedding_dim_},
                                   nn::Params::Init::kNormal);
  } else if (c_.class_embed_type == "timestep") {
    class1_ = b.Linear("class_embedding.linear_1", Role::kTimeFirst, time_in, embedding_dim_);
    class2_ = b.Linear("class_embedding.linear_2", Role::kTime, embedding_dim_, embedding_dim_);
  }

  // Channels of every value, to size the blocks that concatenate.
  size_t mark = slots_.size();
  Slot* conv_in = b.Conv("conv_in", Role::kConvIn, c_.in_channels, base, 3, 1, {1, 1, 1, 1});
  int h = AddUnit("conv_in", "in", {0}, mark,
                  [conv_in, center = c_.center_input_sample](ForwardContext& ctx, const auto& in) {
                    return nn::Run(*conv_in, ctx, center ? 2 * in[0] - 1.0 : in[0]);
                  });
  struct Skip {
    int value;
    int64_t channels;
  };
  std::vector<Skip> skips{{h, base}};

  const auto add_res = [&](const std::string& name, const char* group, int64_t in, int64_t out,
                           std::optional<Skip> skip, Resample resample, double rescale) {
    mark = slots_.size();
    const ResBlock block =
        MakeResBlock(b, name, in + (skip ? skip->channels : 0), out, skip ? in : 0, resample, rescale);
    std::vector<int> inputs{h};
    if (skip) inputs.push_back(skip->value);
    h = AddUnit(name, group, inputs, mark, [this, block](ForwardContext& ctx, const auto& values) {
      return RunResBlock(block, ctx, values.size() == 1 ? values[0] : at::cat({values[0], values[1]}, 1));
    });
  };
  const auto add_attention = [&](const std::string& name, const char* group, int64_t channels, int64_t groups,
                                 double rescale) {
    mark = slots_.size();
    const nn::PixelAttention attention(b, name, channels, c_.attention_head_dim.value_or(channels), groups,
                                       c_.norm_eps, rescale);
    h = AddUnit(name, group, {h}, mark,
                [attention](ForwardContext& ctx, const auto& in) { return attention(ctx, in[0]); });
  };

  int64_t channels = base;
  const size_t levels = c_.block_out_channels.size();
  for (size_t i = 0; i < levels; ++i) {
    const std::string name = Cat("down_blocks.", i);
    const BlockKind& kind = *FindKind(kDownKinds, c_.down_block_types[i]);
    const int64_t in = channels;
    channels = c_.block_out_channels[i];
    for (int64_t j = 0; j < c_.layers_per_block; ++j) {
      add_res(Cat(name, ".resnets.", j), "down", j == 0 ? in : channels, channels, {}, Resample::kNone, 1);
      if (kind.attention)
        add_attention(Cat(name, ".attentions.", j), "down", channels, c_.norm_num_groups, 1);
      skips.push_back({h, channels});
    }
    if (i + 1 == levels) continue;
    const std::string sampler = name + ".downsamplers.0";
    if (kind.resnet_sampler || (kind.attention && c_.downsample_type == "resnet")) {
      add_res(sampler, "down", channels, channels, {}, Resample::kDown, 1);
    } else {
      mark = slots_.size();
      // Padding 0 means one row and column at the far edges.
      const std::array<int64_t, 4> pad = c_.downsample_padding == 0 ? std::array<int64_t, 4>{0, 0, 1, 1}
                                                                    : std::array<int64_t, 4>{1, 1, 1, 1};
      Slot* conv = b.Conv(sampler + ".conv", Role::kSampler, channels, channels, 3, 2, pad);
      h = AddUnit(sampler, "down", {h}, mark, [conv](ForwardContext& ctx, const auto& in_values) {
        return nn::Run(*conv, ctx, in_values[0]);
      });
    }
    skips.push_back({h, channels});
  }

  if (c_.mid_block_type) {
    // Without the default time norm the middle attention has no group norm unless the configuration names its
    // groups.
    const int64_t groups =
        c_.attn_norm_num_groups.value_or(c_.resnet_time_scale_shift == "default" ? c_.norm_num_groups : 0);
    add_res("mid_block.resnets.0", "mid", channels, channels, {}, Resample::kNone, c_.mid_block_scale_factor);
    if (c_.add_attention)
      add_attention("mid_block.attentions.0", "mid", channels, groups, c_.mid_block_scale_factor);
    add_res("mid_block.resnets.1", "mid", channels, channels, {}, Resample::kNone, c_.mid_block_scale_factor);
  }

  for (size_t i = 0; i < levels; ++i) {
    const std::string name = Cat("up_blocks.", i);
    const BlockKind& kind = *FindKind(kUpKinds, c_.up_block_types[i]);
    const int64_t in = channels;
    channels = c_.block_out_channels[levels - 1 - i];
    for (int64_t j = 0; j <= c_.layers_per_block; ++j) {
      const Skip skip = skips.back();
      skips.pop_back();
      add_res(Cat(name, ".resnets.", j), "up", j == 0 ? in : channels, channels, skip, Resample::kNone, 1);
      if (kind.attention) add_attention(Cat(name, ".attentions.", j), "up", channels, c_.norm_num_groups, 1);
    }
    if (i + 1 == levels) continue;
    const std::string sampler = name + ".upsamplers.0";
    if (kind.resnet_sampler || (kind.attention && c_.upsample_type == "resnet")) {
      add_res(sampler, "up", channels, channels, {}, Resample::kUp, 1);
    } else {
      mark = slots_.size();
      Slot* conv = b.Conv(sampler + ".conv", Role::kSampler, channels, channels, 3, 1, {1, 1, 1, 1});
      h = AddUnit(sampler, "up", {h}, mark, [conv](ForwardContext& ctx, const auto& in_values) {
        const at::Tensor& x = in_values[0];
        return nn::Run(*conv, ctx, at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
      });
    }
  }

  mark = slots_.size();
  const nn::GroupNorm norm_out(params, "conv_norm_out", base, c_.norm_num_groups, c_.norm_eps);
  Slot* conv_out = b.Conv("conv_out", Role::kConvOut, base, c_.out_channels, 3, 1, {1, 1, 1, 1});
  AddUnit("conv_out", "out", {h}, mark, [this, norm_out, conv_out](ForwardContext& ctx, const auto& in) {
    at::Tensor y = nn::Run(*conv_out, ctx, at::silu(norm_out(in[0])));
    if (c_.time_embedding_type == "fourier") y = y / ctx.timestep.view({-1, 1, 1, 1});
    return y;
  });
  FinishProgram();

  temporal_trunk_ = {time1_, time2_};
  if (class1_ != nullptr) temporal_trunk_.insert(temporal_trunk_.end(), {class1_, class2_});
  parameters_ = params.taken();
  std::set<std::string> in_slots;
  for (const Slot& slot : slots_) in_slots.insert({slot.name + ".weight", slot.name + ".bias"});
  for (const auto& [name, tensor] : parameters_)
    if (!in_slots.contains(name) && tensor.defined()) other_bytes_ += static_cast<int64_t>(tensor.nbytes());
}

int Unet::AddUnit(std::string name, std::string group, std::vector<int> inputs, size_t first_slot,
                  decltype(Unit::run) run) {
  Unit unit{.name = std::move(name),
            .group = std::move(group),
            .inputs = std::move(inputs),
            .output = static_cast<int>(units_.size()) + 1,
            .slots = {},
            .run = std::move(run)};
  for (size_t s = first_slot; s < slots_.size(); ++s) unit.slots.push_back(&slots_[s]);
  units_.push_back(std::move(unit));
  return units_.back().output;
}

ResBlock Unet::MakeResBlock(Builder& b, const std::string& name, int64_t in, int64_t out, int64_t split,
                            Resample resample, double rescale) {
  ResBlock block;
  block.resample = resample;
  block.rescale = rescale;
  block.scale_shift = c_.resnet_time_scale_shift == "scale_shift";
  block.norm1 = nn::GroupNorm(b.params(), name + ".norm1", in, c_.norm_num_groups, c_.norm_eps);
  block.conv1 = b.Conv(name + ".conv1", Role::kConv, in, out, 3, 1, {1, 1, 1, 1});
  block.time =
      b.Linear(name + ".time_emb_proj", Role::kTime, embedding_dim_, block.scale_shift ? 2 * out : out);
  temporal_slots_.push_back(block.time);
  block.norm2 = nn::GroupNorm(b.params(), name + ".norm2", out, c_.norm_num_groups, c_.norm_eps);
  block.conv2 = b.Conv(name + ".conv2", Role::kConv, out, out, 3, 1, {1, 1, 1, 1});
  if (in != out) block.shortcut = b.Conv(name + ".conv_shortcut", Role::kShortcut, in, out, 1, 1, {}, split);
  return block;
}

const at::Tensor& Unet::Embedding(ForwardContext& ctx) const {
  if (ctx.embedding.defined()) return ctx.embedding;
  const auto project = [&](const at::Tensor& t) {
    if (fourier_.defined()) {
      const at::Tensor angle = at::log(t).unsqueeze(1) * fourier_.unsqueeze(0) * 2 * M_PI;
      return at::cat({at::sin(angle), at::cos(angle)}, 1);
    }
    if (learned_time_.defined()) return at::embedding(learned_time_, t.to(at::kLong));
    const at::Tensor angle = t.unsqueeze(1) * frequencies_.unsqueeze(0);
    const at::Tensor first = c_.flip_sin_to_cos ? at::cos(angle) : at::sin(angle);
    const at::Tensor second = c_.flip_sin_to_cos ? at::sin(angle) : at::cos(angle);
    at::Tensor out = at::cat({first, second}, 1);
    return c_.block_out_channels[0] % 2 == 1 ? at::constant_pad_nd(out, {0, 1}) : out;
  };
  const auto embed = [&](Slot* first, Slot* second, const at::Tensor& x) {
    return nn::Run(*second, ctx, at::silu(nn::Run(*first, ctx, x)));
  };
  const at::Tensor projected = project(ctx.timestep);
  Note(ctx, "time_proj", projected);
  at::Tensor embedding = embed(time1_, time2_, projected);
  Note(ctx, "time_embedding", embedding);
  if (class_embedding_.defined() || class1_ != nullptr) {
    const at::Tensor of_class = class_embedding_.defined()
                                    ? at::embedding(class_embedding_, ctx.label)
                                    : embed(class1_, class2_, project(ctx.label.to(at::kFloat)));
    Note(ctx, "class_embedding", of_class);
    embedding = embedding + of_class;
  }
  Note(ctx, "emb", embedding);
  ctx.embedding = embedding;
  return ctx.embedding;
}

at::Tensor Unet::TemporalFeature(const Slot& slot, ForwardContext& ctx) const {
  const auto compute = [&] { return nn::Run(slot, ctx, act_(Embedding(ctx))); };
  return ctx.features == nullptr ? compute() : ctx.features->Get(slot, ctx, compute);
}

std::vector<at::Tensor> Unet::TemporalFeatures(ForwardContext& ctx) const {
  std::vector<at::Tensor> features;
  for (const Slot* slot : temporal_slots_) features.push_back(TemporalFeature(*slot, ctx));
  return features;
}

at::Tensor Unet::RunResBlock(const ResBlock& block, ForwardContext& ctx, at::Tensor x) const {
  at::Tensor h = act_(block.norm1(x));
  const auto resample = [&](const at::Tensor& t) {
    if (block.resample == Resample::kUp) return at::upsample_nearest2d(t, {2 * t.size(2), 2 * t.size(3)});
    if (block.resample == Resample::kDown) return at::avg_pool2d(t, 2, 2);
    return t;
  };
  x = resample(x);
  h = nn::Run(*block.conv1, ctx, resample(h));
  const at::Tensor feature = TemporalFeature(*block.time, ctx).unsqueeze(-1).unsqueeze(-1);
  if (block.scale_shift) {
    const auto halves = feature.chunk(2, 1);
    h = block.norm2(h) * (1 + halves[0]) + halves[1];
  } else {
    h = block.norm2(h + feature);
  }
  h = nn::Run(*block.conv2, ctx, act_(h));
  if (block.shortcut != nullptr) x = nn::Run(*block.shortcut, ctx, x);
  return (x + h) / block.rescale;
}

Result<std::unique_ptr<Denoiser>> Build(const Json& json, const std::string& label, nn::Params& params) {
  TEMPERA_ASSIGN(const UnetConfig config, UnetConfig::Parse(json, label));
  auto unet = std::make_unique<Unet>(config, params);
  TEMPERA_TRY(params.Finish());
  return unet;
}

}  // namespace

extern const ModelFamily kUnetFamily{
    .name = "unet", .class_name = "UNet2DModel", .folder = "unet", .build = &Build};

}  // namespace tempera
