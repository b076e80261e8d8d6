#include "report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "base/files.h"
#include "report/example.h"
#include "report/html.h"

namespace tempera {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kId(64, 'c');

// A folder of its own, gone with the test.
class Folder {
 public:
  Folder() : path_(std::filesystem::path(::testing::TempDir()) / Cat("report-", ::getpid(), "-", count_++)) {}
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  static inline int count_ = 0;
  std::filesystem::path path_;
};

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

Report Build(const example::Shape& shape, const Evaluation& e, const Measurements& m) {
  Folder folder;
  example::WritePictures(e, shape, folder.path());
  auto report = BuildReport(kId, e, m, folder.path());
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : Report{};
}

Report Build(const example::Shape& shape) {
  return Build(shape, example::MakeEvaluation(shape), example::MakeMeasurements());
}

// What is wrong with the nesting of elements, or nothing.
std::string Unbalanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    if (end == std::string::npos) return "a tag stays open";
    const bool closing = html[at + 1] == '/';
    const size_t name_at = at + (closing ? 2 : 1);
    const std::string name = html.substr(name_at, html.find_first_of(" >/\n", name_at) - name_at);
    if (name == "!DOCTYPE" || name == "meta" || name == "img" || name == "br" || name == "wbr" ||
        html[end - 1] == '/')
      continue;
    if (!closing) {
      open.push_back(name);
      if (name == "style" || name == "script")
        at = html.find(Cat("</", name), end) - 1;  // its text is no markup
    } else if (open.empty() || open.back() != name) {
      return Cat("</", name, "> closes ", open.empty() ? "nothing" : open.back());
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : open.back() + " stays open";
}

TEST(Report, IsTheSameForTheSameInput) {
  const example::Shape shape = {.steps = 6, .features = 4, .layers = 6, .samples = 3};
  const Report a = Build(shape), b = Build(shape);
  EXPECT_EQ(a.html, b.html);
  EXPECT_EQ(a.json, b.json);
}

TEST(Report, HoldsBothSourcesAndTheVerdict) {
  const example::Shape shape = {.steps = 6, .features = 4, .layers = 6, .samples = 2};
  const Json json = ParseJson(Build(shape).json, "report.json").value();
  EXPECT_EQ(json["artifact"], kId);
  EXPECT_EQ(json["evaluation"], ToJson(example::MakeEvaluation(shape)));
  EXPECT_EQ(json["measurements"], ToJson(example::MakeMeasurements()));
  EXPECT_EQ(json["verdict"]["comparisons"].size(), 2u);
  EXPECT_EQ(json["verdict"]["temporal_mismatches"], 0);
}

TEST(Report, NeedsNothingBesideIt) {
  const example::Shape shape = {.steps = 6, .features = 4, .layers = 6, .samples = 2};
  const std::string html = Build(shape).html;
  for (const char* outside : {"http://", "https://", "url(", "@import", "<link", "<iframe"})
    EXPECT_THAT(html, Not(HasSubstr(outside)));
  EXPECT_EQ(CountOf(html, "src=\""), CountOf(html, "src=\"data:image/png;base64,"));
  EXPECT_EQ(CountOf(html, "<img"), 2u * (1 + 2 * 3));
  EXPECT_EQ(CountOf(html, "<img"), CountOf(html, "alt=\""));
  EXPECT_EQ(CountOf(html, "alt=\"\""), 0u);
  EXPECT_EQ(CountOf(html, "<script"), 1u);
}

TEST(Report, ClosesWhatItOpens) {
  for (const bool painted : {true, false})
    for (const bool compared : {true, false})
      EXPECT_EQ(Unbalanced(Build({.steps = 6,
                                  .features = 4,
                                  .layers = 6,
                                  .samples = 2,
                                  .compared = compared,
                                  .painted = painted})
                               .html),
                "")
          << painted << compared;
}

// The policy lets one script run, by its digest; it must be the one on the page.
TEST(Report, NamesItsScriptInItsPolicy) {
  const std::string html = Build({.steps = 3, .features = 2, .layers = 3, .samples = 1}).html;
  const size_t begin = html.find("<script>") + 8, end = html.find("</script>");
  const std::string hex = Sha256Hex(html.substr(begin, end - begin));
  std::string digest;
  for (size_t i = 0; i < hex.size(); i += 2)
    digest += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  EXPECT_THAT(html, HasSubstr("script-src 'sha256-" + Base64(digest) + "'"));
}

// Every text that comes from a model's folder, a request or a machine.
TEST(Report, EscapesHostileNames) {
  const std::string evil = "<script>alert(1)</script>\"><img src=x onerror='alert(2)'>&";
  const example::Shape shape = {.steps = 3, .features = 2, .layers = 3, .samples = 1};
  Evaluation e = example::MakeEvaluation(shape);
  example::Shape plain = shape;
  e.model.name = e.model.sha256 = e.model.family = e.model.pipeline = evil;
  for (std::string& c : e.model.classes) c += evil;
  e.schedule.scheduler = e.schedule.spacing = evil;
  e.calibration.classes = {evil};
  e.calibration.temporal_strategy = evil;
  e.groups[0] = evil;
  for (MethodResult& m : e.methods) m.name += evil;
  e.methods[1].class_accuracy = {std::nullopt, evil};
  e.full_precision.frechet_distance = {std::nullopt, evil};
  e.feature_network->metric = e.feature_network->against = evil;
  for (LayerResult& l : e.layers) l.slot = l.role = l.unit = l.format = evil;
  int number = 0;
  for (TemporalFeature& f : e.temporal_features.features) {
    f.name = Cat(evil, number++, ".", evil);
    f.group = evil;
  }
  Measurements m = example::MakeMeasurements();
  m.job = {evil, evil, {{evil, evil}}, evil, evil};
  m.machine.cpu = m.machine.instruction_sets = m.machine.system = evil;
  m.software = {{evil, evil}};
  for (StageTime& s : m.stages) s.name = evil;

  Folder folder;
  example::WritePictures(e, plain, folder.path());
  const auto report = BuildReport(evil, e, m, folder.path());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(CountOf(report->html, "<script"), 1u);
  EXPECT_EQ(CountOf(report->html, "<img src=x"), 0u);
  EXPECT_EQ(CountOf(report->html, "onerror='"), 0u);
  EXPECT_GT(CountOf(report->html, "&lt;script&gt;alert(1)"), 40u);
  EXPECT_EQ(Unbalanced(report->html), "");
}

TEST(Report, StaysSmallForALargeModel) {
  const example::Shape shape = {.steps = 50, .features = 250, .layers = 250, .samples = 0};
  const Report report = Build(shape);
  EXPECT_LT(report.html.size(), 3u << 20);
  EXPECT_GT(CountOf(report.html, "<td class=\"h"), 250u * 40);  // the heat map is there
}

TEST(Report, TakesExtremeFigures) {
  const example::Shape shape = {.steps = 1, .features = 1, .layers = 1, .samples = 1, .side = 1};
  Evaluation e = example::MakeEvaluation(shape);
  e.methods[0].temporal.ratio = {0};
  e.methods[1].temporal.ratio = {5e-324};
  e.methods[2].temporal.ratio = {1e308};
  e.temporal_features.strategy = {{"cache"}};
  e.temporal_features.cache_error = {{1e308}};
  e.temporal_features.reconstruct_error.clear();
  e.layers[0].output_error = 1e300;
  const std::string html = Build(shape, e, example::MakeMeasurements()).html;
  EXPECT_THAT(html, Not(HasSubstr("nan")));
  EXPECT_THAT(html, Not(HasSubstr("inf\"")));
  EXPECT_EQ(Unbalanced(html), "");
}

TEST(Report, TakesAModelWithoutClassesAndAMethodWithoutCache) {
  const example::Shape shape = {.steps = 5, .features = 2, .layers = 2, .samples = 1, .compared = false};
  Evaluation e = example::MakeEvaluation(shape);
  e.model.classes.clear();
  e.calibration.classes.clear();
  for (PicturePair& p : e.pairs) p.class_label.reset();
  e.temporal_features.cache_error.clear();
  for (auto& row : e.temporal_features.strategy) row.assign(row.size(), "reconstruct");
  const std::string html = Build(shape, e, Measurements{}).html;
  EXPECT_THAT(html, HasSubstr("none: the model is unconditional"));
  EXPECT_THAT(html, HasSubstr("rebuilt by the quantized time layers at every step"));
  EXPECT_THAT(html, Not(HasSubstr("as fast a step")));  // nothing was measured
}

TEST(Report, ShowsPartsInEightBits) {
  example::Shape shape = {.steps = 3, .features = 2, .layers = 2, .samples = 1};
  EXPECT_THAT(Build(shape).html, Not(HasSubstr("id=\"parts\"")));
  shape.parts = true;
  const std::string html = Build(shape).html;
  EXPECT_THAT(html, HasSubstr("href=\"#parts\""));
  EXPECT_THAT(html, HasSubstr("<th scope=\"row\">vae</th>"));
  EXPECT_THAT(html, HasSubstr("44.31"));
  EXPECT_EQ(Unbalanced(html), "");
}

TEST(Report, SaysWhatIsWrongWithAPicture) {
  const example::Shape shape = {.steps = 3, .features = 2, .layers = 3, .samples = 1};
  const Evaluation e = example::MakeEvaluation(shape);
  Folder folder;
  example::WritePictures(e, shape, folder.path());
  const std::string name = e.samples.rows[0].methods[1].difference;
  std::filesystem::remove(folder.path() / name);
  const Status missing = BuildReport(kId, e, example::MakeMeasurements(), folder.path()).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing), HasSubstr(name));
  ASSERT_TRUE(
      WriteFileAtomic(folder.path() / name, "GIF89a, so no PNG, and long enough to look into", name).ok());
  const Status other = BuildReport(kId, e, example::MakeMeasurements(), folder.path()).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(other), HasSubstr(name + ": is no PNG picture"));
  EXPECT_THAT(Message(other), Not(HasSubstr(folder.path().string())));
}

TEST(Report, RefusesAnEvaluationAtOddsWithItself) {
  Evaluation e = example::MakeEvaluation({.steps = 3, .features = 2, .layers = 3, .samples = 1});
  e.methods[0].temporal.ratio.pop_back();
  EXPECT_THAT(Message(BuildReport(kId, e, example::MakeMeasurements(), "nowhere").status()),
              HasSubstr("methods[0].temporal.ratio has a wrong length, got 2, want 3"));
}

TEST(Verdict, PairsPicturesOfTheSameSeed) {
  Evaluation e = example::MakeEvaluation({.steps = 2, .features = 1, .layers = 1, .samples = 0});
  e.pairs.resize(3);
  for (size_t i = 0; i < 3; ++i) {
    e.methods[i].psnr->per_picture = {30.0, 20.0, 40.0};
    e.methods[i].psnr->mean = MeanInterval(e.methods[i].psnr->per_picture);
  }
  e.methods[1].psnr->per_picture = {28.0, 17.0,
                                    36.0};  // gains 2, 3, 4: paired, the spread of the pictures is gone
  e.methods[0].temporal.ratio = {0.01, 0.03};
  e.methods[1].temporal.ratio = {0.1, 0.3};
  e.methods[2].temporal.ratio = {0, 0};
  const Verdict v = Judge(e, example::MakeMeasurements());
  ASSERT_EQ(v.comparisons.size(), 2u);
  EXPECT_DOUBLE_EQ(v.comparisons[0].psnr_gain_db->mean, 3);
  EXPECT_NEAR(*v.comparisons[0].psnr_gain_db->low, 3 - 4.302652729749464 / std::sqrt(3.0),
              1e-11);  // t(0.975, 2), s = 1
  EXPECT_DOUBLE_EQ(*v.comparisons[0].temporal_error_ratio, 0.1);
  EXPECT_EQ(v.comparisons[1].psnr_gain_db->mean, 0);
  EXPECT_FALSE(v.comparisons[1].temporal_error_ratio.has_value());
}

TEST(Verdict, SpeaksAsTheFiguresDo) {
  Evaluation e = example::MakeEvaluation({.steps = 4, .features = 1, .layers = 1, .samples = 0});
  Measurements m = example::MakeMeasurements();
  const std::vector<std::pair<double, Verdict::Pictures>> levels = {{40, Verdict::Pictures::kSame},
                                                                    {39.99, Verdict::Pictures::kNearlySame},
                                                                    {30, Verdict::Pictures::kNearlySame},
                                                                    {29.99, Verdict::Pictures::kSimilar},
                                                                    {19.99, Verdict::Pictures::kOther}};
  for (const auto& [psnr, pictures] : levels) {
    e.methods[0].psnr->mean.mean = psnr;
    EXPECT_EQ(Judge(e, m).pictures, pictures) << psnr;
  }
  e.methods[0].temporal.mismatch = {false, true, true, false};
  const Verdict v = Judge(e, m);
  EXPECT_EQ(v.mismatches, 2);
  EXPECT_THAT(v.headline, HasSubstr("the wrong time at 2 of 4 steps"));
  EXPECT_NEAR(*v.speedup, 21.4 / 14.9, 1e-12);  // of batch 1
  m.steps.resize(1);
  EXPECT_FALSE(Judge(e, m).speedup.has_value());
  EXPECT_NEAR(v.size_ratio, 1'152'100.0 / 7'934'468.0, 1e-12);
}

}  // namespace
}  // namespace tempera
