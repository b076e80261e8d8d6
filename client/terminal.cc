#include "client/terminal.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "base/status.h"

namespace tempera {

void ProgressBar::Show(const std::string& stage, double fraction, const std::string& detail) {
  const auto now = std::chrono::steady_clock::now();
  const bool new_stage = stage != stage_;
  const auto pause = width_ > 0 ? std::chrono::milliseconds(50) : std::chrono::milliseconds(5000);
  if (!new_stage && now - last_ < pause) return;
  stage_ = stage;
  last_ = now;
  const double f = std::isfinite(fraction) ? std::clamp(fraction, 0.0, 1.0) : 0.0;
  char head[32];
  std::snprintf(head, sizeof head, "%3d %%  ", static_cast<int>(f * 100));
  if (width_ <= 0) {
    std::string line = Cat(head, stage, detail.empty() ? "" : "  ", detail, "\n");
    if (line == said_) return;
    out_ << line << std::flush;
    said_ = std::move(line);
    return;
  }
  constexpr int kBar = 24;
  const int full = static_cast<int>(f * kBar);
  std::string line =
      Cat("[", std::string(full, '#'), std::string(kBar - full, '.'), "] ", head, stage, "  ", detail);
  if (line.size() >= static_cast<size_t>(width_)) line.resize(width_ - 1);
  out_ << "\r\x1b[K" << line << std::flush;
  drawn_ = true;
}

void ProgressBar::Line(const std::string& text) {
  Clear();
  out_ << text << "\n" << std::flush;
}

void ProgressBar::Clear() {
  if (drawn_) out_ << "\r\x1b[K" << std::flush;
  drawn_ = false;
}

void PrintTable(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i)
      out << row[i] << (i + 1 < row.size() ? std::string(width[i] - row[i].size() + 2, ' ') : "\n");
  }
}

std::string SizeText(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[48];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string TimeText(double seconds) {
  const auto s = static_cast<long long>(std::max(0.0, std::round(seconds)));
  char text[64];
  if (s < 60) {
    std::snprintf(text, sizeof text, "%lld s", s);
  } else if (s < 3600) {
    std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  } else {
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  }
  return text;
}

std::string NumberText(double value) {
  if (std::isnan(value)) return "-";
  char text[48];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

}  // namespace tempera
