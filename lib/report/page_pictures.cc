// Pictures side by side: a column a seed, a row for the original, and for each method its picture and what
// differs.
#include <algorithm>

#include "report/page.h"

namespace tempera::page {
namespace {

std::string SeedText(const Input& in, const Sample& row) {
  return Cat("seed ", in.e.pairs[static_cast<size_t>(row.pair)].seed);
}

std::string ClassText(const Input& in, const Sample& row) {
  const auto label = in.e.pairs[static_cast<size_t>(row.pair)].class_label;
  return label.has_value() ? in.e.model.classes[static_cast<size_t>(*label)] : std::string();
}

// "Sneaker, seed 7"
std::string NameText(const Input& in, const Sample& row) {
  const std::string name = ClassText(in, row);
  return name.empty() ? SeedText(in, row) : Cat(name, ", ", SeedText(in, row));
}

Html Picture(const Input& in, const std::string& file, const std::string& alt) {
  const Embedded& picture = in.pictures.at(file);
  // Small pictures are shown enlarged, pixel by pixel: smoothing would hide what differs.
  return Html()("<img", picture.width < 128 ? Html()(" class=\"px\"") : Html(), " width=\"", picture.width,
                "\" height=\"", picture.height, "\" alt=\"", alt, "\" src=\"data:image/png;base64,",
                Base64(picture.png), "\">");
}

}  // namespace

Html PicturesPart(const Input& in) {
  const SampleFacts& samples = in.e.samples;
  if (samples.rows.empty()) return Html();
  const std::string times = Figure(samples.amplification);
  Html lead;
  lead("Each column is one seed, painted by the original and by ",
       in.e.methods.size() == 1 ? Html()("the quantized model") : Html()("each method"),
       ". The rows marked \xE2\x80\x9C"
       "difference\xE2\x80\x9D show what changed, amplified ",
       times, " times: black means equal.");
  Html h = Head("pictures", "The pictures", lead);

  const int64_t side = in.pictures.at(samples.rows[0].full_precision).width;
  const int64_t column = std::clamp<int64_t>(side, 92, 220);
  Html table;
  table("<table class=\"sheet\" style=\"--col:", column, "px\"><thead><tr><td></td>");
  for (const Sample& row : samples.rows) {
    const std::string name = ClassText(in, row);
    table("<th scope=\"col\">");
    if (!name.empty()) table(name, "<br>");
    table("<small>", SeedText(in, row), "</small></th>");
  }
  table("</tr></thead>\n<tbody>\n<tr><th scope=\"row\">original<small>full precision</small></th>");
  for (const Sample& row : samples.rows)
    table("<td>", Picture(in, row.full_precision, Cat(NameText(in, row), ", original")), "</td>");
  table("</tr>\n</tbody>\n");
  for (size_t i = 0; i < in.e.methods.size(); ++i) {
    const MethodResult& m = in.e.methods[i];
    table("<tbody class=\"", Series(i), "\">\n<tr><th scope=\"row\">", Swatch(i), m.name, "<small>W",
          m.weight_bits, "A", m.activation_bits, "</small></th>");
    for (const Sample& row : samples.rows) {
      const std::string psnr = Fixed(m.psnr->per_picture[static_cast<size_t>(row.pair)], 1);
      table("<td>",
            Picture(in, row.methods[i].picture,
                    Cat(NameText(in, row), ", ", MethodTitle(m), ", ", psnr, " dB")),
            "<small>", psnr,
            "\xC2\xA0"
            "dB</small></td>");
    }
    table("</tr>\n<tr class=\"diff\"><th scope=\"row\">difference<small>", times, "\xC3\x97</small></th>");
    for (const Sample& row : samples.rows)
      table("<td>",
            Picture(in, row.methods[i].difference,
                    Cat("Difference between ", MethodTitle(m), " and the original, ", NameText(in, row))),
            "</td>");
    table("</tr>\n</tbody>\n");
  }
  table("</table>");
  return h(Scroll("Pictures by method and seed", table), "</section>\n");
}

}  // namespace tempera::page
