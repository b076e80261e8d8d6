// Metric families with their labels counted at compile time; prometheus-cpp stays behind them.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tempera {

class MetricRegistry;

enum class MetricKind { kCounter, kGauge, kHistogram };

// What a family is, as the catalogue states it.
struct FamilyInfo {
  MetricKind kind;
  std::string name;
  std::string help;
  std::vector<std::string> labels;
  std::vector<double> buckets;  // histograms only
};

// One family: a series for each combination of label values that was ever touched. Every operation runs under
// the family's own lock, so that a series may be removed while others write. Thread-safe.
class MetricFamilyBase {
 public:
  MetricFamilyBase(MetricRegistry& registry, FamilyInfo info);
  ~MetricFamilyBase();
  MetricFamilyBase(const MetricFamilyBase&) = delete;
  MetricFamilyBase& operator=(const MetricFamilyBase&) = delete;

  const FamilyInfo& info() const;
  // Removes every series whose label `label` has this value. REQUIRES: the family has the label.
  void RemoveWhere(std::string_view label, std::string_view value);
  // Removes every series for which both labels match. REQUIRES: the family has both.
  void RemoveWhere(std::string_view label, std::string_view value, std::string_view label2,
                   std::string_view value2);
  int64_t series() const;

 protected:
  enum class Op { kTouch, kAdd, kSet, kObserve };
  void Apply(Op op, double value, const std::string_view* labels, size_t count);
  double Read(const std::string_view* labels, size_t count) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

template <typename... L>
concept LabelValues = (std::convertible_to<const L&, std::string_view> && ...);

template <size_t N>
class LabelledFamily : public MetricFamilyBase {
 public:
  LabelledFamily(MetricRegistry& registry, MetricKind kind, std::string name, std::string help,
                 std::array<const char*, N> labels, std::vector<double> buckets = {})
      : MetricFamilyBase(
            registry,
            {kind, std::move(name), std::move(help), {labels.begin(), labels.end()}, std::move(buckets)}) {}

  // Makes the series, at zero, if it is not there.
  template <LabelValues... L>
  requires(sizeof...(L) == N) void Touch(const L&... labels) { Call(Op::kTouch, 0, labels...); }

 protected:
  template <typename... L>
  void Call(Op op, double value, const L&... labels) {
    const std::array<std::string_view, N> values{std::string_view(labels)...};
    Apply(op, value, values.data(), N);
  }
};

template <size_t N>
class CounterFamily : public LabelledFamily<N> {
 public:
  CounterFamily(MetricRegistry& registry, std::string name, std::string help,
                std::array<const char*, N> labels = {})
      : LabelledFamily<N>(registry, MetricKind::kCounter, std::move(name), std::move(help), labels) {}
  // REQUIRES: by >= 0.
  template <LabelValues... L>
  requires(sizeof...(L) == N) void Add(double by, const L&... labels) {
    this->Call(MetricFamilyBase::Op::kAdd, by, labels...);
  }
  // The value now, 0 where the series is not there.
  template <LabelValues... L>
  requires(sizeof...(L) == N) double Value(const L&... labels) const {
    const std::array<std::string_view, N> values{std::string_view(labels)...};
    return this->Read(values.data(), N);
  }
};

template <size_t N>
class GaugeFamily : public LabelledFamily<N> {
 public:
  GaugeFamily(MetricRegistry& registry, std::string name, std::string help,
              std::array<const char*, N> labels = {})
      : LabelledFamily<N>(registry, MetricKind::kGauge, std::move(name), std::move(help), labels) {}
  template <LabelValues... L>
  requires(sizeof...(L) == N) void Set(double value, const L&... labels) {
    this->Call(MetricFamilyBase::Op::kSet, value, labels...);
  }
  template <LabelValues... L>
  requires(sizeof...(L) == N) void Add(double by, const L&... labels) {
    this->Call(MetricFamilyBase::Op::kAdd, by, labels...);
  }
  template <LabelValues... L>
  requires(sizeof...(L) == N) double Value(const L&... labels) const {
    const std::array<std::string_view, N> values{std::string_view(labels)...};
    return this->Read(values.data(), N);
  }
};

template <size_t N>
class HistogramFamily : public LabelledFamily<N> {
 public:
  HistogramFamily(MetricRegistry& registry, std::string name, std::string help,
                  std::array<const char*, N> labels, std::vector<double> buckets)
      : LabelledFamily<N>(registry, MetricKind::kHistogram, std::move(name), std::move(help), labels,
                          std::move(buckets)) {}
  template <LabelValues... L>
  requires(sizeof...(L) == N) void Observe(double value, const L&... labels) {
    this->Call(MetricFamilyBase::Op::kObserve, value, labels...);
  }
  // How many values were observed.
  template <LabelValues... L>
  requires(sizeof...(L) == N) double Count(const L&... labels) const {
    const std::array<std::string_view, N> values{std::string_view(labels)...};
    return this->Read(values.data(), N);
  }
};

// Holds the families and writes them as text. Thread-safe.
class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();
  MetricRegistry(const MetricRegistry&) = delete;
  MetricRegistry& operator=(const MetricRegistry&) = delete;

  // Prometheus text format 0.0.4.
  std::string Text() const;
  // Time series as a scrape sees them: a histogram counts each bucket, +Inf, sum and count.
  int64_t SeriesCount() const;
  const std::vector<const MetricFamilyBase*>& families() const { return families_; }

 private:
  friend class MetricFamilyBase;
  struct State;
  std::unique_ptr<State> state_;
  std::vector<const MetricFamilyBase*> families_;
};

}  // namespace tempera
