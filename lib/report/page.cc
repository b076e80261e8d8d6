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

void Tile(Html& h, const std::string& figure, const std::string& label, const std::string& more) {
  h("<li><b>", figure, "</b><span>", label, "</span><small>", more, "</small></li>\n");
}

std::string ScoreText(const Score& score, int digits) {
  return score.value.has_value() ? Fixed(*score.value, digits) : "\xE2\x80\x93";
}

std::string AccuracyText(const Score& score) {
  return score.value.has_value() ? Fixed(100 * *score.value, 1) + "\xC2\xA0%" : "\xE2\x80\x93";
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
  h("<tr", i == 0 ? Html()(" class=\"own\"") : Html(), "><th scope=\"row\">", Swatch(i), MethodTitle(m),
    i == 0 ? Html()(" <small>this artifact</small>") : Html(), "</th>");
  if (m.psnr.has_value()) {
    const Interval& p = m.psnr->mean;
    h("<td class=\"n\">", Fixed(p.mean, 2));
    if (p.low.has_value()) h(" <small>", Fixed(*p.low, 2), "\xE2\x80\x93", Fixed(*p.high, 2), "</small>");
    h("</td><td>", IntervalPlot(in, i), "</td><td class=\"n\">", Fixed(m.ssim->mean.mean, 4), "</td>");
  } else {
    h("<td class=\"n\">\xE2\x80\x93</td><td></td><td class=\"n\">\xE2\x80\x93</td>");
  }
  h("<td class=\"n\">", ScoreText(m.frechet_distance, 2), "</td><td class=\"n\">",
    AccuracyText(m.class_accuracy), "</td><td class=\"n\">", Percent(MeanTemporalError(m)),
    "</td><td class=\"n", wrong > 0 ? Html()(" bad") : Html(), "\">", wrong, " of ",
    in.e.schedule.timesteps.size(), "</td></tr>\n");
}

Html GroupTable(const Input& in) {
  Html h;
  h("<table><caption>Temporal error by block group: mean over the steps, and the worst "
    "step</caption><thead><tr>"
    "<th scope=\"col\">method</th>");
  for (const std::string& g : in.e.groups) h("<th scope=\"col\" class=\"n\">", g, "</th>");
  h("</tr></thead><tbody>\n");
  for (size_t i = 0; i < in.e.methods.size(); ++i) {
    const auto& rows = in.e.methods[i].temporal.group_ratio;
    h("<tr><th scope=\"row\">", Swatch(i), MethodTitle(in.e.methods[i]), "</th>");
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

// Why figures are missing, each reason once.
Html Reasons(const Input& in) {
  std::vector<std::string> said;
  Html h;
  const auto say = [&](std::string_view what, const Score& score) {
    const std::string text = Cat(what, ": ", score.reason, ".");
    if (score.value.has_value() || std::find(said.begin(), said.end(), text) != said.end()) return;
    said.push_back(text);
    h("<p class=\"note\">No ", text, "</p>\n");
  };
  say("Fr\xC3\xA9"
      "chet distance",
      in.e.full_precision.frechet_distance);
  say("class accuracy", in.e.full_precision.class_accuracy);
  for (const MethodResult& m : in.e.methods) {
    say(Cat("Fr\xC3\xA9"
            "chet distance of ",
            m.name),
        m.frechet_distance.reason == in.e.full_precision.frechet_distance.reason ? Score{0.0, ""}
                                                                                 : m.frechet_distance);
    say(Cat("class accuracy of ", m.name),
        m.class_accuracy.reason == in.e.full_precision.class_accuracy.reason ? Score{0.0, ""}
                                                                             : m.class_accuracy);
  }
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
  h("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#pictures\">Skip to the figures</a>\n<main>\n");
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
  add("calibration", "Calibration", CalibrationPart(in));
  add("environment", "Environment", EnvironmentPart(in));
  add("glossary", "Glossary", GlossaryPart(in));
  h(VerdictPart(in), "<nav aria-label=\"Sections\"><ul>");
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
    Tile(h,
         Cat(Fixed(p.mean, 1),
             "\xC2\xA0"
             "dB"),
         "PSNR to the original",
         p.low.has_value() ? Cat("95 %: ", Fixed(*p.low, 1), " to ", Fixed(*p.high, 1), " dB, ",
                                 in.e.pairs.size(), " pairs")
                           : std::string("one pair"));
  }
  Tile(h, Percent(v.temporal_error), "temporal error", "mean over the steps; 0 % is exact");
  Tile(h, Cat(v.mismatches, " of ", in.e.schedule.timesteps.size()), "steps mistaken in time",
       v.mismatches == 0 ? "every step knows its time" : "their features look like another step's");
  if (own.class_accuracy.value.has_value() && in.e.full_precision.class_accuracy.value.has_value())
    Tile(h, AccuracyText(own.class_accuracy), "class accuracy",
         Cat("the original: ", AccuracyText(in.e.full_precision.class_accuracy)));
  if (v.speedup.has_value())
    Tile(h, Cat(Figure(*v.speedup), "\xC3\x97"), *v.speedup >= 1 ? "as fast a step" : "the original's speed",
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
  if (in.e.feature_network.has_value()) {
    const FeatureNetwork& n = *in.e.feature_network;
    lead(n.metric, " is the distance of ", Plural(n.pictures, "picture", "pictures"), " to ", n.against,
         " in ", n.dimension, " features of the network that the model's folder ships: lower is better. ");
  }
  lead("Temporal error and mistaken steps tell how well time survived.");
  Html h = Head("methods", alone ? "How good it is" : "How the methods compare", lead);
  const std::string metric = in.e.feature_network.has_value() ? in.e.feature_network->metric
                                                              : std::string(
                                                                    "Fr\xC3\xA9"
                                                                    "chet distance");
  Html table;
  table(
      "<table><caption>Figures by method; small: 95 % confidence interval of the "
      "mean</caption><thead><tr><th scope=\"col\">method</th>"
      "<th scope=\"col\" class=\"n\">PSNR, dB</th><th scope=\"col\"><span class=\"vh\">PSNR, "
      "drawn</span></th>"
      "<th scope=\"col\" class=\"n\">SSIM</th><th scope=\"col\" class=\"n\">",
      metric,
      "</th><th scope=\"col\" class=\"n\">class accuracy</th><th scope=\"col\" class=\"n\">temporal "
      "error</th>"
      "<th scope=\"col\" class=\"n\">mistaken steps</th></tr></thead><tbody>\n");
  table(
      "<tr><th scope=\"row\"><svg class=\"sw\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"></svg>full "
      "precision <small>the original</small></th>"
      "<td class=\"n\">\xE2\x80\x93</td><td></td><td class=\"n\">\xE2\x80\x93</td><td class=\"n\">",
      ScoreText(in.e.full_precision.frechet_distance, 2), "</td><td class=\"n\">",
      AccuracyText(in.e.full_precision.class_accuracy),
      "</td><td class=\"n\">0\xC2\xA0%</td><td class=\"n\">0 of ", in.e.schedule.timesteps.size(),
      "</td></tr>\n");
  for (size_t i = 0; i < in.e.methods.size(); ++i) MethodRow(table, in, i);
  table("</tbody></table>");
  h(Scroll("Figures by method", table), Reasons(in));
  if (!in.e.groups.empty()) h(Scroll("Temporal error by block group", GroupTable(in)));
  return h("</section>\n");
}

}  // namespace tempera::page
