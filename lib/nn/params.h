// Where a model's parameters come from: a checkpoint by name, or a fresh draw for training.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/status.h"
#include "weights/weights.h"

namespace tempera::nn {

// Hands out parameters by their state-dict name and keeps the first error, so that a model's constructor
// reads like its definition. After an error tensors are undefined: check Finish() before use.
// Thread-compatible.
class Params {
 public:
  // From a checkpoint. f32 is mapped without a copy, f16 and bf16 are widened to f32; the weights of layers
  // in a checkpoint of more than kWideBytes stay as they are, mapped. A missing tensor, a wrong shape, a type
  // that is no float, a NaN or an infinity is InvalidArgument naming file and tensor, and the layout that the
  // names look like where it is another one's.
  Params(std::shared_ptr<const WeightSource> source, at::Device device);
  // Fresh parameters for training: PyTorch's default initialisation from `seed`; every tensor requires
  // gradients.
  Params(uint64_t seed, at::Device device);

  // How a fresh tensor is drawn; bound is 1/sqrt(fan_in) for weights and biases of convolutions and linears.
  enum class Init { kUniform, kOnes, kZeros, kNormal };
  at::Tensor Take(const std::string& name, const Shape& shape, Init init = Init::kUniform,
                  int64_t fan_in = 0);
  // The same for the weight of a layer, which may stay in the checkpoint's type.
  at::Tensor TakeWeight(const std::string& name, const Shape& shape, int64_t fan_in);
  static constexpr int64_t kWideBytes = int64_t{512} << 20;
  // The first of `names` that the checkpoint has; the first when it has none or the parameters are fresh.
  std::string FirstOf(std::initializer_list<std::string> names) const;
  bool Has(const std::string& name) const;
  // Tensors for which this is true are not in the source (an artifact holds codes instead): Take gives an
  // undefined tensor.
  void SetAbsent(std::function<bool(const std::string&)> absent) { absent_ = std::move(absent); }
  // Names that are there for another reader: not counted as unused.
  void MarkUsed(const std::string& name) { taken_names_.insert(name); }

  void Fail(Status status);
  // The first error; then, for a tensor of the checkpoint that nobody took, InvalidArgument naming file and
  // tensor.
  Status Finish() const;

  const std::map<std::string, at::Tensor>& taken() const { return taken_; }
  at::Device device() const { return device_; }
  bool fresh() const { return source_ == nullptr; }
  const WeightSource* source() const { return source_.get(); }

 private:
  at::Tensor TakeAs(const std::string& name, const Shape& shape, Init init, int64_t fan_in, bool widen);

  std::shared_ptr<const WeightSource> source_;
  bool large_ = false;  // its layers' weights stay in their type
  at::Device device_;
  std::function<bool(const std::string&)> absent_;
  std::map<std::string, at::Tensor> taken_;
  std::set<std::string> taken_names_;
  at::Generator generator_;
  Status status_;
};

// A tensor over the view's bytes, keeping them alive; copied only where alignment or element type demands it.
at::Tensor ToTensor(const TensorView& view);
// The other way: bytes of a contiguous CPU tensor for SafetensorsBytes. `tensor` must outlive the result.
TensorOut ToTensorOut(std::string name, const at::Tensor& tensor);

// Torch throws; this is where its exceptions become Status. Public functions of the LibTorch layers that can
// fail on input wrap their body in it.
template <typename Fn>
auto TorchEdge(std::string_view what, Fn&& fn) -> decltype(fn()) {
  try {
    return fn();
  } catch (const c10::Error& e) {
    return Internal(what, ": ", e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(what, ": out of memory");
  } catch (const std::exception& e) {
    return Internal(what, ": ", e.what());
  }
}

}  // namespace tempera::nn
