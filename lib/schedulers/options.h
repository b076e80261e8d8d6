// Reading a scheduler's configuration: every option is read, checked and kept in one line.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"
#include "schedulers/scheduler.h"

namespace tempera {

// "a, b, c".
std::string Joined(std::span<const std::string_view> words);

// The options of one class. Keeps the first error until Finish. Row and request must outlive it.
class Options {
 public:
  Options(const SchedulerRow& row, const SchedulerRequest& request);

  // The configuration's value; where it says nothing, `value` as it comes is the default.
  template <typename T>
  void Get(const char* key, T& value) {
    fields_.Get(key, value);
    config_[key] = value;
  }
  template <typename T>
  void Get(const char* key, std::optional<T>& value) {
    fields_.Get(key, value);
    config_[key] = value ? Json(*value) : Json();
  }
  // As Get, one of `words`. `others`: words of interchangeable classes, which stand for the default.
  void GetWord(const char* key, std::string& value, std::span<const std::string_view> words,
               std::initializer_list<std::string_view> others = {});
  // What the network's output stands for: one of `words`, those that the method can run.
  void GetPrediction(std::string& value, std::span<const std::string_view> words);
  // An option of which only null is supported.
  void GetNothing(const char* key);
  // As Get. "-Infinity", which JSON cannot say as a number, and nothing stand for minus infinity.
  void GetUnboundedBelow(const char* key, double& value);
  // An error "<label>: <key> is wrong, got <got>, want <want...>" unless `good`.
  template <typename Got, typename... Want>
  void Check(bool good, const char* key, const Got& got, const Want&... want) {
    if (!good) fields_.Fail(key, Cat("is wrong, got ", got, ", want ", want...));
  }

  // The first error; then, an option that the class does not know: any of the request's own; of a
  // configuration of this class, those that no class knows. Call when all are read.
  Status Finish();

  // The steps asked for, or the row's default where that is unset; at most `most`.
  Result<int64_t> Steps(int64_t most) const;
  // Facts with the row's name and the options read.
  SchedulerFacts Facts(int64_t train_timesteps, int64_t steps) const;

  const SchedulerRow& row() const { return row_; }
  const SchedulerRequest& request() const { return request_; }
  const std::string& label() const { return request_.label; }

 private:
  const SchedulerRow& row_;
  const SchedulerRequest& request_;
  Fields fields_;
  Json config_;
};

}  // namespace tempera
