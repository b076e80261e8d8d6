// The small parts: configuration, lock, filters, page tokens, times.
#include <gtest/gtest.h>

#include "server/artifact_index.h"
#include "server/backend.h"
#include "server/config.h"
#include "server/data_lock.h"
#include "server/fakes.h"
#include "server/filters.h"
#include "server/messages.h"
#include "tempera/v1/quantization.pb.h"

namespace tempera {
namespace {

ParsedConfig Parse(std::vector<const char*> args) {
  args.insert(args.begin(), "tempera-server");
  return ParseConfig(static_cast<int>(args.size()), args.data());
}

TEST(Config, FlagsOfTheManual) {
  testing::TempFolder folder;
  const std::string root = folder.path().string();
  const ParsedConfig p = Parse({"--data",
                                "/d",
                                "--model-root",
                                root.c_str(),
                                "--model-root",
                                root.c_str(),
                                "--load",
                                "a:b",
                                "--load",
                                "c",
                                "--memory-budget",
                                "2G",
                                "--listen",
                                "0.0.0.0:1",
                                "--metrics-listen",
                                ":2",
                                "--no-worker",
                                "--threads",
                                "3",
                                "--log-level",
                                "debug"});
  ASSERT_TRUE(p.run);
  EXPECT_EQ(p.config.model_roots.size(), 2u);
  EXPECT_EQ(p.config.load, (std::vector<std::string>{"a:b", "c"}));
  EXPECT_EQ(p.config.memory_budget_bytes, 2ll << 30);
  EXPECT_EQ(p.config.listen, "0.0.0.0:1");
  EXPECT_EQ(p.config.metrics_listen, ":2");
  EXPECT_TRUE(p.config.no_worker);
  EXPECT_EQ(p.config.threads, 3);
}

TEST(Config, EnvironmentIsBelowFlags) {
  ::setenv("TEMPERA_DATA", "/from-env", 1);
  ::setenv("TEMPERA_LISTEN", "127.0.0.1:7", 1);
  ::setenv("TEMPERA_LOAD", "a:b,c", 1);
  ::setenv("TEMPERA_NO_WORKER", "true", 1);
  const ParsedConfig p = Parse({"--listen", "127.0.0.1:8"});
  for (const char* name : {"TEMPERA_DATA", "TEMPERA_LISTEN", "TEMPERA_LOAD", "TEMPERA_NO_WORKER"})
    ::unsetenv(name);
  ASSERT_TRUE(p.run);
  EXPECT_EQ(p.config.data, "/from-env");
  EXPECT_EQ(p.config.listen, "127.0.0.1:8");
  EXPECT_EQ(p.config.load, (std::vector<std::string>{"a:b", "c"}));
  EXPECT_TRUE(p.config.no_worker);
}

TEST(Config, WrongArgumentsEndWithTwo) {
  for (const std::vector<const char*>& args :
       std::vector<std::vector<const char*>>{{},
                                             {"--data"},
                                             {"--data", "d", "--threads", "-1"},
                                             {"--data", "d", "--listen", "nowhere"},
                                             {"--data", "d", "--memory-budget", "much"},
                                             {"--data", "d", "--model-root", "/does/not/exist"},
                                             {"--data", "d", "--log-level", "loud"},
                                             {"--data", "d", "--unknown"},
                                             {"--data", ""}}) {
    const ParsedConfig p = Parse(args);
    EXPECT_FALSE(p.run);
    EXPECT_EQ(p.exit_code, 2);
  }
  EXPECT_EQ(Parse({"--help"}).exit_code, 0);
  EXPECT_EQ(Parse({"--version"}).exit_code, 0);
}

TEST(Config, Bytes) {
  EXPECT_EQ(*ParseBytes("0"), 0);
  EXPECT_EQ(*ParseBytes("123"), 123);
  EXPECT_EQ(*ParseBytes("1.5G"), 3ll << 29);
  EXPECT_EQ(*ParseBytes("512MiB"), 512ll << 20);
  EXPECT_EQ(*ParseBytes("4KB"), 4096);
  for (const char* bad : {"", "-1", "x", "1X", "1GG", "G", "1e300", "nan", "1iB", "1 G"})
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
}

TEST(DataLock, HoldsUntilItIsGone) {
  testing::TempFolder folder;
  {
    const auto first = DataLock::Take(folder.path());
    ASSERT_TRUE(first.ok());
    EXPECT_EQ(DataLock::Take(folder.path()).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_TRUE(DataLock::Take(folder.path()).ok());
  EXPECT_EQ(DataLock::Take(folder.path() / "nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST(Filters, AliasIsRenamedWhereItIsAField) {
  EXPECT_EQ(AliasToName("alias = x AND alias != y"), "name = x AND name != y");
  EXPECT_EQ(AliasToName("model = alias AND method = \"alias = 1\""),
            "model = alias AND method = \"alias = 1\"");
  EXPECT_EQ(AliasToName("labels.alias = x"), "labels.alias = x");
  EXPECT_EQ(AliasToName("\"unfinished \\"), "\"unfinished \\");
}

TEST(Paging, TokensAreBoundToTheirList) {
  const std::string token = PageToken("list a", "key");
  EXPECT_EQ(*ReadPageToken("list a", token), "key");
  EXPECT_EQ(*ReadPageToken("list a", ""), "");
  EXPECT_FALSE(ReadPageToken("list b", token).ok());
  EXPECT_EQ(*PageSize(0), 50);
  EXPECT_EQ(*PageSize(5000), 1000);
  EXPECT_FALSE(PageSize(-1).ok());
}

TEST(RequestKeys, DifferByMethodAndBodyButNotById) {
  v1::QuantizeRequest a;
  a.set_model("/m");
  for (int i = 0; i < 20; ++i) (*a.mutable_labels())["k" + std::to_string(i)] = "v";
  v1::QuantizeRequest b;  // the same labels, put in another order
  b.set_model("/m");
  for (int i = 19; i >= 0; --i) (*b.mutable_labels())["k" + std::to_string(i)] = "v";
  b.set_request_id("other");
  EXPECT_EQ(KeyOf("Q", a, "id")->body_sha256, KeyOf("Q", b, "id")->body_sha256);
  EXPECT_NE(KeyOf("Q", a, "id")->body_sha256, KeyOf("R", a, "id")->body_sha256);
  b.set_model("/n");
  EXPECT_NE(KeyOf("Q", a, "id")->body_sha256, KeyOf("Q", b, "id")->body_sha256);
  EXPECT_FALSE(KeyOf("Q", a, ""));
}

TEST(Jobs, AQueuedOneTellsWhyItsLastAttemptEnded) {
  Job job;
  job.id = "0123456789abcdef";
  job.error = Unavailable("worker w died or lost its way");
  job.state = JobState::kQueued;
  EXPECT_EQ(JobMessage(job, QuantSpec()).error().message(), "worker w died or lost its way");
  job.state = JobState::kRunning;
  EXPECT_FALSE(JobMessage(job, QuantSpec()).has_error());
  job.state = JobState::kSucceeded;
  EXPECT_FALSE(JobMessage(job, QuantSpec()).has_error());
}

TEST(Times, Rfc3339) {
  EXPECT_EQ(ParseTimeMs("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(ParseTimeMs("2026-01-31T10:00:00.250Z"), 1769853600250);
  for (const char* bad :
       {"", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00"})
    EXPECT_EQ(ParseTimeMs(bad), 0) << bad;
}

}  // namespace
}  // namespace tempera
