// The unet family: diffusers' UNet2DModel, parameter names equal to its state dict.
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "models/timed_unet.h"
#include "models/unet_config.h"

namespace tempera {
namespace {

using nn::Builder;
using nn::ForwardContext;
using nn::Role;
using nn::Slot;

// What NCSN++ divides the sum of a residual by.
constexpr double kSkipRescale = std::numbers::sqrt2;

class Unet final : public TimedUnet {
 public:
  Unet(UnetConfig config, const std::string& label, nn::Params& params);

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
    std::optional<int> picture;  // NCSN++: the value that passes beside the blocks, 3 channels
  };

  void AddTime(Assembly& a);
  void AddDown(Assembly& a, int64_t level);
  void AddMiddle(Assembly& a);
  void AddUp(Assembly& a, int64_t level);
  void AddOut(Assembly& a);
  // a.h through a block to `out` channels, concatenated with `skip` first.
  void AddRes(Assembly& a, const std::string& name, const char* group, int64_t out, ResOptions options,
              std::optional<Skip> skip = {});
  void AddAttention(Assembly& a, const std::string& name, const char* group, int64_t groups, double rescale);
  void AddPictureDown(Assembly& a, const std::string& name);
  void AddPictureUp(Assembly& a, const std::string& name);
  // Options of a block that turns `in` channels into `out` in a level of this kind.
  ResOptions Options(const BlockKind& kind, int64_t in, int64_t out) const;

  at::Tensor Embed(ForwardContext& ctx) const override;

  UnetConfig c_;
  at::Tensor fourier_, learned_time_, class_embedding_;
  Sinusoid sinusoid_;
  Slot *time1_ = nullptr, *time2_ = nullptr, *class1_ = nullptr, *class2_ = nullptr;
};

Unet::Unet(UnetConfig config, const std::string& label, nn::Params& params)
    : TimedUnet(*nn::FindActivation(config.act_fn)), c_(std::move(config)) {
  info_ = UnetInfo("unet", c_);
  // A label that is embedded as a timestep ranges over the timesteps where the configuration names no count.
  if (c_.class_embed_type && info_.classes == 0) info_.classes = c_.num_train_timesteps.value_or(1000);

  Assembly a{.b = Builder(params, slots_, label), .skips = {}, .picture = {}};
  AddTime(a);
  BeginUnits();
  const int64_t base = c_.block_out_channels[0];
  Slot* conv_in = a.b.Conv("conv_in", Role::kConvIn, c_.in_channels, base, 3, 1, {1, 1, 1, 1});
  a.h = AddUnit("conv_in", "in", {0},
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
  Adopt(params);
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
    sinusoid_ = Sinusoid(base, c_.flip_sin_to_cos, c_.freq_shift, params.device());
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

void Unet::AddRes(Assembly& a, const std::string& name, const char* group, int64_t out, ResOptions options,
                  std::optional<Skip> skip) {
  const int64_t in = a.channels + (skip ? skip->channels : 0);
  options.eps = c_.norm_eps;
  options.scale_shift = c_.resnet_time_scale_shift == "scale_shift";
  options.split = skip ? a.channels : 0;
  std::vector<int> inputs{a.h};
  if (skip) inputs.push_back(skip->value);
  a.h = AddResUnit(a.b, name, group, std::move(inputs), in, out, options);
  a.channels = out;
}

void Unet::AddAttention(Assembly& a, const std::string& name, const char* group, int64_t groups,
                        double rescale) {
  const nn::PixelAttention attention(a.b, name, a.channels, c_.attention_head_dim.value_or(a.channels),
                                     groups, c_.norm_eps, rescale);
  a.h = AddUnit(name, group, {a.h},
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
    a.h = AddUnit(sampler, "down", {a.h},
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
    a.h = AddUnit(sampler, "down", {a.h},
                  [conv](ForwardContext& ctx, const Values& in) { return nn::Run(*conv, ctx, in[0]); });
  }
  a.skips.push_back({a.h, out});
}

// Halves the picture and adds what a 1x1 convolution sees of it to h.
void Unet::AddPictureDown(Assembly& a, const std::string& name) {
  const bool center = !a.picture && c_.center_input_sample;  // value 0 is not centered yet
  a.picture = AddUnit(name + ".downsamplers.0", "down", {a.picture.value_or(0)},
                      [center](ForwardContext&, const Values& in) {
                        return nn::FilterDown(center ? 2 * in[0] - 1.0 : in[0], nn::Edge::kZero);
                      });
  // It reads the picture, as conv_in does.
  Slot* conv = a.b.Conv(name + ".skip_conv", Role::kConvIn, 3, a.channels, 1, 1, {});
  a.h = AddUnit(name + ".skip_conv", "down", {*a.picture, a.h},
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
    a.h = AddUnit(sampler, "up", {a.h},
                  [](ForwardContext&, const Values& in) { return nn::FilterUp(in[0], nn::Edge::kMirror); });
  } else if (kind.style == BlockStyle::kResnet || (kind.attention && c_.upsample_type == "resnet")) {
    ResOptions options = Options(kind, out, out);
    options.resample = Resample::kUp;
    AddRes(a, sampler, "up", out, options);
  } else {
    Slot* conv = a.b.Conv(sampler + ".conv", Role::kSampler, out, out, 3, 1, {1, 1, 1, 1});
    a.h = AddUnit(sampler, "up", {a.h}, [conv](ForwardContext& ctx, const Values& in) {
      const at::Tensor& x = in[0];
      return nn::Run(*conv, ctx, at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
    });
  }
}

// Doubles the picture of the levels below and, but for the last level, adds what this one paints.
void Unet::AddPictureUp(Assembly& a, const std::string& name) {
  if (a.picture)
    a.picture = AddUnit(name + ".upsampler", "up", {*a.picture}, [](ForwardContext&, const Values& in) {
      return nn::FilterUp(in[0], nn::Edge::kZero);
    });
  if (name == Cat("up_blocks.", c_.levels() - 1)) return;
  const nn::GroupNorm norm(a.b, name + ".skip_norm", a.channels, SkipGroups(a.channels), c_.norm_eps);
  // It writes the picture, as conv_out does.
  Slot* conv = a.b.Conv(name + ".skip_conv", Role::kConvOut, a.channels, 3, 3, 1, {1, 1, 1, 1});
  std::vector<int> inputs{a.h};
  if (a.picture) inputs.push_back(*a.picture);
  a.picture = AddUnit(name + ".skip_conv", "up", inputs, [norm, conv](ForwardContext& ctx, const Values& in) {
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
  AddUnit("conv_out", "out", inputs, [this, norm, conv](ForwardContext& ctx, const Values& in) {
    at::Tensor y = nn::Run(*conv, ctx, at::silu(norm(in[0])));
    if (in.size() == 2) y = y + in[1];
    if (c_.time_embedding_type == "fourier") y = y / ctx.timestep.view({-1, 1, 1, 1});
    return y;
  });
}

at::Tensor Unet::Embed(ForwardContext& ctx) const {
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
    return sinusoid_(t);
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
                                    ? at::embedding(class_embedding_, ctx.on.label)
                                    : embed(class1_, class2_, project(ctx.on.label.to(at::kFloat)));
    Note(ctx, "class_embedding", of_class);
    embedding = embedding + of_class;
  }
  return embedding;
}

}  // namespace

extern const ModelFamily kUnetFamily{
    .name = "unet", .class_name = "UNet2DModel", .folder = "unet", .build = &BuildUnet<Unet, UnetConfig>};

}  // namespace tempera
