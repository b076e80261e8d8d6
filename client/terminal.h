// How people see results: a progress bar on a terminal, plain lines elsewhere; tables; sizes and times.
#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace tempera {

// One bar, drawn again in place on a terminal. Elsewhere a line when the stage changes and then at most every
// 5 s, if it says something new. Thread-compatible.
class ProgressBar {
 public:
  // A width of 0 means no terminal; otherwise its columns.
  ProgressBar(std::ostream& out, int width) : out_(out), width_(width) {}
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `fraction` of the whole, 0 to 1; `detail` follows the bar.
  void Show(const std::string& stage, double fraction, const std::string& detail);
  // A line that stays, above the bar.
  void Line(const std::string& text);
  // Removes the bar.
  void Clear();

 private:
  std::ostream& out_;
  int width_;
  bool drawn_ = false;
  std::string stage_;
  std::string said_;  // the last line where there is no terminal
  std::chrono::steady_clock::time_point last_{};
};

// Columns aligned, two spaces between; the last one is not padded. The first row is the head.
void PrintTable(std::ostream& out, const std::vector<std::vector<std::string>>& rows);

std::string SizeText(int64_t bytes);   // "1.4 MiB"
std::string TimeText(double seconds);  // "8 s", "1:32", "2:05:00"
// Four significant digits; "-" for NaN.
std::string NumberText(double value);

}  // namespace tempera
