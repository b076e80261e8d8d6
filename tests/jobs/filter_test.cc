#include "jobs/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "jobs/job.h"

namespace tempera {
namespace {

using ::testing::HasSubstr;

TEST(JobFilter, ReadsConjunctions) {
  const auto conditions =
      ParseJobFilter("state = RUNNING AND model!=\"/m/a \\\"b\\\"\" AND labels.team = x-1 AND name = a");
  ASSERT_TRUE(conditions.ok()) << conditions.status();
  ASSERT_EQ(conditions->size(), 4u);
  EXPECT_EQ((*conditions)[0].field, "state");
  EXPECT_EQ((*conditions)[0].number, static_cast<int64_t>(JobState::kRunning));
  EXPECT_EQ((*conditions)[1].op, "!=");
  EXPECT_EQ((*conditions)[1].text, "/m/a \"b\"");
  EXPECT_EQ((*conditions)[2].field, "label");
  EXPECT_EQ((*conditions)[2].label, "team");
  EXPECT_EQ((*conditions)[2].text, "x-1");
  EXPECT_TRUE(ParseJobFilter("")->empty());
  EXPECT_TRUE(ParseJobFilter("  ")->empty());
}

TEST(JobFilter, ReadsTimes) {
  // 2026-01-31 is 20484 days after 1970-01-01.
  const int64_t day = 20484LL * 86'400'000;
  EXPECT_EQ(ParseJobFilter("create_time >= \"2026-01-31T00:00:00Z\"")->front().number, day);
  EXPECT_EQ(ParseJobFilter("create_time < \"2026-01-31T01:02:03.25Z\"")->front().number,
            day + ((1 * 60 + 2) * 60 + 3) * 1000 + 250);
  EXPECT_EQ(ParseJobFilter("create_time > \"2024-02-29T00:00:00.123456Z\"")->front().number % 1000, 123);
  for (const char* bad :
       {"2026-02-30T00:00:00Z", "2026-01-31", "2026-01-31T24:00:00Z", "2026-01-31T00:00:00",
        "2026-01-31T00:00:00+01:00", "2026-01-31T00:00:00.Z", "2026-01-31T00:00:00.xZ", "yesterday", ""})
    EXPECT_TRUE(absl::IsInvalidArgument(ParseJobFilter(Cat("create_time > \"", bad, "\"")).status())) << bad;
}

TEST(JobFilter, SaysWhatItCannotRead) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"state", "want =, !=, <, <=, > or >="},
      {"state =", "want a value"},
      {"= RUNNING", "want a field"},
      {"state = running", "got \"running\", want QUEUED"},
      {"state > RUNNING", "want = or !="},
      {"state = RUNNING OR state = QUEUED", "got \"OR\", want AND"},
      {"state = RUNNING AND", "want a field"},
      {"colour = red", "got field \"colour\""},
      {"labels. = x", "key \"\""},
      {"labels.A = x", "key \"A\""},
      {"labels.a\"b = x", "does not end"},
      {"model = \"open", "does not end"},
      {"model = \"open\\", "does not end"},
      {"model ! x", "got \"!\""},
      {"model ~ x", "got '~'"},
      {"state = RUNNING state = RUNNING", "want AND"},
  };
  for (const auto& [filter, want] : cases) {
    const auto got = ParseJobFilter(filter);
    EXPECT_TRUE(absl::IsInvalidArgument(got.status())) << filter;
    EXPECT_THAT(Message(got.status()), HasSubstr(want)) << filter;
  }
  std::string long_filter = "name = a";
  for (int i = 0; i < 40; ++i) long_filter += " AND name = a";
  EXPECT_TRUE(absl::IsInvalidArgument(ParseJobFilter(long_filter).status()));
}

TEST(JobFilter, RandomBytesNeverCrash) {
  std::mt19937 random(11);
  const std::string alphabet = "aAND= !<>\".\\_-statelabels0\n\t\x80";
  int read = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string filter;
    for (unsigned n = random() % 30; n > 0; --n) filter += alphabet[random() % alphabet.size()];
    read += ParseJobFilter(filter).ok();
  }
  EXPECT_LT(read, 20'000);
}

}  // namespace
}  // namespace tempera
