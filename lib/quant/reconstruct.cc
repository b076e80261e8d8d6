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

// The rounding variables of some output channels of one part of a slot: small enough to stay in a core's
// cache while they are updated.
struct Piece {
  nn::SlotPart* part = nullptr;
  size_t input = 0;             // which of the slots
  int64_t begin = 0, rows = 0;  // output channels
  at::Tensor base;              // floor(w / s) + z, f32
  at::Tensor alpha, m, v;       // variable and Adam's moments
  at::Tensor scale, zero;       // broadcast over the weight
  double top = 0;

  // The piece of a tensor like the slot's weight.
  at::Tensor Of(const at::Tensor& weight) const {
    return weight.narrow(0, begin, rows).narrow(1, part->begin, part->channels);
  }
};
constexpr int64_t kPieceValues = 16384;

at::Tensor Stretched(const at::Tensor& alpha) { return at::sigmoid(alpha) * (kZeta - kGamma) + kGamma; }
at::Tensor H(const at::Tensor& alpha) { return Stretched(alpha).clamp(0, 1); }

void AddPieces(nn::Slot& slot, size_t input, std::vector<Piece>& out) {
  const at::Tensor weight = slot.EqualizedWeight();
  std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
  shape[0] = -1;
  for (nn::SlotPart& part : slot.parts) {
    const int64_t step = std::max<int64_t>(1, kPieceValues / (part.channels * slot.kh * slot.kw));
    for (int64_t begin = 0; begin < slot.out_channels; begin += step) {
      Piece p;
      p.part = &part;
      p.input = input;
      p.begin = begin;
      p.rows = std::min(step, slot.out_channels - begin);
      const at::Tensor w = p.Of(weight).contiguous();
      p.scale = part.scale.narrow(0, begin, p.rows).view(shape).to(w.device());
      p.zero = part.zero.narrow(0, begin, p.rows).to(at::kFloat).view(shape).to(w.device());
      const at::Tensor ratio = w / p.scale, floor = at::floor(ratio);
      p.base = floor + p.zero;
      // H(alpha) = the fraction that floor took away: rounding begins where the weight is.
      p.alpha = -at::log((kZeta - kGamma) / ((ratio - floor) - kGamma) - 1);
      p.m = at::zeros_like(p.alpha);
      p.v = at::zeros_like(p.alpha);
      p.top = (1 << slot.weight_bits) - 1;
      out.push_back(std::move(p));
    }
  }
}

at::Tensor Soft(const Piece& p) { return ((p.base + H(p.alpha)).clamp(0, p.top) - p.zero) * p.scale; }

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

  std::vector<Piece> pieces;
  std::vector<at::Tensor> inputs;  // the weights that run, written piece by piece
  for (size_t i = 0; i < slots.size(); ++i) {
    AddPieces(*slots[i], i, pieces);
    inputs.push_back(at::empty_like(slots[i]->weight, at::kFloat, at::MemoryFormat::Contiguous));
    slots[i]->simulated = inputs.back();
  }
  const auto for_pieces = [&](const std::function<void(Piece&)>& work) {
    return lanes.ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
      return nn::TorchEdge("reconstruction", [&]() -> Status {
        const at::NoGradGuard no_gradients;
        work(pieces[static_cast<size_t>(i)]);
        return OkStatus();
      });
    });
  };
  const auto write_soft = [&](Piece& p) { p.Of(inputs[p.input].detach()).copy_(Soft(p)); };
  TEMPERA_TRY(for_pieces(write_soft));
  for (const at::Tensor& input : inputs) input.set_requires_grad(true);

  // The published schedule moves a variable by lr 1e-3 for 20,000 iterations; a shorter one keeps the path's
  // length within what a variable needs to saturate, |alpha| = 2.4, several times over.
  const int planned = std::max(1, options.max_iterations / 2);
  const double rate = std::clamp(12.0 / planned, 1e-3, 5e-2);
  int warmup = std::max(1, planned * 2 / 5);  // at most; shorter on a plateau
  int anneal = std::max(1, planned - warmup);
  double window = 0, previous = INFINITY;
  constexpr int kWindow = 20;
  const auto hardness = [&] {
    int64_t hard = 0, total = 0;
    for (const Piece& p : pieces) {
      const at::Tensor h = H(p.alpha);
      hard += ((h < 0.01).logical_or(h > 0.99)).sum().item<int64_t>();
      total += h.numel();
    }
    return static_cast<double>(hard) / static_cast<double>(total);
  };

  for (int it = 0;; ++it) {
    TEMPERA_TRY(scope.Check());
    if (it >= std::min(warmup + anneal, options.max_iterations)) {
      result.hard_ratio = hardness();
      // Soft variables would be cut arbitrarily: anneal on until the choice is made, as long as the cap lets.
      if (result.hard_ratio >= 0.99 || it >= options.max_iterations) {
        result.iterations = it;
        break;
      }
    }
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
    TEMPERA_TRY(for_pieces([&](Piece& p) {
      at::Tensor g;
      for (const auto& of_shard : gradients) {
        const at::Tensor& whole = of_shard[p.input];
        if (whole.defined()) g = g.defined() ? g + p.Of(whole) : p.Of(whole);
      }
      if (!g.defined()) g = at::zeros_like(p.alpha);
      const at::Tensor sigmoid = at::sigmoid(p.alpha);
      const at::Tensor stretched = sigmoid * (kZeta - kGamma) + kGamma;
      const at::Tensor inside = (stretched > 0).logical_and(stretched < 1).to(at::kFloat);
      const at::Tensor slope = sigmoid * (1 - sigmoid) * (kZeta - kGamma) * inside;
      const at::Tensor h = stretched.clamp(0, 1), code = p.base + h;
      const at::Tensor unclipped = (code >= 0).logical_and(code <= p.top).to(at::kFloat);
      at::Tensor d = g * p.scale * unclipped;
      if (regularised) {
        // d/dH of lambda * (1 - |2H - 1|^beta)
        const at::Tensor centred = 2 * h - 1;
        d = d - options.lambda * beta * 2 * at::sign(centred) * centred.abs().pow(beta - 1);
      }
      d = d * slope;
      p.m.mul_(0.9).add_(d, 0.1);
      p.v.mul_(0.999).addcmul_(d, d, 0.001);
      p.alpha.addcdiv_(p.m / correction1, (p.v / correction2).sqrt_().add_(1e-8), -rate);
      write_soft(p);
    }));
    window += total;
    if ((it + 1) % kWindow == 0) {
      if (!regularised && it + 1 < warmup && window > 0.99 * previous) {
        // A plateau: the published ratio of warm-up to annealing is 1 to 4; half of it keeps short runs
        // binding.
        warmup = it + 1;
        anneal = std::min(planned - warmup, std::max(3 * kWindow, 2 * warmup));
      }
      previous = window;
      window = 0;
    }
  }

  // Harden, and keep the nearest codes if learning did not help on the fixed rows.
  std::vector<at::Tensor> nearest;
  for (nn::Slot* slot : slots)
    for (nn::SlotPart& part : slot->parts) {
      nearest.push_back(part.codes);
      part.codes = at::empty_like(part.codes);
    }
  for (const Piece& p : pieces)
    p.part->codes.narrow(0, p.begin, p.rows)
        .copy_((p.base + (p.alpha >= 0).to(at::kFloat)).clamp(0, p.top).to(at::kByte));
  for (nn::Slot* slot : slots) UseCodes(*slot);
  TEMPERA_ASSIGN(result.final_loss, full_loss());
  if (!(result.final_loss <= result.nearest_loss)) {
    auto codes = nearest.begin();
    for (nn::Slot* slot : slots)
      for (nn::SlotPart& part : slot->parts) part.codes = *codes++;
    for (nn::Slot* slot : slots) UseCodes(*slot);
    result.final_loss = result.nearest_loss;
  }
  return result;
}

}  // namespace tempera
