// Byte-level byte pair encoding of one word.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tempera {

using TokenIds = std::unordered_map<std::string, int64_t>;

// Two neighbouring tokens, and the token that they become.
struct BpeMerge {
  int64_t left = 0;
  int64_t right = 0;
  int64_t merged = 0;
};

// Immutable, thread-safe.
class ByteBpe {
 public:
  // `merges`: the sooner, the stronger; of a pair that stands there twice the last one counts. A byte whose
  // symbol is not in `ids` becomes `unknown`. REQUIRES: ids in [0, 2^32).
  ByteBpe(const TokenIds& ids, std::span<const BpeMerge> merges, int64_t unknown);

  // Appends the tokens of a word given as bytes. O(n log n).
  void Encode(std::string_view word, std::vector<int64_t>& out) const;

 private:
  struct Rule {
    size_t rank;
    int64_t merged;
  };
  const Rule* Find(int64_t left, int64_t right) const;

  std::array<int64_t, 256> inner_;  // byte -> id
  std::array<int64_t, 256> last_;   // the same at the end of a word
  std::unordered_map<uint64_t, Rule> rules_;
};

}  // namespace tempera
