#include "text/clip_tokenizer.h"

#include <algorithm>
#include <utility>

#include "text/clip_tables.h"
#include "text/unicode.h"
#include "text/words.h"

namespace tempera {
namespace {

constexpr int64_t kText = -1;

// The bytes that a token stands for; a token with a character outside of the alphabet stands for itself.
std::string TokenBytes(const std::string& token) {
  static const auto byte_of = [] {
    std::array<int16_t, 0x144> table;
    table.fill(-1);
    for (int byte = 0; byte < 256; ++byte) {
      size_t at = 0;
      table[static_cast<size_t>(NextCodePoint(ByteAlphabet()[static_cast<size_t>(byte)], at))] =
          static_cast<int16_t>(byte);
    }
    return table;
  }();
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const auto c = static_cast<size_t>(NextCodePoint(token, at));
    if (c >= byte_of.size() || byte_of[c] < 0) return token;
    bytes += static_cast<char>(byte_of[c]);
  }
  return bytes;
}

std::string_view StripSpace(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (ClassOf(NextCodePoint(text, at)) == CharClass::kSpace) continue;
    begin = std::min(begin, start);
    end = at;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

}  // namespace

// A part of a text: an added token, or what stands between two.
struct ClipTokenizer::Piece {
  std::string_view text;
  int64_t id = kText;
};

// Finds added tokens: the leftmost, of those the longest.
class ClipTokenizer::Matcher {
 public:
  void Add(std::string content, int64_t id) {
    auto& row = by_first_byte_[static_cast<uint8_t>(content[0])];
    const auto shorter = [&](const auto& token) { return token.first.size() < content.size(); };
    row.insert(std::find_if(row.begin(), row.end(), shorter), {content, id});
  }

  std::vector<Piece> Split(std::string_view text) const {
    std::vector<Piece> pieces;
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      const auto& row = by_first_byte_[static_cast<uint8_t>(text[at])];
      const auto found = std::find_if(row.begin(), row.end(), [&](const auto& token) {
        return text.substr(at).starts_with(token.first);
      });
      if (found == row.end()) {
        ++at;
        continue;
      }
      if (begin < at) pieces.push_back({text.substr(begin, at - begin)});
      pieces.push_back({text.substr(at, found->first.size()), found->second});
      begin = at += found->first.size();
    }
    if (begin < text.size()) pieces.push_back({text.substr(begin)});
    return pieces;
  }

 private:
  std::array<std::vector<std::pair<std::string, int64_t>>, 256> by_first_byte_;  // longest first
};

Result<std::shared_ptr<const ClipTokenizer>> ClipTokenizer::Open(const std::filesystem::path& folder,
                                                                 const std::string& label) {
  TEMPERA_ASSIGN(const ClipFiles files, ReadClipFiles(folder, label));
  TEMPERA_ASSIGN(ClipTables tables, ParseClipFiles(files, label));
  return std::make_shared<const ClipTokenizer>(std::move(tables));
}

ClipTokenizer::ClipTokenizer(ClipTables tables)
    : tables_(std::make_unique<ClipTables>(std::move(tables))),
      bpe_(tables_->ids, tables_->merges, tables_->unknown) {
  auto raw = std::make_unique<Matcher>(), normalized = std::make_unique<Matcher>();
  for (const AddedToken& token : tables_->added)
    (token.normalized ? normalized : raw)->Add(token.content, token.id);
  raw_ = std::move(raw);
  normalized_ = std::move(normalized);
}

ClipTokenizer::~ClipTokenizer() = default;

int64_t ClipTokenizer::vocabulary() const { return static_cast<int64_t>(tables_->tokens.size()); }
int64_t ClipTokenizer::max_length() const { return tables_->max_length; }
int64_t ClipTokenizer::bos() const { return tables_->bos; }
int64_t ClipTokenizer::eos() const { return tables_->eos; }
int64_t ClipTokenizer::pad() const { return tables_->pad; }

Result<std::vector<int64_t>> ClipTokenizer::TextIds(std::string_view prompt) const {
  if (prompt.size() > kMaxPromptBytes)
    return InvalidArgument("prompt: too long, got ", prompt.size(), " bytes, want at most ", kMaxPromptBytes);
  if (const auto at = FindInvalidUtf8(prompt))
    return InvalidArgument("prompt: not valid UTF-8 at byte ", *at, ", got 0x", std::hex,
                           int{static_cast<uint8_t>(prompt[*at])});
  std::vector<int64_t> ids;
  for (const Piece& piece : raw_->Split(prompt)) {
    if (piece.id != kText) {
      ids.push_back(piece.id);
      continue;
    }
    const std::string text = NormalizeForClip(piece.text);
    for (const Piece& part : normalized_->Split(text)) {
      if (part.id != kText) {
        ids.push_back(part.id);
        continue;
      }
      for (const std::string_view word : SplitWords(part.text)) bpe_.Encode(word, ids);
    }
  }
  return ids;
}

std::vector<int64_t> ClipTokenizer::Wrapped(std::span<const int64_t> text_ids) const {
  std::vector<int64_t> ids{tables_->bos};
  ids.reserve(static_cast<size_t>(tables_->max_length));
  ids.insert(ids.end(), text_ids.begin(), text_ids.end());
  ids.push_back(tables_->eos);
  ids.resize(static_cast<size_t>(tables_->max_length), tables_->pad);
  return ids;
}

Result<TokenizedPrompt> ClipTokenizer::Encode(std::string_view prompt) const {
  TEMPERA_ASSIGN(const std::vector<int64_t> text_ids, TextIds(prompt));
  const auto room = static_cast<size_t>(tables_->max_length - 2);
  const size_t kept = std::min(text_ids.size(), room);
  const std::span<const int64_t> all(text_ids);
  TokenizedPrompt result;
  result.ids = Wrapped(all.first(kept));
  result.mask.assign(kept + 2, 1);
  result.mask.resize(result.ids.size(), 0);
  result.dropped_tokens = static_cast<int64_t>(text_ids.size() - kept);
  result.dropped = Decode(all.subspan(kept));
  return result;
}

Result<std::vector<std::vector<int64_t>>> ClipTokenizer::EncodeLong(std::string_view prompt) const {
  TEMPERA_ASSIGN(const std::vector<int64_t> text_ids, TextIds(prompt));
  const auto room = static_cast<size_t>(tables_->max_length - 2);
  std::vector<std::vector<int64_t>> chunks;
  std::span<const int64_t> rest(text_ids);
  do {
    const size_t kept = std::min(rest.size(), room);
    chunks.push_back(Wrapped(rest.first(kept)));
    rest = rest.subspan(kept);
  } while (!rest.empty());
  return chunks;
}

std::string ClipTokenizer::Decode(std::span<const int64_t> ids) const {
  std::string bytes;
  for (const int64_t id : ids) {
    TEMPERA_CHECK(id >= 0 && id < vocabulary(), Cat("token ", id));
    bytes += TokenBytes(tables_->tokens[static_cast<size_t>(id)]);
  }
  const std::string marked = ReplaceInvalidUtf8(bytes);
  std::string text;
  for (size_t at = 0; at < marked.size();) {
    const size_t end = std::min(marked.find(kEndOfWord, at), marked.size());
    text.append(marked, at, end - at);
    if (end < marked.size()) text += ' ';
    at = end + kEndOfWord.size();
  }
  return std::string(StripSpace(text));
}

}  // namespace tempera
