// Structured logs: one JSON object a line on standard error.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/json.h"

namespace tempera {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// `event` is a fixed snake_case word, facts are fields:
//   Log(LogLevel::kInfo, "job_claimed", {{"job", id}, {"worker", name}});
// error: a person must act; warn: degraded but served; info: a state changed; debug: the rest. Never prompts.
// The current request's ids (LogContext) are added. Thread-safe.
void Log(LogLevel level, std::string_view event, const Json& fields = Json::object());

// Lines below `level` are dropped. Default: info.
void SetLogLevel(LogLevel level);
// InvalidArgument names the word and the four that are known: debug, info, warn, error.
Result<LogLevel> ParseLogLevel(std::string_view word);

// While it lives, every line of this thread carries `request_id` and `trace_id`.
class LogContext {
 public:
  LogContext(std::string request_id, std::string trace_id);
  ~LogContext();
  LogContext(const LogContext&) = delete;
  LogContext& operator=(const LogContext&) = delete;

 private:
  std::pair<std::string, std::string> previous_;
};

// RFC 3339 in UTC with milliseconds.
std::string NowText();

}  // namespace tempera
