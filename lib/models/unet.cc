// The unet family: diffusers' UNet2DModel, parameter names equal to its state dict.
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "models/family.h"
#include "models/unet_config.h"
#include "nn/layers.h"

namespace tempera {
namespace {

using nn::Builder;
using nn::ForwardContext;
using nn::Role;
using nn::Slot;

// What NCSN++ divides the sum of a residual by.
constexpr double kSkipRescale = std::numbers::sqrt2;

enum class Resample { kNone, kUp, kDown, kFilterUp, kFilterDown };

// A layer that makes a temporal feature.
struct TimeLayer {
  Slot* slot = nullptr;
  bool activated = true;  // it reads act(embedding), else the embedding itself
};

// How a residual block differs from the plainest.
struct ResOptions {
  int64_t groups1 = 1, groups2 = 1;  // of the two norms
  Resample resample = Resample::kNone;
  double rescale = 1;
  bool shortcut = false;     // a convolution there even where the channels stay the same
  bool conditioned = false;  // k-diffusion: both norms get scale and shift from the embedding, none their own
};

// diffusers' ResnetBlock2D, and ResnetBlockCondNorm2D with its "ada_group" norms.
struct ResBlock {
  nn::GroupNorm norm1, norm2;
  Slot *conv1 = nullptr, *conv2 = nullptr, *shortcut = nullptr;
  TimeLayer time1;  // scale and shift after norm1; no slot: none
  TimeLayer time2;  // shift before norm2, or scale and shift after it
  bool scale_shift = false;
  Resample resample = Resample::kNone;
  double rescale = 1;
};

class Unet final : public Denoiser {
 public:
  Unet(UnetConfig config, const std::string& label, nn::Params& params);
  std::vector<at::Tensor> TemporalFeatures(ForwardContext& ctx) const override;

 private:
  struct Skip {
    int value;
    int64_t channels;
  };
  // The program while it is written.
  struct Assembly {
    Builder b;
    size_t assigned = 0;   // slots that have their unit
    int h = 0;             // the value that the next block reads
    int64_t channels = 0;  // of h
    std::vector<Skip> skips;
    std::optional<int> picture;  // NCSN++: the value that passes beside the blocks, 3 channels
  };
  using Values = std::vector<at::Tensor>;

  void AddTime(Assembly& a);
  void AddDown(Assembly& a, int64_t level);
  void AddMiddle(Assembly& a);
  void AddUp(Assembly& a, int64_t level);
  void AddOut(Assembly& a);
  // The next unit: it takes the slots made since the last one; returns the value that it writes.
  int AddUnit(Assembly& a, std::string name, std::string group, std::vector<int> inputs,
              decltype(Unit::run) run);
  // a.h through a block to `out` channels, concatenated with `skip` first.
  void AddRes(Assembly& a, const std::string& name, const char* group, int64_t out, ResOptions options,
              std::optional<Skip> skip = {});
  void AddAttention(Assembly& a, const std::string& name, const char* group, int64_t groups, double rescale);
  void AddPictureDown(Assembly& a, const std::string& name);
  void AddPictureUp(Assembly& a, const std::string& name);
  // Options of a block that turns `in` channels into `out` in a level of this kind.
  ResOptions Options(const BlockKind& kind, int64_t in, int64_t out) const;

  TimeLayer MakeTimeLayer(Builder& b, const std::string& name, int64_t out, bool activated);
  ResBlock MakeResBlock(Builder& b, const std::string& name, int64_t in, int64_t out, int64_t split,
                        const ResOptions& options);
  at::Tensor RunResBlock(const ResBlock& block, ForwardContext& ctx, at::Tensor x) const;
  // The time embedding of every row, [B, E]; made once a pass.
  const at::Tensor& Embedding(ForwardContext& ctx) const;
  at::Tensor TemporalFeature(const TimeLayer& layer, ForwardContext& ctx) const;

  UnetConfig c_;
  nn::Activation act_ = nullptr;
  int64_t embedding_dim_ = 0;
  at::Tensor fourier_, learned_time_, class_embedding_;
  at::Tensor frequencies_;  // [half] of the sinusoidal embedding
  Slot *time1_ = nullptr, *time2_ = nullptr, *class1_ = nullptr, *class2_ = nullptr;
  std::vector<TimeLayer> time_layers_;  // of temporal_slots_
};

void Note(ForwardContext& ctx, std::string_view name, const at::Tensor& value) {
  if (ctx.listener != nullptr) ctx.listener->OnValue(name, value);
}

Unet::Unet(UnetConfig config, const std::string& label, nn::Params& params) : c_(std::move(config)) {
  device_ = params.device();
  act_ = *nn::FindActivation(c_.act_fn);
  info_ = {.family = "unet",
           .in_channels = c_.in_channels,
           .out_channels = c_.out_channels,
           .block_groups = {"down", "up"}};
  if (c_.mid_block_type) info_.block_groups.insert(info_.block_groups.begin() + 1, "mid");
  if (!c_.sample_size.empty()) {
    info_.height = c_.sample_size[0];
    info_.width = c_.sample_size[1];
  }
  info_.classes = c_.num_class_embeds.value_or(0);
  // A label that is embedded as a timestep ranges over the timesteps where the configuration names no count.
  if (c_.class_embed_type && info_.classes == 0) info_.classes = c_.num_train_timesteps.value_or(1000);

  Assembly a{.b = Builder(params, slots_, label), .skips = {}, .picture = {}};
  AddTime(a);
  a.assigned = slots_.size();  // the embedding's layers are in no unit
  const int64_t base = c_.block_out_channels[0];
  Slot* conv_in = a.b.Conv("conv_in", Role::kConvIn, c_.in_channels, base, 3, 1, {1, 1, 1, 1});
  a.h = AddUnit(a, "conv_in", "in", {0},
                [conv_in, center = c_.center_input_sample](ForwardContext& ctx, const Values& in) {
                  return nn::Run(*conv_in, ctx, center ? 2 * in[0] - 1.0 : in[0]);
                });
  a.channels = base;
  a.skips = {{a.h, base}};
  for (int64_t i = 0; i < c_.levels(); ++i) AddDown(a, i);
  a.picture.reset();
  if (c_.mid_block_type) AddMiddle(a);
  for (int64_t i = 0; i < c_.levels(); ++i) AddUp(a, i);
  AddOut(a);
  FinishProgram();

  temporal_trunk_ = {time1_, time2_};
  if (class1_ != nullptr) temporal_trunk_.insert(temporal_trunk_.end(), {class1_, class2_});
  parameters_ = params.taken();
  std::set<std::string> in_slots;
  for (const Slot& slot : slots_) in_slots.insert({slot.name + ".weight", slot.name + ".bias"});
  for (const auto& [name, tensor] : parameters_)
    if (!in_slots.contains(name) && tensor.defined()) other_bytes_ += static_cast<int64_t>(tensor.nbytes());
}

void Unet::AddTime(Assembly& a) {
  nn::Params& params = a.b.params();
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
  const auto linear = [&](const char* name, Role role, int64_t in) {
    return a.b.Linear(name, role, in, embedding_dim_);
  };
  time1_ = linear("time_embedding.linear_1", Role::kTimeFirst, time_in);
  time2_ = linear("time_embedding.linear_2", Role::kTime, embedding_dim_);
  if (!c_.class_embed_type && c_.num_class_embeds) {
    class_embedding_ = params.Take("class_embedding.weight", {*c_.num_class_embeds, embedding_dim_},
                                   nn::Params::Init::kNormal);
  } else if (c_.class_embed_type == "timestep") {
    class1_ = linear("class_embedding.linear_1", Role::kTimeFirst, time_in);
    class2_ = linear("class_embedding.linear_2", Role::kTime, embedding_dim_);
  }
}

int Unet::AddUnit(Assembly& a, std::string name, std::string group, std::vector<int> inputs,
                  decltype(Unit::run) run) {
  Unit unit{.name = std::move(name),
            .group = std::move(group),
            .inputs = std::move(inputs),
            .output = static_cast<int>(units_.size()) + 1,
            .slots = {},
            .run = std::move(run)};
  for (; a.assigned < slots_.size(); ++a.assigned) unit.slots.push_back(&slots_[a.assigned]);
  units_.push_back(std::move(unit));
  return units_.back().output;
}

void Unet::AddRes(Assembly& a, const std::string& name, const char* group, int64_t out, ResOptions options,
                  std::optional<Skip> skip) {
  const int64_t in = a.channels + (skip ? skip->channels : 0);
  const ResBlock block = MakeResBlock(a.b, name, in, out, skip ? a.channels : 0, options);
  std::vector<int> inputs{a.h};
  if (skip) inputs.push_back(skip->value);
  a.h = AddUnit(a, name, group, inputs, [this, block](ForwardContext& ctx, const Values& in_values) {
    return RunResBlock(block, ctx,
                       in_values.size() == 1 ? in_values[0] : at::cat({in_values[0], in_values[1]}, 1));
  });
  a.channels = out;
}

void Unet::AddAttention(Assembly& a, const std::string& name, const char* group, int64_t groups,
                        double rescale) {
  const nn::PixelAttention attention(a.b, name, a.channels, c_.attention_head_dim.value_or(a.channels),
                                     groups, c_.norm_eps, rescale);
  a.h = AddUnit(a, name, group, {a.h},
                [attention](ForwardContext& ctx, const Values& in) { return attention(ctx, in[0]); });
}

// The channels' fourth, at most 32: what NCSN++ blocks take whatever the configuration says.
int64_t SkipGroups(int64_t channels) { return std::min<int64_t>(channels / 4, 32); }

ResOptions Unet::Options(const BlockKind& kind, int64_t in, int64_t out) const {
  switch (kind.style) {
    case BlockStyle::kSkip:
      return {.groups1 = SkipGroups(in), .groups2 = SkipGroups(out), .rescale = kSkipRescale};
    case BlockStyle::kKarras:
      return {.groups1 = in / 32, .groups2 = out / 32, .conditioned = true};
    default:
      return {.groups1 = *c_.norm_num_groups, .groups2 = *c_.norm_num_groups};
  }
}

void Unet::AddDown(Assembly& a, int64_t level) {
  const std::string name = Cat("down_blocks.", level);
  const BlockKind& kind = c_.Down(level);
  const bool skip_style = kind.style == BlockStyle::kSkip;
  const int64_t out = c_.block_out_channels[static_cast<size_t>(level)];
  for (int64_t j = 0; j < c_.layers_per_block; ++j) {
    AddRes(a, Cat(name, ".resnets.", j), "down", out, Options(kind, a.channels, out));
    if (kind.attention)
      AddAttention(a, Cat(name, ".attentions.", j), "down", skip_style ? 32 : *c_.norm_num_groups,
                   skip_style ? kSkipRescale : 1);
    a.skips.push_back({a.h, out});
  }
  if (level + 1 == c_.levels()) return;
  const std::string sampler = name + ".downsamplers.0";
  if (skip_style) {
    ResOptions options = Options(kind, out, out);
    options.resample = Resample::kFilterDown;
    options.shortcut = true;
    AddRes(a, name + ".resnet_down", "down", out, options);
    AddPictureDown(a, name);
  } else if (kind.style == BlockStyle::kKarras) {
    a.h = AddUnit(a, sampler, "down", {a.h},
                  [](ForwardContext&, const Values& in) { return nn::FilterDown(in[0], nn::Edge::kMirror); });
    return;  // what the level above reads beside its own blocks is the last of these blocks
  } else if (kind.style == BlockStyle::kResnet || (kind.attention && c_.downsample_type == "resnet")) {
    ResOptions options = Options(kind, out, out);
    options.resample = Resample::kDown;
    AddRes(a, sampler, "down", out, options);
  } else {
    // Padding 0 means one row and column at the far edges.
    const std::array<int64_t, 4> pad =
        c_.downsample_padding == 0 ? std::array<int64_t, 4>{0, 0, 1, 1} : std::array<int64_t, 4>{1, 1, 1, 1};
    Slot* conv = a.b.Conv(sampler + ".conv", Role::kSampler, out, out, 3, 2, pad);
    a.h = AddUnit(a, sampler, "down", {a.h},
                  [conv](ForwardContext& ctx, const Values& in) { return nn::Run(*conv, ctx, in[0]); });
  }
  a.skips.push_back({a.h, out});
}

// Halves the picture and adds what a 1x1 convolution sees of it to h.
void Unet::AddPictureDown(Assembly& a, const std::string& name) {
  const bool center = !a.picture && c_.center_input_sample;  // value 0 is not centered yet
  a.picture = AddUnit(a, name + ".downsamplers.0", "down", {a.picture.value_or(0)},
                      [center](ForwardContext&, const Values& in) {
                        return nn::FilterDown(center ? 2 * in[0] - 1.0 : in[0], nn::Edge::kZero);
                      });
  // It reads the picture, as conv_in does.
  Slot* conv = a.b.Conv(name + ".skip_conv", Role::kConvIn, 3, a.channels, 1, 1, {});
  a.h = AddUnit(a, name + ".skip_conv", "down", {*a.picture, a.h},
                [conv](ForwardContext& ctx, const Values& in) { return nn::Run(*conv, ctx, in[0]) + in[1]; });
}

void Unet::AddMiddle(Assembly& a) {
  const int64_t channels = a.channels, groups = c_.Groups(channels);
  const ResOptions options{.groups1 = groups, .groups2 = groups, .rescale = c_.mid_block_scale_factor};
  AddRes(a, "mid_block.resnets.0", "mid", channels, options);
  // Without the default time norm the middle attention has no group norm unless the configuration names its
  // groups.
  if (c_.add_attention)
    AddAttention(a, "mid_block.attentions.0", "mid",
                 c_.attn_norm_num_groups.value_or(c_.resnet_time_scale_shift == "default" ? groups : 0),
                 c_.mid_block_scale_factor);
  AddRes(a, "mid_block.resnets.1", "mid", channels, options);
}

void Unet::AddUp(Assembly& a, int64_t level) {
  const std::string name = Cat("up_blocks.", level);
  const BlockKind& kind = c_.Up(level);
  const bool skip_style = kind.style == BlockStyle::kSkip, karras = kind.style == BlockStyle::kKarras;
  const bool last_level = level + 1 == c_.levels();
  const auto channels_of = [&](int64_t i) {
    return c_.block_out_channels[static_cast<size_t>(std::max<int64_t>(c_.levels() - 1 - i, 0))];
  };
  const int64_t out = channels_of(level);
  const int64_t blocks = c_.layers_per_block + (karras ? 0 : 1);
  for (int64_t j = 0; j < blocks; ++j) {
    Skip skip = a.skips.back();
    a.skips.pop_back();
    if (karras) {
      // The first block alone reads a skip; the last one goes over to the next level's channels.
      const bool first = j == 0, last = j + 1 == blocks;
      const int64_t next = last ? channels_of(level + 1) : out;
      AddRes(a, Cat(name, ".resnets.", j), "up", next, Options(kind, first ? 2 * out : out, out),
             first ? std::optional(skip) : std::nullopt);
      continue;
    }
    ResOptions options = Options(kind, a.channels + skip.channels, out);
    // diffusers divides the skip's channels alone here.
    if (skip_style && kind.attention) options.groups1 = std::min<int64_t>(a.channels + skip.channels / 4, 32);
    AddRes(a, Cat(name, ".resnets.", j), "up", out, options, skip);
    if (kind.attention && !skip_style)
      AddAttention(a, Cat(name, ".attentions.", j), "up", *c_.norm_num_groups, 1);
  }
  if (skip_style) {
    if (kind.attention) AddAttention(a, name + ".attentions.0", "up", 32, kSkipRescale);
    AddPictureUp(a, name);
  }
  if (last_level) return;
  const std::string sampler = name + ".upsamplers.0";
  if (skip_style) {
    ResOptions options = Options(kind, out, out);
    options.resample = Resample::kFilterUp;
    options.shortcut = true;
    AddRes(a, name + ".resnet_up", "up", out, options);
  } else if (karras) {
    a.h = AddUnit(a, sampler, "up", {a.h},
                  [](ForwardContext&, const Values& in) { return nn::FilterUp(in[0], nn::Edge::kMirror); });
  } else if (kind.style == BlockStyle::kResnet || (kind.attention && c_.upsample_type == "resnet")) {
    ResOptions options = Options(kind, out, out);
    options.resample = Resample::kUp;
    AddRes(a, sampler, "up", out, options);
  } else {
    Slot* conv = a.b.Conv(sampler + ".conv", Role::kSampler, out, out, 3, 1, {1, 1, 1, 1});
    a.h = AddUnit(a, sampler, "up", {a.h}, [conv](ForwardContext& ctx, const Values& in) {
      const at::Tensor& x = in[0];
      return nn::Run(*conv, ctx, at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
    });
  }
}

// Doubles the picture of the levels below and, but for the last level, adds what this one paints.
void Unet::AddPictureUp(Assembly& a, const std::string& name) {
  if (a.picture)
    a.picture = AddUnit(a, name + ".upsampler", "up", {*a.picture}, [](ForwardContext&, const Values& in) {
      return nn::FilterUp(in[0], nn::Edge::kZero);
    });
  if (name == Cat("up_blocks.", c_.levels() - 1)) return;
  const nn::GroupNorm norm(a.b, name + ".skip_norm", a.channels, SkipGroups(a.channels), c_.norm_eps);
  // It writes the picture, as conv_out does.
  Slot* conv = a.b.Conv(name + ".skip_conv", Role::kConvOut, a.channels, 3, 3, 1, {1, 1, 1, 1});
  std::vector<int> inputs{a.h};
  if (a.picture) inputs.push_back(*a.picture);
  a.picture =
      AddUnit(a, name + ".skip_conv", "up", inputs, [norm, conv](ForwardContext& ctx, const Values& in) {
        const at::Tensor y = nn::Run(*conv, ctx, at::silu(norm(in[0])));
        return in.size() == 1 ? y : in[1] + y;
      });
}

void Unet::AddOut(Assembly& a) {
  const int64_t base = c_.block_out_channels[0];
  const nn::GroupNorm norm(a.b, "conv_norm_out", base, c_.Groups(base), c_.norm_eps);
  Slot* conv = a.b.Conv("conv_out", Role::kConvOut, base, c_.out_channels, 3, 1, {1, 1, 1, 1});
  std::vector<int> inputs{a.h};
  if (a.picture) inputs.push_back(*a.picture);
  AddUnit(a, "conv_out", "out", inputs, [this, norm, conv](ForwardContext& ctx, const Values& in) {
    at::Tensor y = nn::Run(*conv, ctx, at::silu(norm(in[0])));
    if (in.size() == 2) y = y + in[1];
    if (c_.time_embedding_type == "fourier") y = y / ctx.timestep.view({-1, 1, 1, 1});
    return y;
  });
}

TimeLayer Unet::MakeTimeLayer(Builder& b, const std::string& name, int64_t out, bool activated) {
  const TimeLayer layer{b.Linear(name, Role::kTime, embedding_dim_, out), activated};
  temporal_slots_.push_back(layer.slot);
  time_layers_.push_back(layer);
  return layer;
}

ResBlock Unet::MakeResBlock(Builder& b, const std::string& name, int64_t in, int64_t out, int64_t split,
                            const ResOptions& options) {
  ResBlock block;
  block.resample = options.resample;
  block.rescale = options.rescale;
  const bool own = !options.conditioned;
  block.scale_shift = options.conditioned || c_.resnet_time_scale_shift == "scale_shift";
  block.norm1 = nn::GroupNorm(b, name + ".norm1", in, options.groups1, c_.norm_eps, own);
  if (options.conditioned) block.time1 = MakeTimeLayer(b, name + ".norm1.linear", 2 * in, false);
  block.conv1 = b.Conv(name + ".conv1", Role::kConv, in, out, 3, 1, {1, 1, 1, 1});
  block.time2 = MakeTimeLayer(b, name + (own ? ".time_emb_proj" : ".norm2.linear"),
                              block.scale_shift ? 2 * out : out, own);
  block.norm2 = nn::GroupNorm(b, name + ".norm2", out, options.groups2, c_.norm_eps, own);
  block.conv2 = b.Conv(name + ".conv2", Role::kConv, out, out, 3, 1, {1, 1, 1, 1});
  if (in != out || options.shortcut)
    block.shortcut = b.Conv(name + ".conv_shortcut", Role::kShortcut, in, out, 1, 1, {}, split, own);
  return block;
}

const at::Tensor& Unet::Embedding(ForwardContext& ctx) const {
  if (ctx.embedding.defined()) return ctx.embedding;
  const auto project = [&](const at::Tensor& t) {
    if (fourier_.defined()) {
      const at::Tensor angle = at::log(t).unsqueeze(1) * fourier_.unsqueeze(0) * 2 * M_PI;
      return at::cat({at::sin(angle), at::cos(angle)}, 1);
    }
    if (learned_time_.defined()) {
      const at::Tensor row = at::embedding(learned_time_, t.to(at::kLong));
      // An index has no gradient: the zero keeps tau in the graph of a traced pass.
      return t.requires_grad() ? row + 0 * t.unsqueeze(1) : row;
    }
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

at::Tensor Unet::TemporalFeature(const TimeLayer& layer, ForwardContext& ctx) const {
  const auto compute = [&] {
    const at::Tensor& embedding = Embedding(ctx);
    return nn::Run(*layer.slot, ctx, layer.activated ? act_(embedding) : embedding);
  };
  return ctx.features == nullptr ? compute() : ctx.features->Get(*layer.slot, ctx, compute);
}

std::vector<at::Tensor> Unet::TemporalFeatures(ForwardContext& ctx) const {
  std::vector<at::Tensor> features;
  for (const TimeLayer& layer : time_layers_) features.push_back(TemporalFeature(layer, ctx));
  return features;
}

at::Tensor Resampled(Resample how, const at::Tensor& x) {
  switch (how) {
    case Resample::kNone:
      return x;
    case Resample::kUp:
      return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
    case Resample::kDown:
      return at::avg_pool2d(x, 2, 2);
    case Resample::kFilterUp:
      return nn::FilterUp(x, nn::Edge::kZero);
    case Resample::kFilterDown:
      return nn::FilterDown(x, nn::Edge::kZero);
  }
  return x;
}

// x * (1 + scale) + shift; feature: [B, 2C, 1, 1].
at::Tensor ScaleShift(const at::Tensor& x, const at::Tensor& feature) {
  const auto halves = feature.chunk(2, 1);
  return x * (1 + halves[0]) + halves[1];
}

at::Tensor Unet::RunResBlock(const ResBlock& block, ForwardContext& ctx, at::Tensor x) const {
  const auto feature = [&](const TimeLayer& layer) {
    return TemporalFeature(layer, ctx).unsqueeze(-1).unsqueeze(-1);
  };
  at::Tensor h = block.norm1(x);
  if (block.time1.slot != nullptr) h = ScaleShift(h, feature(block.time1));
  h = act_(h);
  x = Resampled(block.resample, x);
  h = nn::Run(*block.conv1, ctx, Resampled(block.resample, h));
  const at::Tensor time = feature(block.time2);
  h = block.scale_shift ? ScaleShift(block.norm2(h), time) : block.norm2(h + time);
  h = nn::Run(*block.conv2, ctx, act_(h));
  if (block.shortcut != nullptr) x = nn::Run(*block.shortcut, ctx, x);
  return (x + h) / block.rescale;
}

Result<std::unique_ptr<Denoiser>> Build(const Json& json, const std::string& label, nn::Params& params) {
  TEMPERA_ASSIGN(UnetConfig config, UnetConfig::Parse(json, label));
  auto unet = std::make_unique<Unet>(std::move(config), label, params);
  TEMPERA_TRY(params.Finish());
  return unet;
}

}  // namespace

extern const ModelFamily kUnetFamily{
    .name = "unet", .class_name = "UNet2DModel", .folder = "unet", .build = &Build};

}  // namespace tempera
