// CLIP's tokenizer: prompts to token ids and back.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/bpe.h"

namespace tempera {

struct ClipTables;

// A longer prompt is InvalidArgument. 16 KiB of English are some forty times what CLIP sees.
inline constexpr size_t kMaxPromptBytes = 16384;

struct TokenizedPrompt {
  std::vector<int64_t> ids;   // [max_length]: bos, the text, eos, padding
  std::vector<int64_t> mask;  // [max_length]: 1 up to and with eos, 0 at padding
  int64_t dropped_tokens = 0;
  std::string dropped;  // what did not fit, as text of the normalized prompt; valid UTF-8
};

// Gives the ids that transformers' CLIPTokenizer (the fast one) gives for the same folder: no HTML entity is
// undone, and a special token written in the text is that token. Characters are those of Unicode 15.0.
// Immutable, thread-safe. Time and memory are O(n log n) in the bytes of a prompt.
class ClipTokenizer {
 public:
  // Reads `folder`: tokenizer.json, or vocab.json and merges.txt, and what lies beside them
  // (text/clip_tables.h has the rules). Errors begin with `label`/file and name the line or the field.
  static Result<std::shared_ptr<const ClipTokenizer>> Open(const std::filesystem::path& folder,
                                                           const std::string& label);
  explicit ClipTokenizer(ClipTables tables);
  ~ClipTokenizer();

  // Cut after max_length - 2 tokens. InvalidArgument: not UTF-8 (names the byte), or longer than
  // kMaxPromptBytes.
  Result<TokenizedPrompt> Encode(std::string_view prompt) const;

  // Nothing is cut: chunks of max_length - 2 tokens of text, each with bos, eos and padding as if it were a
  // prompt of its own, [max_length] each; one chunk for an empty prompt. Words may be parted. Errors as
  // Encode.
  Result<std::vector<std::vector<int64_t>>> EncodeLong(std::string_view prompt) const;

  // The text of `ids`, special tokens included; a part of a character becomes U+FFFD. REQUIRES: ids of the
  // vocabulary.
  std::string Decode(std::span<const int64_t> ids) const;

  int64_t vocabulary() const;  // number of ids, added tokens included
  int64_t max_length() const;
  int64_t bos() const;
  int64_t eos() const;
  int64_t pad() const;

 private:
  struct Piece;
  class Matcher;

  Result<std::vector<int64_t>> TextIds(std::string_view prompt) const;
  std::vector<int64_t> Wrapped(std::span<const int64_t> text_ids) const;

  std::unique_ptr<const ClipTables> tables_;
  std::unique_ptr<const Matcher> raw_;         // added tokens found in the text as it is
  std::unique_ptr<const Matcher> normalized_;  // those found in the normalized text
  ByteBpe bpe_;
};

}  // namespace tempera
