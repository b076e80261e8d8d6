#include "nn/params.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>

#include "weights/layout.h"

namespace tempera::nn {
namespace {

at::ScalarType ToScalarType(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBool:
      return at::kBool;
    case Dtype::kU8:
      return at::kByte;
    case Dtype::kI8:
      return at::kChar;
    case Dtype::kI16:
      return at::kShort;
    case Dtype::kI32:
      return at::kInt;
    case Dtype::kI64:
      return at::kLong;
    case Dtype::kF16:
      return at::kHalf;
    case Dtype::kBF16:
      return at::kBFloat16;
    case Dtype::kF32:
      return at::kFloat;
    case Dtype::kF64:
      return at::kDouble;
  }
  return at::kFloat;
}

Dtype ToDtype(at::ScalarType type) {
  for (const Dtype d : {Dtype::kBool, Dtype::kU8, Dtype::kI8, Dtype::kI16, Dtype::kI32, Dtype::kI64,
                        Dtype::kF16, Dtype::kBF16, Dtype::kF32, Dtype::kF64})
    if (ToScalarType(d) == type) return d;
  TEMPERA_CHECK(false, "element type that safetensors does not have");
  return Dtype::kF32;
}

// No number's exponent is all ones. Adding its lowest bit to such an exponent, the rest taken away, carries
// into the sign's place: several numbers a word, for every weight of a model is read for this before its
// first step. REQUIRES: F32, F16 or BF16.
bool AllFinite(const TensorView& view) {
  uint64_t exponent = 0x7f8000007f800000, lowest = 0x0080000000800000, carry = 0x8000000080000000;
  if (view.dtype != Dtype::kF32) {
    const bool half = view.dtype == Dtype::kF16;
    exponent = half ? 0x7c007c007c007c00 : 0x7f807f807f807f80;
    lowest = half ? 0x0400040004000400 : 0x0080008000800080;
    carry = 0x8000800080008000;
  }
  const uint8_t* p = view.bytes.data();
  const size_t size = view.bytes.size();
  uint64_t carried = 0, word = 0;
  size_t i = 0;
  for (; i + sizeof word <= size; i += sizeof word) {
    std::memcpy(&word, p + i, sizeof word);
    carried |= (word & exponent) + lowest;
  }
  word = 0;
  if (i < size) std::memcpy(&word, p + i, size - i);
  carried |= (word & exponent) + lowest;
  return (carried & carry) == 0;
}

}  // namespace

at::Tensor ToTensor(const TensorView& view) {
  const auto options = at::TensorOptions(ToScalarType(view.dtype));
  const bool aligned =
      reinterpret_cast<uintptr_t>(view.bytes.data()) % static_cast<uintptr_t>(DtypeBytes(view.dtype)) == 0;
  if (view.bytes.empty()) return at::empty(view.shape, options);
  if (aligned) {
    // Read-only by convention: nothing writes to parameters in place but the trainer, whose tensors are
    // fresh.
    return at::from_blob(
        const_cast<uint8_t*>(view.bytes.data()), view.shape,
        [owner = view.owner](void*) mutable { owner.reset(); }, options);
  }
  at::Tensor copy = at::empty(view.shape, options);
  std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return copy;
}

TensorOut ToTensorOut(std::string name, const at::Tensor& tensor) {
  TEMPERA_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), name);
  return {.name = std::move(name),
          .dtype = ToDtype(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const uint8_t*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

Params::Params(std::shared_ptr<const WeightSource> source, at::Device device)
    : source_(std::move(source)), device_(device) {
  int64_t bytes = 0;
  for (const auto& [name, view] : source_->tensors()) bytes += static_cast<int64_t>(view.bytes.size());
  large_ = bytes > kWideBytes;
}

Params::Params(uint64_t seed, at::Device device)
    : device_(device), generator_(at::detail::createCPUGenerator(seed)) {}

bool Params::Has(const std::string& name) const {
  return source_ != nullptr && source_->tensors().contains(name);
}

std::string Params::FirstOf(std::initializer_list<std::string> names) const {
  for (const std::string& name : names)
    if (Has(name)) return name;
  return *names.begin();
}

void Params::Fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

at::Tensor Params::Take(const std::string& name, const Shape& shape, Init init, int64_t fan_in) {
  return TakeAs(name, shape, init, fan_in, true);
}

at::Tensor Params::TakeWeight(const std::string& name, const Shape& shape, int64_t fan_in) {
  return TakeAs(name, shape, Init::kUniform, fan_in, !large_);
}

at::Tensor Params::TakeAs(const std::string& name, const Shape& shape, Init init, int64_t fan_in,
                          bool widen) {
  if (!status_.ok() || (absent_ && absent_(name))) return {};
  at::Tensor tensor;
  if (fresh()) {
    const auto options = at::TensorOptions(at::kFloat);
    const double bound = fan_in > 0 ? 1.0 / std::sqrt(static_cast<double>(fan_in)) : 1.0;
    switch (init) {
      case Init::kUniform:
        tensor = (at::rand(shape, generator_, options) * 2 - 1) * bound;
        break;
      case Init::kNormal:
        tensor = at::randn(shape, generator_, options);
        break;
      case Init::kOnes:
        tensor = at::ones(shape, options);
        break;
      case Init::kZeros:
        tensor = at::zeros(shape, options);
        break;
    }
    tensor = tensor.to(device_).set_requires_grad(true);
  } else {
    const auto it = source_->tensors().find(name);
    if (it == source_->tensors().end()) {
      Fail(InvalidArgument(source_->FileOf(name), ": tensor ", name, ": is missing, want ", ShapeText(shape),
                           LayoutHint(*source_)));
      return {};
    }
    taken_names_.insert(name);
    const TensorView& view = it->second;
    const std::string object = Cat(source_->FileOf(name), ": tensor ", name);
    if (view.shape != shape) {
      Fail(
          InvalidArgument(object, ": wrong shape, got ", ShapeText(view.shape), ", want ", ShapeText(shape)));
      return {};
    }
    if (view.dtype != Dtype::kF32 && view.dtype != Dtype::kF16 && view.dtype != Dtype::kBF16) {
      Fail(InvalidArgument(object, ": got ", DtypeName(view.dtype), ", want F32, F16 or BF16"));
      return {};
    }
    if (!AllFinite(view)) {
      Fail(InvalidArgument(object, ": holds a NaN or an infinity, want finite numbers"));
      return {};
    }
    tensor = ToTensor(view).to(device_);
    if (widen) tensor = tensor.to(at::kFloat);
  }
  taken_[name] = tensor;
  return tensor;
}

Status Params::Finish() const {
  TEMPERA_TRY(status_);
  if (fresh()) return OkStatus();
  for (const auto& [name, view] : source_->tensors())
    if (!taken_names_.contains(name))
      return InvalidArgument(source_->FileOf(name), ": tensor ", name, ": the model has no such parameter",
                             LayoutHint(*source_));
  return OkStatus();
}

}  // namespace tempera::nn
