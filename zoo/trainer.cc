#include "zoo/trainer.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>

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
  const double total_steps = static_cast<double>(options_.total_steps);
  const double decay_steps = options_.decay_part * total_steps;
  const double progress = std::clamp((n - (total_steps - decay_steps)) / decay_steps, 0.0, 1.0);
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

Status SaveTensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors,
                   bool half) {
  std::vector<at::Tensor> keep;
  std::vector<TensorOut> out;
  for (const auto& [name, tensor] : tensors) {
    keep.push_back((half ? tensor.detach().to(at::kHalf) : tensor.detach()).contiguous().cpu());
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

namespace {

volatile std::sig_atomic_t stop_asked = 0;

}  // namespace

Status Run(Trainer& trainer, const Course& course) {
  constexpr int64_t kLine = 50;  // steps
  using Clock = std::chrono::steady_clock;
  std::vector<float> curve;
  double window = 0;  // losses since the last line
  if (const auto extra = trainer.Load(course.state); extra.ok()) {
    if (!extra->contains("curve") || !extra->contains("window"))
      return InvalidArgument(course.state.filename().string(), ": is not a training state");
    const at::Tensor saved = extra->at("curve");
    curve.assign(saved.const_data_ptr<float>(), saved.const_data_ptr<float>() + saved.numel());
    window = extra->at("window").item<double>();
    std::printf("going on from step %lld\n", static_cast<long long>(trainer.step()));
  } else if (!absl::IsNotFound(extra.status())) {
    return extra.status();
  }
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { stop_asked = 1; });
  const int64_t steps = trainer.options().total_steps;
  auto line = Clock::now(), saved = line;
  int64_t line_step = trainer.step();
  const auto since = [](Clock::time_point t) {
    return std::chrono::duration<double>(Clock::now() - t).count();
  };
  while (trainer.step() < steps && stop_asked == 0) {
    const int64_t step = trainer.step();
    TEMPERA_ASSIGN(const double value, trainer.Step([&](int shard) { return course.loss(step, shard); }));
    window += value;
    if (trainer.step() % kLine == 0) {
      curve.push_back(static_cast<float>(window / kLine));
      std::printf("step %lld of %lld  loss %.4f  %.1f pictures/s\n", static_cast<long long>(trainer.step()),
                  static_cast<long long>(steps), window / kLine,
                  static_cast<double>((trainer.step() - line_step) * course.batch) / since(line));
      std::fflush(stdout);
      window = 0;
      line = Clock::now();
      line_step = trainer.step();
    }
    if (since(saved) > course.save_seconds || trainer.step() == steps || stop_asked != 0) {
      TEMPERA_TRY(trainer.Save(
          course.state, {{"curve", at::tensor(curve)}, {"window", at::tensor({window}, at::kDouble)}}));
      TEMPERA_TRY(course.publish());
      saved = Clock::now();
    }
  }
  return OkStatus();
}

}  // namespace tempera::zoo
