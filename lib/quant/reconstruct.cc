#include "quant/reconstruct.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "nn/params.h"
#include "quant/weights.h"

namespace tempera {
namespace {

// Stretch of the rectified sigmoid: H(a) = clamp(sigmoid(a) * (kZeta - kGamma) + kGamma, 0, 1).
constexpr double kZeta = 1.1, kGamma = -0.1;

// The rounding variables of one part of a slot.
struct Rounding {
  nn::Slot* slot;
  nn::SlotPart* part;
  at::Tensor base;         // floor(w / s) + z, f32
  at::Tensor alpha, m, v;  // variable and Adam's moments
  at::Tensor scale, zero;  // broadcast over the weight
  double top;
};

at::Tensor Stretched(const at::Tensor& alpha) { return at::sigmoid(alpha) * (kZeta - kGamma) + kGamma; }
at::Tensor H(const at::Tensor& alpha) { return Stretched(alpha).clamp(0, 1); }

Rounding Begin(nn::Slot& slot, nn::SlotPart& part) {
  Rounding r;
  r.slot = &slot;
  r.part = &part;
  const at::Tensor w = slot.EqualizedWeight().narrow(1, part.begin, part.channels).contiguous();
  std::vector<int64_t> shape(static_cast<size_t>(w.dim()), 1);
  shape[0] = slot.out_channels;
  r.scale = part.scale.view(shape).to(w.device());
  r.zero = part.zero.to(at::kFloat).view(shape).to(w.device());
  const at::Tensor ratio = w / r.scale, floor = at::floor(ratio);
  r.base = floor + r.zero;
  // H(alpha) = the fraction that floor took away: rounding begins where the weight is.
  r.alpha = -at::log((kZeta - kGamma) / ((ratio - floor) - kGamma) - 1);
  r.m = at::zeros_like(r.alpha);
  r.v = at::zeros_like(r.alpha);
  r.top = (1 << slot.weight_bits) - 1;
  return r;
}

at::Tensor Soft(const Rounding& r) { return ((r.base + H(r.alpha)).clamp(0, r.top) - r.zero) * r.scale; }

void Join(const std::vector<Rounding>& all, nn::Slot& slot, bool gradients) {
  std::vector<at::Tensor> parts;
  for (const Rounding& r : all)
    if (r.slot == &slot) parts.push_back(Soft(r));
  slot.simulated =
      (parts.size() == 1 ? parts[0] : at::cat(parts, 1)).contiguous().set_requires_grad(gradients);
}

}  // namespace

Result<RoundingResult> LearnRounding(const CallScope& scope, const std::vector<nn::Slot*>& slots,
                                     int64_t shards, const std::function<at::Tensor(int, int64_t)>& loss,
                                     const std::function<Result<double>()>& full_loss,
                                     const RoundingOptions& options, Lanes& lanes) {
  RoundingResult result;
  const at::NoGradGuard guard;
  TEMPERA_ASSIGN(result.nearest_loss, full_loss());
  result.final_loss = result.nearest_loss;
  if (options.max_iterations < 1 || slots.empty()) return result;

  std::vector<Rounding> all;
  for (nn::Slot* slot : slots)
    for (nn::SlotPart& part : slot->parts) all.push_back(Begin(*slot, part));

  // The published schedule moves a variable by lr 1e-3 for 20,000 iterations; a shorter one keeps the path's
  // length within what a variable needs to saturate, |alpha| = 2.4, several times over.
  const double rate = std::clamp(12.0 / options.max_iterations, 1e-3, 5e-2);
  int warmup = std::max(1, options.max_iterations * 2 / 5);  // at most; shorter on a plateau
  int anneal = options.max_iterations - warmup;
  double window = 0, previous = INFINITY;
  constexpr int kWindow = 20;
  const auto hardness = [&] {
    int64_t hard = 0, total = 0;
    for (const Rounding& r : all) {
      const at::Tensor h = H(r.alpha);
      hard += ((h < 0.01).logical_or(h > 0.99)).sum().item<int64_t>();
      total += h.numel();
    }
    return static_cast<double>(hard) / static_cast<double>(total);
  };

  for (int it = 0;; ++it) {
    TEMPERA_TRY(scope.Check());
    if (it >= warmup + anneal) {
      result.hard_ratio = hardness();
      // Soft variables would be cut arbitrarily: anneal on until the choice is made, within as many again.
      if (result.hard_ratio >= 0.99 || it >= 2 * options.max_iterations) {
        result.iterations = it;
        break;
      }
    }
    for (nn::Slot* slot : slots) Join(all, *slot, true);
    std::vector<at::Tensor> inputs;
    for (nn::Slot* slot : slots) inputs.push_back(slot->simulated);
    std::vector<std::vector<at::Tensor>> gradients(static_cast<size_t>(shards));
    std::vector<double> losses(static_cast<size_t>(shards));
    TEMPERA_TRY(lanes.ParallelFor(shards, [&](int64_t shard) {
      return nn::TorchEdge("reconstruction", [&]() -> Status {
        const at::AutoGradMode with_gradients(true);
        const at::Tensor value = loss(it, shard) / static_cast<double>(shards);
        losses[static_cast<size_t>(shard)] = value.item<double>();
        gradients[static_cast<size_t>(shard)] =
            torch::autograd::grad({value}, inputs, {}, std::nullopt, false, true);
        return OkStatus();
      });
    }));
    double total = 0;
    for (const double l : losses) total += l;
    if (!std::isfinite(total))
      return Internal("reconstruction of ", slots[0]->name, ": the loss is not finite");

    const bool regularised = it >= warmup;
    const double progress = regularised ? std::min(1.0, static_cast<double>(it - warmup) / anneal) : 0;
    const double beta = options.beta_end + (options.beta_start - options.beta_end) * (1 - progress);
    const double correction1 = 1 - std::pow(0.9, it + 1), correction2 = 1 - std::pow(0.999, it + 1);
    size_t index = 0;
    for (size_t s = 0; s < slots.size(); ++s) {
      at::Tensor g;
      for (const auto& of_shard : gradients) {
        if (!of_shard[s].defined()) continue;
        g = g.defined() ? g + of_shard[s] : of_shard[s];
      }
      if (!g.defined()) g = at::zeros_like(slots[s]->simulated);
      for (; index < all.size() && all[index].slot == slots[s]; ++index) {
        Rounding& r = all[index];
        const at::Tensor sigmoid = at::sigmoid(r.alpha);
        const at::Tensor stretched = sigmoid * (kZeta - kGamma) + kGamma;
        const at::Tensor inside = (stretched > 0).logical_and(stretched < 1).to(at::kFloat);
        const at::Tensor slope = sigmoid * (1 - sigmoid) * (kZeta - kGamma) * inside;
        const at::Tensor h = stretched.clamp(0, 1), code = r.base + h;
        const at::Tensor unclipped = (code >= 0).logical_and(code <= r.top).to(at::kFloat);
        at::Tensor d = g.narrow(1, r.part->begin, r.part->channels) * r.scale * unclipped;
        if (regularised) {
          // d/dH of lambda * (1 - |2H - 1|^beta)
          const at::Tensor centred = 2 * h - 1;
          d = d - options.lambda * beta * 2 * at::sign(centred) * centred.abs().pow(beta - 1);
        }
        d = d * slope;
        r.m.mul_(0.9).add_(d, 0.1);
        r.v.mul_(0.999).addcmul_(d, d, 0.001);
        r.alpha.addcdiv_(r.m / correction1, (r.v / correction2).sqrt_().add_(1e-8), -rate);
      }
    }
    window += total;
    if ((it + 1) % kWindow == 0) {
      if (!regularised && it + 1 < warmup && window > 0.99 * previous) {
        // A plateau: the published ratio of warm-up to annealing is 1 to 4; half of it keeps short runs
        // binding.
        warmup = it + 1;
        anneal = std::min(options.max_iterations - warmup, std::max(3 * kWindow, 2 * warmup));
      }
      previous = window;
      window = 0;
    }
  }

  // Harden, and keep the nearest codes if learning did not help on the fixed rows.
  std::vector<at::Tensor> nearest;
  for (Rounding& r : all) {
    nearest.push_back(r.part->codes);
    r.part->codes = (r.base + (r.alpha >= 0).to(at::kFloat)).clamp(0, r.top).to(at::kByte).contiguous();
  }
  for (nn::Slot* slot : slots) UseCodes(*slot);
  TEMPERA_ASSIGN(result.final_loss, full_loss());
  if (!(result.final_loss <= result.nearest_loss)) {
    for (size_t i = 0; i < all.size(); ++i) all[i].part->codes = nearest[i];
    for (nn::Slot* slot : slots) UseCodes(*slot);
    result.final_loss = result.nearest_loss;
  }
  return result;
}

}  // namespace tempera
