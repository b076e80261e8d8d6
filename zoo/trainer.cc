#include "zoo/trainer.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/files.h"
#include "nn/params.h"

namespace tempera::zoo {

Trainer::Trainer(std::map<std::string, at::Tensor> parameters, const TrainerOptions& options, Lanes& lanes)
    : parameters_(std::move(parameters)), options_(options), lanes_(lanes) {
  for (const auto& [name, p] : parameters_) {
    first_[name] = at::zeros_like(p.detach());
    second_[name] = at::zeros_like(p.detach());
    ema_[name] = p.detach().clone();
  }
}

Result<double> Trainer::Step(const std::function<at::Tensor(int)>& loss) {
  std::vector<at::Tensor> inputs;
  for (const auto& [name, p] : parameters_) inputs.push_back(p);
  std::vector<std::vector<at::Tensor>> gradients(static_cast<size_t>(options_.shards));
  std::vector<double> losses(static_cast<size_t>(options_.shards));
  TEMPERA_TRY(lanes_.ParallelFor(options_.shards, [&](int64_t shard) {
    return nn::TorchEdge("training step", [&]() -> Status {
      const at::Tensor value = loss(static_cast<int>(shard)) / options_.shards;
      losses[static_cast<size_t>(shard)] = value.item<double>();
      gradients[static_cast<size_t>(shard)] = torch::autograd::grad({value}, inputs);
      return OkStatus();
    });
  }));
  const at::NoGradGuard guard;
  double total = 0, norm2 = 0;
  for (const double l : losses) total += l;
  if (!std::isfinite(total)) return Internal("training step ", step_, ": the loss is not finite");
  std::vector<at::Tensor> sum = gradients[0];
  for (size_t i = 0; i < sum.size(); ++i) {
    for (size_t s = 1; s < gradients.size(); ++s) sum[i].add_(gradients[s][i]);
    norm2 += sum[i].square().sum().item<double>();
  }
  const double clip = std::min(1.0, options_.clip_norm / (std::sqrt(norm2) + 1e-12));

  ++step_;
  const double n = static_cast<double>(step_);
  const double progress = std::min(1.0, n / static_cast<double>(options_.total_steps));
  const double rate = options_.learning_rate * std::min(1.0, n / static_cast<double>(options_.warmup_steps)) *
                      (0.05 + 0.95 * 0.5 * (1 + std::cos(M_PI * progress)));
  constexpr double kBeta1 = 0.9, kBeta2 = 0.999;  // Adam's published defaults
  const double correction1 = 1 - std::pow(kBeta1, n), correction2 = 1 - std::pow(kBeta2, n);
  const double decay = std::min(options_.ema_decay, (1 + n) / (10 + n));
  size_t i = 0;
  for (auto& [name, p] : parameters_) {
    const at::Tensor g = sum[i++] * clip;
    at::Tensor& m = first_[name];
    at::Tensor& v = second_[name];
    m.mul_(kBeta1).add_(g, 1 - kBeta1);
    v.mul_(kBeta2).addcmul_(g, g, 1 - kBeta2);
    at::Tensor value = p.detach();
    if (options_.weight_decay > 0) value.mul_(1 - rate * options_.weight_decay);
    value.addcdiv_(m / correction1, (v / correction2).sqrt_().add_(1e-8), -rate);
    ema_[name].lerp_(value, 1 - decay);
  }
  return total;
}

Status SaveTensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<at::Tensor> keep;
  std::vector<TensorOut> out;
  for (const auto& [name, tensor] : tensors) {
    keep.push_back(tensor.detach().contiguous().cpu());
    out.push_back(nn::ToTensorOut(name, keep.back()));
  }
  return WriteFileAtomic(file, SafetensorsBytes(std::move(out)), file.filename().string());
}

Status Trainer::Save(const std::filesystem::path& file,
                     const std::map<std::string, at::Tensor>& extra) const {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, p] : parameters_) {
    all["parameter/" + name] = p;
    all["first/" + name] = first_.at(name);
    all["second/" + name] = second_.at(name);
    all["ema/" + name] = ema_.at(name);
  }
  for (const auto& [name, tensor] : extra) all["extra/" + name] = tensor;
  all["step"] = at::tensor({step_}, at::kLong);
  return SaveTensors(file, all);
}

Result<std::map<std::string, at::Tensor>> Trainer::Load(const std::filesystem::path& file) {
  TEMPERA_ASSIGN(const auto source, WeightSource::OpenFile(file, file.filename().string()));
  const at::NoGradGuard guard;
  const auto read = [&](const std::string& name, at::Tensor into) -> Status {
    TEMPERA_ASSIGN(const TensorView view, source->Find(name));
    if (view.shape != into.sizes().vec())
      return InvalidArgument(file.filename().string(), ": tensor ", name, ": wrong shape");
    into.copy_(nn::ToTensor(view));
    return OkStatus();
  };
  for (auto& [name, p] : parameters_) {
    TEMPERA_TRY(read("parameter/" + name, p.detach()));
    TEMPERA_TRY(read("first/" + name, first_[name]));
    TEMPERA_TRY(read("second/" + name, second_[name]));
    TEMPERA_TRY(read("ema/" + name, ema_[name]));
  }
  TEMPERA_ASSIGN(const TensorView step, source->Find("step"));
  step_ = nn::ToTensor(step).item<int64_t>();
  std::map<std::string, at::Tensor> extra;
  for (const auto& [name, view] : source->tensors())
    if (name.starts_with("extra/")) extra[name.substr(6)] = nn::ToTensor(view).clone();
  return extra;
}

}  // namespace tempera::zoo
