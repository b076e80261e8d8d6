#include "schedulers/scheduler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

namespace tempera {

NoiseSource::NoiseSource(uint64_t seed) : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}

// at::Generator is a handle: copying it would share the state.
NoiseSource::NoiseSource(const NoiseSource& other) : generator_(other.generator_.clone()) {}

NoiseSource& NoiseSource::operator=(const NoiseSource& other) {
  generator_ = other.generator_.clone();
  return *this;
}

at::Tensor NoiseSource::Randn(at::IntArrayRef shape) {
  return at::randn(shape, generator_, at::TensorOptions().dtype(at::kFloat).device(at::kCPU));
}

Status Scheduler::CheckOutput(int64_t channels, int64_t output_channels) const {
  if (output_channels == channels || output_channels == 2 * channels) return OkStatus();
  return InvalidArgument(name_, ": the network's channels do not fit, got ", output_channels, ", want ",
                         channels, " or, with a learned variance, ", 2 * channels);
}

at::Tensor Scheduler::ScaleInput(const at::Tensor& x, int64_t) const { return x; }

}  // namespace tempera
