// Unicode for tokenizers, by utf8proc 2.8 (Unicode 15.0).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tempera {

// The offset of the first byte that begins no valid UTF-8 sequence (surrogates and overlong forms are
// invalid).
std::optional<size_t> FindInvalidUtf8(std::string_view bytes);

// Each maximal part of a broken sequence becomes one U+FFFD (Unicode 15, 3.9, "U+FFFD Substitution").
std::string ReplaceInvalidUtf8(std::string_view bytes);

// The code point at `at`; moves `at` behind it. REQUIRES: `text` is valid UTF-8 and at < text.size().
int32_t NextCodePoint(std::string_view text, size_t& at);

// Normalization form C. Linear but for the sorting of combining marks. REQUIRES: valid UTF-8.
std::u32string Nfc(std::string_view text);

// Appends the lower case of one code point without regard to its neighbours: U+0130 gives two, and a final
// sigma is not told apart.
void AppendLower(char32_t c, std::string& out);

enum class CharClass : uint8_t { kSpace, kLetter, kNumber, kOther };

// kSpace is the property White_Space; letters and numbers are the categories L* and N*.
CharClass ClassOf(int32_t c);

}  // namespace tempera
