// The document, its verdict and the comparison of the methods.
#include "report/page.h"

#include <algorithm>
#include <cmath>

#include "base/files.h"

namespace tempera::page {
namespace {

// The policy names the script by its digest, so that no other script can run even if a name slipped through.
std::string Base64OfHex(const std::string& hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(digit(hex[i]) << 4 | digit(hex[i + 1]));
  return Base64(bytes);
}

void Tile(Html& h, const std::string& figure, const std::string& label, const std::string& more,
          const Html& attributes = Html()) {
  h("<li", attributes, "><b>", figure, "</b><span>", label, "</span><small>", more, "</small></li>\n");
}

std::string ScoreText(const Score& score, int digits) {
  return score.value.has_value() ? Fixed(*score.value, digits) : std::string(kNone);
}

std::string AccuracyText(const Score& score) {
  return score.value.has_value() ? Cat(Fixed(100 * *score.value, 1), "\u00A0%") : std::string(kNone);
}

// Means and intervals of all methods on one axis; the row of `method` in it.
Html IntervalPlot(const Input& in, size_t method) {
  double low = 1e300, high = -1e300;
  for (const MethodResult& m : in.e.methods) {
    if (!m.psnr.has_value()) continue;
    low = std::min(low, m.psnr->mean.low.value_or(m.psnr->mean.mean));
    high = std::max(high, m.psnr->mean.high.value_or(m.psnr->mean.mean));
  }
  const double pad = std::max(0.5, 0.08 * (high - low));
  low -= pad, high += pad;
  const auto x = [&](double v) { return 2 + 146 * (v - low) / (high - low); };
  const Interval& i = in.e.methods[method].psnr->mean;
  Html h;
  h("<svg class=\"iv ", Series(method), "\" viewBox=\"0 0 150 16\" aria-hidden=\"true\">");
  h("<path class=\"grid\" d=\"M2 8H148\"/>");
  if (i.low.has_value())
    h("<path class=\"bar\" d=\"M", Fixed(x(*i.low), 1), " 8H", Fixed(x(*i.high), 1), "\"/>");
  h("<circle cx=\"", Fixed(x(i.mean), 1), "\" cy=\"8\" r=\"4\"/></svg>");
  return h;
}

void MethodRow(Html& h, const Input& in, size_t i) {
  const MethodResult& m = in.e.methods[i];
  const int64_t wrong = TemporalMismatches(m);
  h("<tr", i == 0 ? Html()(" class=\"own\"") : Html(), "><th scope=\"row\"><span class=\"name\">", Swatch(i),
    MethodTitle(m), "</span>", i == 0 ? Html()(" <small>this artifact</small>") : Html(), "</th>");
  if (m.psnr.has_value()) {
    const Interval& p = m.psnr->mean;
    h("<td class=\"n\">", Fixed(p.mean, 2));
    if (p.low.has_value()) h(" <small>", Fixed(*p.low, 2), "\u2013", Fixed(*p.high, 2), "</small>");
    h("</td><td>", IntervalPlot(in, i), "</td><td class=\"n\">", Fixed(m.ssim->mean.mean, 4), "</td>");
  } else {
    h("<td class=\"n\">", kNone, "</td><td></td><td class=\"n\">", kNone, "</td>");
  }
  h("<td class=\"n\">", ScoreText(m.frechet_distance, 2), "</td><td class=\"n\">",
    AccuracyText(m.class_accuracy), "</td><td class=\"n\">", Percent(MeanTemporalError(m)),
    "</td><td class=\"n", wrong > 0 ? Html()(" bad") : Html(), "\">", wrong, " of ",
    in.e.schedule.timesteps.size(), "</td></tr>\n");
}

Html GroupTable(const Input& in) {
  std::vector<Column> columns = {{"method"}};
  for (const std::string& g : in.e.groups) columns.push_back({g, Column::kNumber});
  Html h = TableHead(Html(), columns);
  for (size_t i = 0; i < in.e.methods.size(); ++i) {
    const auto& rows = in.e.methods[i].temporal.group_ratio;
    h("<tr><th scope=\"row\">", "<span class=\"name\">", Swatch(i), MethodTitle(in.e.methods[i]),
      "</span></th>");
    for (size_t g = 0; g < in.e.groups.size(); ++g) {
      double sum = 0, most = 0;
      for (const auto& row : rows) {
        sum += row[g];
        most = std::max(most, row[g]);
      }
      h("<td class=\"n\">", Percent(sum / static_cast<double>(rows.size())), " <small>", Percent(most),
        "</small></td>");
    }
    h("</tr>\n");
  }
  return h("</tbody></table>");
}

std::string MetricName(const Input& in) {
  return in.e.feature_network.has_value() ? in.e.feature_network->metric : "Fr\u00E9chet distance";
}

// Why figures are missing, each reason once.
Html Reasons(const Input& in) {
  std::vector<std::string> said;
  const auto say = [&](const std::string& what, const Score& score) {
    const std::string text = Cat("No ", what, ": ", score.reason, ".");
    if (!score.value.has_value() && std::find(said.begin(), said.end(), text) == said.end())
      said.push_back(text);
  };
  say(MetricName(in), in.e.full_precision.frechet_distance);
  say("class accuracy", in.e.full_precision.class_accuracy);
  for (const MethodResult& m : in.e.methods) {
    say(MetricName(in), m.frechet_distance);
    say("class accuracy", m.class_accuracy);
  }
  Html h;
  for (const std::string& text : said) h("<p class=\"note\">", text, "</p>\n");
  return h;
}

}  // namespace

std::string Page(const Input& in) {
  const std::string title = Cat(in.e.model.name, ", ", MethodTitle(in.e.methods.front()), ": quality report");
  Html h;
  h("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n<meta http-equiv=\"Content-Security-Policy\" "
    "content=\""
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-",
    Base64OfHex(Sha256Hex(kScript)), "'; base-uri 'none'; form-action 'none'\">\n<title>", title,
    "</title>\n<style>");
  h.Raw(kStyle);
  h("</style>\n</head>\n<body>\n");
  struct Part {
    std::string id, name;
    Html html;
  };
  std::vector<Part> parts;
  const auto add = [&](std::string id, std::string name, Html html) {
    if (!html.empty()) parts.push_back({std::move(id), std::move(name), std::move(html)});
  };
  add("pictures", "Pictures", PicturesPart(in));
  add("methods", "Methods", MethodsPart(in));
  add("time", "Error over time", TimePart(in));
  add("features", "Temporal features", FeaturesPart(in));
  add("size", "Size and speed", SizePart(in));
  add("layers", "Layers", LayersPart(in));
  add("parts", "Other parts", PartsPart(in));
  add("calibration", "Calibration", CalibrationPart(in));
  add("environment", "Environment", EnvironmentPart(in));
  add("glossary", "Glossary", GlossaryPart(in));
  h("<a class=\"skip\" href=\"#", parts.front().id, "\">Skip to the figures</a>\n<main>\n", VerdictPart(in),
    "<nav aria-label=\"Sections\"><ul>");
  for (const Part& p : parts) h("<li><a href=\"#", p.id, "\">", p.name, "</a></li>");
  h("</ul></nav>\n");
  for (const Part& p : parts) h(p.html);
  h("</main>\n<script>");
  h.Raw(kScript);
  h("</script>\n</body>\n</html>\n");
  return h.text();
}

Html Head(std::string_view id, std::string_view title, const Html& lead) {
  return Html()("<section id=\"", id, "\">\n<h2>", title, "</h2>\n<p class=\"lead\">", lead, "</p>\n");
}

Html Scroll(std::string_view label, const Html& content) {
  return Html()("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"", label, "\">", content,
                "</div>\n");
}

Html Captioned(std::string_view caption, const Html& content) {
  return Html()("<p class=\"cap\">", caption, "</p>\n", Scroll(caption, content));
}

Html TableHead(const Html& attributes, const std::vector<Column>& columns) {
  Html h;
  h("<table", attributes, "><thead><tr>");
  for (const Column& c : columns) {
    h("<th scope=\"col\"", c.kind == Column::kNumber ? Html()(" class=\"n\"") : Html(), ">");
    if (c.kind == Column::kDrawn) {
      h("<span class=\"vh\">", c.name, "</span>");
    } else {
      h(c.name);
    }
    h("</th>");
  }
  return h("</tr></thead><tbody>\n");
}

std::string BitsText(int bits) { return bits == 0 || bits == 32 ? "float" : Cat(bits, "-bit"); }

// Six looks; a seventh method shares the last.
std::string Series(size_t method) { return Cat("s", std::min<size_t>(method, 5)); }

Html Swatch(size_t method) {
  return Html()("<svg class=\"sw ", Series(method),
                "\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"line\" d=\"M1 5H25\"/></svg>");
}

Html VerdictPart(const Input& in) {
  const MethodResult& own = in.e.methods.front();
  const Verdict& v = in.verdict;
  Html h;
  h("<header>\n<p class=\"kicker\">Tempera quality report</p>\n<h1>", in.e.model.name, " <span>",
    MethodTitle(own), "</span></h1>\n<p class=\"headline\">", v.headline, ".</p>\n<ul class=\"tiles\">\n");
  Tile(h, Percent(v.size_ratio), "of the original's bytes",
       Cat(Bytes(in.e.bytes.served()), " instead of ", Bytes(in.e.bytes.full_precision)));
  if (own.psnr.has_value()) {
    const Interval& p = own.psnr->mean;
    Tile(h, Cat(Fixed(p.mean, 1), "\u00A0dB"), "PSNR to the original",
         p.low.has_value() ? Cat("95 %: ", Fixed(*p.low, 1), " to ", Fixed(*p.high, 1), " dB, ",
                                 in.e.pairs.size(), " pairs")
                           : std::string("one pair"));
  }
  Tile(h, Percent(v.temporal_error), "temporal error", "mean over the steps; 0\u00A0% is exact");
  Tile(h, Cat(v.mismatches, " of ", in.e.schedule.timesteps.size()), "steps mistaken in time",
       v.mismatches == 0 ? "every step knows its time" : "a feature looks like another step's",
       v.mismatches == 0 ? Html() : Html()(" class=\"alarm\""));
  if (own.class_accuracy.value.has_value() && in.e.full_precision.class_accuracy.value.has_value())
    Tile(h, AccuracyText(own.class_accuracy), "class accuracy",
         Cat("the original: ", AccuracyText(in.e.full_precision.class_accuracy)));
  if (v.speedup.has_value())
    Tile(h, Cat(Figure(*v.speedup), "\u00D7"), *v.speedup >= 1 ? "as fast a step" : "the original's speed",
         "against full precision on the same machine");
  h("</ul>\n<ul class=\"says\">\n");
  for (const std::string& sentence : v.sentences) h("<li>", sentence, "</li>\n");
  h("</ul>\n");
  if (!in.artifact_id.empty()) h("<p class=\"note\">Artifact <code>", in.artifact_id, "</code></p>\n");
  return h("</header>\n");
}

Html MethodsPart(const Input& in) {
  const bool alone = in.e.methods.size() == 1;
  Html lead;
  lead(
      "Every row painted from the same seeds and classes. PSNR and SSIM compare each picture with the "
      "original's: higher "
      "is nearer. ");
  if (in.e.feature_network.has_value() && in.e.full_precision.frechet_distance.value.has_value()) {
    const FeatureNetwork& n = *in.e.feature_network;
    lead(n.metric, " is the distance of ", Plural(n.pictures, "picture", "pictures"), " to ", n.against,
         " in ", n.dimension, " features of the network that the model's folder ships: lower is better. ");
  }
  lead("Temporal error and mistaken steps tell how well time survived.");
  Html h = Head("methods", alone ? "How good it is" : "How the methods compare", lead);
  Html table = TableHead(Html(), {{"method"},
                                  {"PSNR, dB", Column::kNumber},
                                  {"PSNR, drawn", Column::kDrawn},
                                  {"SSIM", Column::kNumber},
                                  {MetricName(in), Column::kNumber},
                                  {"class accuracy", Column::kNumber},
                                  {"temporal error", Column::kNumber},
                                  {"mistaken steps", Column::kNumber}});
  table(
      "<tr><th scope=\"row\"><span class=\"name\"><span class=\"sw\"></span>full precision</span> <small>the "
      "original</small></th><td "
      "class=\"n\">",
      kNone, "</td><td></td><td class=\"n\">", kNone, "</td><td class=\"n\">",
      ScoreText(in.e.full_precision.frechet_distance, 2), "</td><td class=\"n\">",
      AccuracyText(in.e.full_precision.class_accuracy),
      "</td><td class=\"n\">0\u00A0%</td><td class=\"n\">0 of ", in.e.schedule.timesteps.size(),
      "</td></tr>\n");
  for (size_t i = 0; i < in.e.methods.size(); ++i) MethodRow(table, in, i);
  table("</tbody></table>");
  h(Captioned("Small figures: 95 % confidence interval of the mean", table), Reasons(in));
  if (!in.e.groups.empty())
    h("<div class=\"medium\">",
      Captioned("Temporal error by block group: mean over the steps; small: the worst step", GroupTable(in)),
      "</div>\n");
  return h("</section>\n");
}

}  // namespace tempera::page
