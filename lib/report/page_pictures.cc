// Pictures side by side: a column a seed, a row for the original, and for each method its picture and what
// differs.
#include <algorithm>

#include "report/page.h"

namespace tempera::page {
namespace {

std::string SeedText(const Input& in, const Sample& row) {
  return Cat("seed ", in.e.pairs[static_cast<size_t>(row.pair)].seed);
}

// The class or the prompt that it shows.
std::string ClassText(const Input& in, const Sample& row) {
  const PicturePair& pair = in.e.pairs[static_cast<size_t>(row.pair)];
  if (!pair.prompt.empty()) return pair.prompt;
  const auto label = pair.class_label;
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

// Small pictures grow by a whole factor, so that all their pixels are shown in one size.
int64_t ColumnWidth(int64_t side) {
  if (side >= 128) return std::min<int64_t>(side, 220);
  return side * ((84 + side - 1) / side);
}

}  // namespace

Html PicturesPart(const Input& in) {
  const SampleFacts& samples = in.e.samples;
  if (samples.rows.empty()) return Html();
  const std::string times = Short(samples.amplification);
  Html lead;
  lead("Each column is one seed, painted by the original and by ",
       in.e.methods.size() == 1 ? Html()("the quantized model") : Html()("each method"),
       ". The rows marked \u201Cdifference\u201D show what changed, amplified ", times,
       " times: black means equal.");
  Html h = Head("pictures", "The pictures", lead);

  const int64_t column = ColumnWidth(in.pictures.at(samples.rows[0].full_precision).width);
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
            "<small>", psnr, "\u00A0dB</small></td>");
    }
    table("</tr>\n<tr class=\"diff\"><th scope=\"row\">difference<small>", times, "\u00D7</small></th>");
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
