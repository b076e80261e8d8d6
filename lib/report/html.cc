#include "report/html.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/status.h"

namespace tempera {
namespace {

constexpr char kReplacement[] = "\uFFFD";
constexpr char kNoBreak[] = "\u00A0";  // no line break between a figure and its unit

// Length of the well-formed UTF-8 sequence at the beginning of `text` and its code point; 0 if there is none.
size_t DecodeUtf8(std::string_view text, uint32_t& code) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t first = byte(0);
  size_t length = 0;
  uint32_t least = 0;
  if (first < 0x80) {
    code = first;
    return 1;
  }
  if (first >= 0xC2 && first < 0xE0) {
    length = 2, least = 0x80, code = first & 0x1F;
  } else if (first >= 0xE0 && first < 0xF0) {
    length = 3, least = 0x800, code = first & 0x0F;
  } else if (first >= 0xF0 && first < 0xF5) {
    length = 4, least = 0x10000, code = first & 0x07;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  if (code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
  return length;
}

// What can't be seen and changes how a line reads: C0 and C1 controls, direction marks and overrides,
// separators.
bool Hidden(uint32_t code) {
  if (code == '\t' || code == '\n') return false;
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x200B && code <= 0x200F) ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2060 && code <= 0x206F) || code == 0xFEFF;
}

std::string General(double value, std::chars_format format, int precision) {
  std::array<char, 400> buffer;  // the longest double in fixed notation has 309 digits before the point
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format, precision);
  return std::string(buffer.data(), end.ptr);
}

}  // namespace

void Html::AddText(std::string_view text) { text_ += EscapeHtml(text); }

Html Dotted(std::string_view name) {
  Html h;
  while (!name.empty()) {
    const size_t end = std::min(name.find('.'), name.size() - 1) + 1;
    h(name.substr(0, end));
    name.remove_prefix(end);
    if (!name.empty()) h("<wbr>");
  }
  return h;
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    uint32_t code = 0;
    const size_t length = DecodeUtf8(text, code);
    if (length == 0 || Hidden(code)) {
      out += kReplacement;
    } else if (code == '&') {
      out += "&amp;";
    } else if (code == '<') {
      out += "&lt;";
    } else if (code == '>') {
      out += "&gt;";
    } else if (code == '"') {
      out += "&quot;";
    } else if (code == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string Fixed(double value, int digits) {
  std::string text = General(value, std::chars_format::fixed, digits);
  if (text.find_first_not_of("-0.") == std::string::npos && text[0] == '-') text.erase(0, 1);  // no "-0.0"
  return text;
}

std::string Figure(double value) {
  if (value == 0) return "0";
  if (!std::isfinite(value)) return "not finite";
  const std::string scientific = General(value, std::chars_format::scientific, 2);
  // The exponent after rounding: 9.999 becomes 10.0, not 10.00.
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -5 || exponent > 5) return scientific;
  return Fixed(value, std::max(0, 2 - exponent));
}

std::string Short(double value) {
  std::string text = Figure(value);
  if (text.find('.') == std::string::npos || text.find('e') != std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string Percent(double ratio) { return Cat(Figure(100 * ratio), kNoBreak, "%"); }

std::string Bytes(int64_t bytes) {
  if (bytes < 1000) return Cat(bytes, kNoBreak, "B");
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (value < 999.5) break;
    value /= 1000;
    unit = next;
  }
  return Cat(Figure(value), kNoBreak, unit);
}

std::string Count(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool digit_before = i > 0 && digits[i - 1] != '-';
    if (digit_before && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

std::string Seconds(double seconds) {
  if (seconds < 59.95) return Cat(Fixed(seconds, 1), kNoBreak, "s");
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return Cat(whole / 60, kNoBreak, "min ", whole % 60, kNoBreak, "s");
  return Cat(whole / 3600, kNoBreak, "h ", whole % 3600 / 60, kNoBreak, "min");
}

std::string Plural(int64_t number, std::string_view one, std::string_view many) {
  return Cat(Count(number), " ", number == 1 ? one : many);
}

std::string Base64(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t have = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < have ? static_cast<uint32_t>(static_cast<unsigned char>(bytes[i + j])) : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= have ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

}  // namespace tempera
