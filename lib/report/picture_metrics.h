// How alike two pictures are, and how sure a mean of such figures is. Plain C++, double precision.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/status.h"

namespace tempera {

// An 8-bit picture that somebody else holds: rows of interleaved channels.
struct PictureView {
  int64_t width = 0, height = 0, channels = 0;
  std::span<const uint8_t> pixels;  // [height, width, channels]
};

// What Psnr gives for pictures that are equal, and the most that it ever gives, so that means stay finite.
inline constexpr double kPsnrCapDb = 99.0;

// Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared difference over all pixels and channels),
// at most kPsnrCapDb. InvalidArgument if the shapes differ, a side is < 1 or the pixels are not width *
// height * channels.
Result<double> Psnr(const PictureView& a, const PictureView& b);

// Structural similarity, at most 1: Gaussian window of 11x11 with sigma 1.5 at every place where it lies
// inside the picture, constants (0.01 * 255)^2 and (0.03 * 255)^2, variances with the window's weights; the
// mean over places, then over channels. A picture with a side below 11 takes the greatest odd window that
// fits. Errors as Psnr.
Result<double> Ssim(const PictureView& a, const PictureView& b);

// A mean and its 95 % confidence interval by Student's t: mean +- t(0.975, n - 1) * s / sqrt(n), s with n
// - 1. The values are taken as independent draws. One value has no interval.
struct Interval {
  double mean = 0;
  std::optional<double> low, high;
};
// REQUIRES: at least one value.
Interval MeanInterval(std::span<const double> values);

// The t for which P(T <= t) = p, with `degrees` of freedom. REQUIRES: 0.5 <= p < 1, degrees >= 1.
double StudentQuantile(double p, int64_t degrees);

// 95 % interval of a share of `count` independent yes-or-no draws, by Wilson's score. REQUIRES: 0 <= share <=
// 1, count >= 1.
Interval ShareInterval(double share, int64_t count);

// Part of the pictures whose predicted class is the wanted one. REQUIRES: as many predictions as wants, at
// least one.
double ClassAccuracy(std::span<const int64_t> predicted, std::span<const int64_t> wanted);

}  // namespace tempera
