#include "kernels/rounding_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace tempera::kernels {
namespace {

double Exact(const std::vector<float>& w, float scale, int zero, int levels) {
  double sum = 0;
  for (const float x : w) {
    const double code =
        std::clamp(std::nearbyint(static_cast<double>(x * (1 / scale))) + zero, 0.0, levels - 1.0);
    sum += std::pow(std::abs((code - zero) * static_cast<double>(scale) - static_cast<double>(x)), 2.4);
  }
  return sum / static_cast<double>(w.size());
}

TEST(RoundingLoss, IsTheMeanOfThePower) {
  std::mt19937 random(1);
  for (const size_t count : {1, 2, 3, 15, 16, 17, 2047, 2048, 2049, 2880}) {
    for (const int levels : {16, 64, 256}) {
      std::normal_distribution<float> normal(0.0f, std::exp(std::normal_distribution<float>(0, 4)(random)));
      std::vector<float> w(count);
      for (float& x : w) x = normal(random);
      const auto [low, high] = std::minmax_element(w.begin(), w.end());
      const float range = std::max(*high, 0.0f) - std::min(*low, 0.0f);
      for (const float share : {1.0f, 0.7f, 0.21f}) {
        const float scale = share * range / static_cast<float>(levels - 1);
        const int zero = static_cast<int>(-std::min(*low, 0.0f) * share / scale);
        const double want = Exact(w, scale, zero, levels);
        // 1e-4 of the power, and what float loses of a value near a code: 2^-22 of the range.
        const double step = std::pow(static_cast<double>(range) * std::exp2(-22), 2.4);
        EXPECT_NEAR(RoundingLoss(w.data(), static_cast<int64_t>(count), scale, zero, levels), want,
                    1e-4 * want + step)
            << count << " values, " << levels << " levels, share " << share;
      }
    }
  }
}

TEST(RoundingLoss, IsTheSameNumberOnEveryInstructionSet) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  const std::vector<RoundingLossKernel> kernels = RoundingLossKernels();
  for (const size_t count : {1, 15, 16, 17, 2047, 2048, 2049, 11520}) {
    std::vector<float> w(count);
    for (float& x : w) x = normal(random);
    for (const RoundingLossKernel kernel : kernels)
      EXPECT_EQ(kernel(w.data(), static_cast<int64_t>(count), 0.3f, 7, 16),
                kernels.back()(w.data(), static_cast<int64_t>(count), 0.3f, 7, 16))
          << count << " values";
  }
}

TEST(RoundingLoss, IsNothingForWhatTheGridHolds) {
  const std::vector<float> w{-1, -0.5, 0, 0.5, 1, 1.5, 2};
  EXPECT_LT(RoundingLoss(w.data(), static_cast<int64_t>(w.size()), 0.5f, 2, 16), 1e-36);
}

}  // namespace
}  // namespace tempera::kernels
