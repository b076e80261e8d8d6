#include "report/picture_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tempera {
namespace {

using ::testing::HasSubstr;

struct Bytes {
  int64_t width, height, channels;
  std::vector<uint8_t> pixels;
  PictureView view() const { return {width, height, channels, pixels}; }
};

Bytes Noise(int64_t width, int64_t height, int64_t channels, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes out{width, height, channels, std::vector<uint8_t>(static_cast<size_t>(width * height * channels))};
  for (uint8_t& p : out.pixels) p = static_cast<uint8_t>(random() >> 24);
  return out;
}

Bytes Near(const Bytes& picture, int most, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes out = picture;
  for (uint8_t& p : out.pixels) {
    const int moved = p + static_cast<int>(random() % static_cast<uint32_t>(2 * most + 1)) - most;
    p = static_cast<uint8_t>(std::clamp(moved, 0, 255));
  }
  return out;
}

// The definition, place by place: weights of the window in two dimensions, variances as means of squared
// distances.
double NaiveSsim(const Bytes& a, const Bytes& b) {
  int64_t side = std::min<int64_t>({11, a.width, a.height});
  if (side % 2 == 0) --side;
  double total = 0;
  for (int64_t c = 0; c < a.channels; ++c) {
    double sum = 0;
    int64_t places = 0;
    for (int64_t y = 0; y + side <= a.height; ++y)
      for (int64_t x = 0; x + side <= a.width; ++x, ++places) {
        const auto at = [&](const Bytes& p, int64_t i, int64_t j) {
          return static_cast<double>(
              p.pixels[static_cast<size_t>(((y + i) * p.width + x + j) * p.channels + c)]);
        };
        const auto weight = [&](int64_t i, int64_t j) {
          const double di = static_cast<double>(i - side / 2), dj = static_cast<double>(j - side / 2);
          return std::exp(-(di * di + dj * dj) / (2 * 1.5 * 1.5));
        };
        double w = 0, ma = 0, mb = 0;
        for (int64_t i = 0; i < side; ++i)
          for (int64_t j = 0; j < side; ++j) {
            w += weight(i, j);
            ma += weight(i, j) * at(a, i, j);
            mb += weight(i, j) * at(b, i, j);
          }
        ma /= w;
        mb /= w;
        double va = 0, vb = 0, cov = 0;
        for (int64_t i = 0; i < side; ++i)
          for (int64_t j = 0; j < side; ++j) {
            const double da = at(a, i, j) - ma, db = at(b, i, j) - mb;
            va += weight(i, j) * da * da / w;
            vb += weight(i, j) * db * db / w;
            cov += weight(i, j) * da * db / w;
          }
        const double c1 = 6.5025, c2 = 58.5225;
        sum += (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
      }
    total += sum / static_cast<double>(places);
  }
  return total / static_cast<double>(a.channels);
}

TEST(Psnr, KnowsItsAnswers) {
  Bytes a{4, 4, 1, std::vector<uint8_t>(16, 100)}, b = a;
  EXPECT_EQ(Psnr(a.view(), b.view()).value(), kPsnrCapDb);
  b.pixels[5] = 104;  // mean squared difference 16 / 16 = 1
  EXPECT_NEAR(Psnr(a.view(), b.view()).value(), 20 * std::log10(255.0), 1e-12);
  Bytes black{3, 2, 3, std::vector<uint8_t>(18, 0)}, white{3, 2, 3, std::vector<uint8_t>(18, 255)};
  EXPECT_NEAR(Psnr(black.view(), white.view()).value(), 0, 1e-12);
}

TEST(Psnr, NeverExceedsTheCap) {
  // One step of one byte in 2^18 is 48.13 + 54.19 dB: more than the cap.
  Bytes a{512, 512, 1, std::vector<uint8_t>(1 << 18, 7)}, b = a;
  b.pixels[0] = 8;
  EXPECT_EQ(Psnr(a.view(), b.view()).value(), kPsnrCapDb);
}

TEST(PictureMetrics, RefuseWhatDoesNotFit) {
  const Bytes a = Noise(8, 8, 3, 1), other = Noise(8, 8, 1, 2);
  EXPECT_THAT(Message(Psnr(a.view(), other.view()).status()), HasSubstr("got 8x8x3 and 8x8x1"));
  EXPECT_THAT(Message(Ssim(a.view(), other.view()).status()), HasSubstr("got 8x8x3 and 8x8x1"));
  PictureView cut = a.view();
  cut.pixels = cut.pixels.first(100);
  EXPECT_THAT(Message(Ssim(cut, a.view()).status()), HasSubstr("got 100 bytes, want 192"));
  EXPECT_FALSE(Psnr(PictureView{}, PictureView{}).ok());
}

// All sums are over at most 121 products below 2^16, so a window's sum carries a relative error of at most
// about 121 * 2^-53; E[x^2] - E[x]^2 loses that against 2^16, which is 9e-10 absolute against the
// constant 58.5 that is added to it: 1.5e-11 relative, for the covariance and for the variances. 1e-10 leaves
// a factor 3.
TEST(Ssim, EqualsTheDefinition) {
  uint32_t seed = 10;
  for (const auto& [w, h, c] :
       std::vector<std::array<int64_t, 3>>{{32, 32, 1}, {17, 23, 3}, {11, 11, 4}, {40, 12, 3}}) {
    const Bytes a = Noise(w, h, c, ++seed);
    for (const Bytes& b : {Near(a, 3, ++seed), Near(a, 60, ++seed), Noise(w, h, c, ++seed)})
      EXPECT_NEAR(Ssim(a.view(), b.view()).value(), NaiveSsim(a, b), 1e-10) << w << "x" << h << "x" << c;
  }
}

TEST(Ssim, ShrinksItsWindowToASmallPicture) {
  for (const int64_t side : {1, 2, 7, 8, 10}) {
    const Bytes a = Noise(side, side + 3, 1, 77), b = Near(a, 20, 78);
    EXPECT_NEAR(Ssim(a.view(), b.view()).value(), NaiveSsim(a, b), 1e-10) << side;
  }
}

TEST(Ssim, IsOneForEqualPicturesAndLessOtherwise) {
  const Bytes a = Noise(16, 16, 3, 5);
  EXPECT_NEAR(Ssim(a.view(), a.view()).value(), 1, 1e-10);
  const double little = Ssim(a.view(), Near(a, 4, 6).view()).value(),
               much = Ssim(a.view(), Near(a, 40, 6).view()).value();
  EXPECT_LT(much, little);
  EXPECT_LT(little, 1);
}

// Closed forms: one degree is tan(pi (p - 1/2)), two degrees 2 (p - 1/2) / sqrt(2 p (1 - p)), four degrees
// from a cubic equation in cos. Bisection ends at neighbouring doubles; the distribution function is exact to
// some 2^-50, and near p = 0.975 one degree's quantile moves 500 times as much: 1e-11 is safe.
TEST(StudentQuantile, EqualsClosedForms) {
  for (const double p : {0.75, 0.9, 0.975}) {
    EXPECT_NEAR(StudentQuantile(p, 1), std::tan(M_PI * (p - 0.5)), 1e-11);
    EXPECT_NEAR(StudentQuantile(p, 2), 2 * (p - 0.5) / std::sqrt(2 * p * (1 - p)), 1e-11);
    const double alpha = 4 * p * (1 - p), root = std::sqrt(alpha);
    EXPECT_NEAR(StudentQuantile(p, 4), 2 * std::sqrt(std::cos(std::acos(root) / 3) / root - 1), 1e-11);
  }
  EXPECT_NEAR(StudentQuantile(0.975, 3), 3.182446305284263, 1e-11);  // printed tables
  EXPECT_NEAR(StudentQuantile(0.975, 63), 1.998340542520741, 1e-11);
  // The first term of the expansion in 1 / degrees is (z^3 + z) / 4; the second is below 3 / degrees^2.
  const double z = 1.959963984540054;
  EXPECT_NEAR(StudentQuantile(0.975, 10000), z + (z * z * z + z) / 4 / 10000, 3e-8);
}

TEST(MeanInterval, KnowsItsAnswers) {
  const Interval one = MeanInterval(std::vector<double>{4.5});
  EXPECT_EQ(one.mean, 4.5);
  EXPECT_FALSE(one.low.has_value());
  // 1, 2, 3: s = 1, t(0.975, 2) = 4.302652729749464
  const Interval three = MeanInterval(std::vector<double>{1, 2, 3});
  EXPECT_DOUBLE_EQ(three.mean, 2);
  EXPECT_NEAR(*three.low, 2 - 4.302652729749464 / std::sqrt(3.0), 1e-11);
  EXPECT_NEAR(*three.high, 2 + 4.302652729749464 / std::sqrt(3.0), 1e-11);
  const Interval same = MeanInterval(std::vector<double>(64, kPsnrCapDb));
  EXPECT_EQ(*same.low, *same.high);
}

// The interval must hold the true mean in 95 % of draws: of 2000, the count is binomial with deviation 9.7; 5
// deviations.
TEST(MeanInterval, CoversTheTrueMeanAsOftenAsItSays) {
  std::mt19937 random(3);
  std::normal_distribution<double> normal(30, 2);
  int covered = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<double> values(8);
    for (double& v : values) v = normal(random);
    const Interval m = MeanInterval(values);
    covered += *m.low <= 30 && 30 <= *m.high ? 1 : 0;
  }
  EXPECT_NEAR(covered, 1900, 5 * 9.75);
}

TEST(ShareInterval, EqualsWilsonsScore) {
  // The bounds are the shares p whose score |share - p| / sqrt(p (1 - p) / n) is the normal quantile.
  for (const double share : {0.0, 0.1, 0.5, 0.95}) {
    const Interval i = ShareInterval(share, 64);
    for (const double p : {*i.low, *i.high}) {
      if (p == 0) continue;
      EXPECT_NEAR(std::fabs(share - p) / std::sqrt(p * (1 - p) / 64), 1.959963984540054, 1e-12) << share;
    }
    EXPECT_LE(*i.low, share);
    EXPECT_GE(*i.high, share);
  }
  EXPECT_EQ(*ShareInterval(0, 10).low, 0);
  EXPECT_EQ(*ShareInterval(1, 10).high, 1);
}

TEST(ClassAccuracy, CountsWhatIsRight) {
  EXPECT_EQ(ClassAccuracy(std::vector<int64_t>{1, 2, 3, 4}, std::vector<int64_t>{1, 0, 3, 4}), 0.75);
}

}  // namespace
}  // namespace tempera
