#include "kernels/rounding_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace tempera::kernels {
namespace {

struct Weights {
  explicit Weights(size_t count)
      : base(count), alpha(count), m(count), v(count), soft(count), g(count), g2(count) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < count; ++i) {
      base[i] = static_cast<float>(static_cast<int>(random() % 20) - 2);
      alpha[i] = 3 * normal(random);
      m[i] = 0.1f * normal(random);
      v[i] = std::abs(normal(random));
      g[i] = normal(random);
      g2[i] = normal(random);
    }
    if (count > 1) alpha[1] = 1e4f, alpha[0] = -1e4f;
  }
  RoundingRow Row() {
    pointers = {g.data(), g2.data()};
    return {.gradients = pointers.data(),
            .shards = 2,
            .base = base.data(),
            .alpha = alpha.data(),
            .m = m.data(),
            .v = v.data(),
            .soft = soft.data(),
            .count = static_cast<int64_t>(base.size()),
            .scale = 0.37f,
            .zero = 6};
  }
  std::vector<float> base, alpha, m, v, soft, g, g2;
  std::vector<const float*> pointers;
};

double H(double alpha) { return std::clamp(1.2 / (1 + std::exp(-alpha)) - 0.1, 0.0, 1.0); }

// The formulas as the header has them, in double.
int64_t Exact(const RoundingStep& s, Weights& w, std::vector<double>& alpha, std::vector<double>& soft) {
  int64_t hard = 0;
  for (size_t i = 0; i < w.base.size(); ++i) {
    const double a = w.alpha[i], sigmoid = 1 / (1 + std::exp(-a)), stretched = 1.2 * sigmoid - 0.1, h = H(a);
    const double code = w.base[i] + h;
    double d = code < 0 || code > s.top ? 0 : (static_cast<double>(w.g[i]) + w.g2[i]) * 0.37f;
    const double c = 2 * h - 1;
    d -= s.lambda * s.beta * std::pow(std::abs(c), s.beta - 1.0) * 2 * (c < 0 ? -1 : 1);
    d *= stretched > 0 && stretched < 1 ? 1.2 * sigmoid * (1 - sigmoid) : 0;
    const double m = 0.9 * w.m[i] + 0.1 * d, v = 0.999 * w.v[i] + 0.001 * d * d;
    alpha.push_back(a - s.rate * (m / s.correction1) / (std::sqrt(v / s.correction2) + 1e-8));
    soft.push_back((std::clamp(w.base[i] + H(alpha.back()), 0.0, static_cast<double>(s.top)) - 6) * 0.37f);
    const double after = H(alpha.back());
    hard += after < 0.01 || after > 0.99;
  }
  return hard;
}

TEST(RoundingStep, FollowsTheFormulas) {
  for (const float lambda : {0.0f, 0.01f}) {
    for (const float beta : {20.0f, 7.3f, 2.0f}) {
      Weights w(4099);
      const RoundingStep step{.rate = 0.05f,
                              .correction1 = 0.271f,
                              .correction2 = 0.003f,
                              .lambda = lambda,
                              .beta = beta,
                              .top = 15};
      std::vector<double> alpha, soft;
      const int64_t hard = Exact(step, w, alpha, soft);
      // A value within float's rounding of a threshold may fall on its other side; the drawn ones do not.
      EXPECT_EQ(StepRounding(step, w.Row()), hard);
      for (size_t i = 0; i < alpha.size(); ++i) {
        // Rounding of alpha itself, and of the step: the gradient's terms cancel to 1e-6 of their size, and
        // beyond beta - 1 times the logarithm's 2e-5 of the regulariser's; Adam divides by a root that is at
        // least sqrt(0.999 v / 0.003).
        const double root = std::sqrt(0.999 * w.v[i] / 0.003) + 1e-8;
        const double gradient =
            1e-6 * (1 + std::abs(w.g[i]) + std::abs(w.g2[i])) + 2 * lambda * beta * beta * 2e-5;
        EXPECT_NEAR(
            w.alpha[i], alpha[i],
            3e-7 * (1 + std::abs(alpha[i])) + 0.05 / 0.271 * (gradient + 1e-6 * std::abs(w.m[i])) / root)
            << i;
        // A slope of at most 0.3 from alpha; base + H - zero rounds at 2^-20 of a scale.
        EXPECT_NEAR(w.soft[i], soft[i], 0.37 * (0.3 * std::abs(w.alpha[i] - alpha[i]) + 2e-6)) << i;
      }
    }
  }
}

TEST(RoundingStep, IsTheSameOnEveryInstructionSet) {
  for (const size_t count : {1, 15, 16, 17, 255, 256, 257, 2880}) {
    Weights want(count);
    const RoundingStep step{
        .rate = 0.05f, .correction1 = 0.1f, .correction2 = 0.001f, .lambda = 0.01f, .beta = 11};
    const int64_t hard = RoundingStepKernels().back()(step, want.Row());
    for (const RoundingStepKernel kernel : RoundingStepKernels()) {
      Weights w(count);
      EXPECT_EQ(kernel(step, w.Row()), hard);
      EXPECT_EQ(w.alpha, want.alpha);
      EXPECT_EQ(w.m, want.m);
      EXPECT_EQ(w.v, want.v);
      EXPECT_EQ(w.soft, want.soft);
    }
  }
}

}  // namespace
}  // namespace tempera::kernels
