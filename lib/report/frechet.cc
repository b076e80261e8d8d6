#include "report/frechet.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tempera {
namespace {

// a, b: [n, n]. The result is made symmetric, which the callers' products are but for rounding.
std::vector<double> SymmetricProduct(const std::vector<double>& a, const std::vector<double>& b, size_t n) {
  std::vector<double> out(n * n, 0.0);
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < n; ++k) {
      const double v = a[i * n + k];
      for (size_t j = 0; j < n; ++j) out[i * n + j] += v * b[k * n + j];
    }
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < i; ++j) out[i * n + j] = out[j * n + i] = 0.5 * (out[i * n + j] + out[j * n + i]);
  return out;
}

std::vector<double> Product(const std::vector<double>& a, const std::vector<double>& b, size_t n) {
  std::vector<double> out(n * n, 0.0);
  for (size_t i = 0; i < n; ++i)
    for (size_t k = 0; k < n; ++k) {
      const double v = a[i * n + k];
      for (size_t j = 0; j < n; ++j) out[i * n + j] += v * b[k * n + j];
    }
  return out;
}

// The symmetric root of a covariance; eigenvalues below 0 are rounding and count as 0.
Result<std::vector<double>> SquareRoot(const std::vector<double>& covariance, size_t n) {
  TEMPERA_ASSIGN(const SymmetricEigen eigen, EigenOfSymmetric(covariance, static_cast<int64_t>(n)));
  std::vector<double> scaled(n * n), transposed(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) {
      scaled[i * n + j] = eigen.vectors[i * n + j] * std::sqrt(std::max(0.0, eigen.values[j]));
      transposed[j * n + i] = eigen.vectors[i * n + j];
    }
  return SymmetricProduct(scaled, transposed, n);
}

}  // namespace

Result<Gaussian> FitGaussian(std::span<const float> rows, int64_t count, int64_t dimension) {
  if (count < 2 || dimension < 1)
    return InvalidArgument("feature set: shape is wrong, got [", count, ", ", dimension,
                           "], want at least 2 vectors of at least 1 value");
  const auto n = static_cast<size_t>(count), d = static_cast<size_t>(dimension);
  if (rows.size() != n * d)
    return InvalidArgument("feature set: size is wrong, got ", rows.size(), " values, want ", n * d);
  Gaussian out{std::vector<double>(d, 0.0), std::vector<double>(d * d, 0.0)};
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < d; ++j) {
      const double v = rows[i * d + j];
      if (!std::isfinite(v))
        return InvalidArgument("feature set: value ", j, " of vector ", i, " is wrong, got ", v,
                               ", want a finite one");
      out.mean[j] += v;
    }
  for (double& m : out.mean) m /= static_cast<double>(n);
  std::vector<double> centred(d);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < d; ++j) centred[j] = rows[i * d + j] - out.mean[j];
    for (size_t j = 0; j < d; ++j)
      for (size_t k = j; k < d; ++k) out.covariance[j * d + k] += centred[j] * centred[k];
  }
  for (size_t j = 0; j < d; ++j)
    for (size_t k = j; k < d; ++k) {
      const double v = out.covariance[j * d + k] / static_cast<double>(n - 1);
      out.covariance[j * d + k] = out.covariance[k * d + j] = v;
    }
  return out;
}

Result<double> FrechetDistance(const Gaussian& a, const Gaussian& b) {
  const size_t n = a.mean.size();
  if (n != b.mean.size() || a.covariance.size() != n * n || b.covariance.size() != n * n)
    return InvalidArgument("feature statistics: dimensions differ, got ", n, " and ", b.mean.size(),
                           " means, ", a.covariance.size(), " and ", b.covariance.size(),
                           " covariances, want equal ones");
  TEMPERA_ASSIGN(const std::vector<double> root, SquareRoot(a.covariance, n));
  // Similar to a.covariance * b.covariance, and symmetric: the trace of its root is the sum of its
  // eigenvalues' roots.
  std::vector<double> middle = SymmetricProduct(Product(root, b.covariance, n), root, n);
  TEMPERA_ASSIGN(const SymmetricEigen eigen, EigenOfSymmetric(std::move(middle), static_cast<int64_t>(n)));
  double distance = 0;
  for (size_t i = 0; i < n; ++i) {
    const double d = a.mean[i] - b.mean[i];
    distance += d * d + a.covariance[i * n + i] + b.covariance[i * n + i];
    distance -= 2 * std::sqrt(std::max(0.0, eigen.values[i]));
  }
  return std::max(0.0, distance);
}

Result<SymmetricEigen> EigenOfSymmetric(std::vector<double> matrix, int64_t dimension) {
  const auto n = static_cast<size_t>(dimension);
  TEMPERA_CHECK(matrix.size() == n * n, "a square matrix");
  double norm = 0;
  for (const double v : matrix) norm += v * v;
  if (!std::isfinite(norm))
    return InvalidArgument("symmetric matrix of ", dimension, "x", dimension,
                           ": got values that are not finite");
  SymmetricEigen out{std::vector<double>(n), std::vector<double>(n * n, 0.0)};
  for (size_t i = 0; i < n; ++i) out.vectors[i * n + i] = 1;

  // A sweep rotates every pair (p, q) so that matrix[p][q] becomes 0. What is off the diagonal shrinks
  // quadratically once it is small: 6 to 10 sweeps reach the last bits.
  constexpr int kMostSweeps = 60;
  const double enough = norm * 0x1p-104;  // (2^-52)^2 of the squared norm: the rounding of the matrix itself
  for (int sweep = 0;; ++sweep) {
    double off = 0;
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) off += 2 * matrix[p * n + q] * matrix[p * n + q];
    if (off <= enough) break;
    if (sweep == kMostSweeps)
      return InvalidArgument("symmetric matrix of ", dimension, "x", dimension,
                             ": eigenvalues do not settle");
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) {
        const double apq = matrix[p * n + q];
        if (apq == 0) continue;
        // tan of the smaller of the two angles that make the pair diagonal.
        const double cot2 = (matrix[q * n + q] - matrix[p * n + p]) / (2 * apq);
        const double tan = (cot2 >= 0 ? 1.0 : -1.0) / (std::fabs(cot2) + std::hypot(cot2, 1.0));
        const double cos = 1 / std::hypot(tan, 1.0), sin = tan * cos;
        for (size_t k = 0; k < n; ++k) {  // columns p and q
          const double kp = matrix[k * n + p], kq = matrix[k * n + q];
          matrix[k * n + p] = cos * kp - sin * kq;
          matrix[k * n + q] = sin * kp + cos * kq;
          const double vp = out.vectors[k * n + p], vq = out.vectors[k * n + q];
          out.vectors[k * n + p] = cos * vp - sin * vq;
          out.vectors[k * n + q] = sin * vp + cos * vq;
        }
        for (size_t k = 0; k < n; ++k) {  // rows p and q
          const double pk = matrix[p * n + k], qk = matrix[q * n + k];
          matrix[p * n + k] = cos * pk - sin * qk;
          matrix[q * n + k] = sin * pk + cos * qk;
        }
        matrix[p * n + q] = matrix[q * n + p] = 0;
      }
  }
  for (size_t i = 0; i < n; ++i) out.values[i] = matrix[i * n + i];
  return out;
}

}  // namespace tempera
