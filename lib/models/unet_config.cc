#include "models/unet_config.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "nn/layers.h"

namespace tempera {
namespace {

constexpr BlockKind kDownKinds[] = {{"DownBlock2D", BlockStyle::kPlain, false},
                                    {"AttnDownBlock2D", BlockStyle::kPlain, true},
                                    {"ResnetDownsampleBlock2D", BlockStyle::kResnet, false},
                                    {"SkipDownBlock2D", BlockStyle::kSkip, false},
                                    {"AttnSkipDownBlock2D", BlockStyle::kSkip, true},
                                    {"KDownBlock2D", BlockStyle::kKarras, false}};
constexpr BlockKind kUpKinds[] = {{"UpBlock2D", BlockStyle::kPlain, false},
                                  {"AttnUpBlock2D", BlockStyle::kPlain, true},
                                  {"ResnetUpsampleBlock2D", BlockStyle::kResnet, false},
                                  {"SkipUpBlock2D", BlockStyle::kSkip, false},
                                  {"AttnSkipUpBlock2D", BlockStyle::kSkip, true},
                                  {"KUpBlock2D", BlockStyle::kKarras, false}};

const BlockKind* FindKind(std::span<const BlockKind> kinds, std::string_view name) {
  if (name.starts_with("UNetRes")) name.remove_prefix(7);
  for (const BlockKind& kind : kinds)
    if (name == kind.name) return &kind;
  return nullptr;
}

void CheckKinds(Fields& f, const char* key, std::span<const BlockKind> kinds,
                const std::vector<std::string>& types) {
  for (const std::string& type : types) {
    if (FindKind(kinds, type) != nullptr) continue;
    std::string known;
    for (const BlockKind& kind : kinds)
      known += Cat(known.empty() ? "" : &kind == &kinds.back() ? " or " : ", ", kind.name);
    f.Fail(key, Cat("is not supported, got \"", type, "\", want ", known));
  }
}

// What the levels ask of each other and of the picture. REQUIRES: known kinds, one a level.
void CheckLevels(Fields& f, const UnetConfig& c) {
  const int64_t levels = c.levels();
  int64_t karras = 0, plain = 0, first_skip_up = levels;
  for (int64_t i = 0; i < levels; ++i) {
    for (const BlockStyle style : {c.Down(i).style, c.Up(i).style}) {
      karras += style == BlockStyle::kKarras;
      plain += style == BlockStyle::kPlain || style == BlockStyle::kResnet;
    }
    // The picture is halved beside the blocks by the levels of this style alone, three channels of it.
    if (c.Down(i).style == BlockStyle::kSkip && i + 1 < levels) {
      if (i > 0 && c.Down(i - 1).style != BlockStyle::kSkip)
        f.Fail("down_block_types",
               Cat("does not fit together, got ", c.down_block_types[static_cast<size_t>(i)], " below ",
                   c.down_block_types[static_cast<size_t>(i - 1)], ", want only skip blocks above it"));
      if (c.in_channels != 3)
        f.Fail("in_channels", Cat("does not fit ", c.Down(i).name, ", got ", c.in_channels, ", want 3"));
    }
    if (c.Up(i).style == BlockStyle::kSkip)
      first_skip_up = std::min(first_skip_up, i);
    else if (first_skip_up < i)
      f.Fail("up_block_types",
             Cat("does not fit together, got ", c.up_block_types[static_cast<size_t>(i)], " above ",
                 c.up_block_types[static_cast<size_t>(i - 1)], ", want only skip blocks above it"));
  }
  if (first_skip_up + 1 < levels && c.out_channels != 3)
    f.Fail("out_channels",
           Cat("does not fit ", c.Up(first_skip_up).name, ", got ", c.out_channels, ", want 3"));
  // Their levels hand over one value less than those of every other style.
  if (karras > 0 && karras != 2 * levels)
    f.Fail(c.Down(0).style == BlockStyle::kKarras ? "up_block_types" : "down_block_types",
           "does not fit together, want KDownBlock2D and KUpBlock2D on every level or on none");
  if (plain > 0 && !c.norm_num_groups)
    f.Fail("norm_num_groups", "is null, only skip blocks and K blocks count their groups by themselves");
  // Each halving needs an even side; the mirrored edge of a filter needs a second pixel.
  const int64_t unit = (int64_t{1} << (levels - 1)) * (karras > 0 && levels > 1 ? 2 : 1);
  for (const int64_t side : c.sample_size)
    if (side % (int64_t{1} << (levels - 1)) != 0 || side < unit)
      f.Fail("sample_size", Cat("does not fit ", levels, " levels, got ", side, ", want a multiple of ",
                                int64_t{1} << (levels - 1), ", at least ", unit));
}

}  // namespace

const BlockKind& UnetConfig::Down(int64_t i) const {
  return *FindKind(kDownKinds, down_block_types[static_cast<size_t>(i)]);
}

const BlockKind& UnetConfig::Up(int64_t i) const {
  return *FindKind(kUpKinds, up_block_types[static_cast<size_t>(i)]);
}

int64_t UnetConfig::Groups(int64_t channels) const {
  return norm_num_groups.value_or(std::min<int64_t>(channels / 4, 32));
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
  // null is a value of its own where the default is another.
  const auto is_null = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_null();
  };
  if (is_null("mid_block_type")) c.mid_block_type.reset();
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
  if (is_null("attention_head_dim")) c.attention_head_dim.reset();
  f.Get("attention_head_dim", c.attention_head_dim);
  if (is_null("norm_num_groups")) c.norm_num_groups.reset();
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
  if (c.sample_size.size() != 0 && c.sample_size.size() != 2)
    f.Fail("sample_size", "is wrong, want one side or [height, width]");
  for (const int64_t side : c.sample_size) f.Within("sample_size", side, 1, 16384);
  f.Within("in_channels", c.in_channels, 1, 65536);
  f.Within("out_channels", c.out_channels, 1, 65536);
  f.Within("layers_per_block", c.layers_per_block, 1, 64);
  f.Within("downsample_padding", c.downsample_padding, 0, 1);
  if (c.norm_num_groups) f.Within("norm_num_groups", *c.norm_num_groups, 1, 65536);
  if (c.time_embedding_dim) f.Within("time_embedding_dim", *c.time_embedding_dim, 1, 1 << 20);
  if (c.attention_head_dim) f.Within("attention_head_dim", *c.attention_head_dim, 1, 65536);
  if (c.attn_norm_num_groups) f.Within("attn_norm_num_groups", *c.attn_norm_num_groups, 1, 65536);
  if (c.num_class_embeds) f.Within("num_class_embeds", *c.num_class_embeds, 1, 1 << 20);
  f.OneOf("time_embedding_type", c.time_embedding_type, {"positional", "fourier", "learned"});
  f.OneOf("downsample_type", c.downsample_type, {"conv", "resnet"});
  f.OneOf("upsample_type", c.upsample_type, {"conv", "resnet"});
  f.OneOf("resnet_time_scale_shift", c.resnet_time_scale_shift, {"default", "scale_shift"});
  if (c.mid_block_type) f.OneOf("mid_block_type", *c.mid_block_type, {"UNetMidBlock2D"});
  if (c.class_embed_type == "identity")
    f.Fail("class_embed_type",
           "is not supported, got \"identity\", want timestep or none: identity takes an embedding vector, "
           "and a request carries a class label");
  else if (c.class_embed_type)
    f.OneOf("class_embed_type", *c.class_embed_type, {"timestep"});
  if (c.time_embedding_type == "learned") {
    if (!c.num_train_timesteps)
      f.Fail("num_train_timesteps", "is missing, a learned time embedding needs it");
    else
      f.Within("num_train_timesteps", *c.num_train_timesteps, 1, 1 << 20);
  }
  if (!std::isfinite(c.norm_eps) || c.norm_eps <= 0)
    f.Fail("norm_eps", Cat("is out of range, got ", c.norm_eps, ", want > 0"));
  if (!std::isfinite(c.mid_block_scale_factor) || c.mid_block_scale_factor == 0)
    f.Fail("mid_block_scale_factor",
           Cat("is out of range, got ", c.mid_block_scale_factor, ", want a number other than 0"));
  if (c.block_out_channels.empty() || c.block_out_channels.size() > 16)
    f.Fail("block_out_channels", Cat("has ", c.block_out_channels.size(), " entries, want 1 to 16"));
  for (const int64_t channels : c.block_out_channels) f.Within("block_out_channels", channels, 1, 65536);
  if (c.down_block_types.size() != c.block_out_channels.size())
    f.Fail("down_block_types", Cat("has ", c.down_block_types.size(), " entries, want ",
                                   c.block_out_channels.size(), " as block_out_channels has"));
  if (c.up_block_types.size() != c.block_out_channels.size())
    f.Fail("up_block_types", Cat("has ", c.up_block_types.size(), " entries, want ",
                                 c.block_out_channels.size(), " as block_out_channels has"));
  CheckKinds(f, "down_block_types", kDownKinds, c.down_block_types);
  CheckKinds(f, "up_block_types", kUpKinds, c.up_block_types);
  TEMPERA_TRY(f.status());
  CheckLevels(f, c);
  if (const auto activation = nn::FindActivation(c.act_fn); !activation.ok())
    return Annotate(activation.status(), label);
  TEMPERA_TRY(f.status());
  return c;
}

}  // namespace tempera
