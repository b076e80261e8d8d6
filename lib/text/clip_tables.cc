#include "text/clip_tables.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/files.h"
#include "base/json.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"
#include "text/words.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

constexpr char kVocabulary[] = "vocab.json";
constexpr char kMerges[] = "merges.txt";
constexpr char kTokenizer[] = "tokenizer.json";
constexpr char kConfig[] = "tokenizer_config.json";
constexpr char kSpecialTokens[] = "special_tokens_map.json";
constexpr char kAddedTokens[] = "added_tokens.json";

struct FileRow {
  const char* name;
  uint64_t limit;  // bytes; CLIP's own tables have 0.5 to 3.6 MB
};
constexpr FileRow kFiles[] = {{kVocabulary, 16 << 20}, {kMerges, 16 << 20},       {kTokenizer, 16 << 20},
                              {kConfig, 1 << 20},      {kSpecialTokens, 1 << 20}, {kAddedTokens, 1 << 20}};

// Every position of a prompt is compared with every added token: this bounds the work.
constexpr size_t kMaxAddedTokens = 1024;
constexpr size_t kMaxAddedTokenBytes = 256;
constexpr int64_t kMinLength = 3;  // bos, one token, eos
constexpr int64_t kMaxLength = 4096;
// transformers writes 1e30 where no length was set, and takes whatever is above this for that.
constexpr double kNoLength = 1e20;

std::string Quoted(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = ReplaceInvalidUtf8(std::string_view(text).substr(0, 57)) + "...";
  return text;
}

// As AddedToken, before its id is known.
struct Token {
  std::string content;
  std::optional<int64_t> id;
  bool normalized = false;
};

// A token written as text (special, found as it is) or as an object with flags.
Result<Token> ParseToken(const Json& value, bool special, const std::string& where) {
  Token token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
  } else {
    Fields fields(value, where);
    fields.Need("content", token.content);
    fields.Get("special", special);
    token.normalized = !special;
    fields.Get("normalized", token.normalized);
    for (const char* flag : {"lstrip", "rstrip", "single_word"}) {
      bool set = false;
      if (fields.Get(flag, set) && set) fields.Fail(flag, "is not supported, got true, want false");
    }
    fields.Get("id", token.id);
    fields.Ignore({"__type"});
    TEMPERA_TRY(fields.Finish());
  }
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes)
    return InvalidArgument(where, ": got a token of ", token.content.size(), " bytes, want 1 to ",
                           kMaxAddedTokenBytes);
  return token;
}

Result<std::vector<std::string>> ParseVocabulary(const Json& object, const std::string& where) {
  if (!object.is_object()) return InvalidArgument(where, ": got ", Quoted(object), ", want a JSON object");
  std::vector<std::string> tokens(object.size());
  std::vector<bool> taken(object.size());
  for (const auto& item : object.items()) {
    const std::string& token = item.key();
    const Json& id = item.value();
    const auto fail = [&](const std::string& want) {
      return InvalidArgument(where, ": token ", Quoted(token), ": got id ", Quoted(id), ", want ", want);
    };
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() < object.size();
    if (!fits) return fail(Cat("an integer from 0 to ", object.size() - 1));
    const auto i = id.get<size_t>();
    if (taken[i]) return fail(Cat("one that is not that of token ", Quoted(tokens[i]), " too"));
    taken[i] = true;
    tokens[i] = token;
  }
  return tokens;
}

// One merge rule as text. `place` is its line, or its place in a list.
struct MergeText {
  std::string left;
  std::string right;
  size_t place;
};

// `where` ends in "line ".
Result<std::vector<MergeText>> ParseMergeLines(std::string_view text, const std::string& where) {
  std::vector<MergeText> rules;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == 0 || space == line.npos || space + 1 == line.size() ||
        line.find(' ', space + 1) != line.npos)
      return InvalidArgument(where, number, ": got ", Quoted(std::string(line)),
                             ", want two tokens with one space between them");
    rules.push_back({std::string(line.substr(0, space)), std::string(line.substr(space + 1)), number});
  }
  return rules;
}

// tokenizer.json writes a rule as "left right" or as ["left", "right"]. `where` ends in "merges ".
Result<std::vector<MergeText>> ParseMergeList(const Json& list, const std::string& where) {
  if (!list.is_array()) return InvalidArgument(where, "is wrong, got ", Quoted(list), ", want a list");
  std::vector<MergeText> rules;
  for (const Json& item : list) {
    if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      rules.push_back({item[0].get<std::string>(), item[1].get<std::string>(), rules.size()});
      continue;
    }
    const std::string text = item.is_string() ? item.get<std::string>() : "";
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos)
      return InvalidArgument(where, rules.size(), ": got ", Quoted(item), ", want two tokens");
    rules.push_back({text.substr(0, space), text.substr(space + 1), rules.size()});
  }
  return rules;
}

Result<std::vector<BpeMerge>> ResolveMerges(const std::vector<MergeText>& rules, const TokenIds& ids,
                                            const std::string& where) {
  std::vector<BpeMerge> merges;
  merges.reserve(rules.size());
  for (const MergeText& rule : rules) {
    const std::string joined = rule.left + rule.right;
    const auto left = ids.find(rule.left), right = ids.find(rule.right), merged = ids.find(joined);
    if (left == ids.end() || right == ids.end() || merged == ids.end())
      return InvalidArgument(where, rule.place, ": got ", Quoted(rule.left + " " + rule.right),
                             ", want tokens of the vocabulary, which has no ",
                             Quoted(left == ids.end()    ? rule.left
                                    : right == ids.end() ? rule.right
                                                         : joined));
    merges.push_back({left->second, right->second, merged->second});
  }
  return merges;
}

// Reads the files one after another into one ClipTables.
class ClipReader {
 public:
  ClipReader(const ClipFiles& files, const std::string& label) : files_(files), label_(label) {}

  Result<ClipTables> Read() {
    TEMPERA_TRY(ReadConfig());
    if (!decoder_in_config_) TEMPERA_TRY(ReadSpecialTokensMap());
    if (files_.contains(kTokenizer)) {
      TEMPERA_TRY(ReadTokenizerJson());
    } else {
      TEMPERA_TRY(ReadVocabularyAndMerges());
    }
    if (!decoder_in_config_) TEMPERA_TRY(ReadAddedTokens());
    TEMPERA_TRY(CollectAdded());
    return std::move(tables_);
  }

 private:
  std::string Where(const char* file) const { return Cat(label_, "/", file); }

  // The names under which transformers knows special tokens, in its order; the first three and pad have
  // defaults.
  static constexpr const char* kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                           "pad_token", "cls_token", "mask_token"};

  Result<Json> Parse(const char* file) const {
    const auto it = files_.find(file);
    return ParseJson(it->second, Where(file));
  }

  // Roles and lists of further special tokens, as they stand in the config and in the map.
  Status ReadRoles(Fields& fields, const char* file, bool special) {
    for (const char* role : kRoles)
      if (const Json* value = fields.Raw(role)) {
        TEMPERA_ASSIGN(roles_[role], ParseToken(*value, special, Cat(Where(file), ": ", role)));
      }
    // Two names for one list; the newer one counts where both are there.
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      const Json* list = fields.Raw(key);
      if (list == nullptr || list->empty() || !extra_.empty()) continue;
      if (!list->is_array()) {
        fields.Fail(key, Cat("is wrong, got ", Quoted(*list), ", want a list"));
        break;
      }
      for (const Json& item : *list) {
        TEMPERA_ASSIGN(extra_.emplace_back(), ParseToken(item, special, Cat(Where(file), ": ", key)));
      }
    }
    return fields.status();
  }

  Status ReadConfig() {
    for (const char* role : {"eos_token", "unk_token", "pad_token"}) roles_[role].content = "<|endoftext|>";
    roles_["bos_token"].content = "<|startoftext|>";
    if (!files_.contains(kConfig)) return OkStatus();
    const std::string where = Where(kConfig);
    TEMPERA_ASSIGN(const Json config, Parse(kConfig));
    Fields fields(config, where);
    TEMPERA_TRY(ReadRoles(fields, kConfig, /*special=*/false));
    std::string tokenizer_class = "CLIPTokenizer";
    fields.Get("tokenizer_class", tokenizer_class);
    if (tokenizer_class != "CLIPTokenizer" && tokenizer_class != "CLIPTokenizerFast")
      return InvalidArgument(where, ": tokenizer_class is not supported, got ", Quoted(tokenizer_class),
                             ", want CLIPTokenizer");
    Expect(fields, "do_lower_case", true);
    Expect(fields, "add_prefix_space", false);
    Expect(fields, "split_special_tokens", false);
    Expect(fields, "padding_side", "right");
    Expect(fields, "truncation_side", "right");
    if (const Json* length = fields.Raw("model_max_length")) {
      const bool unset = length->is_number() && length->get<double>() >= kNoLength;
      if (!unset) {
        fields.Get("model_max_length", tables_.max_length);
        if (tables_.max_length < kMinLength || tables_.max_length > kMaxLength)
          fields.Fail("model_max_length", Cat("is out of range, got ", tables_.max_length, ", want ",
                                              kMinLength, " to ", kMaxLength));
      }
    }
    if (const Json* decoder = fields.Raw("added_tokens_decoder")) {
      decoder_in_config_ = true;
      if (!decoder->is_object())
        fields.Fail("added_tokens_decoder", Cat("is wrong, got ", Quoted(*decoder), ", want an object"));
      else
        TEMPERA_TRY(ReadDecoder(*decoder, where + ": added_tokens_decoder"));
    }
    // Of no meaning for ids of one prompt.
    fields.Ignore({"auto_map",
                   "backend",
                   "chat_template",
                   "clean_up_tokenization_spaces",
                   "errors",
                   "from_slow",
                   "init_inputs",
                   "is_local",
                   "local_files_only",
                   "max_length",
                   "model_input_names",
                   "name_or_path",
                   "pad_to_multiple_of",
                   "pad_token_type_id",
                   "processor_class",
                   "return_attention_mask",
                   "special_tokens_map_file",
                   "stride",
                   "tokenizer_file",
                   "truncation_strategy",
                   "trust_remote_code",
                   "use_fast",
                   "verbose"});
    return fields.Finish();
  }

  // The key must be missing, null or `want`.
  static void Expect(Fields& fields, const char* key, const Json& want) {
    const Json* value = fields.Raw(key);
    if (value != nullptr && *value != want)
      fields.Fail(key, Cat("is not supported, got ", Quoted(*value), ", want ", Quoted(want)));
  }

  Status ReadDecoder(const Json& decoder, const std::string& where) {
    for (const auto& [key, value] : decoder.items()) {
      TEMPERA_ASSIGN(Token token, ParseToken(value, /*special=*/false, Cat(where, ": ", Quoted(key))));
      const bool digits = !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == key.npos;
      if (!digits) return InvalidArgument(where, ": got ", Quoted(key), ", want an id");
      token.id = std::stoll(key);
      decoder_[*token.id] = std::move(token);
    }
    return OkStatus();
  }

  Status TakeVocabulary(const Json& object, const std::string& where) {
    TEMPERA_ASSIGN(tables_.tokens, ParseVocabulary(object, where));
    tables_.ids.reserve(tables_.tokens.size());
    for (size_t id = 0; id < tables_.tokens.size(); ++id)
      tables_.ids.emplace(tables_.tokens[id], static_cast<int64_t>(id));
    return OkStatus();
  }

  Status ReadVocabularyAndMerges() {
    vocabulary_ = Where(kVocabulary);
    if (!files_.contains(kVocabulary))
      return NotFound(vocabulary_, ": does not exist, nor does ", kTokenizer);
    if (!files_.contains(kMerges)) return NotFound(Where(kMerges), ": does not exist");
    TEMPERA_ASSIGN(const Json vocabulary, Parse(kVocabulary));
    TEMPERA_TRY(TakeVocabulary(vocabulary, vocabulary_));
    const std::string line = Where(kMerges) + ": line ";
    TEMPERA_ASSIGN(const auto rules, ParseMergeLines(files_.find(kMerges)->second, line));
    TEMPERA_ASSIGN(tables_.merges, ResolveMerges(rules, tables_.ids, line));
    return OkStatus();
  }

  Status ReadTokenizerJson() {
    vocabulary_ = Where(kTokenizer);
    TEMPERA_ASSIGN(const Json root, Parse(kTokenizer));
    TEMPERA_TRY(CheckTokenizerJson(root, vocabulary_,
                                   {.bos = roles_["bos_token"].content,
                                    .eos = roles_["eos_token"].content,
                                    .unknown = roles_["unk_token"].content}));
    const Json& model = root["model"];
    TEMPERA_TRY(TakeVocabulary(model["vocab"], vocabulary_ + ": model.vocab"));
    const std::string merges = vocabulary_ + ": model.merges ";
    TEMPERA_ASSIGN(const auto rules, ParseMergeList(model["merges"], merges));
    TEMPERA_ASSIGN(tables_.merges, ResolveMerges(rules, tables_.ids, merges));
    if (decoder_in_config_ || !root.contains("added_tokens")) return OkStatus();
    const std::string where = vocabulary_ + ": added_tokens";
    if (!root["added_tokens"].is_array())
      return InvalidArgument(where, ": got ", Quoted(root["added_tokens"]), ", want a list");
    for (const Json& item : root["added_tokens"]) {
      TEMPERA_ASSIGN(Token token, ParseToken(item, /*special=*/false, where));
      if (!token.id) return InvalidArgument(where, ": token ", Quoted(token.content), " has no id");
      listed_.push_back(std::move(token));
    }
    return OkStatus();
  }

  Status ReadSpecialTokensMap() {
    if (!files_.contains(kSpecialTokens)) return OkStatus();
    TEMPERA_ASSIGN(const Json map, Parse(kSpecialTokens));
    Fields fields(map, Where(kSpecialTokens));
    TEMPERA_TRY(ReadRoles(fields, kSpecialTokens, /*special=*/true));
    return fields.Finish();
  }

  Status ReadAddedTokens() {
    if (files_.contains(kAddedTokens)) {
      const std::string where = Where(kAddedTokens);
      TEMPERA_ASSIGN(const Json map, Parse(kAddedTokens));
      if (!map.is_object()) return InvalidArgument(where, ": got ", Quoted(map), ", want a JSON object");
      for (const auto& [content, id] : map.items()) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
          return InvalidArgument(where, ": token ", Quoted(content), ": got id ", Quoted(id), ", want an id");
        TEMPERA_ASSIGN(Token token, ParseToken(content, /*special=*/true, where));
        token.id = id.get<int64_t>();
        token.normalized = !IsSpecial(content);
        decoder_[*token.id] = std::move(token);
      }
    }
    for (Token& token : listed_) decoder_[*token.id] = std::move(token);
    return OkStatus();
  }

  bool IsSpecial(const std::string& content) const {
    const auto same = [&](const Token& token) { return token.content == content; };
    return std::any_of(extra_.begin(), extra_.end(), same) ||
           std::any_of(roles_.begin(), roles_.end(), [&](const auto& role) { return same(role.second); });
  }

  // Gives every added token its id. Of tokens with one content, one with a given id counts; else the last.
  Status CollectAdded() {
    std::map<std::string, bool> normalized;
    std::map<std::string, int64_t> behind;  // ids of tokens behind the vocabulary
    const auto id_of = [&](const std::string& content) -> std::optional<int64_t> {
      if (const auto it = tables_.ids.find(content); it != tables_.ids.end()) return it->second;
      if (const auto it = behind.find(content); it != behind.end()) return it->second;
      return std::nullopt;
    };
    const auto add = [&](const Token& token) -> Status {
      const auto next = static_cast<int64_t>(tables_.tokens.size());
      const int64_t id = id_of(token.content).value_or(next);
      if (token.id.value_or(id) != id)
        return InvalidArgument(label_, ": added token ", Quoted(token.content), ": got id ", *token.id,
                               ", want ", id, id == next ? ", the next free one" : ", which it has already");
      normalized[token.content] = token.normalized;
      if (id == next) {
        behind.emplace(token.content, id);
        tables_.tokens.push_back(token.content);
      }
      return OkStatus();
    };
    std::set<std::string> fixed;
    for (const auto& [id, token] : decoder_) {
      TEMPERA_TRY(add(token));
      fixed.insert(token.content);
    }
    for (const char* role : kRoles) {
      const auto it = roles_.find(role);
      if (it == roles_.end() || fixed.contains(it->second.content)) continue;
      if (!tables_.ids.contains(it->second.content))
        return InvalidArgument(vocabulary_, ": the ", role, " ", Quoted(it->second.content), " is missing");
      TEMPERA_TRY(add(it->second));
    }
    for (const Token& token : extra_)
      if (!fixed.contains(token.content)) TEMPERA_TRY(add(token));
    if (normalized.size() > kMaxAddedTokens)
      return InvalidArgument(label_, ": got ", normalized.size(), " added tokens, want at most ",
                             kMaxAddedTokens);

    std::map<std::string, std::string> seen;
    for (const auto& [content, is_normalized] : normalized) {
      AddedToken& token = tables_.added.emplace_back(AddedToken{content, *id_of(content), is_normalized});
      if (!is_normalized) continue;
      token.content = NormalizeForClip(content);
      tables_.tokens[static_cast<size_t>(token.id)] = token.content;
      const auto [it, is_new] = seen.emplace(token.content, content);
      if (!is_new)
        return InvalidArgument(label_, ": added tokens ", Quoted(it->second), " and ", Quoted(content),
                               " are the same when normalized");
    }
    const auto role = [&](const char* name) { return *id_of(roles_[name].content); };
    tables_.bos = role("bos_token");
    tables_.eos = role("eos_token");
    tables_.pad = role("pad_token");
    tables_.unknown = role("unk_token");
    // Merging knows only the vocabulary.
    if (!tables_.ids.contains(roles_["unk_token"].content))
      return InvalidArgument(vocabulary_, ": the unk_token ", Quoted(roles_["unk_token"].content),
                             " is missing");
    return OkStatus();
  }

  const ClipFiles& files_;
  const std::string& label_;
  ClipTables tables_;
  std::string vocabulary_;  // where the vocabulary stands
  std::map<std::string, Token> roles_;
  std::vector<Token> extra_;
  std::vector<Token> listed_;         // tokenizer.json's added tokens
  std::map<int64_t, Token> decoder_;  // tokens with a given id
  bool decoder_in_config_ = false;
};

}  // namespace

Result<ClipFiles> ReadClipFiles(const fs::path& folder, const std::string& label) {
  ClipFiles files;
  for (const FileRow& row : kFiles) {
    std::error_code error;
    if (!fs::exists(fs::symlink_status(folder / row.name, error))) continue;
    const std::string where = Cat(label, "/", row.name);
    TEMPERA_ASSIGN(const fs::path path, RealPathInside(folder, row.name, where));
    TEMPERA_ASSIGN(files[row.name], ReadFile(path, where, row.limit));
  }
  return files;
}

Result<ClipTables> ParseClipFiles(const ClipFiles& files, const std::string& label) {
  return ClipReader(files, label).Read();
}

}  // namespace tempera
