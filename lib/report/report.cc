#include "report/report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/files.h"
#include "report/html.h"
#include "report/page.h"

namespace tempera {
namespace {

constexpr uint64_t kMostPictureBytes = 16ull << 20;
constexpr uint64_t kMostPicturesBytes = 64ull << 20;
constexpr int kReportVersion = 1;

std::string PicturesInWords(Verdict::Pictures pictures) {
  switch (pictures) {
    case Verdict::Pictures::kNone:
      return "Pictures were not compared";
    case Verdict::Pictures::kSame:
      return "The same pictures";
    case Verdict::Pictures::kNearlySame:
      return "Nearly the same pictures";
    case Verdict::Pictures::kSimilar:
      return "Similar pictures with visible differences";
    case Verdict::Pictures::kOther:
      return "Other pictures than the original";
  }
  return "";
}

Verdict::Pictures PicturesOf(const MethodResult& own) {
  if (!own.psnr.has_value()) return Verdict::Pictures::kNone;
  const double psnr = own.psnr->mean.mean;
  if (psnr >= 40) return Verdict::Pictures::kSame;
  if (psnr >= 30) return Verdict::Pictures::kNearlySame;
  if (psnr >= 20) return Verdict::Pictures::kSimilar;
  return Verdict::Pictures::kOther;
}

// Of the least batch that both were measured at.
std::optional<double> SpeedupOf(const Measurements& m) {
  const StepTime *full = nullptr, *quantized = nullptr;
  for (const StepTime& f : m.steps)
    for (const StepTime& q : m.steps) {
      if (f.subject != "full_precision" || q.subject != "quantized") continue;
      if (f.batch != q.batch || f.threads != q.threads) continue;
      if (full == nullptr || f.batch < full->batch) full = &f, quantized = &q;
    }
  if (full == nullptr) return std::nullopt;
  return full->milliseconds / quantized->milliseconds;
}

std::string IntervalText(const Interval& i, int digits) {
  if (!i.low.has_value()) return "";
  return Cat(Fixed(*i.low, digits), " to ", Fixed(*i.high, digits));
}

Verdict::Comparison Compare(const MethodResult& own, const MethodResult& other) {
  Verdict::Comparison out;
  out.method = MethodTitle(other);
  if (own.psnr.has_value() && other.psnr.has_value()) {
    std::vector<double> gains;
    for (size_t i = 0; i < own.psnr->per_picture.size(); ++i)
      gains.push_back(own.psnr->per_picture[i] - other.psnr->per_picture[i]);
    out.psnr_gain_db = MeanInterval(gains);
  }
  if (const double theirs = MeanTemporalError(other); theirs > 0)
    out.temporal_error_ratio = MeanTemporalError(own) / theirs;
  return out;
}

std::string ComparisonSentence(const Verdict::Comparison& c) {
  std::string text = Cat("Against ", c.method, ": ");
  if (c.psnr_gain_db.has_value()) {
    const Interval& gain = *c.psnr_gain_db;
    const bool unsure = gain.low.has_value() && *gain.low <= 0 && *gain.high >= 0;
    text += Cat(Fixed(std::fabs(gain.mean), 2), " dB ", gain.mean < 0 ? "lower" : "higher",
                " PSNR on the same seeds");
    if (gain.low.has_value())
      text += Cat(" (95 % confidence ", IntervalText(gain, 2), " dB",
                  unsure ? ", so neither is proved better" : "", ")");
  }
  if (c.psnr_gain_db.has_value()) text += ", ";
  const double ratio = c.temporal_error_ratio.value_or(0);
  if (!c.temporal_error_ratio.has_value()) {
    text += "whose temporal error is 0";
  } else if (ratio == 0) {
    text += "no temporal error at all";
  } else if (ratio <= 1) {
    text += Cat("temporal error ", Figure(1 / ratio), " times smaller");
  } else {
    text += Cat("temporal error ", Figure(ratio), " times larger");
  }
  return text + ".";
}

Json IntervalJson(const Interval& i) {
  return {{"mean", i.mean},
          {"low", i.low.has_value() ? Json(*i.low) : Json()},
          {"high", i.high.has_value() ? Json(*i.high) : Json()}};
}

Json VerdictJson(const Verdict& v) {
  Json comparisons = Json::array();
  for (const Verdict::Comparison& c : v.comparisons)
    comparisons.push_back(
        {{"method", c.method},
         {"psnr_gain_db", c.psnr_gain_db.has_value() ? IntervalJson(*c.psnr_gain_db) : Json()},
         {"temporal_error_ratio",
          c.temporal_error_ratio.has_value() ? Json(*c.temporal_error_ratio) : Json()}});
  return {{"headline", v.headline},
          {"sentences", v.sentences},
          {"size_ratio", v.size_ratio},
          {"temporal_feature_error", v.temporal_error},
          {"temporal_mismatches", v.mismatches},
          {"speedup", v.speedup.has_value() ? Json(*v.speedup) : Json()},
          {"comparisons", comparisons}};
}

// The size that a PNG's first chunk states.
Result<page::Embedded> ParsePng(std::string bytes, const std::string& name) {
  constexpr std::string_view kSignature("\x89PNG\r\n\x1A\n\0\0\0\rIHDR", 16);
  if (bytes.size() < 33 || !std::string_view(bytes).starts_with(kSignature))
    return DataLoss(name, ": is no PNG picture, got ", bytes.size(), " bytes that do not begin as one");
  const auto big_endian = [&](size_t at) {
    int64_t v = 0;
    for (size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(bytes[at + i]);
    return v;
  };
  page::Embedded out;
  out.width = big_endian(16);
  out.height = big_endian(20);
  if (out.width < 1 || out.height < 1 || out.width > 65536 || out.height > 65536)
    return DataLoss(name, ": size is wrong, got ", out.width, "x", out.height, ", want sides of 1 to 65536");
  out.png = std::move(bytes);
  return out;
}

Result<std::map<std::string, page::Embedded>> ReadPictures(const Evaluation& e,
                                                           const std::filesystem::path& folder) {
  std::map<std::string, page::Embedded> out;
  uint64_t total = 0;
  const auto read = [&](const std::string& name) -> Status {
    if (out.contains(name)) return OkStatus();
    TEMPERA_ASSIGN(std::string bytes, ReadFile(folder / name, name, kMostPictureBytes));
    total += bytes.size();
    if (total > kMostPicturesBytes)
      return ResourceExhausted("samples: pictures are too large together, got over ", total,
                               " bytes, want at most ", kMostPicturesBytes);
    TEMPERA_ASSIGN(out[name], ParsePng(std::move(bytes), name));
    return OkStatus();
  };
  for (const Sample& row : e.samples.rows) {
    TEMPERA_TRY(read(row.full_precision));
    for (const SampleOfMethod& m : row.methods) {
      TEMPERA_TRY(read(m.picture));
      TEMPERA_TRY(read(m.difference));
    }
  }
  return out;
}

}  // namespace

Verdict Judge(const Evaluation& e, const Measurements& m) {
  const MethodResult& own = e.methods.front();
  const auto steps = static_cast<int64_t>(e.schedule.timesteps.size());
  Verdict v;
  v.pictures = PicturesOf(own);
  v.size_ratio = static_cast<double>(e.bytes.served()) / static_cast<double>(e.bytes.full_precision);
  v.temporal_error = MeanTemporalError(own);
  v.mismatches = TemporalMismatches(own);
  v.speedup = SpeedupOf(m);
  for (size_t i = 1; i < e.methods.size(); ++i) v.comparisons.push_back(Compare(own, e.methods[i]));

  const std::string time = v.mismatches == 0
                               ? "the right time at every step"
                               : Cat("the wrong time at ", v.mismatches, " of ", steps, " steps");
  v.headline = Cat(PicturesInWords(v.pictures), v.pictures == Verdict::Pictures::kNone ? "; " : ", from ",
                   Percent(v.size_ratio), " of the bytes, with ", time);

  v.sentences.push_back(Cat("The denoiser takes ", Bytes(e.bytes.served()), " instead of ",
                            Bytes(e.bytes.full_precision), "."));
  if (own.psnr.has_value()) {
    const Interval& psnr = own.psnr->mean;
    std::string text = Cat("Painted from the same seeds, its pictures reach ", Fixed(psnr.mean, 2),
                           " dB PSNR against the original's");
    if (psnr.low.has_value()) text += Cat(" (95 % confidence ", IntervalText(psnr, 2), " dB");
    text += Cat(psnr.low.has_value() ? ", " : " (",
                Plural(static_cast<int64_t>(e.pairs.size()), "pair", "pairs"), ").");
    v.sentences.push_back(text);
  } else {
    v.sentences.push_back("The job asked for no pictures, so nothing is known about them.");
  }
  v.sentences.push_back(Cat("What it is told about time is off by ", Percent(v.temporal_error),
                            " on average over ", Plural(steps, "step", "steps"),
                            v.mismatches == 0 ? "; no feature looks like another step's."
                                              : Cat("; at ", Plural(v.mismatches, "step", "steps"),
                                                    " a feature looks like another step's.")));
  if (v.speedup.has_value())
    v.sentences.push_back(Cat("One step runs ", Figure(*v.speedup), " times as fast as in full precision."));
  for (const Verdict::Comparison& c : v.comparisons) v.sentences.push_back(ComparisonSentence(c));
  return v;
}

Result<Report> BuildReport(const std::string& artifact_id, const Evaluation& evaluation,
                           const Measurements& measurements, const std::filesystem::path& artifact_folder) {
  TEMPERA_TRY(CheckEvaluation(evaluation, "evaluation"));
  TEMPERA_TRY(CheckMeasurements(measurements, "measurements"));
  TEMPERA_ASSIGN(const auto pictures, ReadPictures(evaluation, artifact_folder));
  const Verdict verdict = Judge(evaluation, measurements);
  Report out;
  out.json = CanonicalJson({{"version", kReportVersion},
                            {"artifact", artifact_id},
                            {"verdict", VerdictJson(verdict)},
                            {"evaluation", ToJson(evaluation)},
                            {"measurements", ToJson(measurements)}});
  out.html = page::Page({artifact_id, evaluation, measurements, verdict, pictures});
  return out;
}

}  // namespace tempera
