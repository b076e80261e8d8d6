#include "worker/evaluate.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>

#include "base/files.h"
#include "kernels/kernels.h"
#include "pipeline/image_codec.h"
#include "report/frechet.h"
#include "report/picture_metrics.h"

namespace tempera {

Result<PaintedPairs> PaintPairs(const CallScope& scope, const Engine& engine, const QuantSpec& spec,
                                int64_t count, Lanes& lanes, const CountProgress& progress) {
  PaintedPairs out;
  const int64_t classes = engine.info().classes;
  for (int64_t i = 0; i < count; ++i)
    out.pairs.push_back(
        {.seed = static_cast<uint64_t>(i),
         .class_label = classes > 0 ? std::optional<int64_t>(i % classes) : std::nullopt,
         .prompt = spec.prompts.empty() ? "" : spec.prompts[static_cast<size_t>(i) % spec.prompts.size()]});
  out.pictures.resize(static_cast<size_t>(count));
  out.latents.resize(static_cast<size_t>(std::min(count, kKeptLatents)));
  std::vector<std::vector<double>> times(static_cast<size_t>(count));
  std::atomic<int64_t> done{0};
  const Status ran = lanes.ParallelFor(count, [&](int64_t i) -> Status {
    const PicturePair& pair = out.pairs[static_cast<size_t>(i)];
    GenerationRequest request;
    request.class_label = pair.class_label;
    request.seed = pair.seed;
    if (!pair.prompt.empty()) request.prompt = pair.prompt;
    if (engine.info().guidance != 1) request.guidance = spec.guidance;
    request.height = spec.height;
    request.width = spec.width;
    request.scheduler = spec.scheduler;
    request.steps = spec.steps;
    request.eta = spec.eta;
    request.scheduler_options = spec.SchedulerOptions();
    TEMPERA_ASSIGN(const ResolvedGeneration resolved, engine.Resolve(request));
    TEMPERA_ASSIGN(GenerationResult result, engine.Generate(scope, resolved, {}));
    out.pictures[static_cast<size_t>(i)] = std::move(result.picture);
    if (i < kKeptLatents) out.latents[static_cast<size_t>(i)] = std::move(result.latent);
    for (const StepEvent& step : result.steps) times[static_cast<size_t>(i)].push_back(step.milliseconds);
    progress(++done, count);
    return OkStatus();
  });
  TEMPERA_TRY(ran);
  for (const auto& t : times) out.step_milliseconds.insert(out.step_milliseconds.end(), t.begin(), t.end());
  return out;
}

TemporalErrors MeasureTemporal(const Denoiser& network, const std::vector<std::string>& groups,
                               const FeatureTable& exact, const FeatureTable& used) {
  TemporalErrors errors;
  const FeatureErrors all = CompareFeatures(exact, used);
  errors.ratio = all.ratio;
  errors.cosine = all.cosine;
  for (const int64_t m : all.mismatches) errors.mismatch.push_back(m > 0);
  errors.group_ratio.assign(all.ratio.size(), std::vector<double>());
  for (const std::string& group : groups) {
    FeatureTable exact_part{.steps = exact.steps, .classes = exact.classes, .features = {}},
        used_part = exact_part;
    for (const Unit& unit : network.units()) {
      if (unit.group != group) continue;
      for (const nn::Slot* slot : unit.slots) {
        if (slot->temporal_index < 0) continue;
        exact_part.features.push_back(exact.features[static_cast<size_t>(slot->temporal_index)]);
        used_part.features.push_back(used.features[static_cast<size_t>(slot->temporal_index)]);
      }
    }
    const FeatureErrors part = CompareFeatures(exact_part, used_part);
    for (size_t k = 0; k < part.ratio.size(); ++k) errors.group_ratio[k].push_back(part.ratio[k]);
  }
  return errors;
}

namespace {

PictureView View(const Picture& p) {
  return {.width = p.width, .height = p.height, .channels = p.channels, .pixels = p.pixels};
}

Result<PictureScores> ScorePictures(const PaintedPairs& full, const PaintedPairs& painted,
                                    Result<double> (*score)(const PictureView&, const PictureView&)) {
  PictureScores scores;
  for (size_t i = 0; i < full.pictures.size(); ++i) {
    TEMPERA_ASSIGN(const double value, score(View(full.pictures[i]), View(painted.pictures[i])));
    scores.per_picture.push_back(value);
  }
  scores.mean = MeanInterval(scores.per_picture);
  return scores;
}

}  // namespace

Result<FeatureScores> ScoreFeatures(const CallScope& scope, const PaintedPairs& painted,
                                    const FeatureExtractor* features, const std::string& why_none,
                                    Lanes& lanes) {
  FeatureScores scores;
  scores.distance.reason = scores.accuracy.reason = why_none;
  if (features == nullptr || painted.pictures.size() < 2) return scores;
  TEMPERA_ASSIGN(const FeatureExtractor::Output out, features->Run(scope, painted.pictures, lanes));
  const FeatureExtractor::Info& info = features->info();
  TEMPERA_ASSIGN(const Gaussian fitted,
                 FitGaussian(out.features, static_cast<int64_t>(painted.pictures.size()), info.dimension));
  Gaussian real;
  real.mean.assign(info.real_mean.begin(), info.real_mean.end());
  real.covariance.assign(info.real_covariance.begin(), info.real_covariance.end());
  TEMPERA_ASSIGN(const double distance, FrechetDistance(fitted, real));
  scores.distance = {.value = distance, .reason = ""};
  std::vector<int64_t> wanted;
  for (const PicturePair& pair : painted.pairs)
    if (pair.class_label) wanted.push_back(*pair.class_label);
  if (wanted.size() == out.predicted.size())
    scores.accuracy = {.value = ClassAccuracy(out.predicted, wanted), .reason = ""};
  else
    scores.accuracy.reason = "the model is unconditional";
  return scores;
}

Result<MethodResult> ScoreMethod(const CallScope& scope, const QuantSpec& spec, TemporalErrors temporal,
                                 const PaintedPairs& full, const PaintedPairs& painted,
                                 const FeatureExtractor* features, const std::string& why_none,
                                 Lanes& lanes) {
  MethodResult result{.name = spec.method,
                      .weight_bits = spec.weight_bits,
                      .activation_bits = spec.activation_bits,
                      .temporal = std::move(temporal),
                      .psnr = {},
                      .ssim = {},
                      .frechet_distance = {},
                      .class_accuracy = {}};
  if (!full.pictures.empty()) {
    TEMPERA_ASSIGN(result.psnr, ScorePictures(full, painted, &Psnr));
    TEMPERA_ASSIGN(result.ssim, ScorePictures(full, painted, &Ssim));
  }
  TEMPERA_ASSIGN(const FeatureScores scores, ScoreFeatures(scope, painted, features, why_none, lanes));
  result.frechet_distance = scores.distance;
  result.class_accuracy = scores.accuracy;
  return result;
}

Result<SampleFacts> WriteSamples(const std::filesystem::path& folder, const PaintedPairs& full,
                                 const std::vector<std::pair<std::string, const PaintedPairs*>>& methods) {
  SampleFacts facts;
  facts.amplification = 8;
  if (full.pictures.empty()) return facts;
  TEMPERA_TRY(MakeFolders(folder / "pictures", "pictures"));
  const auto write = [&](const std::string& name, const Picture& picture) -> Status {
    TEMPERA_ASSIGN(const std::string png, EncodeImage(picture, ImageFormat::kPng));
    return WriteFileAtomic(folder / name, png, name);
  };
  for (size_t i = 0; i < std::min<size_t>(10, full.pictures.size()); ++i) {
    Sample sample{
        .pair = static_cast<int64_t>(i), .full_precision = Cat("pictures/", i, "-full.png"), .methods = {}};
    TEMPERA_TRY(write(sample.full_precision, full.pictures[i]));
    for (const auto& [name, painted] : methods) {
      SampleOfMethod s{.picture = Cat("pictures/", i, "-", name, ".png"),
                       .difference = Cat("pictures/", i, "-", name, "-difference.png")};
      Picture difference = painted->pictures[i];
      for (size_t p = 0; p < difference.pixels.size(); ++p)
        difference.pixels[p] = static_cast<uint8_t>(std::min(
            255.0, facts.amplification * std::abs(difference.pixels[p] - full.pictures[i].pixels[p])));
      TEMPERA_TRY(write(s.picture, painted->pictures[i]));
      TEMPERA_TRY(write(s.difference, difference));
      sample.methods.push_back(std::move(s));
    }
    facts.rows.push_back(std::move(sample));
  }
  return facts;
}

ByteFacts CountBytes(const Denoiser& network, const nn::TensorMap& weights, const nn::TensorMap& tables,
                     const nn::TensorMap& reference) {
  ByteFacts bytes;
  for (const auto& [name, tensor] : network.parameters()) bytes.full_precision += 4 * tensor.numel();
  for (const auto& [name, tensor] : weights) {
    const auto size = static_cast<int64_t>(tensor.nbytes());
    if (name.find(".weight.") == std::string::npos)
      bytes.floats += size;
    else if (name.ends_with("codes"))
      bytes.codes += size;
    else
      bytes.scales += size;
  }
  for (const auto& [name, tensor] : tables)
    (name.starts_with("cache.") || name.starts_with("select.") ? bytes.cache : bytes.tables) +=
        static_cast<int64_t>(tensor.nbytes());
  for (const auto& [name, tensor] : reference) bytes.reference += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

MachineFacts DescribeMachine(int64_t threads) {
  MachineFacts m;
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) {
      m.cpu = line.substr(line.find(':') + 2);
      break;
    }
  }
  m.instruction_sets = kernels::Cpu().text();
  utsname system{};
  if (uname(&system) == 0) m.system = Cat(system.sysname, " ", system.release, " ", system.machine);
  m.cpus = AvailableCpus();
  m.memory_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  m.threads = threads;
  return m;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace tempera
