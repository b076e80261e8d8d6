#include "tib/features.h"

#include <ATen/Functions.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

namespace tempera {

namespace {
int64_t Columns(const nn::Conditioning& conditions) { return std::max<int64_t>(1, conditions.rows()); }
}  // namespace

nn::Conditioning OwnConditions(const Denoiser& network) {
  nn::Conditioning own;
  if (network.info().classes > 0)
    own.label = at::arange(network.info().classes, at::TensorOptions(at::kLong).device(network.device()));
  return own;
}

nn::ForwardContext TableContext(const Denoiser& network, const std::vector<double>& timesteps,
                                const nn::Conditioning& conditions, const std::vector<int64_t>& rows) {
  nn::ForwardContext ctx;
  std::vector<float> tau;
  std::vector<int64_t> columns;
  for (const int64_t row : rows) {
    ctx.step.push_back(row / Columns(conditions));
    tau.push_back(static_cast<float>(timesteps[static_cast<size_t>(ctx.step.back())]));
    columns.push_back(row % Columns(conditions));
  }
  ctx.timestep = at::tensor(tau).to(network.device());
  if (conditions.rows() > 0) {
    ctx.on = conditions.Rows(at::tensor(columns, at::kLong));
    ctx.condition = columns;
  }
  return ctx;
}

std::vector<int64_t> RowsOfStep(const nn::Conditioning& conditions, int64_t k) {
  std::vector<int64_t> rows(static_cast<size_t>(Columns(conditions)));
  std::iota(rows.begin(), rows.end(), k * Columns(conditions));
  return rows;
}

std::vector<int64_t> AllRows(const nn::Conditioning& conditions, size_t steps) {
  std::vector<int64_t> rows(steps * static_cast<size_t>(Columns(conditions)));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

std::vector<StepPlace> PlaceSteps(const std::vector<double>& calibrated, const std::vector<double>& wanted) {
  std::vector<StepPlace> places(wanted.size());
  for (size_t k = 0; k < wanted.size(); ++k) {
    StepPlace& place = places[k];
    // The nearest on either side; where a timestep was calibrated twice, a list that is equal keeps its
    // order.
    int64_t below = -1, above = -1;
    for (size_t c = 0; c < calibrated.size(); ++c) {
      const auto step = static_cast<int64_t>(c);
      if (calibrated[c] == wanted[k] && (place.own < 0 || (calibrated == wanted && c == k))) place.own = step;
      if (calibrated[c] <= wanted[k] && (below < 0 || calibrated[c] > calibrated[static_cast<size_t>(below)]))
        below = step;
      if (calibrated[c] >= wanted[k] && (above < 0 || calibrated[c] < calibrated[static_cast<size_t>(above)]))
        above = step;
    }
    if (place.own >= 0)
      place.ranges = {place.own, place.own};
    else
      place.ranges = {above >= 0 ? above : below, below >= 0 ? below : above};
  }
  return places;
}

Result<FeatureTable> ComputeFeatures(const CallScope& scope, const Denoiser& network,
                                     const std::vector<double>& timesteps, const nn::Conditioning& conditions,
                                     Lanes* lanes, const std::vector<StepPlace>& places,
                                     const at::Tensor& of_tau) {
  FeatureTable table;
  table.steps = static_cast<int64_t>(timesteps.size());
  table.classes = Columns(conditions);
  // [step][i]; without lanes all steps in one pass.
  std::vector<std::vector<at::Tensor>> passes(lanes != nullptr ? timesteps.size() : 1);
  std::atomic<int64_t> multiplications = 0;
  const auto pass = [&](int64_t p) -> Status {
    TEMPERA_TRY(scope.Check());
    return nn::TorchEdge("temporal features", [&]() -> Status {
      const at::NoGradGuard guard;
      nn::ForwardContext ctx =
          TableContext(network, timesteps, conditions,
                       lanes != nullptr ? RowsOfStep(conditions, p) : AllRows(conditions, timesteps.size()));
      if (of_tau.defined()) ctx.of_tau = of_tau.index_select(0, at::tensor(ctx.step, at::kLong));
      if (!places.empty())
        for (const int64_t step : ctx.step) ctx.ranges.push_back(places[static_cast<size_t>(step)].ranges);
      for (const at::Tensor& f : network.TemporalFeatures(ctx))
        passes[static_cast<size_t>(p)].push_back(f.cpu().view({-1, table.classes, f.size(1)}));
      multiplications += ctx.temporal_macs;
      return OkStatus();
    });
  };
  if (lanes != nullptr) {
    TEMPERA_TRY(lanes->ParallelFor(table.steps, pass));
  } else {
    TEMPERA_TRY(pass(0));
  }
  table.multiplications = multiplications;
  for (size_t i = 0; i < network.temporal_slots().size(); ++i) {
    std::vector<at::Tensor> steps;
    for (const auto& features : passes) steps.push_back(features[i]);
    table.features.push_back(steps.size() == 1 ? steps[0].contiguous() : at::cat(steps));
  }
  return table;
}

at::Tensor TauPart(const Denoiser& network, const std::vector<double>& timesteps) {
  const at::NoGradGuard guard;
  nn::ForwardContext ctx;
  ctx.timestep = at::tensor(std::vector<float>(timesteps.begin(), timesteps.end())).to(network.device());
  return network.OfTau(ctx).cpu().contiguous();
}

FeatureCache FeatureCache::None(const Denoiser& network, int64_t steps, int64_t classes) {
  FeatureCache cache{.steps = steps, .classes = classes, .columns = {}};
  for (const nn::Slot* slot : network.temporal_slots())
    cache.columns.push_back({.width = slot->out_channels,
                             .row_of_step = std::vector<int64_t>(static_cast<size_t>(steps), -1),
                             .codes = {},
                             .scale = {},
                             .zero = {}});
  return cache;
}

bool FeatureCache::full() const {
  for (const Column& column : columns)
    for (const int64_t row : column.row_of_step)
      if (row < 0) return false;
  return true;
}

int64_t FeatureCache::bytes() const {
  int64_t total = 0;
  for (const Column& c : columns)
    for (const at::Tensor* t : {&c.codes, &c.scale, &c.zero})
      if (t->defined()) total += static_cast<int64_t>(t->nbytes());
  return total;
}

int64_t FeatureCache::entries() const {
  int64_t rows = 0;
  for (const Column& c : columns) rows += c.codes.defined() ? c.codes.size(0) : 0;
  return rows * classes;
}

void FeatureCache::Read(int64_t i, int64_t k, int64_t c, float* out) const {
  const Column& column = columns[static_cast<size_t>(i)];
  const int64_t row = column.row_of_step[static_cast<size_t>(k)] * classes + c;
  if (bits == 32) {
    const at::Half* values = column.codes.const_data_ptr<at::Half>() + row * column.width;
    for (int64_t n = 0; n < column.width; ++n) out[n] = static_cast<float>(values[n]);
    return;
  }
  const float scale = column.scale.const_data_ptr<float>()[row];
  const int zero = column.zero.const_data_ptr<uint8_t>()[row];
  const int64_t stride = column.codes.size(2);
  const uint8_t* codes = column.codes.const_data_ptr<uint8_t>() + row * stride;
  for (int64_t n = 0; n < column.width; ++n) {
    const int code = bits <= 4 ? (codes[n / 2] >> (n % 2 * 4)) & 15 : codes[n];
    out[n] = scale * static_cast<float>(code - zero);
  }
}

namespace {

// Least squared error over shrinks of [min, max]; both ends shrink together, zero stays inside.
void BestCode(const float* v, int64_t n, int bits, int shrinks, float* scale, uint8_t* zero, uint8_t* codes) {
  const int top = (1 << bits) - 1;
  float low = 0, high = 0;
  for (int64_t j = 0; j < n; ++j) {
    low = std::min(low, v[j]);
    high = std::max(high, v[j]);
  }
  double best = INFINITY;
  for (int shrink = 0; shrink < shrinks; ++shrink) {
    const float f = 1.0f - 0.01f * static_cast<float>(shrink);
    const float s = std::max((high - low) * f / static_cast<float>(top), 1e-8f);
    const int z = std::clamp(static_cast<int>(std::nearbyint(-low * f / s)), 0, top);
    double error = 0;
    for (int64_t j = 0; j < n && error < best; ++j) {
      const float code =
          std::clamp(std::nearbyint(v[j] / s) + static_cast<float>(z), 0.0f, static_cast<float>(top));
      const double d = v[j] - s * (code - static_cast<float>(z));
      error += d * d;
    }
    if (error < best) {
      best = error;
      *scale = s;
      *zero = static_cast<uint8_t>(z);
    }
  }
  for (int64_t j = 0; j < n; ++j)
    codes[j] = static_cast<uint8_t>(
        std::clamp(std::nearbyint(v[j] / *scale) + static_cast<float>(*zero), 0.0f, static_cast<float>(top)));
}

}  // namespace

FeatureCache BuildCache(const FeatureTable& exact, int bits, CacheRounding rounding) {
  const int shrinks = rounding == CacheRounding::kSearch ? 80 : 1;
  FeatureCache cache;
  cache.bits = bits;
  cache.steps = exact.steps;
  cache.classes = exact.classes;
  for (const at::Tensor& feature : exact.features) {
    FeatureCache::Column column;
    column.width = feature.size(2);
    for (int64_t k = 0; k < exact.steps; ++k) column.row_of_step.push_back(k);
    if (bits == 32) {
      column.codes = feature.to(at::kHalf).contiguous();
    } else {
      const int64_t stride = bits <= 4 ? (column.width + 1) / 2 : column.width;
      column.codes = at::zeros({exact.steps, exact.classes, stride}, at::kByte);
      column.scale = at::empty({exact.steps, exact.classes}, at::kFloat);
      column.zero = at::empty({exact.steps, exact.classes}, at::kByte);
      std::vector<uint8_t> codes(static_cast<size_t>(column.width));
      const float* values = feature.const_data_ptr<float>();
      for (int64_t row = 0; row < exact.steps * exact.classes; ++row) {
        BestCode(values + row * column.width, column.width, bits, shrinks,
                 column.scale.mutable_data_ptr<float>() + row, column.zero.mutable_data_ptr<uint8_t>() + row,
                 codes.data());
        uint8_t* out = column.codes.mutable_data_ptr<uint8_t>() + row * stride;
        for (int64_t n = 0; n < column.width; ++n) {
          if (bits <= 4)
            out[n / 2] = static_cast<uint8_t>(out[n / 2] | codes[static_cast<size_t>(n)] << (n % 2 * 4));
          else
            out[n] = codes[static_cast<size_t>(n)];
        }
      }
    }
    cache.columns.push_back(std::move(column));
  }
  return cache;
}

FeatureCache CacheFor(const FeatureCache& cache, const FeatureTable& computed,
                      const std::vector<StepPlace>& places, const std::vector<int64_t>& condition) {
  FeatureCache out = BuildCache(computed, cache.bits, CacheRounding::kMinMax);
  for (size_t i = 0; i < out.columns.size(); ++i) {
    FeatureCache::Column& to = out.columns[i];
    const FeatureCache::Column& from = cache.columns[i];
    for (size_t k = 0; k < places.size(); ++k) {
      if (places[k].own < 0) continue;
      const int64_t row = from.row_of_step[static_cast<size_t>(places[k].own)];
      if (row < 0) {
        to.row_of_step[k] = -1;
        continue;
      }
      for (size_t c = 0; c < condition.size(); ++c)
        for (const auto& [target, source] :
             {std::pair(&to.codes, &from.codes), std::pair(&to.scale, &from.scale),
              std::pair(&to.zero, &from.zero)})
          if (source->defined())
            (*target)[static_cast<int64_t>(k)][static_cast<int64_t>(c)].copy_((*source)[row][condition[c]]);
    }
  }
  return out;
}

FeatureTable Dequantized(const FeatureCache& cache) {
  FeatureTable table{.steps = cache.steps, .classes = cache.classes, .features = {}};
  for (size_t i = 0; i < cache.columns.size(); ++i) {
    const int64_t width = cache.columns[i].width;
    at::Tensor values = at::empty({cache.steps, cache.classes, width}, at::kFloat);
    float* out = values.mutable_data_ptr<float>();
    for (int64_t k = 0; k < cache.steps; ++k)
      for (int64_t c = 0; c < cache.classes; ++c)
        cache.Read(static_cast<int64_t>(i), k, c, out + (k * cache.classes + c) * width);
    table.features.push_back(values);
  }
  return table;
}

bool Selection::all_cached() const {
  for (const auto& row : choice)
    for (const Strategy s : row)
      if (s != Strategy::kCache) return false;
  return true;
}

Selection Select(const FeatureTable& exact, const FeatureTable& layers, const FeatureTable& cached,
                 const std::string& temporal_strategy) {
  Selection s;
  const auto steps = static_cast<size_t>(exact.steps);
  const size_t count = exact.features.size();
  s.error_reconstruct.assign(steps, std::vector<double>(count));
  s.error_cache = s.error_reconstruct;
  s.choice.assign(steps, std::vector<Strategy>(count, Strategy::kCache));
  for (size_t k = 0; k < steps; ++k) {
    for (size_t i = 0; i < count; ++i) {
      const auto error = [&](const FeatureTable& t) {
        return (t.features[i][static_cast<int64_t>(k)] - exact.features[i][static_cast<int64_t>(k)])
            .to(at::kDouble)
            .square()
            .sum()
            .item<double>();
      };
      s.error_reconstruct[k][i] = error(layers);
      s.error_cache[k][i] = error(cached);
      if (temporal_strategy == "reconstruct" ||
          (temporal_strategy == "select" && s.error_reconstruct[k][i] < s.error_cache[k][i]))
        s.choice[k][i] = Strategy::kReconstruct;
    }
  }
  return s;
}

FeatureCache Prune(const FeatureCache& cache, const Selection& selection) {
  FeatureCache out = cache;
  for (size_t i = 0; i < out.columns.size(); ++i) {
    std::vector<int64_t> rows;
    for (size_t k = 0; k < selection.choice.size(); ++k) {
      const bool keep = selection.choice[k][i] == Strategy::kCache;
      out.columns[i].row_of_step[k] = keep ? static_cast<int64_t>(rows.size()) : -1;
      if (keep) rows.push_back(static_cast<int64_t>(k));
    }
    const at::Tensor index = at::tensor(rows, at::kLong);
    for (at::Tensor* t : {&out.columns[i].codes, &out.columns[i].scale, &out.columns[i].zero})
      if (t->defined()) *t = t->index_select(0, index).contiguous();
  }
  return out;
}

FeatureTable Chosen(const FeatureTable& layers, const FeatureTable& cached, const Selection& selection) {
  FeatureTable out = layers;
  for (size_t i = 0; i < out.features.size(); ++i) {
    out.features[i] = layers.features[i].clone();
    for (size_t k = 0; k < selection.choice.size(); ++k)
      if (selection.choice[k][i] == Strategy::kCache)
        out.features[i][static_cast<int64_t>(k)].copy_(cached.features[i][static_cast<int64_t>(k)]);
  }
  return out;
}

FeatureErrors CompareFeatures(const FeatureTable& exact, const FeatureTable& table) {
  FeatureErrors errors;
  const auto steps = static_cast<size_t>(exact.steps);
  const size_t count = exact.features.size();
  std::vector<double> difference2(steps, 0), norm2(steps, 0);
  errors.ratio.resize(steps);
  errors.cosine.resize(steps, 0);
  errors.mismatches.resize(steps, 0);
  errors.per_feature.assign(steps, std::vector<double>(count));
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor e = exact.features[i].to(at::kDouble),
                     t = table.features[i].to(at::kDouble);  // [K, C, N]
    const at::Tensor d2 = (t - e).square().sum({1, 2}), n2 = e.square().sum({1, 2});
    // cosine of every step's feature with every exact step's, class by class: [C, K, K]
    const auto unit = [](const at::Tensor& v) { return v / v.norm(2, -1, true).clamp_min(1e-30); };
    const at::Tensor cosine = at::matmul(unit(t).transpose(0, 1), unit(e).permute({1, 2, 0}));
    const at::Tensor best = std::get<0>(cosine.max(-1));  // [C, K]
    const at::Tensor own = cosine.diagonal(0, 1, 2);      // [C, K]
    for (size_t k = 0; k < steps; ++k) {
      const auto kk = static_cast<int64_t>(k);
      const double d = d2[kk].item<double>(), n = n2[kk].item<double>();
      difference2[k] += d;
      norm2[k] += n;
      errors.per_feature[k][i] = std::sqrt(d / std::max(n, 1e-30));
      errors.cosine[k] += own.select(1, kk).mean().item<double>() / static_cast<double>(count);
      errors.mismatches[k] += own.select(1, kk).lt(best.select(1, kk)).sum().item<int64_t>();
    }
  }
  for (size_t k = 0; k < steps; ++k) errors.ratio[k] = std::sqrt(difference2[k] / std::max(norm2[k], 1e-30));
  return errors;
}

namespace {
int64_t ColumnOf(const nn::ForwardContext& ctx, int64_t row) {
  return ctx.condition.empty() ? 0 : ctx.condition[static_cast<size_t>(row)];
}
}  // namespace

at::Tensor TableSource::Get(const nn::Slot& slot, const nn::ForwardContext& ctx,
                            const std::function<at::Tensor()>&) {
  const at::Tensor& feature = table_.features[static_cast<size_t>(slot.temporal_index)];
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < ctx.rows(); ++r)
    rows.push_back(ctx.step[static_cast<size_t>(r)] * table_.classes + ColumnOf(ctx, r));
  return feature.view({-1, feature.size(2)})
      .index_select(0, at::tensor(rows, at::kLong))
      .to(ctx.timestep.device());
}

at::Tensor ServingSource::Get(const nn::Slot& slot, const nn::ForwardContext& ctx,
                              const std::function<at::Tensor()>& compute) {
  const auto i = static_cast<size_t>(slot.temporal_index);
  const FeatureCache::Column& column = cache_.columns[i];
  bool all = true;
  for (const int64_t k : ctx.step) all = all && column.row_of_step[static_cast<size_t>(k)] >= 0;
  at::Tensor value = all ? at::empty({ctx.rows(), column.width}, at::kFloat) : compute().cpu().contiguous();
  float* out = value.mutable_data_ptr<float>();
  for (int64_t r = 0; r < ctx.rows(); ++r) {
    const int64_t k = ctx.step[static_cast<size_t>(r)], c = ColumnOf(ctx, r);
    if (column.row_of_step[static_cast<size_t>(k)] >= 0)
      cache_.Read(static_cast<int64_t>(i), k, c, out + r * column.width);
    if (reference_ == nullptr) continue;
    const float* exact =
        reference_->features[i].const_data_ptr<float>() + (k * cache_.classes + c) * column.width;
    for (int64_t n = 0; n < column.width; ++n) {
      const double d = static_cast<double>(out[r * column.width + n]) - exact[n];
      difference2[i] += d * d;
      norm2[i] += static_cast<double>(exact[n]) * exact[n];
    }
  }
  return value.to(ctx.timestep.device());
}

void ServingSource::Add(const ServingSource& other) {
  for (size_t i = 0; i < norm2.size(); ++i) {
    difference2[i] += other.difference2[i];
    norm2[i] += other.norm2[i];
  }
}

int TimestepBin(double timestep, int64_t train_timesteps) {
  return std::clamp(static_cast<int>(timestep * 20 / static_cast<double>(train_timesteps)), 0, 19);
}

}  // namespace tempera
