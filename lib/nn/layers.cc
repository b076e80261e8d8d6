#include "nn/layers.h"

#include <ATen/Functions.h>

#include <cmath>

namespace tempera::nn {

namespace {

struct NamedActivation {
  const char* name;
  Activation run;
};
constexpr NamedActivation kActivations[] = {
    {"silu", [](const at::Tensor& x) { return at::silu(x); }},
    {"swish", [](const at::Tensor& x) { return at::silu(x); }},
    {"mish", [](const at::Tensor& x) { return at::mish(x); }},
    {"gelu", [](const at::Tensor& x) { return at::gelu(x); }},
    {"quick_gelu", [](const at::Tensor& x) { return x * at::sigmoid(1.702 * x); }},
    {"gelu_new", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
    {"gelu_pytorch_tanh", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
    {"relu", [](const at::Tensor& x) { return at::relu(x); }},
};

}  // namespace

Result<Activation> FindActivation(std::string_view name, std::string_view field) {
  std::string known;
  for (const NamedActivation& row : kActivations) {
    if (name == row.name) return row.run;
    known += Cat(known.empty() ? "" : &row == std::end(kActivations) - 1 ? " or " : ", ", row.name);
  }
  return InvalidArgument(field, " is not supported, got \"", name, "\", want ", known);
}

Slot* Builder::Add(Slot slot, int64_t split) {
  if (slot.role == Role::kMatmul) {
    slot.parts.resize(2);
  } else if (split > 0) {
    slot.parts.resize(2);
    slot.parts[0].channels = split;
    slot.parts[1].begin = split;
    slot.parts[1].channels = slot.in_channels - split;
  } else {
    slot.parts.resize(1);
    slot.parts[0].channels = slot.in_channels;
  }
  slots_.push_back(std::move(slot));
  return &slots_.back();
}

Slot* Builder::Conv(const std::string& name, Role role, int64_t in, int64_t out, int64_t kernel,
                    int64_t stride, std::array<int64_t, 4> pad, int64_t split, bool bias) {
  Slot slot;
  slot.name = name;
  slot.role = role;
  slot.out_channels = out;
  slot.in_channels = in;
  slot.kh = slot.kw = kernel;
  slot.stride = stride;
  slot.pad = pad;
  const int64_t fan_in = in * kernel * kernel;
  slot.weight = params_.TakeWeight(name + ".weight", {out, in, kernel, kernel}, fan_in);
  if (bias) slot.bias = params_.Take(name + ".bias", {out}, Params::Init::kUniform, fan_in);
  return Add(std::move(slot), split);
}

Slot* Builder::Linear(const std::string& name, Role role, int64_t in, int64_t out, bool bias) {
  Slot slot;
  slot.name = name;
  slot.role = role;
  slot.linear = true;
  slot.out_channels = out;
  slot.in_channels = in;
  slot.weight = params_.TakeWeight(name + ".weight", {out, in}, in);
  if (bias) slot.bias = params_.Take(name + ".bias", {out}, Params::Init::kUniform, in);
  return Add(std::move(slot), 0);
}

Slot* Builder::Matmul(const std::string& name) {
  Slot slot;
  slot.name = name;
  slot.role = Role::kMatmul;
  return Add(std::move(slot), 0);
}

GroupNorm::GroupNorm(Builder& b, const std::string& name, int64_t channels, int64_t num_groups,
                     double epsilon, bool affine)
    : groups(num_groups), eps(epsilon) {
  if (num_groups < 1 || channels % num_groups != 0) {
    b.Fail(name, ": the groups do not divide the channels, got ", num_groups, " groups for ", channels,
           " channels, want other norm_num_groups or block_out_channels");
    return;
  }
  if (!affine) return;
  weight = b.params().Take(name + ".weight", {channels}, Params::Init::kOnes);
  bias = b.params().Take(name + ".bias", {channels}, Params::Init::kZeros);
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  return at::group_norm(x, groups, weight, bias, eps);
}

LayerNorm::LayerNorm(Builder& b, const std::string& name, int64_t size, double epsilon, bool affine)
    : channels(size), eps(epsilon) {
  if (!affine) return;
  weight = b.params().Take(name + ".weight", {size}, Params::Init::kOnes);
  bias = b.params().Take(name + ".bias", {size}, Params::Init::kZeros);
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {channels}, weight, bias, eps);
}

DotAttention::DotAttention(Builder& b, const std::string& name, int64_t head_count, int64_t head_dim,
                           bool is_causal)
    : scores(b.Matmul(name + ".scores")),
      values(b.Matmul(name + ".values")),
      heads(head_count),
      scale(1.0 / std::sqrt(static_cast<double>(head_dim))),
      causal(is_causal) {}

at::Tensor DotAttention::operator()(ForwardContext& ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                                    const at::Tensor& v_in) const {
  const auto split = [&](const at::Tensor& t) {
    return t.view({t.size(0), t.size(1), heads, -1}).transpose(1, 2);
  };
  const auto in_float = [](const Slot& slot) {
    return slot.state == State::kFloat || slot.activation_bits == 0;
  };
  const at::Tensor q = split(q_in), k = split(k_in), v = split(v_in);
  at::Tensor mixed;
  if (in_float(*scores) && in_float(*values)) {
    mixed = at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal, scale);
  } else {
    // Every row of q by itself, so any number of them gives the same numbers; an observer wants all at once.
    constexpr int64_t kProducts = 1 << 23;
    const int64_t step = scores->state == State::kObserve
                             ? q.size(2)
                             : std::max<int64_t>(1, kProducts / (q.size(0) * q.size(1) * k.size(2)));
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < q.size(2); begin += step) {
      const int64_t count = std::min(step, q.size(2) - begin);
      at::Tensor logits = RunMatmul(*scores, ctx, q.narrow(2, begin, count), k) * scale;
      if (causal) {
        const at::Tensor hidden = at::ones({count, k.size(2)}, q.options().dtype(at::kBool)).triu(begin + 1);
        logits = logits.masked_fill(hidden, -INFINITY);
      }
      parts.push_back(RunMatmul(*values, ctx, at::softmax(logits, -1), v.transpose(-1, -2)));
    }
    mixed = parts.size() == 1 ? parts[0] : at::cat(parts, 2);
  }
  return mixed.transpose(1, 2).reshape(q_in.sizes());
}

TokenAttention::TokenAttention(Builder& b, const std::string& name, int64_t width, int64_t source_width,
                               int64_t heads, int64_t head_dim) {
  const int64_t inner = heads * head_dim;
  to_q = b.Linear(name + ".to_q", Role::kLinear, width, inner, false);
  to_k = b.Linear(name + ".to_k", Role::kLinear, source_width, inner, false);
  to_v = b.Linear(name + ".to_v", Role::kLinear, source_width, inner, false);
  attention = DotAttention(b, name, heads, head_dim);
  to_out = b.Linear(name + ".to_out.0", Role::kLinear, inner, width);
}

at::Tensor TokenAttention::operator()(ForwardContext& ctx, const at::Tensor& x,
                                      const at::Tensor& source) const {
  return Run(*to_out, ctx,
             attention(ctx, Run(*to_q, ctx, x), Run(*to_k, ctx, source), Run(*to_v, ctx, source)));
}

PixelAttention::PixelAttention(Builder& b, const std::string& name, int64_t channels, int64_t head_dim,
                               int64_t norm_groups, double eps, double rescale_factor)
    : rescale(rescale_factor) {
  if (head_dim < 1 || head_dim > channels) {
    b.Fail("attention_head_dim does not fit ", name, ", got ", head_dim, " for ", channels,
           " channels, want 1 to ", channels);
    return;
  }
  const int64_t heads = channels / head_dim;
  if (norm_groups > 0) norm.emplace(b, name + ".group_norm", channels, norm_groups, eps);
  // Checkpoints from before diffusers 0.17 name the projections query, key, value and proj_attn.
  const auto projection = [&](const char* now, const char* before, int64_t in, int64_t out) {
    const std::string old_name = name + "." + before;
    return b.Linear(b.params().Has(old_name + ".weight") ? old_name : name + "." + now, Role::kLinear, in,
                    out);
  };
  const int64_t inner = heads * head_dim;  // fewer than the channels where head_dim does not divide them
  to_q = projection("to_q", "query", channels, inner);
  to_k = projection("to_k", "key", channels, inner);
  to_v = projection("to_v", "value", channels, inner);
  attention = DotAttention(b, name, heads, head_dim);
  to_out = projection("to_out.0", "proj_attn", inner, channels);
}

at::Tensor PixelAttention::operator()(ForwardContext& ctx, const at::Tensor& x) const {
  const int64_t batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  at::Tensor h = norm ? (*norm)(x) : x;
  h = h.reshape({batch, channels, pixels}).transpose(1, 2).contiguous();  // [B, T, C]
  const at::Tensor q = Run(*to_q, ctx, h), k = Run(*to_k, ctx, h), v = Run(*to_v, ctx, h);
  const at::Tensor mixed = attention(ctx, q, k, v);
  const at::Tensor out = Run(*to_out, ctx, mixed).transpose(1, 2).reshape(x.sizes());
  return (out + x) / rescale;
}

namespace {

// [1, 1, 4, 4], of sum `gain`.
at::Tensor Filter(const at::Tensor& like, double gain) {
  const at::Tensor row = at::tensor({1.0f, 3.0f, 3.0f, 1.0f}, like.options().requires_grad(false));
  return (at::outer(row, row) * (gain / 64)).view({1, 1, 4, 4});
}

// Each channel as a picture of its own, one row and column wider on every side if the edge is mirrored.
at::Tensor Channels(const at::Tensor& x, Edge edge) {
  const at::Tensor one = x.reshape({-1, 1, x.size(2), x.size(3)});
  return edge == Edge::kMirror ? at::reflection_pad2d(one, {1, 1, 1, 1}) : one;
}

}  // namespace

at::Tensor FilterDown(const at::Tensor& x, Edge edge) {
  const int64_t pad = edge == Edge::kMirror ? 0 : 1;
  const at::Tensor y = at::conv2d(Channels(x, edge), Filter(x, 1), {}, 2, pad);
  return y.reshape({x.size(0), x.size(1), y.size(2), y.size(3)});
}

at::Tensor FilterUp(const at::Tensor& x, Edge edge) {
  // A row added outside becomes two rows of the result, which the padding takes away again.
  const int64_t pad = edge == Edge::kMirror ? 3 : 1;
  const at::Tensor y = at::conv_transpose2d(Channels(x, edge), Filter(x, 4), {}, 2, pad);
  return y.reshape({x.size(0), x.size(1), y.size(2), y.size(3)});
}

}  // namespace tempera::nn
