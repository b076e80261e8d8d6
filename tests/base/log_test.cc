#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace tempera {
namespace {

using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

// What `fn` logs, one JSON value a line.
template <typename Fn>
std::vector<Json> Lines(const Fn& fn) {
  CaptureStderr();
  fn();
  const std::string text = GetCapturedStderr();
  EXPECT_TRUE(text.empty() || text.back() == '\n') << text;
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const Result<Json> json = ParseJson(line, "log line");
    EXPECT_TRUE(json.ok()) << json.status() << ": " << line;
    if (json.ok()) lines.push_back(*json);
  }
  return lines;
}

TEST(Log, WritesOneObjectALine) {
  const auto lines = Lines([] { Log(LogLevel::kWarn, "job_claimed", {{"job", "a\n\"b\""}, {"steps", 3}}); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["level"], "warn");
  EXPECT_EQ(lines[0]["event"], "job_claimed");
  EXPECT_EQ(lines[0]["job"], "a\n\"b\"");
  EXPECT_EQ(lines[0]["steps"], 3);
  EXPECT_FALSE(lines[0].contains("request_id"));
}

TEST(Log, TakesBytesThatAreNotUtf8) {
  const auto lines = Lines([] { Log(LogLevel::kInfo, "odd", {{"name", "\xff\xfe"}}); });
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["event"], "odd");
}

TEST(Log, DropsWhatLiesBelowTheLevel) {
  const auto lines = Lines([] {
    Log(LogLevel::kDebug, "a");
    SetLogLevel(LogLevel::kError);
    Log(LogLevel::kWarn, "b");
    Log(LogLevel::kError, "c");
    SetLogLevel(LogLevel::kDebug);
    Log(LogLevel::kDebug, "d");
    SetLogLevel(LogLevel::kInfo);
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["event"], "c");
  EXPECT_EQ(lines[1]["event"], "d");
}

TEST(LogContext, AddsItsIdsAndGivesBackTheOuterOnes) {
  const auto lines = Lines([] {
    LogContext outer("r1", "t1");
    {
      LogContext inner("r2", "");
      Log(LogLevel::kInfo, "inner");
    }
    Log(LogLevel::kInfo, "outer");
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["request_id"], "r2");
  EXPECT_FALSE(lines[0].contains("trace_id"));
  EXPECT_EQ(lines[1]["request_id"], "r1");
  EXPECT_EQ(lines[1]["trace_id"], "t1");
}

TEST(ParseLogLevel, KnowsFourWords) {
  EXPECT_EQ(*ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(*ParseLogLevel("info"), LogLevel::kInfo);
  EXPECT_EQ(*ParseLogLevel("warn"), LogLevel::kWarn);
  EXPECT_EQ(*ParseLogLevel("error"), LogLevel::kError);
  EXPECT_EQ(Message(ParseLogLevel("WARN").status()),
            "log level: got \"WARN\", want debug, info, warn or error");
}

TEST(NowText, IsUtcWithMilliseconds) {
  EXPECT_THAT(NowText(),
              ::testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z"));
}

}  // namespace
}  // namespace tempera
