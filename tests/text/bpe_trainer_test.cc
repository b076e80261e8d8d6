#include "text/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/base/temp_folder.h"
#include "text/clip_tokenizer.h"
#include "text/words.h"

namespace tempera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::vector<std::string> RandomCaptions(size_t count) {
  static constexpr const char* kPieces[] = {"a",      "a", "a", "b", "b", "c",
                                            "\u00e9", "d", " ", "'", "1", "\u732b"};
  std::mt19937 random(5);
  std::vector<std::string> captions(count);
  for (std::string& caption : captions)
    for (int i = 0; i < 30; ++i) caption += kPieces[random() % std::size(kPieces)];
  return captions;
}

// The same by counting all pairs anew for each merge.
std::vector<std::pair<std::string, std::string>> SlowMerges(const std::vector<std::string>& captions,
                                                            size_t count) {
  std::vector<std::vector<std::string>> words;
  for (const std::string& caption : captions) {
    const std::string text = NormalizeForClip(caption);
    for (const std::string_view word : SplitWords(text)) {
      auto& symbols = words.emplace_back();
      for (const char byte : word) symbols.push_back(ByteAlphabet()[static_cast<uint8_t>(byte)]);
      symbols.back() += kEndOfWord;
    }
  }
  std::map<std::string, size_t> ids;  // bytes, then bytes at the end of a word, then in the order of merges
  for (const std::string_view suffix : {std::string_view(), kEndOfWord})
    for (const uint8_t byte : ByteOrder())
      ids.emplace(ByteAlphabet()[byte] + std::string(suffix), ids.size());
  std::vector<std::pair<std::string, std::string>> merges;
  while (merges.size() < count) {
    std::map<std::pair<size_t, size_t>, int> counts;
    for (const auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{ids.at(word[i]), ids.at(word[i + 1])}];
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < 2) break;
    const auto name = [&](size_t id) {
      return std::find_if(ids.begin(), ids.end(), [&](const auto& token) { return token.second == id; })
          ->first;
    };
    const std::string left = name(best->first.first), right = name(best->first.second);
    merges.emplace_back(left, right);
    ids.emplace(left + right, ids.size());
    for (auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i)
        if (word[i] == left && word[i + 1] == right) {
          word[i] += right;
          word.erase(word.begin() + static_cast<int64_t>(i) + 1);
        }
  }
  return merges;
}

TEST(TrainClipBpe, JoinsTheMostFrequentPairFirst) {
  const std::vector<std::string> captions = {"low low low low", "lower lower", "newest newest newest"};
  const Result<BpeVocabulary> got = TrainClipBpe(captions, 519);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_THAT(got->merges, ElementsAre(Pair("l", "o"), Pair("w", "e"), Pair("lo", "w</w>"), Pair("e", "we"),
                                       Pair("n", "ewe")));
  ASSERT_EQ(got->tokens.size(), 519u);
  EXPECT_EQ(got->tokens[0], "!");
  EXPECT_EQ(got->tokens[256], "!</w>");
  EXPECT_EQ(got->tokens[512], "lo");
  EXPECT_EQ(got->tokens[517], "<|startoftext|>");
  EXPECT_EQ(got->tokens[518], "<|endoftext|>");
}

TEST(TrainClipBpe, MakesTheMergesOfTheSlowWay) {
  const std::vector<std::string> captions = RandomCaptions(60);
  const Result<BpeVocabulary> got = TrainClipBpe(captions, 600);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->merges, SlowMerges(captions, got->merges.size()));
  EXPECT_GT(got->merges.size(), 80u);
}

TEST(TrainClipBpe, DoesNotDependOnTheOrderOfCaptions) {
  std::vector<std::string> captions = RandomCaptions(200);
  const Result<BpeVocabulary> one = TrainClipBpe(captions, 700);
  std::reverse(captions.begin(), captions.end());
  const Result<BpeVocabulary> other = TrainClipBpe(captions, 700);
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(one->tokens, other->tokens);
  EXPECT_EQ(one->merges, other->merges);
}

TEST(TrainClipBpe, EndsWhereNothingRepeats) {
  const std::vector<std::string> captions = {"abc abc"};
  const Result<BpeVocabulary> got = TrainClipBpe(captions, 100'000);
  ASSERT_TRUE(got.ok());
  EXPECT_THAT(got->merges, ElementsAre(Pair("a", "b"), Pair("ab", "c</w>")));
  EXPECT_EQ(got->tokens.size(), 516u);
  EXPECT_THAT(TrainClipBpe({}, kMinBpeVocabulary)->merges, IsEmpty());
}

TEST(TrainClipBpe, RefusesASmallVocabularyAndBrokenCaptions) {
  EXPECT_EQ(Message(TrainClipBpe({}, 513).status()),
            "vocabulary: too small, got 513 tokens, want at least 514");
  const std::vector<std::string> captions = {"good", "ba\xff"};
  EXPECT_EQ(Message(TrainClipBpe(captions, 600).status()), "caption 1: not valid UTF-8 at byte 2");
}

TEST(WriteClipVocabulary, WritesWhatClipTokenizerOpens) {
  const std::vector<std::string> captions = {"red apple, twemoji", "green apple, fluent3d",
                                             "\"quoted\" \\ \u732b\u732b"};
  const Result<BpeVocabulary> vocabulary = TrainClipBpe(captions, 540);
  ASSERT_TRUE(vocabulary.ok());
  const TempFolder folder;
  ASSERT_TRUE(WriteClipVocabulary(*vocabulary, 32, folder.path(), "tokenizer").ok());
  const auto tokenizer = ClipTokenizer::Open(folder.path(), "tokenizer");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocabulary(), static_cast<int64_t>(vocabulary->tokens.size()));
  EXPECT_EQ((*tokenizer)->max_length(), 32);
  EXPECT_EQ((*tokenizer)->bos() + 1, (*tokenizer)->eos());
  EXPECT_EQ((*tokenizer)->eos() + 1, (*tokenizer)->vocabulary());
  const auto apple = (*tokenizer)->Encode("apple");
  ASSERT_TRUE(apple.ok());
  EXPECT_EQ(apple->mask[2], 1);  // one token
  EXPECT_EQ(apple->mask[3], 0);
}

TEST(WriteClipVocabulary, NamesTheFileThatItCannotWrite) {
  const TempFolder folder;
  const Status status = WriteClipVocabulary(TrainClipBpe({}, 600).value(), 77, folder / "none", "tokenizer");
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(Message(status), HasSubstr("tokenizer/vocab.json: "));
}

}  // namespace
}  // namespace tempera
