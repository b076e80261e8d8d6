#include "report/picture_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace tempera {
namespace {

std::string ShapeOf(const PictureView& p) { return Cat(p.width, "x", p.height, "x", p.channels); }

Status CheckPair(const PictureView& a, const PictureView& b) {
  for (const PictureView* p : {&a, &b}) {
    if (p->width < 1 || p->height < 1 || p->channels < 1)
      return InvalidArgument("picture: shape is wrong, got ", ShapeOf(*p), ", want sides and channels >= 1");
    const int64_t wanted = p->width * p->height * p->channels;
    if (static_cast<int64_t>(p->pixels.size()) != wanted)
      return InvalidArgument("picture of ", ShapeOf(*p), ": size is wrong, got ", p->pixels.size(),
                             " bytes, want ", wanted);
  }
  if (a.width != b.width || a.height != b.height || a.channels != b.channels)
    return InvalidArgument("picture pair: shapes differ, got ", ShapeOf(a), " and ", ShapeOf(b),
                           ", want equal ones");
  return OkStatus();
}

constexpr int64_t kWindow = 11;
constexpr double kSigma = 1.5;

std::vector<double> GaussianTaps(int64_t size) {
  std::vector<double> taps(static_cast<size_t>(size));
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) {
    const double x = static_cast<double>(i - size / 2) / kSigma;
    sum += taps[static_cast<size_t>(i)] = std::exp(-0.5 * x * x);
  }
  for (double& t : taps) t /= sum;
  return taps;
}

// in: [height, width]  ->  [height - n + 1, width - n + 1]: the window is a product of the same taps in x and
// y.
std::vector<double> Blur(const std::vector<double>& in, int64_t width, int64_t height,
                         const std::vector<double>& taps) {
  const auto n = static_cast<int64_t>(taps.size());
  const int64_t out_w = width - n + 1, out_h = height - n + 1;
  std::vector<double> rows(static_cast<size_t>(height * out_w));
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < out_w; ++x) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += taps[static_cast<size_t>(i)] * in[static_cast<size_t>(y * width + x + i)];
      rows[static_cast<size_t>(y * out_w + x)] = sum;
    }
  std::vector<double> out(static_cast<size_t>(out_h * out_w), 0.0);
  for (int64_t y = 0; y < out_h; ++y)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t x = 0; x < out_w; ++x)
        out[static_cast<size_t>(y * out_w + x)] +=
            taps[static_cast<size_t>(i)] * rows[static_cast<size_t>((y + i) * out_w + x)];
  return out;
}

double SsimOfChannel(const std::vector<double>& a, const std::vector<double>& b, int64_t width,
                     int64_t height, const std::vector<double>& taps) {
  constexpr double kC1 = (0.01 * 255) * (0.01 * 255), kC2 = (0.03 * 255) * (0.03 * 255);
  std::vector<double> aa(a.size()), bb(a.size()), ab(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    aa[i] = a[i] * a[i];
    bb[i] = b[i] * b[i];
    ab[i] = a[i] * b[i];
  }
  const std::vector<double> ma = Blur(a, width, height, taps), mb = Blur(b, width, height, taps);
  const std::vector<double> saa = Blur(aa, width, height, taps), sbb = Blur(bb, width, height, taps),
                            sab = Blur(ab, width, height, taps);
  double sum = 0;
  for (size_t i = 0; i < ma.size(); ++i) {
    const double mean_product = ma[i] * mb[i], mean_squares = ma[i] * ma[i] + mb[i] * mb[i];
    const double covariance = sab[i] - mean_product, variances = saa[i] + sbb[i] - mean_squares;
    sum += (2 * mean_product + kC1) * (2 * covariance + kC2) / ((mean_squares + kC1) * (variances + kC2));
  }
  return sum / static_cast<double>(ma.size());
}

// P(T <= t) for t >= 0. With theta = atan(t / sqrt(degrees)) the integral is a finite sum of powers of
// cos(theta): the recurrence of the integrals of cos^(degrees - 1).
double StudentCdf(double t, int64_t degrees) {
  const double theta = std::atan(t / std::sqrt(static_cast<double>(degrees)));
  const double c = std::cos(theta), s = std::sin(theta);
  const bool odd = degrees % 2 == 1;
  double term = odd ? c : 1.0, sum = 0;
  for (int64_t i = odd ? 3 : 2; i <= degrees; i += 2) {
    sum += term;
    term *= c * c * static_cast<double>(i - 1) / static_cast<double>(i);
  }
  const double both_sides = odd ? (theta + s * sum) * 2 / M_PI : s * sum;
  return 0.5 + 0.5 * both_sides;
}

}  // namespace

Result<double> Psnr(const PictureView& a, const PictureView& b) {
  TEMPERA_TRY(CheckPair(a, b));
  uint64_t squares = 0;  // exact: at most 65025 a byte
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const int d = static_cast<int>(a.pixels[i]) - static_cast<int>(b.pixels[i]);
    squares += static_cast<uint64_t>(d * d);
  }
  if (squares == 0) return kPsnrCapDb;
  const double mse = static_cast<double>(squares) / static_cast<double>(a.pixels.size());
  return std::min(kPsnrCapDb, 10 * std::log10(255.0 * 255.0 / mse));
}

Result<double> Ssim(const PictureView& a, const PictureView& b) {
  TEMPERA_TRY(CheckPair(a, b));
  const int64_t side = std::min({kWindow, a.width, a.height});
  const std::vector<double> taps = GaussianTaps(side % 2 == 1 ? side : side - 1);
  const int64_t pixels = a.width * a.height;
  double sum = 0;
  for (int64_t c = 0; c < a.channels; ++c) {
    std::vector<double> plane_a(static_cast<size_t>(pixels)), plane_b(static_cast<size_t>(pixels));
    for (int64_t i = 0; i < pixels; ++i) {
      plane_a[static_cast<size_t>(i)] = a.pixels[static_cast<size_t>(i * a.channels + c)];
      plane_b[static_cast<size_t>(i)] = b.pixels[static_cast<size_t>(i * a.channels + c)];
    }
    sum += SsimOfChannel(plane_a, plane_b, a.width, a.height, taps);
  }
  return sum / static_cast<double>(a.channels);
}

Interval MeanInterval(std::span<const double> values) {
  TEMPERA_CHECK(!values.empty(), "a mean needs a value");
  const auto n = static_cast<double>(values.size());
  Interval out;
  for (const double v : values) out.mean += v;
  out.mean /= n;
  if (values.size() == 1) return out;
  double squares = 0;
  for (const double v : values) squares += (v - out.mean) * (v - out.mean);
  const double half =
      StudentQuantile(0.975, static_cast<int64_t>(values.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  out.low = out.mean - half;
  out.high = out.mean + half;
  return out;
}

double StudentQuantile(double p, int64_t degrees) {
  TEMPERA_CHECK(p >= 0.5 && p < 1 && degrees >= 1, "0.5 <= p < 1, degrees >= 1");
  double low = 0, high = 1;
  while (StudentCdf(high, degrees) < p) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;  // neighbours in double
    (StudentCdf(middle, degrees) < p ? low : high) = middle;
  }
  return high;
}

Interval ShareInterval(double share, int64_t count) {
  TEMPERA_CHECK(share >= 0 && share <= 1 && count >= 1, "a share of at least one draw");
  constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the normal distribution
  const auto n = static_cast<double>(count);
  const double centre = (share + kZ * kZ / (2 * n)) / (1 + kZ * kZ / n);
  const double half = kZ / (1 + kZ * kZ / n) * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n));
  // Exactly 0 and 1 at the ends, where the two terms differ by rounding alone.
  return {share, share == 0 ? 0.0 : centre - half, share == 1 ? 1.0 : centre + half};
}

double ClassAccuracy(std::span<const int64_t> predicted, std::span<const int64_t> wanted) {
  TEMPERA_CHECK(predicted.size() == wanted.size() && !wanted.empty(), "a prediction for each picture");
  int64_t right = 0;
  for (size_t i = 0; i < wanted.size(); ++i) right += predicted[i] == wanted[i] ? 1 : 0;
  return static_cast<double>(right) / static_cast<double>(wanted.size());
}

}  // namespace tempera
