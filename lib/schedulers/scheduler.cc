#include "schedulers/scheduler.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
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

Result<int64_t> Scheduler::FirstStep(double strength) const {
  if (!(strength > 0 && strength <= 1))
    return InvalidArgument("strength: got ", strength, ", want above 0 to 1");
  const int64_t first = SkippedSteps(strength) * facts_.order;
  if (first >= static_cast<int64_t>(facts_.timesteps.size()))
    return InvalidArgument("strength: got ", strength, ", which leaves none of ", facts_.steps,
                           " steps, want at least ", 1.0 / static_cast<double>(facts_.steps));
  return first;
}

int64_t Scheduler::SkippedSteps(double strength) const {
  return facts_.steps - static_cast<int64_t>(static_cast<double>(facts_.steps) * strength);
}

at::Tensor Scheduler::AddNoise(const at::Tensor& sample, const at::Tensor& noise, int64_t k) const {
  TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(facts_.mixes.size()), "no such step");
  return sample * facts_.mixes[k].signal + noise * facts_.mixes[k].noise;
}

Status Scheduler::CheckOutput(int64_t channels, int64_t output_channels) const {
  if (output_channels == channels || output_channels == 2 * channels) return OkStatus();
  return InvalidArgument(name(), ": the network's channels do not fit, got ", output_channels, ", want ",
                         channels, " or, with a learned variance, ", 2 * channels);
}

at::Tensor Scheduler::ScaleInput(const at::Tensor& x, int64_t) const { return x; }

}  // namespace tempera
