#include "quant/reconstruct.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <numeric>

#include "kernels/rounding_step.h"
#include "nn/params.h"
#include "quant/weights.h"

namespace tempera {
namespace {

// The rounding variables of some output channels of one part of a slot.
struct Piece {
  nn::SlotPart* part = nullptr;
  size_t slot = 0;              // which of the slots
  int64_t begin = 0, rows = 0;  // output channels
};
constexpr int64_t kPieceValues = 65536;

// The rounding variables of one slot, each like its weight, f32 and contiguous.
struct Variables {
  at::Tensor soft;   // the weights that run
  at::Tensor base;   // floor(w / s) + z
  at::Tensor alpha;  // H(alpha) of a code is added to it
  at::Tensor m, v;   // Adam's moments
};

// The piece of a tensor like the slot's weight.
at::Tensor Of(const Piece& p, const at::Tensor& weight) {
  return weight.narrow(0, p.begin, p.rows).narrow(1, p.part->begin, p.part->channels);
}

// Rounding begins where the weight is: H(alpha) = the fraction that floor took away.
void Begin(const Piece& p, const at::Tensor& weight, float top, Variables& variables) {
  std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
  shape[0] = -1;
  const at::Tensor scale = p.part->scale.narrow(0, p.begin, p.rows).view(shape);
  const at::Tensor zero = p.part->zero.narrow(0, p.begin, p.rows).to(at::kFloat).view(shape);
  const at::Tensor ratio = Of(p, weight) / scale, floor = at::floor(ratio), h = ratio - floor;
  Of(p, variables.base).copy_(floor + zero);
  Of(p, variables.alpha).copy_(-at::log(1.2 / (h + 0.1) - 1));
  Of(p, variables.soft).copy_(((floor + zero + h).clamp(0, top) - zero) * scale);
}

// One step of the piece; returns how many of its weights are hard.
int64_t Step(const Piece& p, const nn::Slot& slot, const kernels::RoundingStep& step,
             const std::vector<const float*>& gradients, Variables& variables) {
  const int64_t of_channel = slot.kh * slot.kw;
  kernels::RoundingRow row{.gradients = gradients.data(), .shards = static_cast<int64_t>(gradients.size())};
  row.count = p.part->channels * of_channel;
  int64_t hard = 0;
  for (int64_t n = p.begin; n < p.begin + p.rows; ++n) {
    row.offset = (n * slot.in_channels + p.part->begin) * of_channel;
    row.base = variables.base.const_data_ptr<float>() + row.offset;
    row.alpha = variables.alpha.mutable_data_ptr<float>() + row.offset;
    row.m = variables.m.mutable_data_ptr<float>() + row.offset;
    row.v = variables.v.mutable_data_ptr<float>() + row.offset;
    row.soft = variables.soft.mutable_data_ptr<float>() + row.offset;
    row.scale = p.part->scale.const_data_ptr<float>()[n];
    row.zero = static_cast<float>(p.part->zero.const_data_ptr<int32_t>()[n]);
    hard += kernels::StepRounding(step, row);
  }
  return hard;
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

  std::vector<Piece> pieces;
  std::vector<Variables> variables;
  std::vector<at::Tensor> inputs;  // the weights that run
  int64_t count = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    nn::Slot& slot = *slots[i];
    const auto empty = [&] {
      return at::empty(slot.weight.sizes(), slot.weight.options().dtype(at::kFloat));
    };
    variables.push_back({empty(), empty(), empty(), empty().zero_(), empty().zero_()});
    inputs.push_back(variables.back().soft);
    count += slot.weight.numel();
    for (nn::SlotPart& part : slot.parts) {
      const int64_t step = std::max<int64_t>(1, kPieceValues / (part.channels * slot.kh * slot.kw));
      for (int64_t begin = 0; begin < slot.out_channels; begin += step)
        pieces.push_back(
            {.part = &part, .slot = i, .begin = begin, .rows = std::min(step, slot.out_channels - begin)});
    }
  }
  const auto for_pieces = [&](const std::function<void(size_t)>& work) {
    return lanes.ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
      return nn::TorchEdge("reconstruction", [&]() -> Status {
        const at::NoGradGuard no_gradients;
        work(static_cast<size_t>(i));
        return OkStatus();
      });
    });
  };
  const auto top_of = [](const nn::Slot& slot) { return static_cast<float>((1 << slot.weight_bits) - 1); };
  {
    std::vector<at::Tensor> weights;
    for (nn::Slot* slot : slots) weights.push_back(slot->EqualizedWeight());
    TEMPERA_TRY(for_pieces([&](size_t i) {
      const Piece& p = pieces[i];
      Begin(p, weights[p.slot], top_of(*slots[p.slot]), variables[p.slot]);
    }));
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    inputs[i].set_requires_grad(true);
    slots[i]->simulated = inputs[i];
  }

  // The published schedule moves a variable by lr 1e-3 for 20,000 iterations; a shorter one keeps the path's
  // length within what a variable needs to saturate, |alpha| = 2.4, several times over.
  const int planned = std::max(1, options.max_iterations / 2);
  const double rate = std::clamp(12.0 / planned, 1e-3, 5e-2);
  int warmup = std::max(1, planned * 2 / 5);  // at most; shorter on a plateau
  int anneal = std::max(1, planned - warmup);
  double window = 0, previous = INFINITY;
  constexpr int kWindow = 20;
  std::vector<int64_t> hard(pieces.size());

  for (int it = 0;; ++it) {
    TEMPERA_TRY(scope.Check());
    if (it >= std::min(warmup + anneal, options.max_iterations)) {
      result.hard_ratio = static_cast<double>(std::accumulate(hard.begin(), hard.end(), int64_t{0})) /
                          static_cast<double>(count);
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
        std::vector<at::Tensor>& of_shard = gradients[static_cast<size_t>(shard)];
        of_shard = torch::autograd::grad({value}, inputs, {}, std::nullopt, false, true);
        for (at::Tensor& g : of_shard)
          if (g.defined()) g = g.contiguous();
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
    const kernels::RoundingStep shared{.rate = static_cast<float>(rate),
                                       .correction1 = static_cast<float>(1 - std::pow(0.9, it + 1)),
                                       .correction2 = static_cast<float>(1 - std::pow(0.999, it + 1)),
                                       .lambda = regularised ? static_cast<float>(options.lambda) : 0,
                                       .beta = static_cast<float>(beta)};
    std::vector<std::vector<const float*>> of_slot(slots.size());
    for (const std::vector<at::Tensor>& of_shard : gradients)
      for (size_t i = 0; i < slots.size(); ++i)
        if (of_shard[i].defined()) of_slot[i].push_back(of_shard[i].const_data_ptr<float>());
    TEMPERA_TRY(for_pieces([&](size_t i) {
      const Piece& p = pieces[i];
      kernels::RoundingStep step = shared;
      step.top = top_of(*slots[p.slot]);
      hard[i] = Step(p, *slots[p.slot], step, of_slot[p.slot], variables[p.slot]);
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
  TEMPERA_TRY(for_pieces([&](size_t i) {
    const Piece& p = pieces[i];
    const Variables& of = variables[p.slot];
    p.part->codes.narrow(0, p.begin, p.rows)
        .copy_((Of(p, of.base) + (Of(p, of.alpha) >= 0)).clamp(0, top_of(*slots[p.slot])));
  }));
  variables.clear();
  inputs.clear();
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
