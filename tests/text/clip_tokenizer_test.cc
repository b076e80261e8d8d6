#include "text/clip_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/unicode.h"

namespace tempera {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ClipTokenizerTest : public ::testing::Test {
 protected:
  const std::shared_ptr<const ClipTokenizer> tokenizer_ =
      ClipTokenizer::Open("golden/tokenizers/clip", "tokenizer").value();
};

TEST_F(ClipTokenizerTest, RefusesWhatIsNotUtf8AndNamesTheByte) {
  for (const Status& status :
       {tokenizer_->Encode("caf\xe9 a").status(), tokenizer_->EncodeLong("caf\xe9 a").status()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_EQ(Message(status), "prompt: not valid UTF-8 at byte 3, got 0xe9");
  }
}

TEST_F(ClipTokenizerTest, RefusesALongPromptAndTakesTheLongest) {
  EXPECT_TRUE(tokenizer_->Encode(std::string(kMaxPromptBytes, 'a')).ok());
  const std::string hundred_kilobytes(100'000, 'a');
  for (const Status& status :
       {tokenizer_->Encode(hundred_kilobytes).status(), tokenizer_->EncodeLong(hundred_kilobytes).status()}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_EQ(Message(status), "prompt: too long, got 100000 bytes, want at most 16384");
  }
}

TEST_F(ClipTokenizerTest, TellsWhatItDropped) {
  std::string prompt;
  for (int i = 0; i < 75; ++i) prompt += "A ";
  const auto whole = tokenizer_->Encode(prompt);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->dropped_tokens, 0);
  EXPECT_THAT(whole->dropped, IsEmpty());
  EXPECT_THAT(whole->mask, testing::Each(1));

  const auto cut = tokenizer_->Encode(prompt + "The  CAT");
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->ids, whole->ids);
  EXPECT_EQ(cut->dropped_tokens, 2);
  EXPECT_EQ(cut->dropped, "the cat");
}

// The cut may part a character.
TEST_F(ClipTokenizerTest, DropsTextThatIsValidUtf8) {
  const auto cut = tokenizer_->Encode("a" + std::string(71, '1') + "\U0001f431\U0001f431");
  ASSERT_TRUE(cut.ok());
  EXPECT_GT(cut->dropped_tokens, 0);
  EXPECT_EQ(FindInvalidUtf8(cut->dropped), std::nullopt);
  EXPECT_THAT(cut->dropped, testing::StartsWith("\ufffd"));
}

TEST_F(ClipTokenizerTest, MakesOneChunkOfNothing) {
  const auto chunks = tokenizer_->EncodeLong("");
  ASSERT_TRUE(chunks.ok());
  ASSERT_EQ(chunks->size(), 1u);
  EXPECT_EQ(chunks->front(), tokenizer_->Encode("")->ids);
}

TEST_F(ClipTokenizerTest, DecodesNothingToNothing) { EXPECT_EQ(tokenizer_->Decode({}), ""); }

}  // namespace
}  // namespace tempera
