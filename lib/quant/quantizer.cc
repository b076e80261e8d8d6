#include "quant/quantizer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <atomic>
#include <cmath>
#include <mutex>
#include <numeric>
#include <set>

#include "quant/ranges.h"
#include "quant/weights.h"

namespace tempera {
namespace {

// A stream of random numbers of its own for each (seed, purpose, index).
at::Generator Stream(uint64_t seed, uint64_t purpose, uint64_t index) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * (purpose * 1000003 + index + 1);  // SplitMix64's mixing
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return at::detail::createCPUGenerator((z ^ (z >> 31)) & 0xFFFFFFFFull);
}

}  // namespace

Result<std::unique_ptr<Quantizer>> Quantizer::Create(const CallScope& scope, const ModelFolder& folder,
                                                     const QuantSpec& spec, CalibrationPlan plan,
                                                     SpillStore spill, Lanes& lanes) {
  std::unique_ptr<Quantizer> q(new Quantizer(spec, std::move(spill), lanes));
  nn::Params params(folder.network.weights, at::kCPU);
  TEMPERA_ASSIGN(q->network_, BuildDenoiser(folder.network.config, folder.network.label, params));
  TEMPERA_ASSIGN(q->scheduler_, CreateScheduler({.config = folder.scheduler_config,
                                                 .name = spec.scheduler,
                                                 .steps = spec.steps,
                                                 .eta = spec.eta,
                                                 .options = spec.SchedulerOptions()}));
  TEMPERA_ASSIGN(q->trace_, TraceTib(*q->network_));
  AssignBits(*q->network_, spec);
  int64_t weights = 0;
  for (const nn::Slot& slot : q->network_->slots()) weights += slot.k() * slot.out_channels;
  q->large_ = weights * static_cast<int64_t>(sizeof(float)) > nn::Params::kWideBytes;
  if (q->large_) {
    q->shard_rows_ = 1;
    // The gradients of a block's weights, of every shard of a minibatch.
    q->kept_blocks_ = std::make_unique<nn::KeptBlocks>(int64_t{1} << 30);
  }
  q->plan_ = std::move(plan);
  q->conditions_ = OwnConditions(*q->network_);
  if (q->trace_.temporal_class == TemporalClass::kC) {
    q->conditions_ = q->plan_.on;
    q->conditions_.context = at::Tensor();
    // Prompts that calibration did not see leave its ranges; a row's own range costs nothing beside its
    // layer.
    for (const auto* slots : {&q->trace_.trunk, &q->trace_.features})
      for (nn::Slot* slot : *slots) {
        slot->dynamic = q->method_.temporal_apart && slot->activation_bits > 0;
        // These layers run once a request, and no cache can hold what its prompt adds: 8 bits for their
        // weights cost next to nothing, where 4 leave a tenth of a feature wrong.
        if (q->method_.refine_inputs && slot->weight_bits > 0 &&
            std::none_of(spec.overrides.begin(), spec.overrides.end(),
                         [&](const SlotOverride& o) { return o.slot == slot->name; }))
          slot->weight_bits = 8;
      }
    if (q->method_.temporal_apart)
      for (nn::Slot* slot : q->network_->tau_slots()) {
        slot->weight_bits = slot->activation_bits = 0;
        slot->dynamic = false;
      }
  } else if (q->network_->info().guidance_width > 0) {
    q->conditions_.guidance = q->plan_.on.guidance.narrow(0, 0, 1);
  }
  TEMPERA_ASSIGN(q->exact_,
                 ComputeFeatures(scope, *q->network_, q->scheduler_->timesteps(), q->conditions_, &lanes));
  const auto& units = q->network_->units();
  q->last_reader_.assign(units.size() + 1, -1);
  for (size_t u = 0; u < units.size(); ++u)
    for (const int value : units[u].inputs) q->last_reader_[static_cast<size_t>(value)] = static_cast<int>(u);
  return q;
}

Status Quantizer::Calibrate(const CallScope& scope, const StageProgress& progress) {
  const auto steps = static_cast<int64_t>(scheduler_->timesteps().size());
  const int64_t each = plan_.rows_per_sample, channels = plan_.latent[0];
  rows_.count = plan_.samples * each;
  rows_.on = plan_.on;
  rows_.condition.clear();
  if (conditions_.rows() > 0) {
    for (int64_t r = 0; r < rows_.count; ++r) {
      int64_t column = 0;
      if (trace_.temporal_class == TemporalClass::kC) column = r;
      if (trace_.temporal_class == TemporalClass::kB) column = plan_.on.label.const_data_ptr<int64_t>()[r];
      rows_.condition.push_back(column);
    }
  }
  const int64_t beside = plan_.beside.defined() ? plan_.beside.size(1) : 0;
  rows_.x = at::empty({steps * rows_.count, channels + beside, plan_.latent[1], plan_.latent[2]}, at::kFloat);
  for (nn::Slot& slot : network_->slots()) slot.state = nn::State::kFloat;
  std::atomic<int64_t> done{0};
  const int64_t samples_of_shard = std::max<int64_t>(1, shard_rows_ / each);
  const int64_t shards = (plan_.samples + samples_of_shard - 1) / samples_of_shard;
  const std::vector<nn::Slot*> equalized = EqualizedSlots();
  std::vector<std::vector<ChannelListener>> listeners(static_cast<size_t>(shards));
  const Status ran = lanes_.ParallelFor(shards, [&](int64_t shard) -> Status {
    return nn::TorchEdge("calibration", [&]() -> Status {
      const at::NoGradGuard guard;
      const int64_t begin = shard * samples_of_shard, end = std::min(plan_.samples, begin + samples_of_shard);
      NoiseSource noise(spec_.seed * 1000003 + static_cast<uint64_t>(shard));
      SamplerState state;
      at::Tensor x = noise.Randn({end - begin, channels, plan_.latent[1], plan_.latent[2]}) *
                     scheduler_->init_noise_sigma();
      TableSource features(exact_);
      std::vector<ChannelListener>& of_steps = listeners[static_cast<size_t>(shard)];
      of_steps.resize(static_cast<size_t>(steps));
      for (int64_t k = 0; k < steps; ++k) {
        TEMPERA_TRY(scope.Check());
        at::Tensor seen = scheduler_->ScaleInput(x, k).repeat_interleave(each, 0);
        if (beside > 0) seen = at::cat({seen, plan_.beside.expand({seen.size(0), -1, -1, -1})}, 1);
        rows_.x.narrow(0, k * rows_.count + begin * each, seen.size(0)).copy_(seen);
        std::vector<int64_t> rows;
        for (int64_t r = begin * each; r < end * each; ++r) rows.push_back(k * rows_.count + r);
        nn::ForwardContext ctx = RowContext(rows);
        ctx.features = &features;
        ctx.listener = &of_steps[static_cast<size_t>(k)];
        of_steps[static_cast<size_t>(k)].Watch(equalized);
        at::Tensor output = network_->Forward(ctx, seen);
        if (each == 2) {
          const at::Tensor pairs = output.unflatten(0, {-1, 2});
          const at::Tensor against = pairs.select(1, 0);
          output = against + plan_.guidance * (pairs.select(1, 1) - against);
        }
        x = scheduler_->Step(output, k, x, noise, state);
        progress("", ++done, shards * steps);
      }
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran);
  channels_.assign(static_cast<size_t>(steps), {});
  for (const std::vector<ChannelListener>& of_steps : listeners)
    for (size_t k = 0; k < of_steps.size(); ++k) channels_[k].Add(of_steps[k]);
  Trim();
  return OkStatus();
}

int64_t Quantizer::Shards(int64_t rows) const { return (rows + shard_rows_ - 1) / shard_rows_; }

std::vector<int64_t> Quantizer::RowsOf(int64_t step) const {
  std::vector<int64_t> rows(static_cast<size_t>(rows_.count));
  std::iota(rows.begin(), rows.end(), step * rows_.count);
  return rows;
}

nn::ForwardContext Quantizer::RowContext(const std::vector<int64_t>& rows) const {
  nn::ForwardContext ctx;
  std::vector<float> tau;
  std::vector<int64_t> of_plan;
  for (const int64_t row : rows) {
    ctx.step.push_back(row / rows_.count);
    tau.push_back(static_cast<float>(scheduler_->timesteps()[static_cast<size_t>(ctx.step.back())]));
    of_plan.push_back(row % rows_.count);
    if (!rows_.condition.empty())
      ctx.condition.push_back(rows_.condition[static_cast<size_t>(of_plan.back())]);
  }
  ctx.timestep = at::tensor(tau);
  ctx.on = rows_.on.Rows(at::tensor(of_plan, at::kLong));
  return ctx;
}

bool Quantizer::Apart(const nn::Slot& slot) const {
  if (slot.temporal_index >= 0) return method_.temporal_apart;
  return std::find(trace_.trunk.begin(), trace_.trunk.end(), &slot) != trace_.trunk.end();
}

std::vector<nn::Slot*> Quantizer::EqualizedSlots() {
  std::vector<nn::Slot*> slots;
  if (!method_.refine_inputs) return slots;
  for (nn::Slot& slot : network_->slots())
    if (slot.weight_bits > 0 && slot.activation_bits > 0 && !Apart(slot)) slots.push_back(&slot);
  return slots;
}

Status Quantizer::InitWeights(const CallScope& scope, const StageProgress& progress) {
  const std::vector<nn::Slot*> equalized = EqualizedSlots();
  const Status gained = lanes_.ParallelFor(static_cast<int64_t>(equalized.size()), [&](int64_t i) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("input channels", [&]() -> Status {
      const at::NoGradGuard guard;
      Equalize(*equalized[static_cast<size_t>(i)], channels_);
      return OkStatus();
    });
  });
  TEMPERA_TRY(gained);
  channels_.clear();
  std::vector<nn::Slot*> slots;
  for (nn::Slot& slot : network_->slots())
    if (slot.weight_bits > 0) slots.push_back(&slot);
  std::atomic<int64_t> done{0};
  const Status ran = lanes_.ParallelFor(static_cast<int64_t>(slots.size()), [&](int64_t i) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("weight scales", [&]() -> Status {
      nn::Slot& slot = *slots[static_cast<size_t>(i)];
      tempera::InitWeights(slot, method_.search_scales);
      progress(slot.name, ++done, static_cast<int64_t>(slots.size()));
      return OkStatus();
    });
  });
  Trim();
  return ran;
}

void Quantizer::SetState(const std::vector<nn::Slot*>& slots, nn::State state, bool activations) {
  for (nn::Slot* slot : slots) {
    slot->state = slot->quantized() ? state : nn::State::kFloat;
    slot->activations_on = activations;
  }
}

void Quantizer::DropSimulated(const std::vector<nn::Slot*>& slots) {
  for (nn::Slot* slot : slots)
    if (large_) slot->simulated = at::Tensor();
}

void Quantizer::Trim() const {
  if (large_) nn::ReleaseFreedMemory();
}

void Quantizer::SimulateAll(bool activations) {
  for (nn::Slot& slot : network_->slots()) {
    if (!slot.quantized()) continue;
    if (slot.role != nn::Role::kMatmul && !slot.simulated.defined() && !large_) UseCodes(slot);
    slot.state = nn::State::kSimulate;
    slot.activations_on = activations;
  }
}

Status Quantizer::Temporal(const CallScope& scope) {
  std::vector<nn::Slot*> all = trace_.trunk;
  if (method_.temporal_apart) all.insert(all.end(), trace_.features.begin(), trace_.features.end());
  std::vector<nn::Slot*> learned;
  for (nn::Slot* slot : all)
    if (slot->weight_bits > 0) learned.push_back(slot);
  for (nn::Slot* slot : learned) UseCodes(*slot);
  if (method_.reconstruct && !learned.empty()) {
    const auto& timesteps = scheduler_->timesteps();
    const std::vector<int64_t> all_rows = AllRows(conditions_, timesteps.size());
    const auto count = static_cast<int64_t>(all_rows.size());
    // Targets: the features of every (step, class); for a method that leaves them in their blocks, the
    // embedding.
    std::vector<at::Tensor> targets;
    if (method_.temporal_apart) {
      for (const at::Tensor& f : exact_.features) targets.push_back(f.view({count, -1}));
    } else {
      SetState(all, nn::State::kFloat, false);
      nn::ForwardContext ctx = TableContext(*network_, timesteps, conditions_, all_rows);
      const at::NoGradGuard guard;
      (void)network_->TemporalFeatures(ctx);
      targets.push_back(ctx.embedding.detach());
    }
    SetState(all, nn::State::kSimulate, false);
    const auto loss_of = [&](const std::vector<int64_t>& rows) {
      nn::ForwardContext ctx = TableContext(*network_, timesteps, conditions_, rows);
      std::vector<at::Tensor> out = network_->TemporalFeatures(ctx);
      if (!method_.temporal_apart) out = {ctx.embedding};
      const at::Tensor pick = at::tensor(rows, at::kLong);
      at::Tensor loss = at::zeros({});
      for (size_t i = 0; i < out.size(); ++i)
        loss = loss + (out[i] - targets[i].index_select(0, pick)).square().sum(1).mean();
      return loss;
    };
    constexpr int64_t kShardsOfBatch = 2;
    const auto loss = [&](int iteration, int64_t shard) {
      at::Generator generator =
          Stream(spec_.seed, 1, static_cast<uint64_t>(iteration * kShardsOfBatch + shard));
      const at::Tensor rows = at::randint(count, {std::min<int64_t>(count, 16)}, generator, at::kLong);
      const int64_t* data = rows.const_data_ptr<int64_t>();
      return loss_of(std::vector<int64_t>(data, data + rows.numel()));
    };
    const auto full = [&]() -> Result<double> {
      return nn::TorchEdge("temporal reconstruction", [&]() -> Result<double> {
        const at::NoGradGuard guard;
        return loss_of(all_rows).item<double>();
      });
    };
    // The time path is small: four times the blocks' iterations cost less than one block.
    TEMPERA_ASSIGN(const RoundingResult rounding,
                   LearnRounding(scope, learned, kShardsOfBatch, loss, full,
                                 {.max_iterations = 4 * spec_.max_iterations}, lanes_));
    outcomes_.push_back({"time", rounding});
  }
  return method_.temporal_apart ? TemporalRanges(scope) : OkStatus();
}

Status Quantizer::TemporalRanges(const CallScope& scope) {
  std::vector<nn::Slot*> all = trace_.trunk;
  all.insert(all.end(), trace_.features.begin(), trace_.features.end());
  for (nn::Slot* slot : all)
    if (slot->weight_bits > 0 && !slot->simulated.defined()) UseCodes(*slot);
  RangeObserver observer(all, exact_.steps, RangeRule::kMinMax);
  SetState(all, nn::State::kObserve, true);
  const Status ran = lanes_.ParallelFor(exact_.steps, [&](int64_t k) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("temporal ranges", [&]() -> Status {
      const at::NoGradGuard guard;
      nn::ForwardContext ctx =
          TableContext(*network_, scheduler_->timesteps(), conditions_, RowsOfStep(conditions_, k));
      ctx.observer = &observer;
      (void)network_->TemporalFeatures(ctx);
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran);
  SetState(all, nn::State::kSimulate, true);
  return OkStatus();
}

nn::TensorMap Quantizer::ExportTemporal() const {
  nn::TensorMap out;
  for (const nn::Slot& slot : network_->slots()) {
    if (!Apart(slot) || slot.weight_bits == 0) continue;
    nn::ExportWeights(slot, out);
    nn::ExportRanges(slot, out);
  }
  return out;
}

Status Quantizer::ImportTemporal(const nn::TensorFinder& find) {
  for (nn::Slot& slot : network_->slots()) {
    if (!Apart(slot) || slot.weight_bits == 0) continue;
    TEMPERA_TRY(nn::ImportWeights(slot, find));
    if (method_.temporal_apart && slot.activation_bits > 0)
      TEMPERA_TRY(nn::ImportRanges(slot, find, exact_.steps));
    UseCodes(slot);
  }
  return OkStatus();
}

Status Quantizer::CacheAndSelect(const CallScope& scope) {
  if (!method_.temporal_apart) return OkStatus();
  std::vector<nn::Slot*> all = trace_.trunk;
  all.insert(all.end(), trace_.features.begin(), trace_.features.end());
  SetState(all, nn::State::kSimulate, true);
  TEMPERA_ASSIGN(layers_, ComputeFeatures(scope, *network_, scheduler_->timesteps(), conditions_, &lanes_));
  return nn::TorchEdge("temporal-feature cache", [&]() -> Status {
    if (trace_.temporal_class == TemporalClass::kC) {
      // What a request will keep: the layers' values for its own prompt, a row by itself.
      chosen_ = Dequantized(BuildCache(layers_, spec_.activation_bits, CacheRounding::kMinMax));
      selection_ = Select(exact_, chosen_, chosen_, "reconstruct");
      return OkStatus();
    }
    cache_ = BuildCache(exact_, spec_.activation_bits, CacheRounding::kSearch);
    const FeatureTable cached = Dequantized(cache_);
    selection_ = Select(exact_, layers_, cached, spec_.temporal_strategy);
    chosen_ = Chosen(layers_, cached, selection_);
    cache_ = Prune(cache_, selection_);
    return OkStatus();
  });
}

bool Quantizer::time_layers_dropped() const {
  return method_.temporal_apart && !selection_.choice.empty() && selection_.all_cached();
}

int64_t Quantizer::unit_count() const { return static_cast<int64_t>(network_->units().size()); }
const std::string& Quantizer::unit_name(int64_t unit) const {
  return network_->units()[static_cast<size_t>(unit)].name;
}

std::vector<nn::Slot*> Quantizer::LearnedSlots(const Unit& unit) const {
  std::vector<nn::Slot*> slots;
  for (nn::Slot* slot : unit.slots)
    if (slot->weight_bits > 0 && !Apart(*slot)) slots.push_back(slot);
  return slots;
}

bool Quantizer::UnitLearns(int64_t unit) const {
  return method_.reconstruct && !LearnedSlots(network_->units()[static_cast<size_t>(unit)]).empty();
}

Result<at::Tensor> Quantizer::RunOnRows(const CallScope& scope, const Unit& unit,
                                        const std::vector<at::Tensor>& inputs, const FeatureTable* features) {
  const int64_t count = inputs[0].size(0), shards = Shards(count);
  at::Tensor all;
  std::mutex mutex;  // guards the making of `all`
  const Status ran2 = lanes_.ParallelFor(shards, [&](int64_t shard) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge(unit.name, [&]() -> Status {
      const at::NoGradGuard guard;
      const int64_t begin = shard * shard_rows_, n = std::min(shard_rows_, count - begin);
      std::vector<int64_t> rows;
      for (int64_t i = 0; i < n; ++i) rows.push_back(begin + i);
      nn::ForwardContext ctx = RowContext(rows);
      std::optional<TableSource> source;
      if (features != nullptr) ctx.features = &source.emplace(*features);
      std::vector<at::Tensor> in;
      for (const at::Tensor& t : inputs) in.push_back(t.narrow(0, begin, n));
      const at::Tensor output = unit.run(ctx, in);
      {
        const std::lock_guard lock(mutex);
        if (!all.defined()) {
          std::vector<int64_t> shape = output.sizes().vec();
          shape[0] = count;
          TEMPERA_ASSIGN(all, spill_.Make(shape));
        }
      }
      all.narrow(0, begin, n).copy_(output);
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran2);
  SpillStore::Release(all);
  return all;
}

Status Quantizer::RunUnit(const CallScope& scope, int64_t index, bool learn) {
  const auto u = static_cast<size_t>(index);
  const Unit& unit = network_->units()[u];
  if (u == 0) {
    exact_values_.assign(network_->units().size() + 1, at::Tensor());
    quantized_values_ = exact_values_;
    exact_values_[0] = quantized_values_[0] = rows_.x;
  }
  std::vector<at::Tensor> exact_in, quantized_in;
  for (const int value : unit.inputs) {
    exact_in.push_back(exact_values_[static_cast<size_t>(value)]);
    quantized_in.push_back(quantized_values_[static_cast<size_t>(value)]);
  }
  SetState(unit.slots, nn::State::kFloat, false);
  TEMPERA_ASSIGN(const at::Tensor target, RunOnRows(scope, unit, exact_in, &exact_));

  for (nn::Slot* slot : unit.slots)
    if (slot->weight_bits > 0 && !slot->simulated.defined()) UseCodes(*slot);
  SetState(unit.slots, nn::State::kSimulate, false);
  const FeatureTable* features = method_.temporal_apart ? &chosen_ : nullptr;
  if (!method_.temporal_apart) SetState(trace_.trunk, nn::State::kSimulate, false);

  if (learn && UnitLearns(index)) {
    const int64_t count = target.size(0);
    const int64_t rows_of_shard = std::min<int64_t>(shard_rows_, spec_.batch),
                  shards = std::max<int64_t>(1, spec_.batch / rows_of_shard);
    const auto loss_of = [&](const std::vector<int64_t>& rows) {
      const at::Tensor pick = at::tensor(rows, at::kLong);
      nn::ForwardContext ctx = RowContext(rows);
      std::optional<TableSource> source;
      if (features != nullptr) ctx.features = &source.emplace(*features);
      std::vector<at::Tensor> in;
      for (const at::Tensor& t : quantized_in) in.push_back(t.index_select(0, pick));
      // Sum over channels, mean over rows and places.
      const at::Tensor difference2 = (unit.run(ctx, in) - target.index_select(0, pick)).square();
      return difference2.sum(difference2.dim() == 4 ? 1 : -1).mean();
    };
    const auto loss = [&](int iteration, int64_t shard) {
      at::Generator generator = Stream(spec_.seed, 2 + u, static_cast<uint64_t>(iteration * shards + shard));
      const at::Tensor drawn = at::randint(count, {rows_of_shard}, generator, at::kLong);
      const int64_t* data = drawn.const_data_ptr<int64_t>();
      return loss_of(std::vector<int64_t>(data, data + rows_of_shard));
    };
    const auto full = [&]() -> Result<double> {
      // Rows spread over all steps; an odd stride visits both rows of guidance.
      const int64_t fixed = std::min<int64_t>(large_ ? 8 : 64, count), stride = count / fixed | 1;
      std::vector<double> losses(static_cast<size_t>(Shards(fixed)));
      TEMPERA_TRY(lanes_.ParallelFor(Shards(fixed), [&](int64_t shard) -> Status {
        return nn::TorchEdge(unit.name, [&]() -> Status {
          const at::NoGradGuard guard;
          std::vector<int64_t> rows;
          for (int64_t i = shard * shard_rows_; i < std::min(fixed, (shard + 1) * shard_rows_); ++i)
            rows.push_back(i * stride % count);
          losses[static_cast<size_t>(shard)] = loss_of(rows).item<double>();
          return OkStatus();
        });
      }));
      double sum = 0;
      for (const double l : losses) sum += l;
      return sum / static_cast<double>(losses.size());
    };
    TEMPERA_ASSIGN(const RoundingResult rounding,
                   LearnRounding(scope, LearnedSlots(unit), shards, loss, full,
                                 {.max_iterations = spec_.max_iterations}, lanes_));
    outcomes_.push_back({unit.name, rounding});
  }

  TEMPERA_ASSIGN(quantized_values_[u + 1], RunOnRows(scope, unit, quantized_in, features));
  DropSimulated(unit.slots);
  exact_values_[u + 1] = target;
  for (const int value : unit.inputs)
    if (last_reader_[static_cast<size_t>(value)] == static_cast<int>(u))
      exact_values_[static_cast<size_t>(value)] = quantized_values_[static_cast<size_t>(value)] =
          at::Tensor();
  if (u + 1 == network_->units().size()) exact_values_.clear(), quantized_values_.clear();
  Trim();
  return OkStatus();
}

nn::TensorMap Quantizer::ExportUnit(int64_t unit) const {
  nn::TensorMap out;
  for (const nn::Slot* slot : LearnedSlots(network_->units()[static_cast<size_t>(unit)]))
    nn::ExportWeights(*slot, out);
  return out;
}

Status Quantizer::ImportUnit(int64_t unit, const nn::TensorFinder& find) {
  for (nn::Slot* slot : LearnedSlots(network_->units()[static_cast<size_t>(unit)])) {
    TEMPERA_TRY(nn::ImportWeights(*slot, find));
    if (!large_) UseCodes(*slot);
  }
  return OkStatus();
}

Status Quantizer::Ranges(const CallScope& scope, const StageProgress& progress) {
  SimulateAll(/*activations=*/method_.ranges_per_step);
  std::vector<nn::Slot*> observed;
  for (nn::Slot& slot : network_->slots()) {
    if (slot.activation_bits == 0 || (method_.temporal_apart && Apart(slot))) continue;
    observed.push_back(&slot);
    slot.state = nn::State::kObserve;
  }
  const auto steps = static_cast<int64_t>(scheduler_->timesteps().size());
  RangeObserver observer(observed, steps, method_.ranges_per_step ? RangeRule::kSearch : RangeRule::kStatic);
  std::atomic<int64_t> done{0};
  const Status ran3 = lanes_.ParallelFor(steps, [&](int64_t k) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("activation ranges", [&]() -> Status {
      const at::NoGradGuard guard;
      nn::ForwardContext ctx = RowContext(RowsOf(k));
      ctx.observer = &observer;
      std::optional<TableSource> source;
      if (method_.temporal_apart) ctx.features = &source.emplace(chosen_);
      (void)network_->Forward(ctx, rows_.x.narrow(0, k * rows_.count, rows_.count));
      progress("", ++done, steps);
      return OkStatus();
    });
  });
  TEMPERA_TRY(ran3);
  if (!method_.ranges_per_step) observer.FinishStatic();
  SimulateAll(/*activations=*/true);
  return OkStatus();
}

nn::TensorMap Quantizer::ExportRanges() const {
  nn::TensorMap out;
  for (const nn::Slot& slot : network_->slots())
    if (slot.activation_bits > 0) nn::ExportRanges(slot, out);
  return out;
}

Status Quantizer::ImportRanges(const nn::TensorFinder& find) {
  for (nn::Slot& slot : network_->slots())
    if (slot.activation_bits > 0)
      TEMPERA_TRY(nn::ImportRanges(slot, find, static_cast<int64_t>(scheduler_->timesteps().size())));
  SimulateAll(/*activations=*/true);
  return OkStatus();
}

Result<FeatureTable> Quantizer::UsedFeatures(const CallScope& scope) {
  if (method_.temporal_apart) return chosen_;
  return ComputeFeatures(scope, *network_, scheduler_->timesteps(), conditions_, &lanes_);
}

std::vector<std::string> Quantizer::DroppedParameters() const {
  if (time_layers_dropped()) return trace_.parameters;
  std::vector<std::string> names;
  if (method_.temporal_apart && trace_.temporal_class == TemporalClass::kC)
    for (const nn::Slot* slot : network_->tau_slots())
      for (const char* of : {".weight", ".bias"})
        if (network_->parameters().contains(slot->name + of)) names.push_back(slot->name + of);
  return names;
}

nn::TensorMap Quantizer::ArtifactWeights() const {
  nn::TensorMap out;
  const std::vector<std::string> names = DroppedParameters();
  const std::set<std::string> dropped(names.begin(), names.end());
  std::set<std::string> quantized;
  for (const nn::Slot& slot : network_->slots()) {
    if (slot.weight_bits == 0) continue;
    quantized.insert(slot.name + ".weight");
    if (!dropped.contains(slot.name + ".weight")) nn::ExportWeights(slot, out);
  }
  for (const auto& [name, tensor] : network_->parameters())
    if (!quantized.contains(name) && !dropped.contains(name)) out[name] = tensor.contiguous();
  return out;
}

nn::TensorMap Quantizer::ArtifactReference() const {
  return ExportReference(*network_, trace_.parameters, exact_,
                         spec_.keep_time_layers || trace_.temporal_class == TemporalClass::kC);
}

nn::TensorMap Quantizer::ArtifactTables() const {
  nn::TensorMap out;
  const std::set<std::string> temporal(trace_.parameters.begin(), trace_.parameters.end());
  for (const nn::Slot& slot : network_->slots())
    if (slot.activation_bits > 0 && !(time_layers_dropped() && temporal.contains(slot.name + ".weight")))
      nn::ExportRanges(slot, out);
  if (method_.temporal_apart && trace_.temporal_class != TemporalClass::kC)
    ExportCache(cache_, *network_, out);
  if (method_.temporal_apart && !network_->tau_slots().empty())
    out["of_tau"] = TauPart(*network_, scheduler_->timesteps());
  return out;
}

}  // namespace tempera
