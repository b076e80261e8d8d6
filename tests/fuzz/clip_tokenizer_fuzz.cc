// Any bytes as one of a tokenizer's files, and as a prompt.
#include <cstdlib>

#include "text/bpe_trainer.h"
#include "text/clip_tables.h"
#include "text/clip_tokenizer.h"
#include "text/unicode.h"

namespace {

using namespace tempera;

void Check(bool held) {
  if (!held) std::abort();
}

ClipFiles GoodFiles() {
  const std::vector<std::string> captions = {"red apple, twemoji", "green apple, fluent3d",
                                             "it's a cat's face"};
  std::string folder = "/tmp/tempera-fuzz-XXXXXX";
  Check(mkdtemp(folder.data()) != nullptr);
  Check(WriteClipVocabulary(TrainClipBpe(captions, 560).value(), 16, folder, "fuzz").ok());
  ClipFiles files = ReadClipFiles(folder, "fuzz").value();
  std::filesystem::remove_all(folder);
  return files;
}

// What is accepted encodes to ids of its vocabulary, the same with and without a limit, and decodes to UTF-8.
void CheckEncodes(const ClipTokenizer& tokenizer, std::string_view prompt) {
  const Result<TokenizedPrompt> got = tokenizer.Encode(prompt);
  const auto chunks = tokenizer.EncodeLong(prompt);
  Check(got.ok() == chunks.ok());
  Check(got.ok() == (!FindInvalidUtf8(prompt) && prompt.size() <= kMaxPromptBytes));
  if (!got.ok()) return;
  Check(chunks->front() == got->ids && got->ids.size() == static_cast<size_t>(tokenizer.max_length()));
  Check(!FindInvalidUtf8(got->dropped));
  for (const auto& chunk : *chunks) {
    for (const int64_t id : chunk) Check(id >= 0 && id < tokenizer.vocabulary());
    Check(!FindInvalidUtf8(tokenizer.Decode(chunk)));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ClipFiles good = GoodFiles();
  static const ClipTokenizer tokenizer(ParseClipFiles(good, "fuzz").value());
  static constexpr const char* kNames[] = {
      "vocab.json",     "merges.txt",       "tokenizer_config.json", "special_tokens_map.json",
      "tokenizer.json", "added_tokens.json"};
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] >= std::size(kNames)) {
    CheckEncodes(tokenizer, text);
    return 0;
  }
  ClipFiles files = good;
  files[kNames[data[0]]] = text;
  Result<ClipTables> tables = ParseClipFiles(files, "fuzz");
  if (tables.ok())
    CheckEncodes(ClipTokenizer(*std::move(tables)), "a Red apple, it's 12 \u732b<|endoftext|>");
  return 0;
}
