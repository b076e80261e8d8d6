#include "report/evaluation.h"

#include <algorithm>
#include <set>

#include "report/schema.h"

namespace tempera {

using schema::Like;

// The fields of each struct. In this namespace, not an unnamed one: they are found by their argument.

template <typename V>
void Visit(V& v, Like<Interval> auto& x) {
  v("mean", x.mean);
  v("low", x.low);
  v("high", x.high);
}
template <typename V>
void Visit(V& v, Like<ModelFacts> auto& x) {
  v("name", x.name);
  v("sha256", x.sha256);
  v("family", x.family);
  v("pipeline", x.pipeline);
  v("channels", x.channels);
  v("height", x.height);
  v("width", x.width);
  v("classes", x.classes);
}
template <typename V>
void Visit(V& v, Like<ScheduleFacts> auto& x) {
  v("scheduler", x.scheduler);
  v("spacing", x.spacing);
  v("eta", x.eta);
  v("training_timesteps", x.training_timesteps);
  v("timesteps", x.timesteps);
}
template <typename V>
void Visit(V& v, Like<CalibrationFacts> auto& x) {
  v("seed", x.seed);
  v("samples_per_step", x.samples_per_step);
  v("classes", x.classes);
  v("max_iterations", x.max_iterations);
  v("batch", x.batch);
  v("temporal_strategy", x.temporal_strategy);
  v("boundary_bits", x.boundary_bits);
  v("quantize_attention", x.quantize_attention);
  v("stage_bits", x.stage_bits);
}
template <typename V>
void Visit(V& v, Like<PicturePair> auto& x) {
  v("seed", x.seed);
  v("class_label", x.class_label);
  v("prompt", x.prompt);
}
template <typename V>
void Visit(V& v, Like<Score> auto& x) {
  v("value", x.value);
  v("reason", x.reason);
}
template <typename V>
void Visit(V& v, Like<FeatureNetwork> auto& x) {
  v("metric", x.metric);
  v("dimension", x.dimension);
  v("pictures", x.pictures);
  v("against", x.against);
}
template <typename V>
void Visit(V& v, Like<PictureScores> auto& x) {
  v("mean", x.mean);
  v("per_picture", x.per_picture);
}
template <typename V>
void Visit(V& v, Like<TemporalErrors> auto& x) {
  v("ratio", x.ratio);
  v("cosine", x.cosine);
  v("mismatch", x.mismatch);
  v("group_ratio", x.group_ratio);
}
template <typename V>
void Visit(V& v, Like<MethodResult> auto& x) {
  v("name", x.name);
  v("weight_bits", x.weight_bits);
  v("activation_bits", x.activation_bits);
  v("temporal", x.temporal);
  v("psnr", x.psnr);
  v("ssim", x.ssim);
  v("frechet_distance", x.frechet_distance);
  v("class_accuracy", x.class_accuracy);
}
template <typename V>
void Visit(V& v, Like<FullPrecisionResult> auto& x) {
  v("frechet_distance", x.frechet_distance);
  v("class_accuracy", x.class_accuracy);
}
template <typename V>
void Visit(V& v, Like<LayerResult> auto& x) {
  v("slot", x.slot);
  v("role", x.role);
  v("unit", x.unit);
  v("weight_bits", x.weight_bits);
  v("activation_bits", x.activation_bits);
  v("format", x.format);
  v("output_error", x.output_error);
  v("weight_error", x.weight_error);
  v("clipping_ratio", x.clipping_ratio);
}
template <typename V>
void Visit(V& v, Like<TemporalFeature> auto& x) {
  v("name", x.name);
  v("group", x.group);
  v("elements", x.elements);
}
template <typename V>
void Visit(V& v, Like<FeatureMap> auto& x) {
  v("features", x.features);
  v("strategy", x.strategy);
  v("reconstruct_error", x.reconstruct_error);
  v("cache_error", x.cache_error);
}
template <typename V>
void Visit(V& v, Like<ByteFacts> auto& x) {
  v("full_precision", x.full_precision);
  v("codes", x.codes);
  v("scales", x.scales);
  v("floats", x.floats);
  v("tables", x.tables);
  v("cache", x.cache);
  v("reference", x.reference);
}
template <typename V>
void Visit(V& v, Like<PartResult> auto& x) {
  v("name", x.name);
  v("full_precision_bytes", x.full_precision_bytes);
  v("bytes", x.bytes);
  v("output_error", x.output_error);
  v("psnr", x.psnr);
  v("encoder_error", x.encoder_error);
}
template <typename V>
void Visit(V& v, Like<SampleOfMethod> auto& x) {
  v("picture", x.picture);
  v("difference", x.difference);
}
template <typename V>
void Visit(V& v, Like<Sample> auto& x) {
  v("pair", x.pair);
  v("full_precision", x.full_precision);
  v("methods", x.methods);
}
template <typename V>
void Visit(V& v, Like<SampleFacts> auto& x) {
  v("amplification", x.amplification);
  v("rows", x.rows);
}
template <typename V>
void Visit(V& v, Like<Evaluation> auto& x) {
  v("version", x.version);
  v("model", x.model);
  v("schedule", x.schedule);
  v("calibration", x.calibration);
  v("pairs", x.pairs);
  v("groups", x.groups);
  v("methods", x.methods);
  v("full_precision", x.full_precision);
  v("feature_network", x.feature_network);
  v("layers", x.layers);
  v("temporal_features", x.temporal_features);
  v("bytes", x.bytes);
  v("parts", x.parts);
  v("samples", x.samples);
}

namespace {

// Checks one evaluation; keeps the first error.
class Checker {
 public:
  Checker(const Evaluation& e, const std::string& label)
      : e_(e), label_(label), steps_(e.schedule.timesteps.size()) {}

  Status Run() {
    if (const std::string path = schema::FindNonFinite(ToJson(e_), ""); !path.empty())
      return InvalidArgument(label_, ": ", path, " is wrong, got a value that is not finite");
    Want(steps_ >= 1, "schedule.timesteps", "is empty, want at least one step");
    Want(e_.schedule.eta >= 0, "schedule.eta", "is negative");
    Want(!e_.methods.empty(), "methods", "is empty, want the artifact's own method first");
    Want(e_.model.channels >= 1 && e_.model.height >= 1 && e_.model.width >= 1, "model",
         "has a side or channel count below 1");
    CheckUnique(e_.groups, "groups");
    for (size_t i = 0; i < e_.pairs.size(); ++i) CheckPair(e_.pairs[i], Cat("pairs[", i, "]"));
    std::vector<std::string> names;
    for (size_t i = 0; i < e_.methods.size(); ++i) {
      names.push_back(e_.methods[i].name);
      CheckMethod(e_.methods[i], Cat("methods[", i, "]"));
    }
    CheckUnique(names, "methods");
    CheckScore(e_.full_precision.frechet_distance, "full_precision.frechet_distance");
    CheckScore(e_.full_precision.class_accuracy, "full_precision.class_accuracy", 1);
    if (e_.feature_network.has_value())
      Want(e_.feature_network->dimension >= 1 && e_.feature_network->pictures >= 0, "feature_network",
           "has a dimension below 1 or a negative count");
    for (size_t i = 0; i < e_.layers.size(); ++i) CheckLayer(e_.layers[i], Cat("layers[", i, "]"));
    CheckFeatures(e_.temporal_features);
    const ByteFacts& b = e_.bytes;
    for (const int64_t bytes :
         {b.full_precision, b.codes, b.scales, b.floats, b.tables, b.cache, b.reference})
      Want(bytes >= 0 && bytes <= kMostBytes, "bytes", Cat("has a count out of range, got ", bytes));
    Want(b.full_precision >= 1, "bytes.full_precision", "is below 1");
    std::vector<std::string> parts;
    for (size_t i = 0; i < e_.parts.size(); ++i) {
      parts.push_back(e_.parts[i].name);
      CheckPart(e_.parts[i], Cat("parts[", i, "]"));
    }
    CheckUnique(parts, "parts");
    CheckSamples(e_.samples);
    return status_;
  }

 private:
  static constexpr int64_t kMostBytes = int64_t{1} << 60;  // sums of a few stay in 64 bits

  void Want(bool holds, std::string_view path, std::string_view what) {
    if (!holds && status_.ok()) status_ = InvalidArgument(label_, ": ", path, " ", what);
  }
  template <typename T>
  void WantCount(const std::vector<T>& list, size_t count, const std::string& path) {
    Want(list.size() == count, path, Cat("has a wrong length, got ", list.size(), ", want ", count));
  }
  void CheckUnique(const std::vector<std::string>& names, const std::string& path) {
    std::set<std::string> seen;
    for (const std::string& name : names)
      Want(seen.insert(name).second, path, Cat("has \"", name, "\" twice"));
  }
  void CheckRatios(const std::vector<double>& values, const std::string& path) {
    for (const double v : values) Want(v >= 0, path, Cat("has a negative ratio, got ", v));
  }
  void CheckPair(const PicturePair& pair, const std::string& path) {
    const auto classes = static_cast<int64_t>(e_.model.classes.size());
    if (!pair.class_label.has_value()) return;
    Want(*pair.class_label >= 0 && *pair.class_label < classes, Cat(path, ".class_label"),
         Cat("is wrong, got ", *pair.class_label, ", want 0 to ", classes - 1));
  }
  void CheckScore(const Score& score, const std::string& path, std::optional<double> most = std::nullopt) {
    Want(score.value.has_value() == score.reason.empty(), path,
         "wants a value or the reason why there is none");
    if (!score.value.has_value()) return;
    Want(*score.value >= 0 && (!most.has_value() || *score.value <= *most), path,
         Cat("is out of range, got ", *score.value));
  }
  void CheckScores(const std::optional<PictureScores>& scores, const std::string& path, double least,
                   double most) {
    Want(scores.has_value() == !e_.pairs.empty(), path,
         "wants a figure for each pair, or null without pairs");
    if (!scores.has_value()) return;
    WantCount(scores->per_picture, e_.pairs.size(), Cat(path, ".per_picture"));
    for (const double v : scores->per_picture)
      Want(v >= least && v <= most, Cat(path, ".per_picture"),
           Cat("has a figure out of range, got ", v, ", want ", least, " to ", most));
    const Interval& m = scores->mean;
    Want(m.mean >= least && m.mean <= most, Cat(path, ".mean"), Cat("is out of range, got ", m.mean));
    Want(m.low.has_value() == m.high.has_value() && m.low.value_or(m.mean) <= m.mean &&
             m.mean <= m.high.value_or(m.mean),
         Cat(path, ".mean"), "lies outside its interval");
  }
  void CheckMethod(const MethodResult& m, const std::string& path) {
    Want(!m.name.empty(), Cat(path, ".name"), "is empty");
    Want(m.weight_bits >= 0 && m.weight_bits <= 32 && m.activation_bits >= 0 && m.activation_bits <= 32, path,
         "has bits out of range, want 0 to 32");
    WantCount(m.temporal.ratio, steps_, Cat(path, ".temporal.ratio"));
    WantCount(m.temporal.cosine, steps_, Cat(path, ".temporal.cosine"));
    WantCount(m.temporal.mismatch, steps_, Cat(path, ".temporal.mismatch"));
    WantCount(m.temporal.group_ratio, steps_, Cat(path, ".temporal.group_ratio"));
    CheckRatios(m.temporal.ratio, Cat(path, ".temporal.ratio"));
    for (const double c : m.temporal.cosine)
      Want(c >= -1.001 && c <= 1.001, Cat(path, ".temporal.cosine"), Cat("is no cosine, got ", c));
    for (const std::vector<double>& groups : m.temporal.group_ratio) {
      WantCount(groups, e_.groups.size(), Cat(path, ".temporal.group_ratio"));
      CheckRatios(groups, Cat(path, ".temporal.group_ratio"));
    }
    CheckScores(m.psnr, Cat(path, ".psnr"), 0, kPsnrCapDb);
    CheckScores(m.ssim, Cat(path, ".ssim"), -1.000001, 1.000001);  // rounding of equal pictures
    CheckScore(m.frechet_distance, Cat(path, ".frechet_distance"));
    CheckScore(m.class_accuracy, Cat(path, ".class_accuracy"), 1);
  }
  void CheckLayer(const LayerResult& layer, const std::string& path) {
    Want(!layer.slot.empty(), Cat(path, ".slot"), "is empty");
    Want(layer.output_error.value_or(0) >= 0 && layer.weight_error.value_or(0) >= 0, path,
         "has a negative ratio");
    Want(layer.clipping_ratio.value_or(0) >= 0 && layer.clipping_ratio.value_or(0) <= 1,
         Cat(path, ".clipping_ratio"), "is out of range, want 0 to 1");
  }
  void CheckPart(const PartResult& part, const std::string& path) {
    Want(!part.name.empty(), Cat(path, ".name"), "is empty");
    for (const int64_t bytes : {part.full_precision_bytes, part.bytes})
      Want(bytes >= 1 && bytes <= kMostBytes, path, Cat("has a count of bytes out of range, got ", bytes));
    Want(part.output_error.value_or(0) >= 0 && part.encoder_error.value_or(0) >= 0, path,
         "has a negative ratio");
    Want(part.psnr.value_or(0) >= 0 && part.psnr.value_or(0) <= kPsnrCapDb, Cat(path, ".psnr"),
         "is out of range");
  }
  void CheckFeatures(const FeatureMap& map) {
    const std::string path = "temporal_features";
    const size_t n = map.features.size();
    std::vector<std::string> names;
    for (const TemporalFeature& f : map.features) {
      names.push_back(f.name);
      Want(std::find(e_.groups.begin(), e_.groups.end(), f.group) != e_.groups.end(), Cat(path, ".features"),
           Cat("has a group that is not in groups, got \"", f.group, "\""));
    }
    CheckUnique(names, Cat(path, ".features"));
    WantCount(map.strategy, steps_, Cat(path, ".strategy"));
    for (const auto& row : map.strategy) {
      WantCount(row, n, Cat(path, ".strategy"));
      for (const std::string& word : row)
        Want(word == "reconstruct" || word == "cache" || word == "mixed", Cat(path, ".strategy"),
             Cat("has an unknown word, got \"", word, "\", want reconstruct, cache or mixed"));
    }
    for (const auto& [errors, name] : {std::pair(&map.reconstruct_error, ".reconstruct_error"),
                                       std::pair(&map.cache_error, ".cache_error")}) {
      if (errors->empty()) continue;  // not measured
      WantCount(*errors, steps_, path + name);
      for (const auto& row : *errors) {
        WantCount(row, n, path + name);
        CheckRatios(row, path + name);
      }
    }
  }
  // A report embeds these files: nothing may lead outside of the artifact's folder.
  void CheckFile(const std::string& name, const std::string& path) {
    constexpr std::string_view kAllowed =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";
    const bool harmless = name.starts_with("pictures/") && name.size() > 9 && name.size() <= 200 &&
                          name.find_first_not_of(kAllowed) == std::string::npos &&
                          name.find("..") == std::string::npos && name.find("//") == std::string::npos &&
                          name.back() != '/';
    Want(harmless, path, Cat("is wrong, got \"", name, "\", want pictures/ and a plain name"));
  }
  void CheckSamples(const SampleFacts& samples) {
    Want(samples.amplification > 0 && samples.amplification <= 255, "samples.amplification",
         "is out of range, want above 0 and at most 255");
    for (size_t i = 0; i < samples.rows.size(); ++i) {
      const Sample& row = samples.rows[i];
      const std::string path = Cat("samples.rows[", i, "]");
      Want(row.pair >= 0 && row.pair < static_cast<int64_t>(e_.pairs.size()), Cat(path, ".pair"),
           Cat("is wrong, got ", row.pair, ", want an index into pairs"));
      CheckFile(row.full_precision, Cat(path, ".full_precision"));
      WantCount(row.methods, e_.methods.size(), Cat(path, ".methods"));
      for (const SampleOfMethod& m : row.methods) {
        CheckFile(m.picture, Cat(path, ".methods.picture"));
        CheckFile(m.difference, Cat(path, ".methods.difference"));
      }
    }
  }

  const Evaluation& e_;
  const std::string& label_;
  const size_t steps_;
  Status status_;
};

}  // namespace

Json ToJson(const Evaluation& evaluation) { return schema::Writer::Write(evaluation); }

Result<Evaluation> EvaluationFromJson(const Json& json, const std::string& label) {
  TEMPERA_TRY(schema::CheckVersion(json, label, kEvaluationVersion));
  Evaluation out;
  schema::ReadState state{label, OkStatus()};
  schema::Read(state, json, "", out);
  TEMPERA_TRY(state.status);
  TEMPERA_TRY(CheckEvaluation(out, label));
  return out;
}

Status CheckEvaluation(const Evaluation& evaluation, const std::string& label) {
  return Checker(evaluation, label).Run();
}

std::string MethodTitle(const MethodResult& method) {
  return Cat(method.name, " W", method.weight_bits, "A", method.activation_bits);
}

double MeanTemporalError(const MethodResult& method) {
  double sum = 0;
  for (const double r : method.temporal.ratio) sum += r;
  return method.temporal.ratio.empty() ? 0 : sum / static_cast<double>(method.temporal.ratio.size());
}

int64_t TemporalMismatches(const MethodResult& method) {
  return std::count(method.temporal.mismatch.begin(), method.temporal.mismatch.end(), true);
}

}  // namespace tempera
