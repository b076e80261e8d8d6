#include "report/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "report/example.h"
#include "report/measurements.h"

namespace tempera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const example::Shape kSmall = {
    .steps = 4, .features = 3, .layers = 5, .samples = 2, .side = 12, .parts = true};

// Every way to take one key away from an object somewhere below `json`, or to add one: calls `found` with the
// changed document and the key's name.
void ForEachKey(const Json& root, const std::function<void(Json changed, const std::string& key)>& found) {
  std::vector<std::pair<Json::json_pointer, std::string>> places;
  const std::function<void(const Json&, const Json::json_pointer&)> walk =
      [&](const Json& at, const Json::json_pointer& path) {
        if (at.is_object())
          for (const auto& [key, value] : at.items()) {
            places.emplace_back(path, key);
            walk(value, path / key);
          }
        if (at.is_array() && !at.empty()) walk(at[0], path / size_t{0});
      };
  walk(root, Json::json_pointer());
  for (const auto& [path, key] : places) {
    Json changed = root;
    changed[path].erase(key);
    found(std::move(changed), key);
  }
}

TEST(Evaluation, ReadsBackWhatItWrote) {
  for (const bool painted : {true, false}) {
    example::Shape shape = kSmall;
    shape.painted = painted;
    const Json json = ToJson(example::MakeEvaluation(shape));
    const std::string text = CanonicalJson(json);
    const Json parsed = ParseJson(text, "evaluation.json").value();
    const auto back = EvaluationFromJson(parsed, "evaluation.json");
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(CanonicalJson(ToJson(*back)), text);
    EXPECT_EQ(back->pairs.size(), painted ? 64u : 0u);
  }
}

TEST(Evaluation, KeepsSeedsOf64Bits) {
  Evaluation e = example::MakeEvaluation(kSmall);
  e.pairs[0].seed = UINT64_MAX;
  const Json parsed = ParseJson(CanonicalJson(ToJson(e)), "evaluation.json").value();
  EXPECT_EQ(EvaluationFromJson(parsed, "evaluation.json")->pairs[0].seed, UINT64_MAX);
}

TEST(Measurements, ReadBackWhatTheyWrote) {
  const std::string text = CanonicalJson(ToJson(example::MakeMeasurements()));
  const auto back = MeasurementsFromJson(ParseJson(text, "measurements.json").value(), "measurements.json");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(CanonicalJson(ToJson(*back)), text);
  EXPECT_EQ(back->job.labels.at("team"), "imaging");
}

TEST(Evaluation, WantsEveryKey) {
  const Json json = ToJson(example::MakeEvaluation(kSmall));
  int keys = 0;
  ForEachKey(json, [&](const Json& changed, const std::string& key) {
    ++keys;
    const Status status = EvaluationFromJson(changed, "evaluation.json").status();
    EXPECT_THAT(Message(status), AllOf(HasSubstr("evaluation.json: "), HasSubstr(key + " is missing")))
        << key;
  });
  EXPECT_GT(keys, 90);
}

TEST(Measurements, WantEveryKey) {
  const Json json = ToJson(example::MakeMeasurements());
  ForEachKey(json, [&](const Json& changed, const std::string& key) {
    const bool free_key = json["software"].contains(key) || json["job"]["labels"].contains(key);
    const auto read = MeasurementsFromJson(changed, "measurements.json");
    if (free_key) {
      EXPECT_TRUE(read.ok()) << key << read.status();
    } else {
      EXPECT_THAT(Message(read.status()), HasSubstr(key + " is missing"));
    }
  });
}

TEST(Evaluation, RefusesUnknownKeysWhereverTheyStand) {
  for (const char* place : {"", "/model", "/methods/1", "/methods/0/psnr/mean", "/layers/3",
                            "/temporal_features/features/0", "/samples/rows/1/methods/2"}) {
    Json json = ToJson(example::MakeEvaluation(kSmall));
    json[Json::json_pointer(place)]["surprise"] = 1;
    EXPECT_THAT(Message(EvaluationFromJson(json, "evaluation.json").status()),
                HasSubstr("surprise is not known"))
        << place;
  }
}

TEST(Evaluation, NamesTheVersionItCannotRead) {
  Json json = ToJson(example::MakeEvaluation(kSmall));
  json["version"] = 2;
  const Status status = EvaluationFromJson(json, "evaluation.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Message(status), "evaluation.json: version is not supported, got 2, want 1");
}

// One wrong value a row: where it stands, what stands there, what the error says.
TEST(Evaluation, RefusesWrongValues) {
  struct Case {
    const char* place;
    Json value;
    const char* said;
  };
  const std::vector<Case> cases = {
      {"", Json::array(), "the whole is wrong"},
      {"/version", "1", "version is wrong, got \"1\", want an integer"},
      {"/model/width", 1.5, "model.width is wrong, got 1.5, want an integer"},
      {"/model/width", 0, "side or channel count below 1"},
      {"/model/name", 3, "model.name is wrong, got 3, want a text"},
      {"/schedule/timesteps", Json::array(), "schedule.timesteps is empty"},
      {"/schedule/timesteps/2", "x", "schedule.timesteps[2] is wrong"},
      {"/schedule/eta", -1, "schedule.eta is negative"},
      {"/pairs/0/seed", -1, "pairs[0].seed is wrong, got -1, want an integer >= 0"},
      {"/pairs/0/class_label", 10, "pairs[0].class_label is wrong, got 10, want 0 to 9"},
      {"/methods", Json::array(), "methods is empty"},
      {"/methods/1/name", "tfmq", "methods has \"tfmq\" twice"},
      {"/methods/0/weight_bits", 64, "bits out of range"},
      {"/methods/0/temporal/ratio",
       {0.1, 0.2},
       "methods[0].temporal.ratio has a wrong length, got 2, want 4"},
      {"/methods/0/temporal/ratio/1", -0.1, "negative ratio"},
      {"/methods/0/temporal/cosine/1", 1.5, "is no cosine"},
      {"/methods/0/temporal/mismatch/0", 1, "mismatch[0] is wrong, got 1, want true or false"},
      {"/methods/0/temporal/group_ratio/3", Json::array(), "group_ratio has a wrong length, got 0, want 3"},
      {"/methods/0/psnr", Json(), "methods[0].psnr wants a figure for each pair"},
      {"/methods/0/psnr/per_picture/0", 120, "out of range, got 120, want 0 to 99"},
      {"/methods/0/psnr/mean/low", 98, "lies outside its interval"},
      {"/methods/0/psnr/mean/low", Json(), "lies outside its interval"},
      {"/methods/0/frechet_distance/value", Json(), "wants a value or the reason"},
      {"/methods/0/frechet_distance/reason", "none", "wants a value or the reason"},
      {"/methods/0/class_accuracy/value", 1.2, "class_accuracy is out of range, got 1.2"},
      {"/layers/1/slot", "", "layers[1].slot is empty"},
      {"/layers/1/clipping_ratio", 2, "layers[1].clipping_ratio is out of range"},
      {"/layers/1/output_error", -1, "negative ratio"},
      {"/temporal_features/strategy/0/0", "guess", "unknown word, got \"guess\""},
      {"/temporal_features/strategy/0", Json::array(), "strategy has a wrong length, got 0, want 3"},
      {"/temporal_features/cache_error/1", {1, 2}, "cache_error has a wrong length, got 2, want 3"},
      {"/temporal_features/features/0/group", "side", "not in groups, got \"side\""},
      {"/parts/0/bytes", 0, "parts[0] has a count of bytes out of range, got 0"},
      {"/parts/1/output_error", -1, "parts[1] has a negative ratio"},
      {"/parts/1/psnr", 100, "parts[1].psnr is out of range"},
      {"/parts/1/name", "text_encoder", "parts has \"text_encoder\" twice"},
      {"/bytes/codes", -5, "bytes has a count out of range, got -5"},
      {"/bytes/codes", INT64_MAX, "bytes has a count out of range"},
      {"/bytes/full_precision", 0, "bytes.full_precision is below 1"},
      {"/samples/amplification", 0, "samples.amplification is out of range"},
      {"/samples/rows/0/pair", 64, "samples.rows[0].pair is wrong, got 64"},
      {"/samples/rows/0/methods", Json::array(), "samples.rows[0].methods has a wrong length, got 0, want 3"},
      {"/samples/rows/0/full_precision", "pictures/../../../etc/passwd", "want pictures/ and a plain name"},
      {"/samples/rows/0/full_precision", "/etc/passwd", "want pictures/ and a plain name"},
      {"/samples/rows/0/full_precision", "pictures/", "want pictures/ and a plain name"},
      {"/samples/rows/0/methods/0/difference", "pictures/a b.png", "want pictures/ and a plain name"},
  };
  for (const Case& c : cases) {
    Json json = ToJson(example::MakeEvaluation(kSmall));
    json[Json::json_pointer(c.place)] = c.value;
    const Status status = EvaluationFromJson(json, "evaluation.json").status();
    EXPECT_FALSE(status.ok()) << c.place;
    EXPECT_THAT(Message(status), AllOf(HasSubstr("evaluation.json: "), HasSubstr(c.said))) << c.place;
  }
}

TEST(Evaluation, RefusesWhatIsNotFinite) {
  Evaluation e = example::MakeEvaluation(kSmall);
  e.methods[1].temporal.ratio[2] = NAN;
  EXPECT_THAT(Message(CheckEvaluation(e, "evaluation")), HasSubstr("methods[1].temporal.ratio[2] is wrong"));
}

TEST(Measurements, RefuseWrongValues) {
  Json json = ToJson(example::MakeMeasurements());
  json["steps"][0]["subject"] = "both";
  EXPECT_THAT(Message(MeasurementsFromJson(json, "measurements.json").status()),
              HasSubstr("steps[0].subject is wrong, got \"both\""));
  json = ToJson(example::MakeMeasurements());
  json["stages"][2]["seconds"] = -1;
  EXPECT_THAT(Message(MeasurementsFromJson(json, "measurements.json").status()),
              HasSubstr("stages[2].seconds is wrong"));
  json = ToJson(example::MakeMeasurements());
  json["job"]["labels"]["team"] = 7;
  EXPECT_THAT(Message(MeasurementsFromJson(json, "measurements.json").status()),
              HasSubstr("job.labels.team is wrong, got 7"));
}

TEST(Evaluation, SumsUpAMethod) {
  MethodResult m;
  m.name = "tfmq";
  m.weight_bits = 4;
  m.activation_bits = 8;
  m.temporal.ratio = {0.25, 0.5, 0.75};
  m.temporal.mismatch = {true, false, true};
  EXPECT_EQ(MethodTitle(m), "tfmq W4A8");
  EXPECT_EQ(MeanTemporalError(m), 0.5);
  EXPECT_EQ(TemporalMismatches(m), 2);
}

}  // namespace
}  // namespace tempera
