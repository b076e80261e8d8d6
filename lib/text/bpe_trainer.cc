#include "text/bpe_trainer.h"

#include <algorithm>
#include <map>
#include <queue>
#include <tuple>
#include <unordered_map>

#include "base/files.h"
#include "base/json.h"
#include "text/bpe.h"
#include "text/unicode.h"
#include "text/words.h"

namespace tempera {
namespace {

constexpr char kBos[] = "<|startoftext|>";
constexpr char kEos[] = "<|endoftext|>";

using Pair = std::pair<int64_t, int64_t>;

struct PairHash {
  size_t operator()(const Pair& pair) const {
    return std::hash<uint64_t>()(static_cast<uint64_t>(pair.first) << 32 |
                                 static_cast<uint64_t>(pair.second));
  }
};

struct Word {
  std::vector<int64_t> tokens;
  int64_t count = 0;  // in all captions
};

// How often a pair was seen when it was put in the queue. The greatest is the most frequent, then the lowest
// ids.
struct Frequent {
  int64_t count;
  Pair pair;
  bool operator<(const Frequent& other) const {
    return std::tie(count, other.pair) < std::tie(other.count, pair);
  }
};

class Trainer {
 public:
  Trainer() {
    for (const std::string_view suffix : {std::string_view(), kEndOfWord})
      for (const uint8_t byte : ByteOrder()) Token(ByteAlphabet()[byte] + std::string(suffix));
  }

  void AddWord(std::string_view bytes, int64_t count) {
    Word word{.tokens = {}, .count = count};
    for (size_t i = 0; i < bytes.size(); ++i) {
      const std::string& symbol = ByteAlphabet()[static_cast<uint8_t>(bytes[i])];
      word.tokens.push_back(Token(i + 1 < bytes.size() ? symbol : symbol + std::string(kEndOfWord)));
    }
    words_.push_back(std::move(word));
    Count(words_.size() - 1, +1);
  }

  BpeVocabulary Train(int64_t size) {
    QueueChanged();
    while (static_cast<int64_t>(vocabulary_.tokens.size()) + 2 < size && !queue_.empty()) {
      const Frequent best = queue_.top();
      queue_.pop();
      const int64_t count = counts_[best.pair];
      if (count < 2) continue;
      // Counts have fallen since: it waits for its turn. Where they have risen, a newer entry stands before
      // this one.
      if (count < best.count) queue_.push({count, best.pair});
      if (count != best.count) continue;
      Merge(best.pair);
    }
    vocabulary_.tokens.insert(vocabulary_.tokens.end(), {kBos, kEos});
    return std::move(vocabulary_);
  }

 private:
  int64_t Token(const std::string& text) {
    const auto [it, is_new] = ids_.emplace(text, static_cast<int64_t>(vocabulary_.tokens.size()));
    if (is_new) vocabulary_.tokens.push_back(text);
    return it->second;
  }

  // Adds a word's pairs to the counts, or takes them away.
  void Count(size_t index, int64_t sign) {
    const Word& word = words_[index];
    for (size_t i = 0; i + 1 < word.tokens.size(); ++i) {
      const Pair pair{word.tokens[i], word.tokens[i + 1]};
      counts_[pair] += sign * word.count;
      if (sign > 0) changed_.push_back(pair);
      if (sign > 0 && (words_of_[pair].empty() || words_of_[pair].back() != index))
        words_of_[pair].push_back(index);
    }
  }

  void Merge(const Pair& pair) {
    const std::string left = vocabulary_.tokens[static_cast<size_t>(pair.first)];
    const std::string right = vocabulary_.tokens[static_cast<size_t>(pair.second)];
    vocabulary_.merges.emplace_back(left, right);
    const int64_t merged = Token(left + right);
    const std::vector<size_t> holders = std::move(words_of_[pair]);
    words_of_.erase(pair);
    for (const size_t index : holders) {
      std::vector<int64_t> joined;
      const std::vector<int64_t>& tokens = words_[index].tokens;
      for (size_t i = 0; i < tokens.size(); ++i) {
        const bool here = i + 1 < tokens.size() && Pair{tokens[i], tokens[i + 1]} == pair;
        joined.push_back(here ? merged : tokens[i]);
        i += here ? 1 : 0;
      }
      if (joined.size() == tokens.size()) continue;  // an earlier merge took it
      Count(index, -1);
      words_[index].tokens = std::move(joined);
      Count(index, +1);
    }
    QueueChanged();
  }

  void QueueChanged() {
    std::sort(changed_.begin(), changed_.end());
    changed_.erase(std::unique(changed_.begin(), changed_.end()), changed_.end());
    for (const Pair& pair : changed_) queue_.push({counts_[pair], pair});
    changed_.clear();
  }

  BpeVocabulary vocabulary_;
  TokenIds ids_;
  std::vector<Word> words_;
  std::unordered_map<Pair, int64_t, PairHash> counts_;
  // Every word that holds a pair, and some that held it once.
  std::unordered_map<Pair, std::vector<size_t>, PairHash> words_of_;
  std::vector<Pair> changed_;  // pairs whose count may have risen since they were queued
  // Holds an entry at least as great as each pair's count.
  std::priority_queue<Frequent> queue_;
};

}  // namespace

Result<BpeVocabulary> TrainClipBpe(std::span<const std::string> captions, int64_t size) {
  if (size < kMinBpeVocabulary)
    return InvalidArgument("vocabulary: too small, got ", size, " tokens, want at least ", kMinBpeVocabulary);
  std::map<std::string, int64_t> words;
  for (size_t i = 0; i < captions.size(); ++i) {
    if (const auto at = FindInvalidUtf8(captions[i]))
      return InvalidArgument("caption ", i, ": not valid UTF-8 at byte ", *at);
    const std::string text = NormalizeForClip(captions[i]);
    for (const std::string_view word : SplitWords(text)) ++words[std::string(word)];
  }
  Trainer trainer;
  for (const auto& [word, count] : words) trainer.AddWord(word, count);
  return trainer.Train(size);
}

Status WriteClipVocabulary(const BpeVocabulary& vocabulary, int64_t max_length,
                           const std::filesystem::path& folder, const std::string& label) {
  std::string ids = "{";  // in the order of ids, which nlohmann's objects do not keep
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    ids += Cat(id == 0 ? "" : ", ", Json(vocabulary.tokens[id]), ": ", id);
  ids += "}\n";
  std::string merges = "#version: 0.2\n";
  for (const auto& [left, right] : vocabulary.merges) merges += Cat(left, " ", right, "\n");
  const Json config = {{"tokenizer_class", "CLIPTokenizer"},
                       {"model_max_length", max_length},
                       {"bos_token", kBos},
                       {"eos_token", kEos},
                       {"unk_token", kEos},
                       {"pad_token", kEos},
                       {"do_lower_case", true},
                       {"add_prefix_space", false},
                       {"errors", "replace"}};
  const std::pair<const char*, std::string> files[] = {{"vocab.json", std::move(ids)},
                                                       {"merges.txt", std::move(merges)},
                                                       {"tokenizer_config.json", config.dump(2) + "\n"}};
  for (const auto& [name, bytes] : files)
    TEMPERA_TRY(WriteFileAtomic(folder / name, bytes, Cat(label, "/", name)));
  return OkStatus();
}

}  // namespace tempera
