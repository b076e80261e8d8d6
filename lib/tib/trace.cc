#include "tib/trace.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <deque>
#include <set>
#include <unordered_map>

namespace tempera {
namespace {

using torch::autograd::Node;

// Outputs of every layer in execution order, kept so that their graph stays alive.
class Recorder : public nn::Listener {
 public:
  struct Call {
    const nn::Slot* slot;
    at::Tensor output;
  };
  std::vector<Call> calls;
  void OnSlot(const nn::Slot& slot, const at::Tensor&, const at::Tensor& output) override {
    calls.push_back({&slot, output});
  }
};

// What lies behind a node of the graph: leaves, and layers passed on the way by index.
struct Reach {
  std::set<const void*> leaves;
  std::set<size_t> layers;
};

Reach Behind(const Node* node, const std::unordered_map<const Node*, size_t>& layer_of) {
  std::set<const Node*> seen;
  Reach reach;
  std::vector<const Node*> stack{node};
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    if (n == nullptr || !seen.insert(n).second) continue;
    if (n != node)
      if (const auto it = layer_of.find(n); it != layer_of.end()) reach.layers.insert(it->second);
    if (const auto* leaf = dynamic_cast<const torch::autograd::AccumulateGrad*>(n))
      reach.leaves.insert(leaf->variable.unsafeGetTensorImpl());
    for (const auto& edge : n->next_edges()) stack.push_back(edge.function.get());
  }
  return reach;
}

// While it lives, parameters require gradients and a layer's weight is a zero seen in its shape: the graph
// keeps what it multiplies by, which for the weights of a large network would be gigabytes, and none are
// read.
class Traced {
 public:
  explicit Traced(Denoiser& network) : slots_(network.slots()) {
    for (nn::Slot& slot : slots_) {
      weights_.push_back(slot.weight);
      if (!slot.weight.defined()) continue;
      const auto options = slot.weight.options().dtype(at::kFloat).requires_grad(false);
      at::Tensor zero = at::zeros({1}, options).expand(slot.weight.sizes()).detach();
      leaf_of_[slot.weight.unsafeGetTensorImpl()] = zero.unsafeGetTensorImpl();
      slot.weight = zero.set_requires_grad(true);
    }
    for (const auto& [name, p] : network.parameters())
      if (p.defined() && !p.requires_grad() && !leaf_of_.contains(p.unsafeGetTensorImpl()))
        changed_.push_back(p);
    for (at::Tensor& p : changed_) p.set_requires_grad(true);
  }
  ~Traced() {
    for (at::Tensor& p : changed_) p.set_requires_grad(false);
    auto weight = weights_.begin();
    for (nn::Slot& slot : slots_) slot.weight = *weight++;
  }
  Traced(const Traced&) = delete;
  Traced& operator=(const Traced&) = delete;

  // What stands for a parameter among the leaves of the graph.
  const void* Leaf(const at::Tensor& parameter) const {
    const void* own = parameter.unsafeGetTensorImpl();
    const auto it = leaf_of_.find(own);
    return it == leaf_of_.end() ? own : it->second;
  }

 private:
  std::deque<nn::Slot>& slots_;
  std::vector<at::Tensor> weights_, changed_;
  std::unordered_map<const void*, const void*> leaf_of_;
};

}  // namespace

Result<TibTrace> TraceTib(Denoiser& network) {
  return nn::TorchEdge("temporal information block", [&]() -> Result<TibTrace> {
    const DenoiserInfo& info = network.info();
    // A picture that survives every halving; the graph does not depend on its size.
    constexpr int64_t kSide = 64;
    const int64_t height = info.height > 0 ? std::min(info.height, kSide) : kSide,
                  width = info.width > 0 ? std::min(info.width, kSide) : kSide;
    const auto options = at::TensorOptions(at::kFloat).device(network.device());
    const at::AutoGradMode mode(true);
    const Traced traced(network);
    const at::Tensor x = at::zeros({1, info.in_channels, height, width}, options).set_requires_grad(true);
    nn::ForwardContext ctx;
    ctx.timestep = at::ones({1}, options).set_requires_grad(true);
    const auto zeros = [&](at::IntArrayRef shape) {
      return at::zeros(shape, options).set_requires_grad(true);
    };
    if (info.classes > 0)
      ctx.on.label = at::zeros({1}, at::TensorOptions(at::kLong).device(network.device()));
    if (info.context_width > 0) ctx.on.context = zeros({1, 2, info.context_width});
    if (info.added_width > 0) {
      ctx.on.pooled = zeros({1, info.added_width - info.size_width});
      ctx.on.sizes = zeros({1, 1});
    }
    if (info.guidance_width > 0) ctx.on.guidance = zeros({1, info.guidance_width});
    Recorder recorder;
    ctx.listener = &recorder;
    (void)network.Forward(ctx, x);

    const size_t count = recorder.calls.size();
    std::unordered_map<const Node*, size_t> layer_of;
    for (size_t i = 0; i < count; ++i) layer_of[recorder.calls[i].output.grad_fn().get()] = i;
    std::vector<Reach> reach(count);
    std::set<size_t> temporal, read_by_temporal;
    for (size_t i = 0; i < count; ++i) {
      reach[i] = Behind(recorder.calls[i].output.grad_fn().get(), layer_of);
      if (reach[i].leaves.contains(x.unsafeGetTensorImpl()) ||
          (ctx.on.context.defined() && reach[i].leaves.contains(ctx.on.context.unsafeGetTensorImpl())))
        continue;
      temporal.insert(i);
      read_by_temporal.insert(reach[i].layers.begin(), reach[i].layers.end());
    }

    TibTrace trace;
    trace.temporal_class = info.added_width > 0 ? TemporalClass::kC
                           : info.classes > 0   ? TemporalClass::kB
                                                : TemporalClass::kA;
    std::set<const void*> leaves;
    for (const size_t i : temporal) {
      nn::Slot* slot = network.FindSlot(recorder.calls[i].slot->name);
      const bool feature =
          reach[i].leaves.contains(ctx.timestep.unsafeGetTensorImpl()) && !read_by_temporal.contains(i);
      (feature ? trace.features : trace.trunk).push_back(slot);
      leaves.insert(reach[i].leaves.begin(), reach[i].leaves.end());
    }
    for (const auto& [name, p] : network.parameters())
      if (p.defined() && leaves.contains(traced.Leaf(p))) trace.parameters.push_back(name);
    if (trace.features != network.temporal_slots())
      return Internal("temporal information block: reachability finds ", trace.features.size(),
                      " feature layers, family ", info.family, " lists ", network.temporal_slots().size());
    for (size_t i = 0; i < trace.features.size(); ++i)
      trace.features[i]->temporal_index = static_cast<int>(i);
    return trace;
  });
}

}  // namespace tempera
