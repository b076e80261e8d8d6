#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <ctime>

namespace tempera {
namespace {

spdlog::logger& Logger() {
  static const std::shared_ptr<spdlog::logger> logger = [] {
    auto l = std::make_shared<spdlog::logger>("tempera", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    l->set_pattern("%v");
    l->set_level(spdlog::level::info);
    l->flush_on(spdlog::level::debug);
    return l;
  }();
  return *logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

constexpr std::pair<const char*, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                        {"info", LogLevel::kInfo},
                                                        {"warn", LogLevel::kWarn},
                                                        {"error", LogLevel::kError}};

thread_local std::pair<std::string, std::string> context;

}  // namespace

std::string NowText() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[40];
  const size_t n = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text + n, sizeof(text) - n, ".%03dZ", static_cast<int>(ms));
  return text;
}

void Log(LogLevel level, std::string_view event, const Json& fields) {
  const auto wanted = ToSpdlog(level);
  if (!Logger().should_log(wanted)) return;
  nlohmann::ordered_json line;
  line["ts"] = NowText();
  line["level"] = kLevels[static_cast<int>(level)].first;
  line["event"] = event;
  if (!context.first.empty()) line["request_id"] = context.first;
  if (!context.second.empty()) line["trace_id"] = context.second;
  for (const auto& [key, value] : fields.items()) line[key] = value;
  Logger().log(wanted, "{}", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void SetLogLevel(LogLevel level) { Logger().set_level(ToSpdlog(level)); }

Result<LogLevel> ParseLogLevel(std::string_view word) {
  for (const auto& [name, level] : kLevels)
    if (word == name) return level;
  return InvalidArgument("log level: got \"", word, "\", want debug, info, warn or error");
}

LogContext::LogContext(std::string request_id, std::string trace_id)
    : previous_(std::exchange(context, {std::move(request_id), std::move(trace_id)})) {}
LogContext::~LogContext() { context = std::move(previous_); }

}  // namespace tempera
