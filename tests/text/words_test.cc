#include "text/words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace tempera {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(NormalizeForClip, ComposesJoinsSpaceAndLowers) {
  EXPECT_EQ(NormalizeForClip(""), "");
  EXPECT_EQ(NormalizeForClip("  A\t\n B\u3000"), " a b ");
  EXPECT_EQ(NormalizeForClip("E\u0301"), "\u00e9");
  // Lower case comes last, so its parts do not compose again.
  EXPECT_EQ(NormalizeForClip("\u0130"), "i\u0307");
  EXPECT_EQ(NormalizeForClip(std::string_view("\0A", 2)), std::string_view("\0a", 2));
}

TEST(SplitWords, CutsLettersSingleNumbersAndTheRest) {
  EXPECT_THAT(SplitWords(""), IsEmpty());
  EXPECT_THAT(SplitWords("  \u3000"), IsEmpty());
  EXPECT_THAT(SplitWords("a cat, 12!"), ElementsAre("a", "cat", ",", "1", "2", "!"));
  EXPECT_THAT(SplitWords("x\u00bd\u4e00y"), ElementsAre("x", "\u00bd", "\u4e00y"));
  EXPECT_THAT(SplitWords("\u2764\ufe0f?!"), ElementsAre("\u2764\ufe0f?!"));
  EXPECT_THAT(SplitWords("e\u0303f"), ElementsAre("e", "\u0303", "f"));
}

TEST(SplitWords, CutsContractionsWhereverThePatternMeetsOne) {
  EXPECT_THAT(
      SplitWords("don't we'll they've i'm he'd you're it's"),
      ElementsAre("don", "'t", "we", "'ll", "they", "'ve", "i", "'m", "he", "'d", "you", "'re", "it", "'s"));
  EXPECT_THAT(SplitWords("'sun"), ElementsAre("'s", "un"));
  EXPECT_THAT(SplitWords("''s"), ElementsAre("''", "s"));  // the run of the rest takes both
  EXPECT_THAT(SplitWords("'l 'x"), ElementsAre("'", "l", "'", "x"));
}

TEST(SplitWords, CutsMarkersThatAreNoTokens) {
  EXPECT_THAT(SplitWords("<|endoftext|>!"), ElementsAre("<|", "endoftext", "|>", "!"));
  EXPECT_THAT(SplitWords("a<|startoftext|>b"), ElementsAre("a", "<|", "startoftext", "|>", "b"));
  EXPECT_THAT(SplitWords("<|endoftext|!"), ElementsAre("<|", "endoftext", "|!"));
  EXPECT_THAT(SplitWords("!<|endoftext|>!"), ElementsAre("!<|", "endoftext", "|>!"));
}

TEST(ByteAlphabet, HasASymbolForEachByte) {
  EXPECT_EQ(ByteAlphabet()['!'], "!");
  EXPECT_EQ(ByteAlphabet()[0xe9], "\u00e9");
  EXPECT_EQ(ByteAlphabet()[0x00], "\u0100");
  EXPECT_EQ(ByteAlphabet()[' '], "\u0120");
  EXPECT_EQ(ByteAlphabet()[0xad], "\u0143");
  EXPECT_EQ(std::set(ByteAlphabet().begin(), ByteAlphabet().end()).size(), 256u);
  EXPECT_EQ(ByteOrder()[0], '!');
  EXPECT_EQ(ByteOrder()[188], 0x00);
  EXPECT_EQ(ByteOrder()[255], 0xad);
}

}  // namespace
}  // namespace tempera
