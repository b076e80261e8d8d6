// Frechet distance between two sets of feature vectors. Plain C++, double precision.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace tempera {

// The normal distribution with the mean and covariance of a set of vectors.
struct Gaussian {
  std::vector<double> mean;        // [D]
  std::vector<double> covariance;  // [D, D] row-major, symmetric
};

// rows: [count, dimension] row-major f32. Covariance with count - 1. InvalidArgument if count < 2, a size
// does not fit or a value is not finite.
Result<Gaussian> FitGaussian(std::span<const float> rows, int64_t count, int64_t dimension);

// |m1 - m2|^2 + trace(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), never below 0. Where a covariance is singular
// (fewer vectors than dimensions) rounding can move it by about dimension * sqrt(2^-52) * the greatest
// variance. Time grows with D^3: about 0.1 s for 128. InvalidArgument if the dimensions differ or the
// eigenvalues do not settle.
Result<double> FrechetDistance(const Gaussian& a, const Gaussian& b);

// Eigenvalues (not sorted) and eigenvectors (the columns of `vectors`) of a symmetric matrix, by Jacobi
// rotations.
struct SymmetricEigen {
  std::vector<double> values;   // [D]
  std::vector<double> vectors;  // [D, D] row-major, orthonormal columns
};
// InvalidArgument if a value is not finite. REQUIRES: matrix is [dimension, dimension], symmetric.
Result<SymmetricEigen> EigenOfSymmetric(std::vector<double> matrix, int64_t dimension);

}  // namespace tempera
