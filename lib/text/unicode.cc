#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/status.h"

namespace tempera {
namespace {

const uint8_t* Bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// Length of the sequence at the front of `bytes`, negative if it is broken.
utf8proc_ssize_t Iterate(std::string_view bytes, int32_t& c) {
  return utf8proc_iterate(Bytes(bytes), static_cast<utf8proc_ssize_t>(bytes.size()), &c);
}

// Length of the longest front of `bytes` that begins a valid sequence; at least 1. REQUIRES: that sequence is
// broken.
size_t BrokenLength(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  const size_t want = lead >= 0xf0 && lead <= 0xf4   ? 4
                      : lead >= 0xe0 && lead <= 0xef ? 3
                      : lead >= 0xc2 && lead <= 0xdf ? 2
                                                     : 1;
  size_t n = 1;
  while (n < want && n < bytes.size()) {
    // The second byte is bounded by the lead: no overlong forms, no surrogates, nothing above U+10FFFF.
    const uint8_t low = n > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = n > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at(n) < low || at(n) > high) break;
    ++n;
  }
  return n;
}

int CombiningClass(int32_t c) { return utf8proc_get_property(c)->combining_class; }

}  // namespace

std::optional<size_t> FindInvalidUtf8(std::string_view bytes) {
  int32_t c = 0;
  for (size_t at = 0; at < bytes.size();) {
    const utf8proc_ssize_t n = Iterate(bytes.substr(at), c);
    if (n <= 0) return at;
    at += static_cast<size_t>(n);
  }
  return std::nullopt;
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t good = FindInvalidUtf8(bytes).value_or(bytes.size());
    text += bytes.substr(0, good);
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    text += "\xef\xbf\xbd";
    bytes.remove_prefix(BrokenLength(bytes));
  }
  return text;
}

int32_t NextCodePoint(std::string_view text, size_t& at) {
  int32_t c = 0;
  const utf8proc_ssize_t n = Iterate(text.substr(at), c);
  TEMPERA_CHECK(n > 0, "text is UTF-8");
  at += static_cast<size_t>(n);
  return c;
}

std::u32string Nfc(std::string_view text) {
  // Not utf8proc_map: it sorts marks by exchanging neighbours, which a prompt of nothing but marks makes
  // quadratic.
  std::u32string points;
  points.reserve(text.size());
  int32_t parts[32];  // the longest canonical decomposition has 4
  for (size_t at = 0; at < text.size();) {
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(
        NextCodePoint(text, at), parts, std::size(parts),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
    TEMPERA_CHECK(n > 0 && static_cast<size_t>(n) <= std::size(parts), "decomposition");
    points.append(parts, parts + n);
  }
  const auto is_mark = [](char32_t c) { return CombiningClass(static_cast<int32_t>(c)) != 0; };
  for (auto it = points.begin(); it != points.end();) {
    it = std::find_if(it, points.end(), is_mark);
    const auto end = std::find_if_not(it, points.end(), is_mark);
    std::stable_sort(it, end, [](char32_t a, char32_t b) {
      return CombiningClass(static_cast<int32_t>(a)) < CombiningClass(static_cast<int32_t>(b));
    });
    it = end;
  }
  // utf8proc 2.8 takes U+11A7 for a trailing consonant and swallows it behind a Hangul syllable. It composes
  // with nothing, so what stands on either side composes by itself.
  constexpr char32_t kNotTrailing = 0x11a7;
  std::u32string composed;
  composed.reserve(points.size());
  for (size_t begin = 0; begin < points.size();) {
    const size_t end = std::min(points.find(kNotTrailing, begin + 1), points.size());
    static_assert(sizeof(char32_t) == sizeof(utf8proc_int32_t));
    const utf8proc_ssize_t n =
        utf8proc_normalize_utf32(reinterpret_cast<utf8proc_int32_t*>(points.data() + begin),
                                 static_cast<utf8proc_ssize_t>(end - begin),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    TEMPERA_CHECK(n > 0, "composition");
    composed.append(points, begin, static_cast<size_t>(n));
    begin = end;
  }
  return composed;
}

void AppendLower(char32_t c, std::string& out) {
  const auto append = [&out](int32_t point) {
    uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(point, bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
  };
  // The one lower case of two code points that holds everywhere (SpecialCasing.txt); utf8proc has simple
  // mappings.
  if (c == 0x130) {
    append('i');
    append(0x307);
  } else {
    append(utf8proc_tolower(static_cast<int32_t>(c)));
  }
}

CharClass ClassOf(int32_t c) {
  if ((c >= 0x09 && c <= 0x0d) || c == 0x85) return CharClass::kSpace;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    default:
      return CharClass::kOther;
  }
}

}  // namespace tempera
