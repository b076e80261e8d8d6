#include "models/res_block.h"

#include <ATen/Functions.h>

namespace tempera {

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

ResBlock::ResBlock(nn::Builder& b, const std::string& name, int64_t in, int64_t out,
                   const ResOptions& options, const MakeTime& make_time)
    : scale_shift(options.conditioned || options.scale_shift),
      resample(options.resample),
      rescale(options.rescale) {
  const bool own = !options.conditioned;
  norm1 = nn::GroupNorm(b, name + ".norm1", in, options.groups1, options.eps, own);
  if (options.conditioned) time1 = make_time(name + ".norm1.linear", 2 * in, false);
  conv1 = b.Conv(name + ".conv1", nn::Role::kConv, in, out, 3, 1, {1, 1, 1, 1});
  if (make_time)
    time2 = make_time(name + (own ? ".time_emb_proj" : ".norm2.linear"), scale_shift ? 2 * out : out,
                      own && options.time_activated);
  norm2 = nn::GroupNorm(b, name + ".norm2", out, options.groups2, options.eps, own);
  conv2 = b.Conv(name + ".conv2", nn::Role::kConv, out, out, 3, 1, {1, 1, 1, 1});
  if (in != out || options.shortcut)
    shortcut = b.Conv(name + ".conv_shortcut", nn::Role::kShortcut, in, out, 1, 1, {}, options.split, own);
}

namespace {

// x * (1 + scale) + shift; feature: [B, 2C].
at::Tensor ScaleShift(const at::Tensor& x, const at::Tensor& feature) {
  const auto halves = feature.unsqueeze(-1).unsqueeze(-1).chunk(2, 1);
  return x * (1 + halves[0]) + halves[1];
}

}  // namespace

at::Tensor ResBlock::Run(nn::ForwardContext& ctx, at::Tensor x, nn::Activation act,
                         const Feature& feature) const {
  at::Tensor h = norm1(x);
  if (time1.slot != nullptr) h = ScaleShift(h, feature(time1));
  h = act(h);
  x = Resampled(resample, x);
  h = nn::Run(*conv1, ctx, Resampled(resample, h));
  if (time2.slot == nullptr) {
    h = norm2(h);
  } else if (const at::Tensor time = feature(time2); scale_shift) {
    h = ScaleShift(norm2(h), time);
  } else {
    h = norm2(h + time.unsqueeze(-1).unsqueeze(-1));
  }
  h = nn::Run(*conv2, ctx, act(h));
  if (shortcut != nullptr) x = nn::Run(*shortcut, ctx, x);
  return (x + h) / rescale;
}

}  // namespace tempera
