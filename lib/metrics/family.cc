#include "metrics/family.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <variant>

#include "base/status.h"

namespace tempera {
namespace {

template <typename Builder>
auto& Register(Builder builder, const FamilyInfo& info, prometheus::Registry& registry) {
  return builder.Name(info.name).Help(info.help).Register(registry);
}

}  // namespace

struct MetricRegistry::State {
  prometheus::Registry registry;
};

MetricRegistry::MetricRegistry() : state_(std::make_unique<State>()) {}
MetricRegistry::~MetricRegistry() = default;

std::string MetricRegistry::Text() const {
  return prometheus::TextSerializer().Serialize(state_->registry.Collect());
}

int64_t MetricRegistry::SeriesCount() const {
  int64_t count = 0;
  for (const prometheus::MetricFamily& family : state_->registry.Collect())
    for (const prometheus::ClientMetric& metric : family.metric)
      count += family.type == prometheus::MetricType::Histogram
                   ? static_cast<int64_t>(metric.histogram.bucket.size()) + 2  // +Inf is among the buckets
                   : 1;
  return count;
}

struct MetricFamilyBase::State {
  template <typename T>
  struct Kind {
    prometheus::Family<T>* family;
    std::map<std::vector<std::string>, T*> series;
  };
  FamilyInfo info;
  mutable std::mutex mutex;
  std::variant<Kind<prometheus::Counter>, Kind<prometheus::Gauge>, Kind<prometheus::Histogram>> kind;

  size_t LabelIndex(std::string_view label) const {
    const auto it = std::find(info.labels.begin(), info.labels.end(), label);
    TEMPERA_CHECK(it != info.labels.end(), Cat(info.name, " has no label ", label));
    return static_cast<size_t>(it - info.labels.begin());
  }

  template <typename Match>
  void Remove(const Match& match) {
    std::lock_guard lock(mutex);
    std::visit(
        [&](auto& k) {
          for (auto it = k.series.begin(); it != k.series.end();) {
            if (match(it->first)) {
              k.family->Remove(it->second);
              it = k.series.erase(it);
            } else {
              ++it;
            }
          }
        },
        kind);
  }
};

MetricFamilyBase::MetricFamilyBase(MetricRegistry& registry, FamilyInfo info)
    : state_(std::make_unique<State>()) {
  state_->info = std::move(info);
  prometheus::Registry& target = registry.state_->registry;
  switch (state_->info.kind) {
    case MetricKind::kCounter:
      state_->kind =
          State::Kind<prometheus::Counter>{&Register(prometheus::BuildCounter(), state_->info, target), {}};
      break;
    case MetricKind::kGauge:
      state_->kind =
          State::Kind<prometheus::Gauge>{&Register(prometheus::BuildGauge(), state_->info, target), {}};
      break;
    case MetricKind::kHistogram:
      state_->kind = State::Kind<prometheus::Histogram>{
          &Register(prometheus::BuildHistogram(), state_->info, target), {}};
      break;
  }
  registry.families_.push_back(this);
}
MetricFamilyBase::~MetricFamilyBase() = default;

const FamilyInfo& MetricFamilyBase::info() const { return state_->info; }

void MetricFamilyBase::Apply(Op op, double value, const std::string_view* labels, size_t count) {
  std::vector<std::string> key(labels, labels + count);
  std::lock_guard lock(state_->mutex);
  std::visit(
      [&]<typename T>(State::Kind<T>& k) {
        auto it = k.series.find(key);
        if (it == k.series.end()) {
          prometheus::Labels named;
          for (size_t i = 0; i < count; ++i) named[state_->info.labels[i]] = key[i];
          T* metric;
          if constexpr (std::is_same_v<T, prometheus::Histogram>)
            metric = &k.family->Add(named, state_->info.buckets);
          else
            metric = &k.family->Add(named);
          it = k.series.emplace(std::move(key), metric).first;
        }
        T& metric = *it->second;
        if constexpr (std::is_same_v<T, prometheus::Counter>) {
          TEMPERA_CHECK(op == Op::kTouch || value >= 0, Cat(state_->info.name, " counts down"));
          if (op == Op::kAdd) metric.Increment(value);
        } else if constexpr (std::is_same_v<T, prometheus::Gauge>) {
          if (op == Op::kAdd) metric.Increment(value);
          if (op == Op::kSet) metric.Set(value);
        } else {
          if (op == Op::kObserve) metric.Observe(value);
        }
      },
      state_->kind);
}

double MetricFamilyBase::Read(const std::string_view* labels, size_t count) const {
  const std::vector<std::string> key(labels, labels + count);
  std::lock_guard lock(state_->mutex);
  return std::visit(
      [&]<typename T>(const State::Kind<T>& k) -> double {
        const auto it = k.series.find(key);
        if (it == k.series.end()) return 0;
        if constexpr (std::is_same_v<T, prometheus::Histogram>)
          return static_cast<double>(it->second->Collect().histogram.sample_count);
        else
          return it->second->Value();
      },
      state_->kind);
}

void MetricFamilyBase::RemoveWhere(std::string_view label, std::string_view value) {
  const size_t index = state_->LabelIndex(label);
  state_->Remove([&](const std::vector<std::string>& key) { return key[index] == value; });
}

void MetricFamilyBase::RemoveWhere(std::string_view label, std::string_view value, std::string_view label2,
                                   std::string_view value2) {
  const size_t index = state_->LabelIndex(label), index2 = state_->LabelIndex(label2);
  state_->Remove(
      [&](const std::vector<std::string>& key) { return key[index] == value && key[index2] == value2; });
}

int64_t MetricFamilyBase::series() const {
  std::lock_guard lock(state_->mutex);
  return std::visit([](const auto& k) { return static_cast<int64_t>(k.series.size()); }, state_->kind);
}

}  // namespace tempera
