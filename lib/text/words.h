// What CLIP makes of a text before byte pairs are merged: one normal form, cut into words.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace tempera {

// NFC, each run of white space one space, lower case; in that order. REQUIRES: valid UTF-8.
std::string NormalizeForClip(std::string_view text);

// The words of a normalized text, in order: a contraction ('s 't 're 've 'm 'll 'd), a run of letters, one
// number, or a run of anything else; white space parts words and belongs to none. Views into `normalized`.
// These are the pieces of CLIP's pattern
// <|startoftext|>|<|endoftext|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ after GPT-2's,
// which cuts the two literals again.
std::vector<std::string_view> SplitWords(std::string_view normalized);

// How a vocabulary writes each byte: printable Latin-1 as itself, the others as the code points from U+0100
// on.
const std::array<std::string, 256>& ByteAlphabet();
// The bytes in the order in which CLIP's vocabularies begin: first the printable ones.
const std::array<uint8_t, 256>& ByteOrder();

// Marks the last symbol of a word.
inline constexpr std::string_view kEndOfWord = "</w>";

}  // namespace tempera
