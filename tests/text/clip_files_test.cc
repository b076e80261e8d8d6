// What a tokenizer folder may get wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <functional>

#include "base/json.h"
#include "tests/base/temp_folder.h"
#include "tests/weights/mutate.h"
#include "text/clip_tables.h"
#include "text/clip_tokenizer.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ClipFiles Read(const std::string& folder) {
  return ReadClipFiles("golden/tokenizers/" + folder, "tokenizer").value();
}

ClipFiles Golden() { return Read("clip"); }

// The files of `folder` with `change` done to the JSON of `name`.
ClipFiles Changed(const std::string& folder, const std::string& name,
                  const std::function<void(Json&)>& change) {
  ClipFiles files = Read(folder);
  Json json = files.contains(name) ? Json::parse(files[name]) : Json::object();
  change(json);
  files[name] = json.dump();
  return files;
}

ClipFiles WithMerges(const std::string& text) {
  ClipFiles files = Golden();
  files["merges.txt"] = text;
  return files;
}

ClipFiles Without(const std::string& name) {
  ClipFiles files = Golden();
  files.erase(name);
  return files;
}

ClipFiles Config(const std::string& key, const Json& value) {
  return Changed("clip", "tokenizer_config.json", [&](Json& config) { config[key] = value; });
}

ClipFiles Vocabulary(const std::string& token, const Json& id) {
  return Changed("clip", "vocab.json", [&](Json& vocabulary) { vocabulary[token] = id; });
}

ClipFiles Saved(const std::function<void(Json&)>& change) {
  return Changed("saved", "tokenizer.json", change);
}

std::string ErrorOf(const ClipFiles& files) {
  const Result<ClipTables> tables = ParseClipFiles(files, "tokenizer");
  return tables.ok() ? "ok" : Message(tables.status());
}

TEST(ParseClipFiles, TakesTheGoldenFolders) {
  for (const char* folder : {"clip", "saved", "trained"}) EXPECT_EQ(ErrorOf(Read(folder)), "ok");
}

TEST(ParseClipFiles, NamesAMissingFile) {
  EXPECT_EQ(ErrorOf({}), "tokenizer/vocab.json: does not exist, nor does tokenizer.json");
  EXPECT_EQ(ErrorOf(Without("vocab.json")), "tokenizer/vocab.json: does not exist, nor does tokenizer.json");
  EXPECT_EQ(ErrorOf(Without("merges.txt")), "tokenizer/merges.txt: does not exist");
  EXPECT_EQ(ErrorOf(Without("tokenizer_config.json")), "ok");
  EXPECT_EQ(ErrorOf(Without("special_tokens_map.json")), "ok");
}

TEST(ParseClipFiles, RefusesABrokenVocabulary) {
  const auto with = [](const std::string& text) {
    ClipFiles files = Golden();
    files["vocab.json"] = text;
    return ErrorOf(files);
  };
  EXPECT_EQ(with(""), "tokenizer/vocab.json: not valid JSON at byte 1");
  EXPECT_EQ(with("[1]"), "tokenizer/vocab.json: got [1], want a JSON object");
  EXPECT_EQ(with("{}"),
            "tokenizer/merges.txt: line 2: got \"t h\", want tokens of the vocabulary, which has no \"t\"");
  EXPECT_EQ(with(R"({"a": 0, "a": 1})"), "tokenizer/vocab.json: the key \"a\" stands there twice");
  const std::string want = ", want an integer from 0 to 810";
  EXPECT_EQ(ErrorOf(Vocabulary("a", 811)), "tokenizer/vocab.json: token \"a\": got id 811" + want);
  EXPECT_EQ(ErrorOf(Vocabulary("a", -1)), "tokenizer/vocab.json: token \"a\": got id -1" + want);
  EXPECT_EQ(ErrorOf(Vocabulary("a", 1.5)), "tokenizer/vocab.json: token \"a\": got id 1.5" + want);
  EXPECT_EQ(ErrorOf(Vocabulary("a", "64")), "tokenizer/vocab.json: token \"a\": got id \"64\"" + want);
  EXPECT_EQ(ErrorOf(Vocabulary("a", uint64_t{1} << 63)),
            "tokenizer/vocab.json: token \"a\": got id 9223372036854775808" + want);
  EXPECT_EQ(ErrorOf(Vocabulary("b", 64)),
            "tokenizer/vocab.json: token \"b\": got id 64, want one that is not that of token \"a\" too");
  // One more token without an id of its own: the ids leave a gap.
  EXPECT_EQ(ErrorOf(Vocabulary("new", 812)),
            "tokenizer/vocab.json: token \"new\": got id 812, want an integer from 0 to 811");
}

TEST(ParseClipFiles, RefusesBrokenMerges) {
  const std::string want = ", want two tokens with one space between them";
  EXPECT_EQ(ErrorOf(WithMerges("")), "ok");
  EXPECT_EQ(ErrorOf(WithMerges("#version: 0.2\r\nt h\r\nth e</w>")), "ok");
  EXPECT_EQ(ErrorOf(WithMerges("#version: 0.2\nt h\nth\n")),
            "tokenizer/merges.txt: line 3: got \"th\"" + want);
  EXPECT_EQ(ErrorOf(WithMerges("t h e\n")), "tokenizer/merges.txt: line 1: got \"t h e\"" + want);
  EXPECT_EQ(ErrorOf(WithMerges("t  h\n")), "tokenizer/merges.txt: line 1: got \"t  h\"" + want);
  EXPECT_EQ(ErrorOf(WithMerges(" h\n")), "tokenizer/merges.txt: line 1: got \" h\"" + want);
  EXPECT_EQ(ErrorOf(WithMerges("t \n")), "tokenizer/merges.txt: line 1: got \"t \"" + want);
  EXPECT_EQ(ErrorOf(WithMerges("t h\n\n")), "tokenizer/merges.txt: line 2: got \"\"" + want);
  EXPECT_EQ(ErrorOf(WithMerges("\xff\n")), "tokenizer/merges.txt: line 1: got \"\ufffd\"" + want);
  const std::string unknown = "want tokens of the vocabulary, which has no ";
  EXPECT_EQ(ErrorOf(WithMerges("t zz")), "tokenizer/merges.txt: line 1: got \"t zz\", " + unknown + "\"zz\"");
  EXPECT_EQ(ErrorOf(WithMerges("zz t")), "tokenizer/merges.txt: line 1: got \"zz t\", " + unknown + "\"zz\"");
  EXPECT_EQ(ErrorOf(WithMerges("z z")), "tokenizer/merges.txt: line 1: got \"z z\", " + unknown + "\"zz\"");
  EXPECT_EQ(ErrorOf(WithMerges("t \xff")),
            "tokenizer/merges.txt: line 1: got \"t \ufffd\", " + unknown + "\"\ufffd\"");
}

TEST(ParseClipFiles, RefusesMissingSpecialTokens) {
  for (const char* role : {"bos_token", "eos_token", "pad_token", "cls_token"}) {
    ClipFiles files = Config(role, "<none>");
    files.erase("special_tokens_map.json");
    EXPECT_EQ(ErrorOf(files), Cat("tokenizer/vocab.json: the ", role, " \"<none>\" is missing"));
  }
  EXPECT_EQ(ErrorOf(Changed("clip", "special_tokens_map.json", [](Json& j) { j["unk_token"] = "<unk>"; })),
            "tokenizer/vocab.json: the unk_token \"<unk>\" is missing");
  // Known behind the vocabulary, where merging cannot use it.
  ClipFiles behind = Config("added_tokens_decoder", {{"811", {{"content", "<unk>"}}}});
  behind["tokenizer_config.json"] = [&] {
    Json config = Json::parse(behind["tokenizer_config.json"]);
    config["unk_token"] = "<unk>";
    return config.dump();
  }();
  EXPECT_EQ(ErrorOf(behind), "tokenizer/vocab.json: the unk_token \"<unk>\" is missing");
}

TEST(ParseClipFiles, RefusesSettingsThatChangeIds) {
  const auto error = [](const std::string& key, const Json& value) { return ErrorOf(Config(key, value)); };
  const std::string file = "tokenizer/tokenizer_config.json: ";
  EXPECT_EQ(error("tokenizer_class", "T5Tokenizer"),
            file + "tokenizer_class is not supported, got \"T5Tokenizer\", want CLIPTokenizer");
  EXPECT_EQ(error("do_lower_case", false), file + "do_lower_case is not supported, got false, want true");
  EXPECT_EQ(error("padding_side", "left"),
            file + "padding_side is not supported, got \"left\", want \"right\"");
  EXPECT_EQ(error("truncation_side", "left"),
            file + "truncation_side is not supported, got \"left\", want \"right\"");
  EXPECT_EQ(error("split_special_tokens", true),
            file + "split_special_tokens is not supported, got true, want false");
  EXPECT_EQ(error("model_max_length", 2), file + "model_max_length is out of range, got 2, want 3 to 4096");
  EXPECT_EQ(error("model_max_length", 5000),
            file + "model_max_length is out of range, got 5000, want 3 to 4096");
  EXPECT_EQ(error("model_max_length", "77"), file + "model_max_length is wrong, got \"77\", want an integer");
  EXPECT_EQ(error("bos_token", 3), file + "bos_token: got 3, want a JSON object");
  EXPECT_EQ(error("bos_token", ""), file + "bos_token: got a token of 0 bytes, want 1 to 256");
  EXPECT_EQ(error("pad_token", {{"lstrip", false}}), file + "pad_token: content is missing");
  EXPECT_EQ(error("pad_token", {{"content", "!"}, {"lstrip", true}}),
            file + "pad_token: lstrip is not supported, got true, want false");
  EXPECT_EQ(error("extra_special_tokens", "a"),
            file + "extra_special_tokens is wrong, got \"a\", want a list");
  EXPECT_EQ(error("image_token", "<image>"), file + "image_token is not supported, got \"<image>\"");
}

// What transformers writes where no length was set.
TEST(ParseClipFiles, TakesClipsLengthWhereNoneIsSet) {
  for (const Json& value : {Json(), Json(1e30), Json::parse("1000000000000000019884624838656")})
    EXPECT_EQ(ParseClipFiles(Config("model_max_length", value), "tokenizer")->max_length, 77);
  EXPECT_EQ(ParseClipFiles(Config("model_max_length", 248), "tokenizer")->max_length, 248);
}

TEST(ParseClipFiles, RefusesAddedTokensThatDoNotFit) {
  const auto decoder = [](const Json& value) { return ErrorOf(Config("added_tokens_decoder", value)); };
  const std::string file = "tokenizer/tokenizer_config.json: added_tokens_decoder";
  EXPECT_EQ(decoder({{"811", {{"content", "<new>"}}}}), "ok");
  EXPECT_EQ(decoder({{"812", {{"content", "<new>"}}}}),
            "tokenizer: added token \"<new>\": got id 812, want 811, the next free one");
  EXPECT_EQ(decoder({{"5", {{"content", "!"}}}}),
            "tokenizer: added token \"!\": got id 5, want 0, which it has already");
  EXPECT_EQ(decoder({{"x", {{"content", "!"}}}}), file + ": got \"x\", want an id");
  EXPECT_EQ(decoder({{"0", {{"content", std::string(257, 'x')}}}}),
            file + ": \"0\": got a token of 257 bytes, want 1 to 256");
  EXPECT_EQ(decoder(Json::array()), file + " is wrong, got [], want an object");
  EXPECT_EQ(decoder({{"811", {{"content", "<A>"}}}, {"812", {{"content", "<a>"}}}}),
            "tokenizer: added tokens \"<A>\" and \"<a>\" are the same when normalized");
  Json many;
  for (int i = 811; i < 1836; ++i) many[std::to_string(i)] = {{"content", Cat("<", i, ">")}};
  EXPECT_EQ(decoder(many), "tokenizer: got 1027 added tokens, want at most 1024");

  const auto added = [](const Json& value) {
    return ErrorOf(Changed("clip", "added_tokens.json", [&](Json& json) { json = value; }));
  };
  EXPECT_EQ(added({{"<new>", 811}}), "ok");
  EXPECT_EQ(added({{"<new>", -1}}), "tokenizer/added_tokens.json: token \"<new>\": got id -1, want an id");
  EXPECT_EQ(added(Json::array({1})), "tokenizer/added_tokens.json: got [1], want a JSON object");
}

TEST(ParseClipFiles, RefusesATokenizerJsonThatWorksInAnotherWay) {
  const std::string file = "tokenizer/tokenizer.json: ";
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["type"] = "Unigram"; })),
            file + "model: type is not supported, got \"Unigram\", want \"BPE\"");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"].erase("type"); })), "ok");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j.erase("model"); })), file + "model is missing");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"].erase("vocab"); })), file + "model: vocab is missing");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["dropout"] = 0.1; })),
            file + "model: dropout is not supported, got 0.1, want 0");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["end_of_word_suffix"] = nullptr; })),
            file + "model: end_of_word_suffix is not supported, got \"\", want \"</w>\"");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["unk_token"] = "!"; })),
            file + "model: unk_token is not supported, got \"!\", want \"<|endoftext|>\"");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["byte_fallback"] = true; })),
            file + "model: byte_fallback is not supported, got true, want false");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["vocab"] = Json::array(); })),
            file + "model.vocab: got [], want a JSON object");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["merges"] = 3; })),
            file + "model.merges is wrong, got 3, want a list");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["merges"][7] = Json::array({"t"}); })),
            file + "model.merges 7: got [\"t\"], want two tokens");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["model"]["merges"][7] = "q q"; })),
            file + "model.merges 7: got \"q q\", want tokens of the vocabulary, which has no \"qq\"");
  EXPECT_THAT(ErrorOf(Saved([](Json& j) { j["normalizer"] = nullptr; })),
              StartsWith(file + "normalizer is not CLIP's"));
  EXPECT_THAT(ErrorOf(Saved([](Json& j) { j["normalizer"]["normalizers"][0]["type"] = "NFKC"; })),
              StartsWith(file + "normalizer is not CLIP's"));
  EXPECT_THAT(
      ErrorOf(Saved([](Json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; })),
      StartsWith(file + "pre_tokenizer is not CLIP's"));
  EXPECT_THAT(ErrorOf(Saved([](Json& j) { j["pre_tokenizer"] = "x"; })),
              StartsWith(file + "pre_tokenizer is not CLIP's"));
  EXPECT_THAT(ErrorOf(Saved([](Json& j) {
                j["post_processor"]["cls"] = Json::array({"!", 0});
              })),
              StartsWith(file + "post_processor is not CLIP's"));
  EXPECT_THAT(ErrorOf(Saved([](Json& j) {
                j["truncation"] = {{"direction", "Left"}};
              })),
              StartsWith(file + "truncation is not supported"));
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["added_tokens"][0].erase("id"); })),
            file + "added_tokens: token \"!\" has no id");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["added_tokens"] = 1; })),
            file + "added_tokens: got 1, want a list");
  EXPECT_EQ(ErrorOf(Saved([](Json& j) { j["more"] = 1; })), file + "more is not supported, got 1");
}

// As transformers 4 and the tokenizers library before 0.20 wrote it.
TEST(ParseClipFiles, ReadsOlderTokenizerJsons) {
  const ClipFiles files = Saved([](Json& j) {
    j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
        R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
    j["pre_tokenizer"]["pretokenizers"][1].erase("use_regex");
    j["model"].erase("byte_fallback");
    j["model"].erase("ignore_merges");
    for (Json& merge : j["model"]["merges"])
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    j["post_processor"] = Json::parse(R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<|startoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}]})");
  });
  const auto old = ParseClipFiles(files, "tokenizer"), now = ParseClipFiles(Read("saved"), "tokenizer");
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(old->tokens, now->tokens);
  ASSERT_EQ(old->merges.size(), now->merges.size());
  for (size_t i = 0; i < old->merges.size(); ++i) EXPECT_EQ(old->merges[i].merged, now->merges[i].merged);
}

TEST(ParseClipFiles, PrefersTokenizerJson) {
  ClipFiles files = Golden();
  files["tokenizer.json"] = Read("saved")["tokenizer.json"];
  files["vocab.json"] = "broken";
  EXPECT_EQ(ErrorOf(files), "ok");
}

TEST(ReadClipFiles, BoundsEveryFile) {
  const TempFolder folder;
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer.json"}) {
    fs::resize_file(folder.Write(name, ""), (16 << 20) + 1);
    EXPECT_EQ(Message(ReadClipFiles(folder.path(), "tokenizer").status()),
              Cat("tokenizer/", name, ": too large, got 16777217 bytes, want at most 16777216"));
    fs::remove(folder / name);
  }
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    fs::resize_file(folder.Write(name, ""), (1 << 20) + 1);
    EXPECT_EQ(Message(ReadClipFiles(folder.path(), "tokenizer").status()),
              Cat("tokenizer/", name, ": too large, got 1048577 bytes, want at most 1048576"));
    fs::remove(folder / name);
  }
}

TEST(ReadClipFiles, RefusesWhatIsNoFileInTheFolder) {
  const TempFolder folder, other;
  fs::create_symlink(other.Write("secret", "root:x"), folder / "merges.txt");
  EXPECT_EQ(Message(ReadClipFiles(folder.path(), "tokenizer").status()),
            "tokenizer/merges.txt: a symbolic link that leaves its folder");
  fs::remove(folder / "merges.txt");
  fs::create_symlink("nowhere", folder / "vocab.json");
  EXPECT_TRUE(absl::IsNotFound(ReadClipFiles(folder.path(), "tokenizer").status()));
  fs::remove(folder / "vocab.json");
  ASSERT_EQ(mkfifo((folder / "vocab.json").c_str(), 0600), 0);
  EXPECT_EQ(Message(ReadClipFiles(folder.path(), "tokenizer").status()),
            "tokenizer/vocab.json: not a regular file");
  fs::remove(folder / "vocab.json");
  fs::create_directory(folder / "vocab.json");
  EXPECT_EQ(Message(ReadClipFiles(folder.path(), "tokenizer").status()),
            "tokenizer/vocab.json: not a regular file");
}

TEST(ClipTokenizer, OpensNoFolderThatIsNotThere) {
  const Status status = ClipTokenizer::Open("golden/tokenizers/none", "tokenizer_2").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(Message(status), "tokenizer_2/vocab.json: does not exist, nor does tokenizer.json");
}

TEST(ParseClipFiles, SurvivesDamage) {
  std::mt19937 random(11);
  int refused = 0;
  for (const char* folder : {"clip", "saved"}) {
    const ClipFiles good = Read(folder);
    for (const auto& [name, bytes] : good) {
      for (int i = 0; i < 150; ++i) {
        ClipFiles files = good;
        files[name] = i < 30 ? bytes.substr(0, random() % bytes.size()) : Mutated(bytes, random);
        const Result<ClipTables> tables = ParseClipFiles(files, "tokenizer");
        if (!tables.ok()) {
          ++refused;
          EXPECT_THAT(Message(tables.status()), StartsWith("tokenizer"));
          continue;
        }
        // What is accepted works.
        const ClipTokenizer tokenizer(*tables);
        const auto got = tokenizer.Encode("a photo of <cat>, it's 12 \u732b");
        ASSERT_TRUE(got.ok());
        for (const int64_t id : got->ids) EXPECT_LT(id, tokenizer.vocabulary());
      }
    }
  }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace tempera
