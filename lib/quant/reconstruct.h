// Learned rounding (AdaRound) of a group of layers against the full-precision outputs of what they are part
// of.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "base/status.h"
#include "nn/slot.h"

namespace tempera {

struct RoundingOptions {
  // Cap. The schedule plans with half of it, or less where the loss stops falling early; the other half is
  // for rounding that is not hard by then.
  int max_iterations = 500;
  double lambda = 0.01;  // of the regulariser, a sum over all weights (Source: TFMQ-DM, as the next two)
  double beta_start = 20, beta_end = 2;
};

struct RoundingResult {
  int iterations = 0;
  double nearest_loss = 0;  // with nearest rounding
  double final_loss = 0;    // with the hardened codes
  double hard_ratio = 1;    // share of H within 0.01 of 0 or 1 before hardening
};

// Learns for every weight of `slots` whether its code is rounded down or up.
//   loss(iteration, shard): scalar reconstruction loss of one shard of the iteration's minibatch, built from
//   the slots'
//     simulated weights (which require gradients while it runs). Must depend on its arguments alone.
//   full_loss(): the loss over a fixed set of rows, with the slots' present weights and no gradients.
// Gradients of shards are summed in order: the result does not depend on the number of lanes. At the end
// codes hold the hard choice, or the nearest codes if those are no worse by full_loss. REQUIRES: InitWeights
// was called on each slot.
Result<RoundingResult> LearnRounding(const CallScope& scope, const std::vector<nn::Slot*>& slots,
                                     int64_t shards,
                                     const std::function<at::Tensor(int iteration, int64_t shard)>& loss,
                                     const std::function<Result<double>()>& full_loss,
                                     const RoundingOptions& options, Lanes& lanes);

}  // namespace tempera
