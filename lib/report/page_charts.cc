// Error over timesteps as a line chart, step x temporal feature as a heat map.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "report/page.h"

namespace tempera::page {
namespace {

// A logarithmic axis from one round number (1, 2 or 5 times a power of ten) to another.
struct LogAxis {
  double low = 0, high = 0;
  std::vector<double> ticks;
  double Place(double v) const {
    return std::log(std::clamp(v, low, high) / low) / std::log(high / low);
  }  // 0..1
};

double RoundNumber(int i) {
  constexpr double kSteps[] = {1, 2, 5};
  const int decade = i >= 0 ? i / 3 : -((2 - i) / 3);
  return kSteps[i - 3 * decade] * std::pow(10.0, decade);
}

// What lies outside of 1e-12 to 1e12 is drawn at the edge. REQUIRES: 0 < low <= high.
LogAxis AxisOver(double low, double high) {
  low = std::clamp(low, 1e-12, 1e12);
  high = std::clamp(high, low, 1e12);
  int first = static_cast<int>(std::floor(3 * std::log10(low))) + 2;
  while (RoundNumber(first) > low * (1 + 1e-9)) --first;
  int last = first + 1;
  while (RoundNumber(last) < high * (1 - 1e-9)) ++last;
  LogAxis axis{RoundNumber(first), RoundNumber(last), {}};
  const bool decades = last - first > 9;
  for (int i = first; i <= last; ++i)
    if (!decades || (i % 3 + 3) % 3 == 0) axis.ticks.push_back(RoundNumber(i));
  return axis;
}

std::string TauText(double tau) { return tau == std::floor(tau) ? Fixed(tau, 0) : Figure(tau); }

// Every so many steps one is labelled, so that at most `most` are.
size_t LabelStride(size_t count, size_t most) {
  for (const size_t stride : {1, 2, 5, 10, 20, 50, 100, 200, 500})
    if ((count + stride - 1) / stride <= most) return stride;
  return 1000;
}

struct Frame {
  const char* name;
  double width, height;
  size_t labels;  // at most so many on the step axis
};

Html LineChart(const Input& in, const LogAxis& axis, const Frame& frame) {
  const size_t steps = in.e.schedule.timesteps.size();
  const double left = 62, right = frame.width - 14, top = 12, bottom = frame.height - 64;
  const auto x = [&](size_t k) {
    return steps == 1
               ? (left + right) / 2
               : left + 22 + (right - left - 40) * static_cast<double>(k) / static_cast<double>(steps - 1);
  };
  const auto y = [&](double v) { return bottom - (bottom - top) * axis.Place(v); };
  Html h;
  h("<svg class=\"chart ", std::string_view(frame.name), "\" viewBox=\"0 0 ", Fixed(frame.width, 0), " ",
    Fixed(frame.height, 0),
    "\" role=\"img\" aria-label=\"Temporal error of each step, by method. The table below has the "
    "figures.\">\n");
  for (const double tick : axis.ticks)
    h("<path class=\"grid\" d=\"M", Fixed(left, 0), " ", Fixed(y(tick), 1), "H", Fixed(right, 0),
      "\"/><text class=\"end\" x=\"", Fixed(left - 8, 0), "\" y=\"", Fixed(y(tick) + 4, 1), "\">",
      Short(100 * tick), "\u00A0%", "</text>\n");
  const size_t stride = LabelStride(steps, frame.labels);
  for (size_t k = 0; k < steps; k += stride)
    h("<path class=\"grid\" d=\"M", Fixed(x(k), 1), " ", Fixed(bottom, 0), "v5\"/><text class=\"mid\" x=\"",
      Fixed(x(k), 1), "\" y=\"", Fixed(bottom + 24, 0), "\">", k, "</text><text class=\"mid dim\" x=\"",
      Fixed(x(k), 1), "\" y=\"", Fixed(bottom + 41, 0), "\">", TauText(in.e.schedule.timesteps[k]),
      "</text>\n");
  h("<text class=\"end\" x=\"", Fixed(left - 8, 0), "\" y=\"", Fixed(bottom + 24, 0),
    "\">step</text><text class=\"end dim\" x=\"", Fixed(left - 8, 0), "\" y=\"", Fixed(bottom + 41, 0),
    "\">\u03C4</text><text class=\"dim\" x=\"", Fixed(left, 0), "\" y=\"", Fixed(frame.height - 4, 0),
    "\">noise</text><text class=\"dim end\" x=\"", Fixed(right, 0), "\" y=\"", Fixed(frame.height - 4, 0),
    "\">picture</text>\n");
  for (size_t i = in.e.methods.size(); i-- > 0;) {  // the artifact's own on top
    const TemporalErrors& t = in.e.methods[i].temporal;
    h("<g class=\"", Series(i), "\"><path class=\"line\" d=\"");
    for (size_t k = 0; k < steps; ++k) {
      if (k == 0) {
        h("M");
      } else {
        h("L");
      }
      h(Fixed(x(k), 1), " ", Fixed(y(t.ratio[k]), 1));
    }
    h("\"/>");
    const double radius = steps <= 60 ? 2.6 : 1.6;
    for (size_t k = 0; k < steps; ++k) {
      h("<circle cx=\"", Fixed(x(k), 1), "\" cy=\"", Fixed(y(t.ratio[k]), 1), "\" r=\"", Fixed(radius, 1),
        "\"><title>", MethodTitle(in.e.methods[i]), ", step ", k, ", \u03C4 ",
        TauText(in.e.schedule.timesteps[k]), ": ", Percent(t.ratio[k]));
      if (t.mismatch[k]) h(", a feature looks like another step's");
      h("</title></circle>");
      if (t.mismatch[k])
        h("<path class=\"cross\" d=\"M", Fixed(x(k) - 5, 1), " ", Fixed(y(t.ratio[k]) - 5, 1),
          "l10 10m0-10l-10 10\"/>");
    }
    h("</g>\n");
  }
  return h("</svg>\n");
}

Html TimeTable(const Input& in) {
  std::vector<Column> columns = {{"step", Column::kNumber}, {"\u03C4", Column::kNumber}};
  for (const MethodResult& m : in.e.methods) {
    columns.push_back({MethodTitle(m), Column::kNumber});
    columns.push_back({"cosine", Column::kNumber});
  }
  Html h = TableHead(Html(), columns);
  for (size_t k = 0; k < in.e.schedule.timesteps.size(); ++k) {
    h("<tr><th scope=\"row\" class=\"n\">", k, "</th><td class=\"n\">", TauText(in.e.schedule.timesteps[k]),
      "</td>");
    for (const MethodResult& m : in.e.methods) {
      h("<td class=\"n\">", Percent(m.temporal.ratio[k]));
      if (m.temporal.mismatch[k]) h(" <span class=\"bad\">\u2715</span>");
      h("</td><td class=\"n\">", Fixed(m.temporal.cosine[k], 5), "</td>");
    }
    h("</tr>\n");
  }
  return h("</tbody></table>");
}

constexpr int kShades = 8;

// Error of what was chosen; "mixed" is shown as the worse of the two, for some classes have it.
double Chosen(const FeatureMap& map, size_t k, size_t i) {
  const double rebuilt = map.reconstruct_error.empty() ? 0 : map.reconstruct_error[k][i];
  const double cached = map.cache_error.empty() ? 0 : map.cache_error[k][i];
  if (map.strategy[k][i] == "cache") return cached;
  if (map.strategy[k][i] == "reconstruct") return rebuilt;
  return std::max(rebuilt, cached);
}

double MeanOf(const std::vector<std::vector<double>>& rows) {
  double sum = 0, count = 0;
  for (const auto& row : rows)
    for (const double v : row) {
      sum += v;
      ++count;
    }
  return sum / count;
}

// True if the error of the chosen way was measured.
bool Measured(const FeatureMap& map, size_t k, size_t i) {
  const std::string& s = map.strategy[k][i];
  return (s == "cache" || !map.reconstruct_error.empty()) && (s == "reconstruct" || !map.cache_error.empty());
}

// What the names have in common at their end (".time_emb_proj") says nothing and takes the room.
std::string CommonEnd(const std::vector<TemporalFeature>& features) {
  if (features.size() < 2) return "";
  const std::string& first = features[0].name;
  const size_t dot = first.rfind('.');
  if (dot == std::string::npos || dot == 0) return "";
  const std::string end = first.substr(dot);
  for (const TemporalFeature& f : features)
    if (!f.name.ends_with(end) || f.name.size() == end.size()) return "";
  return end;
}

struct Shades {
  double low = 0, high = 0;  // of the errors above 0
  int Of(double v) const {
    if (v <= low || high <= low) return 0;
    const double place = (std::log(v) - std::log(low)) / (std::log(high) - std::log(low));
    return std::clamp(static_cast<int>(place * kShades), 0, kShades - 1);
  }
};

Shades ShadesOf(const FeatureMap& map) {
  Shades s{std::numeric_limits<double>::infinity(), 0};
  for (size_t k = 0; k < map.strategy.size(); ++k)
    for (size_t i = 0; i < map.features.size(); ++i)
      if (const double v = Chosen(map, k, i); v > 0) {
        s.low = std::min(s.low, v);
        s.high = std::max(s.high, v);
      }
  if (s.high == 0) s.low = 0;
  return s;
}

Html ShadesLegend(const Shades& s, bool reconstructed, bool cached) {
  Html h;
  h("<p class=\"legend\"><span>error of what is served:</span> ");
  if (s.high > s.low) {
    h("<span>", Percent(s.low), " <span class=\"ramp\" aria-hidden=\"true\">");
    for (int i = 0; i < kShades; ++i) h("<i class=\"h", i, "\"></i>");
    h("</span> ", Percent(s.high), " (logarithmic)</span>");
  } else {
    h("<span>", Percent(s.high), " everywhere</span>");
  }
  if (cached) h(" <span><i class=\"key h2\"></i> from the cache</span>");
  if (reconstructed) h(" <span><i class=\"key h2 r\"></i> rebuilt by the layers</span>");
  return h("</p>\n");
}

Html HeatTable(const Input& in, const Shades& shades, const std::string& common) {
  const FeatureMap& map = in.e.temporal_features;
  const size_t steps = map.strategy.size();
  const size_t stride = LabelStride(steps, 13);
  Html h;
  h("<table class=\"heat\"><caption class=\"vh\">Error of each temporal feature at each "
    "step</caption><thead><tr><th scope=\"col\">feature "
    "\\ step</th>");
  for (size_t k = 0; k < steps; ++k) {
    h("<th scope=\"col\">");
    if (k % stride == 0) {
      h("<span>", k, "</span>");
    } else {
      h("<span class=\"vh\">", k, "</span>");
    }
    h("</th>");
  }
  h("</tr></thead>\n");
  std::optional<std::string> group;
  for (size_t i = 0; i < map.features.size(); ++i) {
    const TemporalFeature& f = map.features[i];
    if (group != f.group) {
      if (group.has_value()) h("</tbody>\n");
      h("<tbody><tr class=\"group\"><th scope=\"rowgroup\" colspan=\"", steps + 1, "\">", f.group,
        "</th></tr>\n");
      group = f.group;
    }
    h("<tr><th scope=\"row\">", Dotted(std::string_view(f.name).substr(0, f.name.size() - common.size())),
      "</th>");
    for (size_t k = 0; k < steps; ++k) {
      const std::string& strategy = map.strategy[k][i];
      if (!Measured(map, k, i)) {
        h("<td class=\"none\" title=\"step ", k, ": not measured\">not measured</td>");
        continue;
      }
      const double v = Chosen(map, k, i);
      h("<td class=\"h", shades.Of(v),
        strategy == "cache"   ? Html()
        : strategy == "mixed" ? Html()(" x")
                              : Html()(" r"),
        "\" title=\"step ", k, ", ", strategy, " chosen");
      if (!map.cache_error.empty()) h("; cache ", Percent(map.cache_error[k][i]));
      if (!map.reconstruct_error.empty()) h("; rebuilt ", Percent(map.reconstruct_error[k][i]));
      h("\">", Percent(v), "</td>");
    }
    h("</tr>\n");
  }
  return h("</tbody></table>");
}

}  // namespace

Html TimePart(const Input& in) {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  bool zero = false;
  for (const MethodResult& m : in.e.methods)
    for (const double r : m.temporal.ratio) {
      if (r > 0) low = std::min(low, r);
      high = std::max(high, r);
      zero = zero || r == 0;
    }
  Html lead;
  lead(
      "How far the quantized temporal features are from the original's at each denoising step, from pure "
      "noise (left) to the finished "
      "picture (right). The axis is logarithmic: one line lower is several times better.");
  Html h = Head("time", "Error over timesteps", lead);
  h("<p class=\"legend\">");
  bool crossed = false;
  for (size_t i = 0; i < in.e.methods.size(); ++i) {
    h("<span>", Swatch(i), MethodTitle(in.e.methods[i]), "</span> ");
    crossed = crossed || TemporalMismatches(in.e.methods[i]) > 0;
  }
  if (crossed) h("<span><b class=\"bad\">\u2715</b> a feature looks like another step's</span>");
  h("</p>\n");
  if (high == 0) {
    h("<p>Every error is exactly 0.</p>\n");
  } else {
    // Room for the zeros below the least error.
    const LogAxis axis = AxisOver(zero ? low / 2 : low, high);
    h("<figure>", LineChart(in, axis, {"wide", 1080, 360, 13}), LineChart(in, axis, {"narrow", 380, 320, 6}));
    if (zero) h("<figcaption class=\"note\">Points on the lowest line are exactly 0.</figcaption>");
    h("</figure>\n");
  }
  return h("<details><summary>The same as a table</summary>",
           Captioned("Temporal error and cosine to the original, step by step; \u2715: a feature looks like "
                     "another step's",
                     TimeTable(in)),
           "</details>\n</section>\n");
}

Html FeaturesPart(const Input& in) {
  const FeatureMap& map = in.e.temporal_features;
  if (map.features.empty()) return Html();
  int64_t cache = 0, reconstruct = 0, mixed = 0;
  for (const auto& row : map.strategy)
    for (const std::string& s : row) ++(s == "cache" ? cache : s == "reconstruct" ? reconstruct : mixed);
  const int64_t cells = cache + reconstruct + mixed;
  const std::string common = CommonEnd(map.features);
  Html lead;
  lead(
      "A temporal feature is what one block of the network is told about the current step. Each row is such "
      "a block, each column a step; "
      "the stronger its colour, the larger the error of what is served. ");
  if (cache == cells) {
    lead("All ", Count(cells), " come from the cache: no time layer runs when the artifact paints.");
  } else if (reconstruct == cells) {
    lead("All ", Count(cells), " are rebuilt by the quantized time layers at every step.");
  } else {
    lead("Of ", Count(cells), " features, ", Count(cache), " come from the cache (",
         Percent(static_cast<double>(cache) / static_cast<double>(cells)), ") and ", Count(reconstruct),
         " are rebuilt by the quantized time layers, marked with a dot");
    if (mixed > 0) lead("; for ", Count(mixed), " it depends on the class, marked with a ring");
    lead(".");
  }
  Html h = Head("features", "Temporal features, step by step", lead);
  const Shades shades = ShadesOf(map);
  h(ShadesLegend(shades, reconstruct > 0 && cache + mixed > 0, cache > 0 && reconstruct + mixed > 0));
  const Html table = Scroll("Error by temporal feature and step", HeatTable(in, shades, common));
  constexpr size_t kManyRows = 45;  // more than a screen holds
  if (map.features.size() > kManyRows) {
    h("<div class=\"tall\">", table, "</div>\n");
  } else {
    h(table);
  }
  h("<p class=\"note\">");
  if (!map.cache_error.empty() && !map.reconstruct_error.empty())
    h("On average over all cells the cache is off by ", Percent(MeanOf(map.cache_error)),
      " and the layers by ", Percent(MeanOf(map.reconstruct_error)), ". ");
  h("Point at a cell for its figures.");
  if (!common.empty()) h(" Every name ends in <code>", common, "</code>.");
  return h("</p>\n</section>\n");
}

}  // namespace tempera::page
