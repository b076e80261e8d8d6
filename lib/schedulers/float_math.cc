#include "schedulers/float_math.h"

#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/item.h>
#include <ATen/ops/log.h>
#include <ATen/ops/scalar_tensor.h>

namespace tempera {

float Exp(float v) { return at::exp(at::scalar_tensor(v, at::kFloat)).item<float>(); }
float Expm1(float v) { return at::expm1(at::scalar_tensor(v, at::kFloat)).item<float>(); }
float Log(float v) { return at::log(at::scalar_tensor(v, at::kFloat)).item<float>(); }

}  // namespace tempera
