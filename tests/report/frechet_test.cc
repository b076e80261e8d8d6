#include "report/frechet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tempera {
namespace {

using ::testing::HasSubstr;

std::vector<double> Multiply(const std::vector<double>& a, const std::vector<double>& b, size_t n) {
  std::vector<double> out(n * n, 0.0);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      for (size_t k = 0; k < n; ++k) out[i * n + j] += a[i * n + k] * b[k * n + j];
  return out;
}

std::vector<double> Transposed(const std::vector<double>& a, size_t n) {
  std::vector<double> out(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) out[j * n + i] = a[i * n + j];
  return out;
}

// An orthogonal matrix: a product of reflections in random directions.
std::vector<double> Rotation(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> out(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) out[i * n + i] = 1;
  for (int r = 0; r < 3; ++r) {
    std::vector<double> v(n), mirror(n * n);
    double squares = 0;
    for (double& x : v) {
      x = normal(random);
      squares += x * x;
    }
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) mirror[i * n + j] = (i == j ? 1.0 : 0.0) - 2 * v[i] * v[j] / squares;
    out = Multiply(mirror, out, n);
  }
  return out;
}

std::vector<double> Diagonal(const std::vector<double>& values) {
  const size_t n = values.size();
  std::vector<double> out(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) out[i * n + i] = values[i];
  return out;
}

Gaussian Rotated(const Gaussian& g, const std::vector<double>& rotation) {
  const size_t n = g.mean.size();
  Gaussian out{std::vector<double>(n, 0.0),
               Multiply(Multiply(rotation, g.covariance, n), Transposed(rotation, n), n)};
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) out.mean[i] += rotation[i * n + j] * g.mean[j];
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < i; ++j) out.covariance[j * n + i] = out.covariance[i * n + j];
  return out;
}

// Backward error of Jacobi: a few eps times n times the norm.
TEST(SymmetricEigen, RebuildsTheMatrix) {
  for (const size_t n : {1, 2, 3, 17, 64}) {
    std::mt19937 random(static_cast<uint32_t>(n));
    std::normal_distribution<double> normal;
    std::vector<double> m(n * n);
    double norm = 0;
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j <= i; ++j) m[i * n + j] = m[j * n + i] = normal(random);
    for (const double v : m) norm += v * v;
    const SymmetricEigen e = EigenOfSymmetric(m, static_cast<int64_t>(n)).value();
    const std::vector<double> transposed = Transposed(e.vectors, n);
    const std::vector<double> back = Multiply(Multiply(e.vectors, Diagonal(e.values), n), transposed, n);
    const std::vector<double> unit = Multiply(transposed, e.vectors, n);
    const double tolerance = 16 * static_cast<double>(n) * 0x1p-52;
    for (size_t i = 0; i < n * n; ++i) {
      ASSERT_NEAR(back[i], m[i], tolerance * std::sqrt(norm)) << n;
      ASSERT_NEAR(unit[i], i % (n + 1) == 0 ? 1 : 0, tolerance) << n;
    }
  }
}

TEST(SymmetricEigen, TakesZeroAndRefusesWhatIsNotFinite) {
  EXPECT_EQ(EigenOfSymmetric(std::vector<double>(9, 0.0), 3).value().values, std::vector<double>(3, 0.0));
  EXPECT_THAT(Message(EigenOfSymmetric({1, NAN, NAN, 1}, 2).status()), HasSubstr("2x2"));
}

// Independent dimensions: the sum of (m1 - m2)^2 + (s1 - s2)^2; a rotation of both changes nothing.
TEST(FrechetDistance, EqualsTheSumOverIndependentDimensions) {
  const std::vector<double> s1 = {1, 2, 0.5, 3, 0.01}, s2 = {2, 2, 1.5, 1, 0.02};
  Gaussian a{{1, -1, 0, 4, 2}, {}}, b{{0, 1, 0, 4.5, 2}, {}};
  std::vector<double> v1, v2;
  double want = 0;
  for (size_t i = 0; i < s1.size(); ++i) {
    v1.push_back(s1[i] * s1[i]);
    v2.push_back(s2[i] * s2[i]);
    want += (a.mean[i] - b.mean[i]) * (a.mean[i] - b.mean[i]) + (s1[i] - s2[i]) * (s1[i] - s2[i]);
  }
  a.covariance = Diagonal(v1);
  b.covariance = Diagonal(v2);
  // Sums of terms up to about 20, some 100 roundings each; the root of the smallest eigenvalue 4e-8
  // multiplies its absolute error of 20 * 2^-52 by 2500.
  const double tolerance = 1e-10;
  EXPECT_NEAR(FrechetDistance(a, b).value(), want, tolerance);
  EXPECT_NEAR(FrechetDistance(b, a).value(), want, tolerance);
  const std::vector<double> rotation = Rotation(5, 9);
  EXPECT_NEAR(FrechetDistance(Rotated(a, rotation), Rotated(b, rotation)).value(), want, tolerance);
}

// In two dimensions the trace of (S1 S2)^1/2 is sqrt(trace(S1 S2) + 2 sqrt(det(S1 S2))), whether they commute
// or not.
TEST(FrechetDistance, EqualsTheClosedFormInTwoDimensions) {
  const Gaussian a{{0, 0}, {4, 1.5, 1.5, 1}}, b{{3, 4}, {1, -0.8, -0.8, 2}};
  const std::vector<double> m = Multiply(a.covariance, b.covariance, 2);
  const double root = std::sqrt(m[0] + m[3] + 2 * std::sqrt(m[0] * m[3] - m[1] * m[2]));
  EXPECT_NEAR(FrechetDistance(a, b).value(), 25 + 5 + 3 - 2 * root, 1e-12);
}

TEST(FrechetDistance, IsZeroForEqualSetsAndMovesWithTheMean) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  for (const int64_t count : {500, 20}) {  // 20 vectors of 40 values: a singular covariance
    const int64_t d = 40;
    std::vector<float> rows(static_cast<size_t>(count * d));
    for (float& v : rows) v = normal(random);
    const Gaussian g = FitGaussian(rows, count, d).value();
    Gaussian moved = g;
    moved.mean[7] += 3;
    // The header's bound: 40 * 2^-26 * the greatest eigenvalue, which is below 10 here.
    EXPECT_NEAR(FrechetDistance(g, g).value(), 0, 40 * 0x1p-26 * 10);
    EXPECT_NEAR(FrechetDistance(g, moved).value(), 9, 40 * 0x1p-26 * 10);
  }
}

TEST(FitGaussian, KnowsItsAnswers) {
  const Gaussian g = FitGaussian(std::vector<float>{1, 2, 3, 6, 5, 4}, 3, 2).value();
  EXPECT_EQ(g.mean, (std::vector<double>{3, 4}));
  EXPECT_EQ(g.covariance, (std::vector<double>{4, 2, 2, 4}));
}

TEST(FitGaussian, RefusesWhatDoesNotFit) {
  EXPECT_THAT(Message(FitGaussian(std::vector<float>{1, 2}, 1, 2).status()), HasSubstr("got [1, 2]"));
  EXPECT_THAT(Message(FitGaussian(std::vector<float>{1, 2, 3}, 2, 2).status()),
              HasSubstr("got 3 values, want 4"));
  EXPECT_THAT(Message(FitGaussian(std::vector<float>{1, 2, NAN, 4}, 2, 2).status()),
              HasSubstr("value 0 of vector 1"));
  EXPECT_THAT(Message(FrechetDistance(Gaussian{{0}, {1}}, Gaussian{{0, 0}, {1, 0, 0, 1}}).status()),
              HasSubstr("dimensions differ"));
}

}  // namespace
}  // namespace tempera
