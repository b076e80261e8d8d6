// Seeded damage to a text, and what must hold of a reader that takes the result.
#pragma once

#include <random>
#include <string>
#include <string_view>

namespace tempera {

// One to four random edits: a byte changed, removed or put in, a piece doubled, moved or cut, a number
// replaced by one at an edge of its type.
inline std::string Mutated(std::string text, std::mt19937& random) {
  static constexpr std::string_view kPieces[] = {"0",
                                                 "-1",
                                                 "18446744073709551615",
                                                 "9223372036854775808",
                                                 "4294967296",
                                                 "1e3",
                                                 "null",
                                                 "\"\"",
                                                 "{}",
                                                 "[]",
                                                 "[[",
                                                 "}}",
                                                 ",",
                                                 ":",
                                                 "\"",
                                                 "\\u0000",
                                                 "\xff",
                                                 "..",
                                                 "/"};
  const auto at = [&](size_t size) { return std::uniform_int_distribution<size_t>(0, size)(random); };
  const size_t edits = 1 + at(3);
  for (size_t i = 0; i < edits && !text.empty(); ++i) {
    const size_t place = at(text.size() - 1);
    const size_t length = std::min<size_t>(1 + at(40), text.size() - place);
    switch (at(6)) {
      case 0:
        text[place] = static_cast<char>(at(255));
        break;
      case 1:
        text[place] = static_cast<char>(text[place] ^ (1 << at(7)));
        break;
      case 2:
        text.erase(place, length);
        break;
      case 3:
        text.insert(place, text.substr(place, length));
        break;
      case 4: {
        const std::string piece = text.substr(place, length);
        text.erase(place, length);
        text.insert(at(text.size()), piece);
        break;
      }
      case 5:
        text.insert(place, kPieces[at(std::size(kPieces) - 1)]);
        break;
      default: {
        const size_t begin = text.find_first_of("0123456789", place);
        if (begin == text.npos) break;
        size_t end = text.find_first_not_of("0123456789", begin);
        if (end == text.npos) end = text.size();
        text.replace(begin, end - begin, kPieces[at(4)]);
      }
    }
  }
  return text;
}

}  // namespace tempera
