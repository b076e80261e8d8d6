#include "text/bpe.h"

#include <queue>
#include <tuple>

#include "text/words.h"

namespace tempera {
namespace {

uint64_t Key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

constexpr size_t kNone = SIZE_MAX;

struct Symbol {
  int64_t id;
  size_t previous;
  size_t next;
  bool gone = false;  // merged into the one before it
};

struct Candidate {
  size_t rank;
  size_t at;  // the left symbol
  int64_t merged;
  bool operator>(const Candidate& other) const { return std::tie(rank, at) > std::tie(other.rank, other.at); }
};

}  // namespace

ByteBpe::ByteBpe(const TokenIds& ids, std::span<const BpeMerge> merges, int64_t unknown) {
  const auto id_of = [&](const std::string& symbol) {
    const auto it = ids.find(symbol);
    return it == ids.end() ? unknown : it->second;
  };
  for (size_t byte = 0; byte < 256; ++byte) {
    inner_[byte] = id_of(ByteAlphabet()[byte]);
    last_[byte] = id_of(ByteAlphabet()[byte] + std::string(kEndOfWord));
  }
  rules_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank)
    rules_[Key(merges[rank].left, merges[rank].right)] = {rank, merges[rank].merged};
}

const ByteBpe::Rule* ByteBpe::Find(int64_t left, int64_t right) const {
  const auto it = rules_.find(Key(left, right));
  return it == rules_.end() ? nullptr : &it->second;
}

void ByteBpe::Encode(std::string_view word, std::vector<int64_t>& out) const {
  std::vector<Symbol> symbols(word.size());
  for (size_t i = 0; i < word.size(); ++i) {
    const bool last = i + 1 == word.size();
    symbols[i] = {(last ? last_ : inner_)[static_cast<uint8_t>(word[i])], i == 0 ? kNone : i - 1,
                  last ? kNone : i + 1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](size_t left) {
    if (left == kNone || symbols[left].next == kNone) return;
    const Rule* rule = Find(symbols[left].id, symbols[symbols[left].next].id);
    if (rule != nullptr) queue.push({rule->rank, left, rule->merged});
  };
  for (size_t i = 0; i < symbols.size(); ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.at];
    if (left.gone || left.next == kNone) continue;
    Symbol& right = symbols[left.next];
    // An entry is stale if its pair has changed since, unless the pair there now becomes the same token.
    const Rule* rule = Find(left.id, right.id);
    if (rule == nullptr || rule->merged != best.merged) continue;
    left.id = best.merged;
    left.next = right.next;
    right.gone = true;
    if (left.next != kNone) symbols[left.next].previous = best.at;
    consider(left.previous);
    consider(best.at);
  }
  for (size_t i = 0; i != kNone && i < symbols.size(); i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace tempera
