// Text for the report's page: markup with escapes decided by type, and figures as people read them.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace tempera {

// Markup in the making. A string literal is markup; a std::string or std::string_view is text and is escaped;
// an integer is written in digits. So a name from a model's folder can't become markup by oversight.
//
//   Html h;
//   h("<td>", layer.slot, "</td>");
class Html {
 public:
  template <typename... Parts>
  Html& operator()(const Parts&... parts) {
    (Add(parts), ...);
    return *this;
  }
  // Markup from a source that was written here, such as the style sheet.
  Html& Raw(std::string_view markup) {
    text_ += markup;
    return *this;
  }
  const std::string& text() const { return text_; }
  bool empty() const { return text_.empty(); }

 private:
  template <size_t N>
  void Add(const char (&literal)[N]) {
    text_.append(literal, N - 1);
  }
  void Add(const std::string& text) { AddText(text); }
  void Add(std::string_view text) { AddText(text); }
  void Add(const Html& html) { text_ += html.text_; }
  void Add(int64_t number) { text_ += std::to_string(number); }
  void Add(int number) { text_ += std::to_string(number); }
  void Add(size_t number) { text_ += std::to_string(number); }
  void Add(uint32_t) = delete;
  void Add(double) = delete;  // say how many digits: Fixed, Figure ...
  void Add(bool) = delete;
  void Add(char) = delete;
  template <typename T>
  requires std::same_as<T, const char*> || std::same_as<T, char*>
  void Add(const T&) = delete;  // literal or text?
  void AddText(std::string_view text);

  std::string text_;
};

// A name that may break after its dots, where lines are short.
Html Dotted(std::string_view name);

// For element content and for attributes in double quotes: & < > " ' become entities; control characters,
// line and direction controls of Unicode and bytes that are no UTF-8 become U+FFFD.
std::string EscapeHtml(std::string_view text);

// All figures use a point, never the locale.
std::string Fixed(double value, int digits);  // 33.10
std::string Figure(double value);             // three significant digits: 0.00412, 12.3, 1.20e-7
std::string Short(double value);              // the same without zeros at the end: 8, 0.5
std::string Percent(double ratio);            // "0.412 %", "0 %", "12.3 %"
std::string Bytes(int64_t bytes);             // "7.93 MB", decimal units
std::string Count(int64_t number);            // "1,100"
std::string Seconds(double seconds);          // "3 min 20 s", "12.3 s"
std::string Plural(int64_t number, std::string_view one, std::string_view many);  // "1 step", "50 steps"

std::string Base64(std::string_view bytes);

}  // namespace tempera
