// What the files of a CLIP tokenizer say, checked and in one form. Used by ClipTokenizer and its tests.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/bpe.h"

namespace tempera {

// A token that is found in the text before words are made.
struct AddedToken {
  std::string content;
  int64_t id = 0;
  bool normalized = false;  // found in the normalized text, and itself normalized; else in the text as it is
};

struct ClipTables {
  TokenIds ids;                     // the vocabulary without tokens that were added behind it
  std::vector<std::string> tokens;  // by id, with them: what an id is decoded to
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added;
  int64_t bos = 0, eos = 0, unknown = 0, pad = 0;
  int64_t max_length = 77;
};

// File name -> bytes, of those files of a tokenizer that there are.
using ClipFiles = std::map<std::string, std::string, std::less<>>;

// Reads vocab.json, merges.txt, tokenizer.json, tokenizer_config.json, special_tokens_map.json and
// added_tokens.json. No file may exceed its limit (16 MiB the tables, 1 MiB the others), and no symbolic link
// may leave the folder.
Result<ClipFiles> ReadClipFiles(const std::filesystem::path& folder, const std::string& label);

// The same rules as transformers 5 where files say different things: tokenizer.json before vocab.json and
// merges.txt; `added_tokens_decoder` of tokenizer_config.json before special_tokens_map.json,
// added_tokens.json and tokenizer.json's own list. Stricter: ids are 0 to n - 1 once each, every special
// token is there, a tokenizer.json works as CLIP's, and a setting that would change ids is an error that
// names it. Errors are InvalidArgument or NotFound and begin with the file, `label` before it.
Result<ClipTables> ParseClipFiles(const ClipFiles& files, const std::string& label);

}  // namespace tempera
