// Ids, texts and padding of transformers' CLIPTokenizer (golden/tokenizers/make.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/files.h"
#include "base/json.h"
#include "tests/base/temp_folder.h"
#include "text/bpe_trainer.h"
#include "text/clip_tokenizer.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
const fs::path kFolder = "golden/tokenizers";

const Json& Load(const char* name) {
  static std::map<std::string, Json> files;
  if (const auto it = files.find(name); it != files.end()) return it->second;
  const Result<std::string> text = ReadFile(kFolder / name, name);
  EXPECT_TRUE(text.ok()) << text.status();
  return files[name] = Json::parse(text.value_or("{}"), nullptr, false);
}

const Json& Golden(const std::string& tokenizer) { return Load("golden.json").at(tokenizer); }

// golden/tokenizers/clip's tables and the files of a variant.
fs::path FolderOf(const std::string& tokenizer, const TempFolder& temporary) {
  const Json& variants = Load("cases.json").at("variants");
  if (!variants.contains(tokenizer)) return kFolder / tokenizer;
  for (const char* table : {"vocab.json", "merges.txt"})
    fs::copy_file(kFolder / "clip" / table, temporary / table);
  for (const auto& [name, content] : variants.at(tokenizer).items()) temporary.Write(name, content.dump());
  return temporary.path();
}

class ClipGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto opened = ClipTokenizer::Open(FolderOf(GetParam(), temporary_), "tokenizer");
    ASSERT_TRUE(opened.ok()) << opened.status();
    tokenizer_ = *std::move(opened);
  }
  const Json& golden_ = Golden(GetParam());
  TempFolder temporary_;
  std::shared_ptr<const ClipTokenizer> tokenizer_;
};

TEST_P(ClipGoldenTest, HasItsSpecialTokensAndSizes) {
  EXPECT_EQ(tokenizer_->vocabulary(), golden_.at("vocabulary"));
  EXPECT_EQ(tokenizer_->bos(), golden_.at("bos"));
  EXPECT_EQ(tokenizer_->eos(), golden_.at("eos"));
  EXPECT_EQ(tokenizer_->pad(), golden_.at("pad"));
  EXPECT_EQ(tokenizer_->max_length(), golden_.at("max_length"));
}

TEST_P(ClipGoldenTest, GivesTheIds) {
  const auto room = static_cast<size_t>(tokenizer_->max_length());
  for (const Json& row : golden_.at("cases")) {
    const auto text = row.at("text").get<std::string>();
    SCOPED_TRACE(Json(text).dump(-1, ' ', true));
    const auto got = tokenizer_->Encode(text);
    ASSERT_TRUE(got.ok()) << got.status();

    // bos, text, eos without a limit: what was cut stands before the eos.
    const auto ids = row.at("ids").get<std::vector<int64_t>>();
    ASSERT_EQ(got->ids.size(), room);
    const size_t used = std::min(ids.size(), room);
    EXPECT_TRUE(std::equal(ids.begin(), ids.begin() + static_cast<int64_t>(used) - 1, got->ids.begin()));
    EXPECT_EQ(got->ids[used - 1], tokenizer_->eos());
    EXPECT_EQ(std::count(got->mask.begin(), got->mask.end(), 1), used);
    EXPECT_EQ(got->dropped_tokens, ids.size() - used);
    EXPECT_EQ(got->dropped, row.value("dropped", ""));
    if (row.contains("padded_ids")) {
      EXPECT_EQ(Json(got->ids), row.at("padded_ids"));
      EXPECT_EQ(Json(got->mask), row.at("attention_mask"));
    }
    EXPECT_EQ(tokenizer_->Decode(ids), row.at("decoded"));
  }
}

TEST_P(ClipGoldenTest, CutsALongTextIntoChunksThatTogetherHoldAllOfIt) {
  for (const Json& row : golden_.at("cases")) {
    const auto chunks = tokenizer_->EncodeLong(row.at("text").get<std::string>());
    ASSERT_TRUE(chunks.ok()) << chunks.status();
    auto rest = row.at("ids").get<std::vector<int64_t>>();
    rest.erase(rest.begin());
    rest.pop_back();
    const auto room = static_cast<size_t>(tokenizer_->max_length() - 2);
    ASSERT_EQ(chunks->size(), std::max<size_t>(1, (rest.size() + room - 1) / room));
    for (const std::vector<int64_t>& chunk : *chunks) {
      std::vector<int64_t> want = {tokenizer_->bos()};
      const auto end = rest.begin() + static_cast<int64_t>(std::min(rest.size(), room));
      want.insert(want.end(), rest.begin(), end);
      rest.erase(rest.begin(), end);
      want.push_back(tokenizer_->eos());
      want.resize(room + 2, tokenizer_->pad());
      EXPECT_EQ(chunk, want);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, ClipGoldenTest,
                         ::testing::Values("clip", "pad_exclamation", "plain_strings", "typed_config",
                                           "added_tokens_decoder", "added_tokens", "added_and_extra", "short",
                                           "saved", "trained"),
                         [](const auto& i) { return i.param; });

TEST(TrainClipBpe, MakesTheVocabularyThatTheLibraryReadForTheGolden) {
  const auto captions = Load("cases.json").at("captions").get<std::vector<std::string>>();
  const Result<BpeVocabulary> vocabulary = TrainClipBpe(captions, 640);
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  const TempFolder out;
  ASSERT_TRUE(WriteClipVocabulary(*vocabulary, 77, out.path(), "out").ok());
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"})
    EXPECT_EQ(Slurp(out / name), Slurp(kFolder / "trained" / name)) << name;
}

}  // namespace
}  // namespace tempera
