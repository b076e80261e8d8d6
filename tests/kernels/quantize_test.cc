#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

// In double: the quotient of two floats rounded to double and then to float is the float quotient (53 >= 2 *
// 24 + 2), a sum of integers below 2^53 is exact, and what is larger is clamped all the same.
uint8_t Reference(float x, float scale, int32_t zero, int32_t levels) {
  const double code = std::nearbyint(double{static_cast<float>(double{x} / double{scale})}) + zero;
  return std::isnan(code) ? 0 : static_cast<uint8_t>(std::clamp(code, 0.0, double(levels - 1)));
}

std::vector<uint8_t> Quantize(decltype(&QuantizeU8) f, const std::vector<float>& x, float scale, int32_t zero,
                              int32_t levels) {
  std::vector<uint8_t> q(x.size() + 1, 0xee);
  f(x.data(), static_cast<int64_t>(x.size()), scale, zero, levels, q.data());
  EXPECT_EQ(q.back(), 0xee);  // nothing is written beyond
  q.pop_back();
  return q;
}

std::vector<float> Inputs(float scale) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x{0.0f,
                       -0.0f,
                       inf,
                       -inf,
                       NAN,
                       -NAN,
                       std::numeric_limits<float>::denorm_min(),
                       -1e-40f,
                       std::numeric_limits<float>::max(),
                       std::numeric_limits<float>::lowest(),
                       1e-30f,
                       1e30f};
  for (int i = -520; i <= 520; ++i) {  // halves, and their neighbours
    const float half = static_cast<float>(i) * 0.5f * scale;
    x.insert(x.end(), {half, std::nextafter(half, inf), std::nextafter(half, -inf)});
  }
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0f, 60.0f * scale);
  for (int i = 0; i < 3000; ++i) x.push_back(normal(random));
  for (int i = 0; i < 20000; ++i) {  // any bits
    const uint32_t bits = static_cast<uint32_t>(random());
    float f;
    std::memcpy(&f, &bits, 4);
    x.push_back(f);
  }
  return x;
}

TEST(Quantize, RoundsHalvesToEven) {
  EXPECT_EQ(
      Quantize(&QuantizeU8, {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -99.0f, 300.0f, NAN}, 1.0f, 10, 256),
      (std::vector<uint8_t>{10, 12, 12, 10, 8, 8, 0, 255, 0}));
}

TEST(Quantize, AgreesWithTheReferenceOnEveryInput) {
  for (const float scale : {1.0f, 0.0625f, 0.1f, 0.0372549f, 3.7e-5f, 41.5f, 1e-38f, 3e38f}) {
    const std::vector<float> x = Inputs(scale);
    for (const int32_t levels : {2, 16, 32, 64, 256}) {
      for (const int32_t zero : {0, levels / 2, levels - 1}) {
        std::vector<uint8_t> want(x.size());
        for (size_t i = 0; i < x.size(); ++i) want[i] = Reference(x[i], scale, zero, levels);
        ASSERT_EQ(Quantize(&QuantizeU8, x, scale, zero, levels), want)
            << scale << " " << zero << " " << levels;
        ASSERT_EQ(Quantize(&QuantizeU8Scalar, x, scale, zero, levels), want)
            << scale << " " << zero << " " << levels;
      }
    }
  }
}

TEST(Quantize, KeepsGridPointsAndOrder) {
  for (const float scale : {0.013f, 1.0f, 7.3f}) {
    for (const int32_t zero : {0, 100, 255}) {
      std::vector<float> x;
      std::vector<uint8_t> want;
      for (int32_t code = 0; code < 256; ++code) {
        x.push_back(scale * static_cast<float>(code - zero));
        want.push_back(static_cast<uint8_t>(code));
      }
      EXPECT_EQ(Quantize(&QuantizeU8, x, scale, zero, 256), want);
      EXPECT_EQ(Quantize(&QuantizeU8, {0.0f, -0.0f}, scale, zero, 256),
                std::vector<uint8_t>(2, static_cast<uint8_t>(zero)));
      std::vector<float> ramp;
      for (int i = -3000; i < 3000; ++i) ramp.push_back(static_cast<float>(i) * scale * 0.1f);
      const std::vector<uint8_t> q = Quantize(&QuantizeU8, ramp, scale, zero, 256);
      EXPECT_TRUE(std::is_sorted(q.begin(), q.end()));
    }
  }
}

TEST(Quantize, EveryLengthIsWhole) {
  std::mt19937 random(6);
  for (size_t count = 0; count < 70; ++count) {
    std::vector<float> x(count);
    std::vector<uint8_t> want(count);
    for (size_t i = 0; i < count; ++i) {
      x[i] = static_cast<float>(random() % 1000) * 0.3f - 100.0f;
      want[i] = Reference(x[i], 1.1f, 64, 128);
    }
    EXPECT_EQ(Quantize(&QuantizeU8, x, 1.1f, 64, 128), want);
  }
}

TEST(QuantizeToNhwc, TransposesTheSameCodes) {
  std::mt19937 random(9);
  std::vector<float> gains(50);
  for (float& g : gains) g = 0.25f + static_cast<float>(random() % 1000) * 0.004f;
  for (const auto run : {&QuantizeToNhwc, &QuantizeToNhwcScalar}) {
    for (const int64_t channels : {0, 1, 3, 15, 16, 17, 32, 50}) {
      for (const int64_t pixels : {0, 1, 9, 16, 25, 64, 100}) {
        std::vector<float> x(static_cast<size_t>(channels * pixels));
        for (float& v : x) v = static_cast<float>(random() % 1000) * 0.1f - 50.0f;
        std::vector<uint8_t> q(x.size() + 1, 0xee);
        for (const float* gain : std::initializer_list<const float*>{nullptr, gains.data()}) {
          run(x.data(), channels, pixels, gain, 0.3f, 90, 256, q.data());
          for (int64_t c = 0; c < channels; ++c)
            for (int64_t p = 0; p < pixels; ++p)
              ASSERT_EQ(q[static_cast<size_t>(p * channels + c)],
                        Reference(x[static_cast<size_t>(c * pixels + p)] * (gain == nullptr ? 1.0f : gain[c]),
                                  0.3f, 90, 256))
                  << channels << " " << pixels << " at " << c << " " << p;
          EXPECT_EQ(q.back(), 0xee);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tempera::kernels
