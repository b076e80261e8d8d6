#include "text/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tempera {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int64_t> Encode(const ByteBpe& bpe, std::string_view word) {
  std::vector<int64_t> ids;
  bpe.Encode(word, ids);
  return ids;
}

TEST(ByteBpe, MergesTheStrongestPairFirst) {
  const TokenIds ids = {{"a", 0}, {"b", 1}, {"c", 2}, {"c</w>", 3}, {"ab", 4}, {"bc</w>", 5}, {"abc</w>", 6}};
  const BpeMerge ab{0, 1, 4}, bc{1, 3, 5}, abc{0, 5, 6}, ab_c{4, 3, 6};
  const std::vector<BpeMerge> left = {ab, bc}, right = {bc, ab}, both = {bc, abc, ab}, other = {ab, bc, ab_c};
  EXPECT_THAT(Encode(ByteBpe(ids, left, 9), "abc"), ElementsAre(4, 3));
  EXPECT_THAT(Encode(ByteBpe(ids, right, 9), "abc"), ElementsAre(0, 5));
  EXPECT_THAT(Encode(ByteBpe(ids, both, 9), "abc"), ElementsAre(6));
  EXPECT_THAT(Encode(ByteBpe(ids, other, 9), "abc"), ElementsAre(6));
  EXPECT_THAT(Encode(ByteBpe(ids, left, 9), ""), IsEmpty());
}

TEST(ByteBpe, MergesEqualPairsFromTheLeft) {
  const TokenIds ids = {{"a", 0}, {"a</w>", 1}, {"aa", 2}};
  const std::vector<BpeMerge> merges = {{0, 0, 2}};
  EXPECT_THAT(Encode(ByteBpe(ids, merges, 9), "aaa"), ElementsAre(2, 1));
  EXPECT_THAT(Encode(ByteBpe(ids, merges, 9), "aaaa"), ElementsAre(2, 0, 1));
}

TEST(ByteBpe, WritesTheUnknownTokenForAByteThatHasNone) {
  const TokenIds ids = {{"a", 0}};
  const std::vector<BpeMerge> none;
  EXPECT_THAT(Encode(ByteBpe(ids, none, 7), "aba"), ElementsAre(0, 7, 7));
}

TEST(ByteBpe, TakesTheLastOfTwoRulesForOnePair) {
  const TokenIds ids = {{"a", 0}, {"b", 1}, {"c</w>", 2}, {"ab", 3}, {"bc</w>", 4}};
  const std::vector<BpeMerge> merges = {{0, 1, 3}, {1, 2, 4}, {0, 1, 3}};
  EXPECT_THAT(Encode(ByteBpe(ids, merges, 9), "abc"), ElementsAre(0, 4));
}

// A scan of the whole word for each merge would take minutes.
TEST(ByteBpe, IsNotSlowedByALongWord) {
  TokenIds ids = {{"a", 0}, {"a</w>", 1}};
  std::vector<BpeMerge> merges;
  for (int64_t i = 0; i < 10; ++i) merges.push_back({i == 0 ? 0 : i + 1, i == 0 ? 0 : i + 1, i + 2});
  const std::vector<int64_t> got = Encode(ByteBpe(ids, merges, 9), std::string((1 << 18) + 1, 'a'));
  ASSERT_EQ(got.size(), 257u);
  EXPECT_EQ(got.back(), 1);
  EXPECT_THAT(std::span(got).first(256), Each(11));
}

}  // namespace
}  // namespace tempera
