#include "models/autoencoder.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "models/autoencoder_config.h"
#include "models/res_block.h"
#include "nn/layers.h"

namespace tempera {
namespace {

using nn::ForwardContext;
using nn::Role;
using nn::Slot;

constexpr double kEps = 1e-6;  // of every norm

}  // namespace

// One half of the network while it is written: layers go to the end of `chain`.
class Autoencoder::Assembly {
 public:
  Assembly(const AutoencoderConfig& config, nn::Builder& b, Chain& chain)
      : c_(config), b_(b), chain_(chain), act_(*nn::FindActivation(config.act_fn)) {}

  // A convolution that keeps the size of the picture.
  void AddConv(const std::string& name, Role role, int64_t in, int64_t out, int64_t kernel) {
    const int64_t pad = kernel / 2;
    Slot* conv = b_.Conv(name, role, in, out, kernel, 1, {pad, pad, pad, pad});
    chain_.push_back([conv](ForwardContext& ctx, at::Tensor x) { return nn::Run(*conv, ctx, x); });
    channels_ = out;
  }

  void AddRes(const std::string& name, int64_t out) {
    const ResOptions options{.groups1 = c_.norm_num_groups, .groups2 = c_.norm_num_groups, .eps = kEps};
    const ResBlock block(b_, name, channels_, out, options, {});
    chain_.push_back([block, act = act_](ForwardContext& ctx, at::Tensor x) {
      return block.Run(ctx, std::move(x), act, {});
    });
    channels_ = out;
  }

  // One head as wide as the picture is deep.
  void AddAttention(const std::string& name) {
    const nn::PixelAttention attention(b_, name, channels_, channels_, c_.norm_num_groups, kEps, 1);
    chain_.push_back([attention](ForwardContext& ctx, at::Tensor x) { return attention(ctx, x); });
  }

  void AddMiddle(const std::string& half) {
    AddRes(half + ".mid_block.resnets.0", channels_);
    if (c_.mid_block_add_attention) AddAttention(half + ".mid_block.attentions.0");
    AddRes(half + ".mid_block.resnets.1", channels_);
  }

  void AddDown(const std::string& name) {
    Slot* conv = b_.Conv(name + ".conv", Role::kSampler, channels_, channels_, 3, 2, {0, 0, 1, 1});
    chain_.push_back([conv](ForwardContext& ctx, at::Tensor x) { return nn::Run(*conv, ctx, x); });
  }

  void AddUp(const std::string& name) {
    Slot* conv = b_.Conv(name + ".conv", Role::kSampler, channels_, channels_, 3, 1, {1, 1, 1, 1});
    chain_.push_back([conv](ForwardContext& ctx, at::Tensor x) {
      x = Resampled(Resample::kUp, x);
      return nn::Run(*conv, ctx, x);
    });
  }

  // SiLU whatever act_fn says.
  void AddOut(const std::string& half, int64_t out) {
    const nn::GroupNorm norm(b_, half + ".conv_norm_out", channels_, c_.norm_num_groups, kEps);
    chain_.push_back([norm](ForwardContext&, at::Tensor x) {
      x = norm(x);
      return at::silu(x);
    });
    AddConv(half + ".conv_out", Role::kConvOut, channels_, out, 3);
  }

  void AddEncoder() {
    AddConv("encoder.conv_in", Role::kConvIn, c_.in_channels, c_.block_out_channels[0], 3);
    for (int64_t i = 0; i < c_.levels(); ++i) {
      const auto level = static_cast<size_t>(i);
      const std::string name = Cat("encoder.down_blocks.", i);
      for (int64_t j = 0; j < c_.layers_per_block; ++j) {
        AddRes(Cat(name, ".resnets.", j), c_.block_out_channels[level]);
        if (c_.down_block_types[level].starts_with("Attn")) AddAttention(Cat(name, ".attentions.", j));
      }
      if (i + 1 < c_.levels()) AddDown(name + ".downsamplers.0");
    }
    AddMiddle("encoder");
    const int64_t moments = c_.vq ? c_.latent_channels : 2 * c_.latent_channels;
    AddOut("encoder", moments);
    if (c_.vq || c_.use_quant_conv)
      AddConv("quant_conv", Role::kConvOut, moments, c_.vq ? c_.seen_channels() : moments, 1);
  }

  void AddDecoder() {
    if (c_.vq || c_.use_post_quant_conv)
      AddConv("post_quant_conv", Role::kConvIn, c_.seen_channels(), c_.latent_channels, 1);
    AddConv("decoder.conv_in", Role::kConvIn, c_.latent_channels, c_.block_out_channels.back(), 3);
    AddMiddle("decoder");
    for (int64_t i = 0; i < c_.levels(); ++i) {
      const auto level = static_cast<size_t>(i);
      const std::string name = Cat("decoder.up_blocks.", i);
      for (int64_t j = 0; j <= c_.layers_per_block; ++j) {
        AddRes(Cat(name, ".resnets.", j), c_.block_out_channels[c_.block_out_channels.size() - 1 - level]);
        if (c_.up_block_types[level].starts_with("Attn")) AddAttention(Cat(name, ".attentions.", j));
      }
      if (i + 1 < c_.levels()) AddUp(name + ".upsamplers.0");
    }
    AddOut("decoder", c_.out_channels);
  }

 private:
  const AutoencoderConfig& c_;
  nn::Builder& b_;
  Chain& chain_;
  nn::Activation act_;
  int64_t channels_ = 0;  // of what the chain gives so far
};

Autoencoder::Autoencoder(const AutoencoderConfig& config, const std::string& label, nn::Params& params)
    : info_{.family = config.vq ? "vq" : "kl",
            .image_channels = config.out_channels,
            .input_channels = config.in_channels,
            .latent_channels = config.seen_channels(),
            .factor = int64_t{1} << (config.levels() - 1),
            .picture_width = config.block_out_channels[config.levels() > 1 ? 1 : 0],
            .sample_size = config.sample_size[0],
            .scaling_factor = config.scaling_factor,
            .shift_factor = config.shift_factor,
            .latents_mean = config.latents_mean,
            .latents_std = config.latents_std} {
  nn::Builder b(params, slots_, label);
  Assembly(config, b, encoder_).AddEncoder();
  if (config.vq)
    codebook_ = params.Take("quantize.embedding.weight", {config.num_vq_embeddings, info_.latent_channels},
                            nn::Params::Init::kNormal);
  Assembly(config, b, decoder_).AddDecoder();
  const auto by_channel = [&](const std::vector<double>& values) {
    return at::tensor(values, at::kFloat).view({1, -1, 1, 1}).to(params.device());
  };
  if (!info_.latents_mean.empty()) {
    mean_ = by_channel(info_.latents_mean);
    std_ = by_channel(info_.latents_std);
  }
  Adopt(params);
}

at::Tensor Gaussian::Sample(const at::Tensor& noise) const {
  return logvar.defined() ? mean + at::exp(0.5 * logvar) * noise : mean;
}

at::Tensor Autoencoder::ToLatent(const at::Tensor& z) const {
  if (mean_.defined()) return (z - mean_) * info_.scaling_factor / std_;
  return (info_.shift_factor ? z - *info_.shift_factor : z) * info_.scaling_factor;
}

at::Tensor Autoencoder::FromLatent(const at::Tensor& latent) const {
  if (mean_.defined()) return latent * std_ / info_.scaling_factor + mean_;
  const at::Tensor z = latent / info_.scaling_factor;
  return info_.shift_factor ? z + *info_.shift_factor : z;
}

namespace {

template <typename Chain>
at::Tensor RunChain(const Chain& chain, ForwardContext& ctx, at::Tensor x) {
  for (const auto& layer : chain) x = layer(ctx, std::move(x));
  return x;
}

void CheckInput(const at::Tensor& x, int64_t channels, int64_t side) {
  TEMPERA_CHECK(x.dim() == 4 && x.size(1) == channels && x.size(2) >= side && x.size(3) >= side,
                Cat("got ", ShapeText(x.sizes().vec()), ", want ", channels, " channels, sides from ", side));
}

}  // namespace

// Of equally near vectors the first.
at::Tensor Autoencoder::Nearest(const at::Tensor& z) const {
  constexpr int64_t kDistances = 1 << 24;  // in memory at once
  const at::Tensor positions = z.permute({0, 2, 3, 1}).reshape({-1, z.size(1)});
  std::vector<at::Tensor> nearest;
  for (const at::Tensor& some : positions.split(std::max<int64_t>(1, kDistances / codebook_.size(0))))
    nearest.push_back(at::argmin(at::cdist(some, codebook_), 1));
  return at::embedding(codebook_, at::cat(nearest))
      .view({z.size(0), z.size(2), z.size(3), z.size(1)})
      .permute({0, 3, 1, 2})
      .contiguous();
}

at::Tensor Autoencoder::Decode(ForwardContext& ctx, const at::Tensor& z, bool quantize) const {
  CheckInput(z, info_.latent_channels, 1);
  return RunChain(decoder_, ctx, codebook_.defined() && quantize ? Nearest(z) : z);
}

at::Tensor Autoencoder::Moments(ForwardContext& ctx, const at::Tensor& image) const {
  CheckInput(image, info_.input_channels, info_.factor);
  return RunChain(encoder_, ctx, image);
}

Gaussian Autoencoder::Posterior(const at::Tensor& moments) const {
  if (codebook_.defined()) return {.mean = moments, .logvar = {}};
  const std::vector<at::Tensor> halves = moments.chunk(2, 1);
  return {.mean = halves[0], .logvar = at::clamp(halves[1], -30.0, 20.0)};
}

Gaussian Autoencoder::Encode(ForwardContext& ctx, const at::Tensor& image) const {
  return Posterior(Moments(ctx, image));
}

namespace {

// `b`, whose first n rows (dim 2) or columns (dim 3) go over from the last n of `a`.
at::Tensor Blended(const at::Tensor& a, const at::Tensor& b, int64_t dim, int64_t n) {
  at::Tensor part = at::arange(n, at::kDouble) / n;
  if (dim == 2) part = part.unsqueeze(1);
  const auto weight = [&](const at::Tensor& w) { return w.to(b.options()); };
  const at::Tensor edge =
      a.narrow(dim, a.size(dim) - n, n) * weight(1 - part) + b.narrow(dim, 0, n) * weight(part);
  return at::cat({edge, b.narrow(dim, n, b.size(dim) - n)}, dim);
}

// Tiles over h x w latent positions, side x side but for the last ones, each `step` after the one before.
struct Tiles {
  int64_t height, width, side, step;

  Tiles(const AutoencoderInfo& info, const TileOptions& options, int64_t h, int64_t w)
      : height(h),
        width(w),
        side(options.side > 0 ? options.side : std::max<int64_t>(1, info.sample_size / info.factor)),
        step(std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(side) * (1 - options.overlap)))) {
    TEMPERA_CHECK(options.overlap >= 0 && options.overlap <= 0.5, Cat("overlap ", options.overlap));
  }
  bool one() const { return height <= side && width <= side; }

  // The tiles that `run(y, x, rows, columns)` makes of [y, y + rows) x [x, x + columns), put together;
  // `scale`: rows of a tile for each of its positions.
  template <typename Run>
  at::Tensor Join(int64_t scale, const Run& run) const {
    const int64_t overlap = (side - step) * scale;
    const auto last = [&](const at::Tensor& tile, int64_t dim) {
      const int64_t n = std::min(overlap, tile.size(dim));
      return tile.narrow(dim, tile.size(dim) - n, n).clone();
    };
    at::Tensor out;
    std::vector<at::Tensor> above, below;  // by column: a blended tile's last rows
    for (int64_t y = 0; y < height; y += step) {
      at::Tensor left;  // the blended tile's last columns
      below.clear();
      for (int64_t x = 0; x < width; x += step) {
        const int64_t rows = std::min(side, height - y), columns = std::min(side, width - x);
        at::Tensor tile = run(y, x, rows, columns);
        if (!out.defined())
          out = at::empty({tile.size(0), tile.size(1), height * scale, width * scale}, tile.options());
        if (y > 0) tile = Blended(above[below.size()], tile, 2, std::min(overlap, rows * scale));
        if (x > 0) tile = Blended(left, tile, 3, std::min(overlap, columns * scale));
        below.push_back(last(tile, 2));
        left = last(tile, 3);
        const int64_t own_rows = std::min(step, rows) * scale, own_columns = std::min(step, columns) * scale;
        out.narrow(2, y * scale, own_rows)
            .narrow(3, x * scale, own_columns)
            .copy_(tile.narrow(2, 0, own_rows).narrow(3, 0, own_columns));
      }
      above.swap(below);
    }
    return out;
  }
};

}  // namespace

at::Tensor Autoencoder::DecodeTiled(ForwardContext& ctx, const at::Tensor& z,
                                    const TileOptions& options) const {
  CheckInput(z, info_.latent_channels, 1);
  const Tiles tiles(info_, options, z.size(2), z.size(3));
  if (tiles.one()) return Decode(ctx, z);
  return tiles.Join(info_.factor, [&](int64_t y, int64_t x, int64_t rows, int64_t columns) {
    return Decode(ctx, z.narrow(2, y, rows).narrow(3, x, columns));
  });
}

Gaussian Autoencoder::EncodeTiled(ForwardContext& ctx, const at::Tensor& image,
                                  const TileOptions& options) const {
  CheckInput(image, info_.input_channels, info_.factor);
  const int64_t factor = info_.factor;
  const Tiles tiles(info_, options, image.size(2) / factor, image.size(3) / factor);
  if (tiles.one()) return Encode(ctx, image);
  // A tile that is cut by the picture's edge has the rest of the picture, which may be no whole position.
  const auto pixels = [&](int64_t dim, int64_t begin, int64_t count) {
    return count == tiles.side ? count * factor : image.size(dim) - begin * factor;
  };
  return Posterior(tiles.Join(1, [&](int64_t y, int64_t x, int64_t rows, int64_t columns) {
    return Moments(
        ctx, image.narrow(2, y * factor, pixels(2, y, rows)).narrow(3, x * factor, pixels(3, x, columns)));
  }));
}

Result<std::unique_ptr<Autoencoder>> BuildAutoencoder(const Json& json, const std::string& label,
                                                      nn::Params& params) {
  TEMPERA_ASSIGN(const AutoencoderConfig config, AutoencoderConfig::Parse(json, label));
  return nn::TorchEdge(label, [&]() -> Result<std::unique_ptr<Autoencoder>> {
    auto autoencoder = std::make_unique<Autoencoder>(config, label, params);
    TEMPERA_TRY(params.Finish());
    return autoencoder;
  });
}

}  // namespace tempera
