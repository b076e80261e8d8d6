#include "text/words.h"

#include "text/unicode.h"

namespace tempera {
namespace {

constexpr std::string_view kContractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
constexpr std::string_view kMarkers[] = {"startoftext", "endoftext"};

bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// Length of the contraction at the front, 0 if there is none.
size_t ContractionLength(std::string_view text) {
  for (const std::string_view c : kContractions)
    if (text.starts_with(c)) return c.size();
  return 0;
}

// The name inside <|name|> at the front if it is one of CLIP's markers, else empty.
std::string_view Marker(std::string_view text) {
  if (!text.starts_with("<|")) return {};
  for (const std::string_view name : kMarkers) {
    const std::string_view rest = text.substr(2);
    if (rest.starts_with(name) && rest.substr(name.size()).starts_with("|>"))
      return rest.substr(0, name.size());
  }
  return {};
}

}  // namespace

std::string NormalizeForClip(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool space = false;
  for (const char32_t c : Nfc(text)) {
    const bool was_space = space;
    space = ClassOf(static_cast<int32_t>(c)) == CharClass::kSpace;
    if (!space)
      AppendLower(c, out);
    else if (!was_space)
      out += ' ';
  }
  return out;
}

std::vector<std::string_view> SplitWords(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    if (const std::string_view name = Marker(rest); !name.empty()) {
      words.insert(words.end(), {rest.substr(0, 2), name, rest.substr(2 + name.size(), 2)});
      at += name.size() + 4;
      continue;
    }
    if (const size_t length = ContractionLength(rest); length > 0) {
      words.push_back(rest.substr(0, length));
      at += length;
      continue;
    }
    size_t end = at;
    const CharClass kind = ClassOf(NextCodePoint(text, end));
    while (end < text.size() && kind != CharClass::kNumber) {
      size_t next = end;
      if (ClassOf(NextCodePoint(text, next)) != kind) break;
      end = next;
    }
    if (kind != CharClass::kSpace) words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

const std::array<uint8_t, 256>& ByteOrder() {
  static const std::array<uint8_t, 256> order = [] {
    std::array<uint8_t, 256> bytes{};
    size_t n = 0;
    for (const bool printable : {true, false})
      for (int byte = 0; byte < 256; ++byte)
        if (IsPrintable(byte) == printable) bytes[n++] = static_cast<uint8_t>(byte);
    return bytes;
  }();
  return order;
}

const std::array<std::string, 256>& ByteAlphabet() {
  static const std::array<std::string, 256> alphabet = [] {
    std::array<std::string, 256> symbols;
    int32_t next = 0x100;
    for (const uint8_t byte : ByteOrder()) {
      const int32_t c = IsPrintable(byte) ? byte : next++;
      // No code point here is above U+0143.
      if (c >= 0x80) symbols[byte] += static_cast<char>(0xc0 | c >> 6);
      symbols[byte] += static_cast<char>(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    return symbols;
  }();
  return alphabet;
}

}  // namespace tempera
