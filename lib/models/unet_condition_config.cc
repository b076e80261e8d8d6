#include "models/unet_condition_config.h"

#include <algorithm>
#include <cmath>

#include "nn/layers.h"

namespace tempera {
namespace {

// The limits are far above any real model and far below what would exhaust memory before the weights are
// compared.
constexpr int64_t kMaxLevels = 16, kMaxSide = 16384, kMaxWidth = 65536, kMaxLayers = 64;

// One integer, or a list with one for each level.
std::vector<int64_t> EachLevel(Fields& f, const char* key, size_t levels, int64_t standard, int64_t low,
                               int64_t high) {
  std::vector<int64_t> values(levels, standard);
  const Json* raw = f.Raw(key);
  if (raw == nullptr || raw->is_null()) return values;
  if (raw->is_array()) {
    f.Get(key, values);
    if (values.size() != levels)
      f.Fail(key, Cat("has ", values.size(), " entries, want ", levels, " as block_out_channels has"));
  } else if (int64_t one = 0; f.Get(key, one)) {
    values.assign(levels, one);
  }
  for (const int64_t value : values) f.Within(key, value, low, high);
  values.resize(levels, standard);
  return values;
}

std::vector<bool> EachLevelBool(Fields& f, const char* key, size_t levels) {
  std::vector<bool> values(levels, false);
  const Json* raw = f.Raw(key);
  if (raw == nullptr || raw->is_null()) return values;
  if (raw->is_boolean()) return std::vector<bool>(levels, raw->get<bool>());
  bool fits = raw->is_array() && raw->size() == levels;
  for (size_t i = 0; fits && i < levels; ++i) {
    fits = (*raw)[i].is_boolean();
    if (fits) values[i] = (*raw)[i].get<bool>();
  }
  if (!fits) f.Fail(key, Cat("is wrong, want true or false, or a list of ", levels));
  return values;
}

// For each level a list with one number of transformer blocks for each of its `blocks` residual blocks: from
// one integer, one a level, or such lists.
std::vector<std::vector<int64_t>> TransformerCounts(Fields& f, const char* key, const Json* raw,
                                                    const std::vector<int64_t>& blocks) {
  std::vector<std::vector<int64_t>> counts;
  for (const int64_t n : blocks) counts.emplace_back(static_cast<size_t>(n), 1);
  if (raw == nullptr || raw->is_null()) return counts;
  const auto bad = [&](const std::string& what) {
    f.Fail(key, what);
    return counts;
  };
  if (raw->is_array() && raw->size() != blocks.size())
    return bad(Cat("has ", raw->size(), " entries, want ", blocks.size(), " as block_out_channels has"));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Json& of_level = raw->is_array() ? (*raw)[i] : *raw;
    if (of_level.is_array() && of_level.size() != counts[i].size())
      return bad(Cat("has ", of_level.size(), " entries in level ", i, ", want ", counts[i].size()));
    for (size_t j = 0; j < counts[i].size(); ++j) {
      const Json& one = of_level.is_array() ? of_level[j] : of_level;
      if (!one.is_number_integer() || one.get<int64_t>() < 1 || one.get<int64_t>() > kMaxLayers)
        return bad(Cat("is wrong, got ", one.dump(), ", want integers from 1 to ", kMaxLayers));
      counts[i][j] = one.get<int64_t>();
    }
  }
  return counts;
}

bool HasAttention(const std::string& type) { return type.starts_with("CrossAttn"); }

void CheckTypes(Fields& f, const char* key, const std::vector<std::string>& types, size_t levels,
                std::initializer_list<const char*> known) {
  if (types.size() != levels)
    f.Fail(key, Cat("has ", types.size(), " entries, want ", levels, " as block_out_channels has"));
  for (const std::string& type : types) f.OneOf(key, type, known);
}

void CheckActivation(Fields& f, const char* key, const std::optional<std::string>& name) {
  if (name && !nn::FindActivation(*name).ok())
    f.Fail(key, Cat("is not supported, got \"", *name, "\", want silu, swish, mish, gelu or relu"));
}

}  // namespace

Result<UnetConditionConfig> UnetConditionConfig::Parse(const Json& json, const std::string& label) {
  UnetConditionConfig c;
  Fields f(json, label);
  f.Ignore({"_class_name", "_diffusers_version", "_name_or_path", "_commit_hash"});
  const auto is_null = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_null();
  };
  if (const Json* size = f.Raw("sample_size"); size != nullptr && size->is_array()) {
    f.Get("sample_size", c.sample_size);
    if (c.sample_size.size() != 2) f.Fail("sample_size", "is wrong, want one side or [height, width]");
  } else if (int64_t side = 0; f.Get("sample_size", side)) {
    c.sample_size = {side, side};
  }
  f.Get("in_channels", c.in_channels);
  f.Get("out_channels", c.out_channels);
  f.Get("center_input_sample", c.center_input_sample);
  f.Get("flip_sin_to_cos", c.flip_sin_to_cos);
  f.Get("freq_shift", c.freq_shift);
  f.Get("down_block_types", c.down_block_types);
  if (is_null("mid_block_type")) c.mid_block_type.reset();
  f.Get("mid_block_type", c.mid_block_type);
  f.Get("up_block_types", c.up_block_types);
  f.Get("block_out_channels", c.block_out_channels);
  if (c.block_out_channels.empty() || c.block_out_channels.size() > kMaxLevels)
    f.Fail("block_out_channels",
           Cat("has ", c.block_out_channels.size(), " entries, want 1 to ", kMaxLevels));
  TEMPERA_TRY(f.status());
  const size_t levels = c.block_out_channels.size();
  c.only_cross_attention = EachLevelBool(f, "only_cross_attention", levels);
  c.layers_per_block = EachLevel(f, "layers_per_block", levels, 2, 1, kMaxLayers);
  f.Get("downsample_padding", c.downsample_padding);
  f.Get("mid_block_scale_factor", c.mid_block_scale_factor);
  f.Get("dropout", c.dropout);
  f.Get("act_fn", c.act_fn);
  if (is_null("norm_num_groups"))
    f.Fail("norm_num_groups", "is not supported, got null, want the number of groups");
  f.Get("norm_num_groups", c.norm_num_groups);
  f.Get("norm_eps", c.norm_eps);
  c.cross_attention_dim = EachLevel(f, "cross_attention_dim", levels, 1280, 1, kMaxWidth);
  const Json* transformers = f.Raw("transformer_layers_per_block");
  const Json* reversed = f.Raw("reverse_transformer_layers_per_block");
  TEMPERA_TRY(f.status());
  c.transformers_down =
      TransformerCounts(f, "transformer_layers_per_block", transformers, c.layers_per_block);
  std::vector<int64_t> up_layers;
  for (size_t i = levels; i-- > 0;) up_layers.push_back(c.layers_per_block[i] + 1);
  Json mirrored;
  if (reversed != nullptr && !reversed->is_null()) {
    mirrored = *reversed;
  } else if (transformers != nullptr) {
    mirrored = *transformers;
    if (mirrored.is_array()) {
      std::reverse(mirrored.begin(), mirrored.end());
      for (const Json& of_level : mirrored)
        if (of_level.is_array())
          f.Fail("reverse_transformer_layers_per_block",
                 "is missing, transformer_layers_per_block with a list in it needs it");
    }
  }
  c.transformers_up = TransformerCounts(f, "reverse_transformer_layers_per_block", &mirrored, up_layers);
  c.transformers_mid = c.transformers_down.back().front();
  f.Get("encoder_hid_dim", c.encoder_hid_dim);
  std::optional<std::string> type;
  if (f.Get("encoder_hid_dim_type", type)) {
    f.OneOf("encoder_hid_dim_type", *type, {"text_proj"});
    if (!c.encoder_hid_dim) f.Fail("encoder_hid_dim", "is missing, encoder_hid_dim_type needs it");
  }
  if (f.Raw("num_attention_heads") != nullptr && !is_null("num_attention_heads"))
    f.Fail("num_attention_heads",
           "is not supported, want null: the class takes the number of heads from attention_head_dim");
  c.attention_heads = EachLevel(f, "attention_head_dim", levels, 8, 1, kMaxWidth);
  f.Get("use_linear_projection", c.use_linear_projection);
  f.Get("class_embed_type", c.class_embed_type);
  f.Get("num_class_embeds", c.num_class_embeds);
  f.Get("class_embeddings_concat", c.class_embeddings_concat);
  f.Get("addition_embed_type", c.addition_embed_type);
  f.Get("addition_time_embed_dim", c.addition_time_embed_dim);
  f.Get("projection_class_embeddings_input_dim", c.projection_class_embeddings_input_dim);
  f.Get("resnet_time_scale_shift", c.resnet_time_scale_shift);
  f.Get("time_embedding_type", c.time_embedding_type);
  f.Get("time_embedding_dim", c.time_embedding_dim);
  f.Get("time_embedding_act_fn", c.time_embedding_act_fn);
  f.Get("timestep_post_act", c.timestep_post_act);
  f.Get("time_cond_proj_dim", c.time_cond_proj_dim);
  f.Get("conv_in_kernel", c.conv_in_kernel);
  f.Get("conv_out_kernel", c.conv_out_kernel);
  // Everything is computed in f32 anyway; the heads belong to another addition_embed_type.
  f.Ignore({"upcast_attention", "addition_embed_type_num_heads"});
  const auto only = [&](const char* key, bool wanted) {
    bool value = wanted;
    if (f.Get(key, value) && value != wanted)
      f.Fail(key,
             Cat("is not supported, got ", value ? "true" : "false", ", want ", wanted ? "true" : "false"));
  };
  only("dual_cross_attention", false);
  only("resnet_skip_time_act", false);
  only("mid_block_only_cross_attention", false);
  double rescale = 1;
  if (f.Get("resnet_out_scale_factor", rescale) && rescale != 1)
    f.Fail("resnet_out_scale_factor", Cat("is not supported, got ", rescale, ", want 1"));
  std::optional<std::string> norm;
  if (f.Get("cross_attention_norm", norm))
    f.Fail("cross_attention_norm", Cat("is not supported, got \"", *norm, "\", want null"));
  std::string attention = "default";
  f.Get("attention_type", attention);
  f.OneOf("attention_type", attention, {"default"});
  TEMPERA_TRY(f.Finish());

  for (const int64_t side : c.sample_size) f.Within("sample_size", side, 1, kMaxSide);
  f.Within("in_channels", c.in_channels, 1, kMaxWidth);
  f.Within("out_channels", c.out_channels, 1, kMaxWidth);
  f.Within("downsample_padding", c.downsample_padding, 0, 1);
  f.Within("norm_num_groups", c.norm_num_groups, 1, kMaxWidth);
  for (const int64_t channels : c.block_out_channels) f.Within("block_out_channels", channels, 1, kMaxWidth);
  if (c.encoder_hid_dim) f.Within("encoder_hid_dim", *c.encoder_hid_dim, 1, kMaxWidth);
  if (std::adjacent_find(c.cross_attention_dim.begin(), c.cross_attention_dim.end(), std::not_equal_to<>()) !=
      c.cross_attention_dim.end())
    f.Fail("cross_attention_dim",
           "is not supported, got a list of several widths, want one: there is one context");
  if (c.time_embedding_dim) f.Within("time_embedding_dim", *c.time_embedding_dim, 1, 1 << 20);
  if (c.num_class_embeds) f.Within("num_class_embeds", *c.num_class_embeds, 1, 1 << 20);
  if (c.time_cond_proj_dim) f.Within("time_cond_proj_dim", *c.time_cond_proj_dim, 1, kMaxWidth);
  CheckTypes(f, "down_block_types", c.down_block_types, levels, {"CrossAttnDownBlock2D", "DownBlock2D"});
  CheckTypes(f, "up_block_types", c.up_block_types, levels, {"CrossAttnUpBlock2D", "UpBlock2D"});
  if (c.mid_block_type)
    f.OneOf("mid_block_type", *c.mid_block_type, {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"});
  f.OneOf("resnet_time_scale_shift", c.resnet_time_scale_shift, {"default", "scale_shift"});
  f.OneOf("time_embedding_type", c.time_embedding_type, {"positional", "fourier"});
  if (c.class_embed_type) f.OneOf("class_embed_type", *c.class_embed_type, {"timestep"});
  if (c.addition_embed_type) {
    f.OneOf("addition_embed_type", *c.addition_embed_type, {"text_time"});
    f.Within("addition_time_embed_dim", c.addition_time_embed_dim, 1, kMaxWidth);
    f.Within("projection_class_embeddings_input_dim", c.projection_class_embeddings_input_dim,
             c.addition_time_embed_dim + 1, 1 << 20);
  }
  for (const auto& [key, kernel] :
       {std::pair("conv_in_kernel", c.conv_in_kernel), std::pair("conv_out_kernel", c.conv_out_kernel)})
    if (kernel < 1 || kernel > 15 || kernel % 2 == 0)
      f.Fail(key, Cat("is not supported, got ", kernel, ", want an odd number from 1 to 15"));
  if (c.time_embedding_type == "fourier" &&
      c.time_embedding_dim.value_or(2 * c.block_out_channels[0]) % 2 != 0)
    f.Fail("time_embedding_dim", Cat("is wrong, got ", *c.time_embedding_dim, ", want an even number"));
  if (!std::isfinite(c.norm_eps) || c.norm_eps <= 0)
    f.Fail("norm_eps", Cat("is out of range, got ", c.norm_eps, ", want > 0"));
  if (!std::isfinite(c.mid_block_scale_factor) || c.mid_block_scale_factor == 0)
    f.Fail("mid_block_scale_factor",
           Cat("is out of range, got ", c.mid_block_scale_factor, ", want a number other than 0"));
  CheckActivation(f, "act_fn", c.act_fn);
  CheckActivation(f, "time_embedding_act_fn", c.time_embedding_act_fn);
  CheckActivation(f, "timestep_post_act", c.timestep_post_act);
  TEMPERA_TRY(f.status());
  for (size_t i = 0; i < levels; ++i) {
    const size_t up = levels - 1 - i;
    if (!HasAttention(c.down_block_types[i]) && !HasAttention(c.up_block_types[up])) continue;
    if (c.attention_heads[i] > c.block_out_channels[i])
      f.Fail("attention_head_dim", Cat("does not fit level ", i, ", got ", c.attention_heads[i],
                                       " heads for ", c.block_out_channels[i], " channels"));
  }
  TEMPERA_TRY(f.status());
  return c;
}

}  // namespace tempera
