#include "models/timed_unet.h"

#include <ATen/Functions.h>

#include <cmath>

namespace tempera {

Sinusoid::Sinusoid(int64_t channels, bool cos_first, double shift, at::Device device)
    : cos_first_(cos_first), odd_(channels % 2 == 1) {
  // exp(-ln(10000) * i / (half - shift)), in f32 as the reference computes it.
  const int64_t half = channels / 2;
  frequencies_ =
      at::exp(at::arange(half, at::kFloat) * -std::log(10000.0) / (static_cast<double>(half) - shift))
          .to(device);
}

at::Tensor Sinusoid::operator()(const at::Tensor& t) const {
  const at::Tensor angle = t.unsqueeze(1) * frequencies_.unsqueeze(0);
  const at::Tensor first = cos_first_ ? at::cos(angle) : at::sin(angle);
  const at::Tensor second = cos_first_ ? at::sin(angle) : at::cos(angle);
  const at::Tensor out = at::cat({first, second}, 1);
  return odd_ ? at::constant_pad_nd(out, {0, 1}) : out;
}

void Note(nn::ForwardContext& ctx, std::string_view name, const at::Tensor& value) {
  if (ctx.listener != nullptr) ctx.listener->OnValue(name, value);
}

const at::Tensor& TimedUnet::Embedding(nn::ForwardContext& ctx) const {
  if (!ctx.embedding.defined()) {
    ctx.embedding = Embed(ctx);
    Note(ctx, "emb", ctx.embedding);
  }
  return ctx.embedding;
}

at::Tensor TimedUnet::TemporalFeature(const TimeLayer& layer, nn::ForwardContext& ctx) const {
  const auto compute = [&] {
    const at::Tensor& embedding = Embedding(ctx);
    return nn::Run(*layer.slot, ctx, layer.activated ? act_(embedding) : embedding);
  };
  return ctx.features == nullptr ? compute() : ctx.features->Get(*layer.slot, ctx, compute);
}

std::vector<at::Tensor> TimedUnet::TemporalFeatures(nn::ForwardContext& ctx) const {
  std::vector<at::Tensor> features;
  for (const TimeLayer& layer : time_layers_) features.push_back(TemporalFeature(layer, ctx));
  return features;
}

int TimedUnet::AddUnit(std::string name, std::string group, std::vector<int> inputs,
                       decltype(Unit::run) run) {
  Unit unit{.name = std::move(name),
            .group = std::move(group),
            .inputs = std::move(inputs),
            .output = static_cast<int>(units_.size()) + 1,
            .slots = {},
            .run = std::move(run)};
  for (; assigned_ < slots_.size(); ++assigned_) unit.slots.push_back(&slots_[assigned_]);
  units_.push_back(std::move(unit));
  return units_.back().output;
}

int TimedUnet::AddResUnit(nn::Builder& b, const std::string& name, const char* group, std::vector<int> inputs,
                          int64_t in, int64_t out, const ResOptions& options) {
  const auto make_time = [&](const std::string& layer_name, int64_t features, bool activated) {
    const TimeLayer layer{b.Linear(layer_name, nn::Role::kTime, embedding_dim_, features), activated};
    temporal_slots_.push_back(layer.slot);
    time_layers_.push_back(layer);
    return layer;
  };
  const ResBlock block(b, name, in, out, options, make_time);
  return AddUnit(name, group, std::move(inputs),
                 [this, block](nn::ForwardContext& ctx, const Values& values) {
                   return block.Run(ctx, values.size() == 1 ? values[0] : at::cat(values, 1), act_,
                                    [&](const TimeLayer& layer) { return TemporalFeature(layer, ctx); });
                 });
}

}  // namespace tempera
