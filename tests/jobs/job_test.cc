#include "jobs/job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace tempera {
namespace {

using enum JobState;

constexpr JobState kAll[] = {kQueued, kRunning, kCancelling, kSucceeded, kFailed, kCancelled, kRejected};

// Written out a second time, as the states' meaning has it.
const std::set<std::pair<JobState, JobState>> kLegal{
    {kQueued, kRunning},       {kQueued, kCancelled},  {kRunning, kQueued},      {kRunning, kCancelling},
    {kRunning, kSucceeded},    {kRunning, kFailed},    {kRunning, kRejected},    {kCancelling, kCancelled},
    {kCancelling, kSucceeded}, {kCancelling, kFailed}, {kCancelling, kRejected},
};

TEST(JobState, EveryMoveIsLegalOrRefused) {
  for (const JobState from : kAll) {
    for (const JobState to : kAll) {
      Job job;
      job.id = "0123456789abcdef";
      job.state = from;
      const Status status = MoveJob(job, to, 42);
      if (kLegal.contains({from, to})) {
        EXPECT_TRUE(status.ok()) << status;
        EXPECT_EQ(job.state, to);
        EXPECT_EQ(job.end_ms, IsTerminal(to) ? 42 : 0);
      } else {
        EXPECT_TRUE(absl::IsFailedPrecondition(status)) << JobStateName(from) << " to " << JobStateName(to);
        EXPECT_EQ(job.state, from);
        EXPECT_EQ(job.end_ms, 0);
      }
    }
  }
}

TEST(JobState, RefusedMoveNamesJobAndBothStates) {
  Job job;
  job.id = "0123456789abcdef";
  job.state = kSucceeded;
  EXPECT_EQ(Message(MoveJob(job, kQueued, 1)), "job \"0123456789abcdef\": no move from SUCCEEDED to QUEUED");
}

TEST(JobState, TerminalOnesHaveNoWayOut) {
  for (const JobState state : kAll)
    EXPECT_EQ(IsTerminal(state),
              state == kSucceeded || state == kFailed || state == kCancelled || state == kRejected)
        << JobStateName(state);
}

TEST(JobState, NamesReadBack) {
  for (const JobState state : kAll) EXPECT_EQ(*ParseJobState(JobStateName(state)), state);
  EXPECT_TRUE(absl::IsInvalidArgument(ParseJobState("running").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ParseJobState("").status()));
}

// Persisted: these numbers are in databases.
TEST(JobState, ValuesNeverChange) {
  EXPECT_EQ(static_cast<int>(kQueued), 1);
  EXPECT_EQ(static_cast<int>(kRunning), 2);
  EXPECT_EQ(static_cast<int>(kCancelling), 3);
  EXPECT_EQ(static_cast<int>(kSucceeded), 4);
  EXPECT_EQ(static_cast<int>(kFailed), 5);
  EXPECT_EQ(static_cast<int>(kCancelled), 6);
  EXPECT_EQ(static_cast<int>(kRejected), 7);
}

TEST(AliasName, TakesNamesAndTags) {
  for (const std::string name : {"a", "emoji:stable", "Fashion-1.2_x", "0", "face", "deadbeef"})
    EXPECT_TRUE(CheckAliasName(name).ok()) << name;
  EXPECT_TRUE(CheckAliasName(std::string(128, 'x')).ok());
}

TEST(AliasName, RefusesPathsAndWhatReadsAsAnId) {
  for (const std::string& name :
       {std::string(), std::string(":a"), std::string("a:"), std::string("a:b:c"), std::string("a/b"),
        std::string("../a"), std::string("a b"), std::string(".a"), std::string("-a"), std::string("a\n"),
        std::string(129, 'x'), std::string(12, 'a'), std::string(64, '0'), std::string("ä")})
    EXPECT_TRUE(absl::IsInvalidArgument(CheckAliasName(name))) << name;
}

TEST(Labels, AreShortAndPlain) {
  EXPECT_TRUE(CheckLabels({}).ok());
  EXPECT_TRUE(CheckLabels({{"team", "Vision 1"}, {"a-b_c9", ""}}).ok());
  for (const auto& [key, value] : std::map<std::string, std::string>{{"", "x"},
                                                                     {"Team", "x"},
                                                                     {"1a", "x"},
                                                                     {"a.b", "x"},
                                                                     {std::string(64, 'a'), "x"},
                                                                     {"a", std::string(64, 'x')},
                                                                     {"b", "a\"b"},
                                                                     {"c", "a\nb"}})
    EXPECT_TRUE(absl::IsInvalidArgument(CheckLabels({{key, value}}))) << key << "=" << value;
  std::map<std::string, std::string> many;
  for (int i = 0; i < 65; ++i) many[Cat("k", i)] = "";
  EXPECT_TRUE(absl::IsInvalidArgument(CheckLabels(many)));
}

}  // namespace
}  // namespace tempera
