// Size and speed, layers, calibration, environment, glossary.
#include <algorithm>
#include <map>
#include <utility>

#include "report/page.h"

namespace tempera::page {
namespace {

// A part of the artifact. `colour` is a class of the style sheet.
struct Share {
  std::string name, colour;
  int64_t bytes = 0;
  std::string what;
};

// One bar of `shares` on a scale where `whole` bytes are the full width.
Html Bar(const std::vector<Share>& shares, int64_t whole) {
  Html h;
  h("<div class=\"stack\" aria-hidden=\"true\">");
  for (const Share& share : shares) {
    if (share.bytes == 0) continue;
    const double width = 100 * static_cast<double>(share.bytes) / static_cast<double>(whole);
    h("<i class=\"", share.colour, "\" style=\"width:", Fixed(width, 3), "%\"></i>");
  }
  return h("</div>");
}

void Fact(Html& h, std::string_view name, const std::string& value) {
  if (!value.empty()) h("<div><dt>", name, "</dt><dd>", value, "</dd></div>\n");
}

std::string Joined(const std::vector<std::string>& words, std::string_view empty) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : ", ") + w;
  return out.empty() ? std::string(empty) : out;
}

std::string Milliseconds(const StepTime* s) {
  return s == nullptr ? std::string(kNone) : Figure(s->milliseconds);
}

// A row for each batch and thread count, both subjects side by side.
Html SpeedTable(const Measurements& m) {
  struct Pair {
    const StepTime *full = nullptr, *quantized = nullptr;
  };
  std::map<std::pair<int64_t, int64_t>, Pair> rows;
  for (const StepTime& s : m.steps) {
    Pair& row = rows[{s.batch, s.threads}];
    (s.subject == "quantized" ? row.quantized : row.full) = &s;
  }
  Html h = TableHead(Html(), {{"pictures at once"},
                              {"full precision, ms", Column::kNumber},
                              {"quantized, ms", Column::kNumber},
                              {"quantized, ms a picture", Column::kNumber},
                              {"times as fast", Column::kNumber}});
  for (const auto& [key, row] : rows) {
    h("<tr><th scope=\"row\">", key.first, "<small class=\"name\">", Plural(key.second, "thread", "threads"),
      "</small></th><td class=\"n\">", Milliseconds(row.full), "</td><td class=\"n\">",
      Milliseconds(row.quantized), "</td><td class=\"n\">");
    h(row.quantized == nullptr ? std::string(kNone)
                               : Figure(row.quantized->milliseconds / static_cast<double>(key.first)),
      "</td><td class=\"n\">");
    h(row.quantized == nullptr || row.full == nullptr
          ? std::string(kNone)
          : Figure(row.full->milliseconds / row.quantized->milliseconds),
      "</td></tr>\n");
  }
  return h("</tbody></table>");
}

Html StageTable(const Measurements& m) {
  double all = 0;
  for (const StageTime& s : m.stages) all += s.seconds;
  Html h = TableHead(Html(), {{"stage"}, {"time", Column::kNumber}, {"time, drawn", Column::kDrawn}});
  for (const StageTime& s : m.stages)
    h("<tr><th scope=\"row\">", s.name, "</th><td class=\"n\">", Seconds(s.seconds),
      "</td><td class=\"meter wide-meter\"><i style=\"--v:", Fixed(all > 0 ? s.seconds / all : 0, 4),
      "\"></i></td></tr>\n");
  return h("<tr class=\"sum\"><th scope=\"row\">together</th><td class=\"n\">", Seconds(all),
           "</td><td></td></tr></tbody></table>");
}

std::string PercentFigure(const std::optional<double>& ratio) {
  return ratio.has_value() ? Figure(100 * *ratio) : std::string(kNone);
}

std::string BitsFigure(int bits) { return bits == 0 || bits == 32 ? "float" : Cat(bits); }

}  // namespace

Html SizePart(const Input& in) {
  const ByteFacts& b = in.e.bytes;
  const std::vector<Share> shares = {
      {"weight codes", "b0", b.codes, "the weights as small integers, packed"},
      {"scales and zero points", "b1", b.scales, "what turns codes back into weights, a pair a channel"},
      {"float leftovers", "b2", b.floats, "biases, norms and the layers that stay in float"},
      {"activation ranges", "b3", b.tables, "a range a slot and step"},
      {"temporal-feature cache", "b4", b.cache, "features computed once, looked up at each step"}};
  Html lead;
  lead("Bytes as they lie in the artifact's files, against the original's denoiser at 4 bytes a parameter.");
  Html h = Head("size", "Size and speed", lead);
  const int64_t whole = std::max<int64_t>({1, b.full_precision, b.served()});
  h("<div class=\"bars\"><p>original <b>", Bytes(b.full_precision), "</b></p>",
    Bar({{"original", "full", b.full_precision, ""}}, whole), "<p>quantized <b>", Bytes(b.served()), "</b> (",
    Percent(in.verdict.size_ratio), ")</p>", Bar(shares, whole), "</div>\n");
  Html table = TableHead(Html(), {{"part"}, {"bytes", Column::kNumber}, {"share", Column::kNumber}});
  const auto share_of = [](int64_t part, int64_t all) {
    return Percent(static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, all)));
  };
  for (const Share& s : shares)
    table("<tr><th scope=\"row\" class=\"keyed\"><i class=\"key ", s.colour, "\"></i>", s.name, "<small>",
          s.what, "</small></th><td class=\"n\">", Count(s.bytes), "</td><td class=\"n\">",
          share_of(s.bytes, b.served()), "</td></tr>\n");
  table("<tr class=\"sum\"><th scope=\"row\" class=\"keyed\">together<small>", Percent(in.verdict.size_ratio),
        " of the original's ", Count(b.full_precision), " bytes</small></th><td class=\"n\">",
        Count(b.served()),
        "</td><td class=\"n\">100\u00A0%</td></tr>\n"
        "<tr><th scope=\"row\" class=\"keyed\">reference features<small>in full precision; read only "
        "where the error is watched, so not "
        "counted above</small></th><td class=\"n\">",
        Count(b.reference), "</td><td></td></tr>\n</tbody></table>");
  h("<div class=\"cols\"><div>", Captioned("What the quantized model consists of", table), "</div>\n<div>");
  if (!in.m.steps.empty()) h(Captioned("Time of one denoising step, median", SpeedTable(in.m)));
  if (in.m.full_precision_resident_bytes.has_value() && in.m.quantized_resident_bytes.has_value())
    h("<p>Loaded, the original takes ", Bytes(*in.m.full_precision_resident_bytes),
      " of memory and the quantized model ", Bytes(*in.m.quantized_resident_bytes), ".</p>\n");
  return h("</div></div>\n</section>\n");
}

Html LayersPart(const Input& in) {
  if (in.e.layers.empty()) return Html();
  int64_t quantized = 0;
  double most = 0;
  for (const LayerResult& l : in.e.layers) {
    quantized += l.weight_bits != 0 && l.weight_bits != 32 ? 1 : 0;
    most = std::max(most, l.output_error.value_or(0));
  }
  Html lead;
  lead("Every layer that costs time, in the order in which the network runs; ", Count(quantized), " of ",
       Count(static_cast<int64_t>(in.e.layers.size())),
       " have quantized weights. Output error is that of the layer alone: its quantized and its original "
       "form, "
       "fed with the same input. Clipping is the part of the input's values that fell outside the range.");
  Html h = Head("layers", "Layers", lead);
  Html table = TableHead(Html()(" class=\"layers\" data-sortable"), {{"layer"},
                                                                     {"role"},
                                                                     {"unit"},
                                                                     {"weight bits", Column::kNumber},
                                                                     {"input bits", Column::kNumber},
                                                                     {"format"},
                                                                     {"output error, %", Column::kNumber},
                                                                     {"weight error, %", Column::kNumber},
                                                                     {"clipping, %", Column::kNumber}});
  for (const LayerResult& l : in.e.layers) {
    table("<tr><th scope=\"row\">", Dotted(l.slot), "</th><td>", l.role, "</td><td>", Dotted(l.unit),
          "</td><td class=\"n\">", BitsFigure(l.weight_bits), "</td><td class=\"n\">",
          BitsFigure(l.activation_bits), "</td><td>", l.format, "</td><td class=\"n meter\">");
    if (l.output_error.has_value() && most > 0)
      table("<i style=\"--v:", Fixed(*l.output_error / most, 3), "\"></i>");
    table("<span>", PercentFigure(l.output_error), "</span></td><td class=\"n\">",
          PercentFigure(l.weight_error), "</td><td class=\"n\">", PercentFigure(l.clipping_ratio),
          "</td></tr>\n");
  }
  table("</tbody></table>");
  return h("<div class=\"tall\">", Scroll("Layers", table), "</div>\n</section>\n");
}

Html PartsPart(const Input& in) {
  if (in.e.parts.empty()) return Html();
  Html lead;
  lead("Text encoders and first stage, their layers in ", BitsText(in.e.calibration.stage_bits),
       ": a scale for each output channel of a weight, and for each row of an input. Output error is that of "
       "what a text encoder says of calibration's prompts, and of the pictures that a first stage decodes "
       "from "
       "the latents of the first pairs; encoding error is that of the latents that it makes of those "
       "pictures.");
  Html h = Head("parts", "Other parts", lead);
  Html table = TableHead(Html(), {{"part"},
                                  {"original, bytes", Column::kNumber},
                                  {"quantized, bytes", Column::kNumber},
                                  {"share", Column::kNumber},
                                  {"output error, %", Column::kNumber},
                                  {"PSNR, dB", Column::kNumber},
                                  {"encoding error, %", Column::kNumber}});
  for (const PartResult& p : in.e.parts)
    table("<tr><th scope=\"row\">", p.name, "</th><td class=\"n\">", Count(p.full_precision_bytes),
          "</td><td class=\"n\">", Count(p.bytes), "</td><td class=\"n\">",
          Percent(static_cast<double>(p.bytes) / static_cast<double>(p.full_precision_bytes)),
          "</td><td class=\"n\">", PercentFigure(p.output_error), "</td><td class=\"n\">",
          p.psnr.has_value() ? Fixed(*p.psnr, 2) : std::string(kNone), "</td><td class=\"n\">",
          PercentFigure(p.encoder_error), "</td></tr>\n");
  table("</tbody></table>");
  return h(Scroll("Other parts", table), "</section>\n");
}

Html CalibrationPart(const Input& in) {
  const CalibrationFacts& c = in.e.calibration;
  const ScheduleFacts& s = in.e.schedule;
  Html lead;
  lead(
      "What the numbers were fitted to, and the schedule that the artifact serves. The same model, settings "
      "and build give the same artifact, bit "
      "for bit.");
  Html h = Head("calibration", "Calibration and schedule", lead);
  h("<dl class=\"facts\">\n");
  Fact(h, "scheduler", s.scheduler);
  Fact(h, "steps", Cat(s.timesteps.size(), " of ", s.training_timesteps, " training timesteps"));
  Fact(h, "spacing", s.spacing);
  Fact(h, "eta", Figure(s.eta));
  Fact(h, "calibration seed", Cat(c.seed));
  Fact(h, "samples a step", Count(c.samples_per_step));
  Fact(h, "classes", Joined(c.classes, "none: the model is unconditional"));
  Fact(h, "reconstruction",
       c.max_iterations == 0
           ? std::string("none")
           : Cat("at most ", Count(c.max_iterations), " iterations a block, batch ", c.batch));
  Fact(h, "temporal strategy", c.temporal_strategy);
  Fact(h, "first and last layers", BitsText(c.boundary_bits));
  Fact(h, "attention products", c.quantize_attention ? "quantized" : "float");
  Fact(h, "text encoders, first stage", BitsText(c.stage_bits));
  h("</dl>\n<details><summary>All ",
    Plural(static_cast<int64_t>(s.timesteps.size()), "timestep", "timesteps"),
    "</summary><p class=\"taus\">");
  for (size_t k = 0; k < s.timesteps.size(); ++k) {
    if (k > 0) h(", ");
    h(s.timesteps[k] == static_cast<double>(static_cast<int64_t>(s.timesteps[k])) ? Fixed(s.timesteps[k], 0)
                                                                                  : Figure(s.timesteps[k]));
  }
  return h("</p></details>\n</section>\n");
}

Html EnvironmentPart(const Input& in) {
  const Measurements& m = in.m;
  const ModelFacts& model = in.e.model;
  Html lead;
  lead(
      "Where it was made. Only times depend on this; every other figure of this page is the same on any "
      "machine.");
  Html h = Head("environment", "Environment", lead);
  h("<dl class=\"facts\">\n");
  Fact(h, "model", Cat(model.name, " (", model.family, ", ", model.pipeline, ")"));
  Fact(h, "pictures",
       Cat(model.width, " \u00D7 ", model.height, ", ", Plural(model.channels, "channel", "channels"),
           model.classes.empty() ? std::string() : Cat(", ", model.classes.size(), " classes")));
  h("<div class=\"whole\"><dt>model SHA-256</dt><dd class=\"hash\">", model.sha256, "</dd></div>\n");
  Fact(h, "job", m.job.name.empty() ? m.job.id : Cat(m.job.name, " (", m.job.id, ")"));
  std::string labels;
  for (const auto& [key, value] : m.job.labels) labels += Cat(labels.empty() ? "" : ", ", key, " = ", value);
  Fact(h, "labels", labels);
  Fact(h, "started", m.job.started);
  Fact(h, "finished", m.job.finished);
  Fact(h, "processor", m.machine.cpu);
  Fact(h, "processors used",
       m.machine.cpus == 0 ? std::string() : Cat(m.machine.threads, " lanes on ", m.machine.cpus));
  Fact(h, "instruction sets", m.machine.instruction_sets);
  Fact(h, "memory", m.machine.memory_bytes == 0 ? std::string() : Bytes(m.machine.memory_bytes));
  Fact(h, "system", m.machine.system);
  for (const auto& [name, version] : m.software) Fact(h, name, version);
  h("</dl>\n");
  if (!m.stages.empty()) h(Captioned("How long the job took, stage by stage", StageTable(m)));
  return h("</section>\n");
}

Html GlossaryPart(const Input& in) {
  struct Term {
    std::string word, meaning;
  };
  const std::vector<Term> terms = {
      {"full precision, original", "The model as it was given, every number a 32-bit float."},
      {"quantized, W4A8",
       "Weights (W) and the layers' inputs (A) are rounded to small integers: here 4 bits, 16 levels, for "
       "weights and 8 bits, 256 levels, for inputs. Each integer stands for scale \u00D7 (integer "
       "\u2212 zero point)."},
      {"denoising step, timestep \u03C4",
       "A diffusion model starts from noise and cleans it step by step. Step 0 is the noisiest; \u03C4 is "
       "the number by which the network is told how noisy its input is."},
      {"temporal feature",
       "What a block of the network is told about the current step. It depends on the step (and the class) "
       "alone, never on the picture, so it takes only as many values as there are steps."},
      {"temporal error",
       "Length of the difference between quantized and original temporal features, divided by the length of "
       "the original's. 0 % is exact."},
      {"mistaken step (mismatch)",
       "A step at which some quantized feature points in the direction of another step's original feature "
       "more "
       "than of its own: that part of the network is told a wrong time."},
      {"cache, rebuilt",
       "A temporal feature can be computed once, stored and looked up, or rebuilt at each step by the "
       "quantized time layers. For each step and block the one with the smaller error is served."},
      {"PSNR",
       "Peak signal-to-noise ratio: how little two pictures differ, in decibels. 10 dB more is ten times "
       "less squared difference; equal pictures count as 99 dB. From 40 dB this page says \u201Cthe "
       "same\u201D, from 30 \u201Cnearly the same\u201D, from 20 "
       "\u201Csimilar\u201D."},
      {"SSIM",
       "Structural similarity: compares brightness, contrast and structure in small windows. 1 is equal."},
      {"95 % confidence",
       "The mean over all possible seeds lies in this range in 19 of 20 such measurements (Student's t over "
       "the pictures)."},
      {in.e.feature_network.has_value() ? in.e.feature_network->metric : "Fr\u00E9chet distance",
       "Distance between two sets of pictures, seen through the features of a classifier as two normal "
       "distributions. Lower is better; comparable only within one model."},
      {"class accuracy",
       "Part of the pictures that a classifier puts in the class that was asked for. The original's is the "
       "measure."},
      {"minmax", "The plain way: round to the nearest level, one fixed range for each input."},
      {"brecq",
       "Rounding is learned block by block, time layers inside the blocks, one fixed range for each input."},
      {"tfmq",
       "Time layers are fitted apart from the rest, ranges are fitted to each step, and temporal features "
       "are cached where that is more exact. Input channels are brought to about the same range, and inputs "
       "that no norm precedes get a range for each picture."},
      {"tfmq-paper", "tfmq as it was published: without what the last sentence says."}};
  Html h = Head("glossary", "Glossary", Html()("The words of this page."));
  h("<dl class=\"terms\">\n");
  for (const Term& t : terms) h("<div><dt>", t.word, "</dt><dd>", t.meaning, "</dd></div>\n");
  return h("</dl>\n</section>\n");
}

}  // namespace tempera::page
