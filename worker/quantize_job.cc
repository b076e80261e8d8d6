#include "worker/quantize_job.h"

#include <ATen/Functions.h>
#include <torch/version.h>

#include <mutex>
#include <set>

#include "artifact/artifact.h"
#include "base/files.h"
#include "base/log.h"
#include "nn/large_blocks.h"
#include "pipeline/load.h"
#include "quant/quantizer.h"
#include "quant/weights.h"
#include "report/report.h"
#include "stages/stages.h"
#include "worker/artifact_files.h"
#include "worker/checkpoints.h"
#include "worker/evaluate.h"
#include "worker/measure_parts.h"

namespace tempera {
namespace {

constexpr char kToolVersion[] = "tempera 0.1.0";

// Values of reconstruction held in memory; what is more lies in files of the job's folder.
constexpr int64_t kValueBytes = int64_t{2} << 30;

// Stages with their usual share of a method's time, for the progress bar alone.
struct StageShare {
  const char* name;
  double share;
};
constexpr StageShare kMethodStages[] = {{"calibrate", 0.08}, {"scales", 0.03}, {"temporal", 0.10},
                                        {"cache", 0.02},     {"blocks", 0.50}, {"ranges", 0.06},
                                        {"measure", 0.04},   {"pack", 0.01},   {"evaluate", 0.16}};

// Turns stages and units into fractions and an estimate. Thread-safe.
class ProgressMeter {
 public:
  ProgressMeter(std::function<void(const JobProgress&)> report, int64_t methods)
      : report_(std::move(report)), methods_(methods), begin_(std::chrono::steady_clock::now()) {}

  void BeginMethod(int64_t index) { method_ = index; }
  // `as` names the stage for the client: the stage itself, or "compare" for the other methods.
  void Stage(const std::string& stage) {
    const std::lock_guard lock(mutex_);
    CloseStage();
    stage_ = stage;
    stage_begin_ = std::chrono::steady_clock::now();
    Emit("", 0, 0);
  }
  void Unit(const std::string& unit, int64_t done, int64_t total) {
    const std::lock_guard lock(mutex_);
    Emit(unit, done, total);
  }
  std::vector<StageTime> Finish() {
    const std::lock_guard lock(mutex_);
    CloseStage();
    stage_.clear();
    return times_;
  }

 private:
  void CloseStage() {
    if (stage_.empty()) return;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - stage_begin_).count();
    const std::string name = method_ > 0 && stage_ != "publish" ? "compare" : stage_;
    if (!times_.empty() && times_.back().name == name)
      times_.back().seconds += seconds;
    else
      times_.push_back({name, seconds});
  }
  void Emit(const std::string& unit, int64_t done, int64_t total) {
    double before = 0, share = 0;
    for (const StageShare& s : kMethodStages) {
      if (stage_ == s.name) {
        share = s.share;
        break;
      }
      before += s.share;
    }
    if (stage_ == "publish") before = 0.999;
    const double within =
        before + (total > 0 ? share * static_cast<double>(done) / static_cast<double>(total) : 0);
    const double fraction =
        stage_ == "publish"
            ? 0.999
            : std::min(0.999, (static_cast<double>(method_) + within) / static_cast<double>(methods_));
    // Steps of parallel shards may report out of order.
    fraction_ = std::max(fraction_, fraction);
    JobProgress p{.stage = method_ > 0 && stage_ != "publish" ? "compare" : stage_,
                  .unit = unit,
                  .done = done,
                  .total = total,
                  .fraction = fraction_,
                  .eta_seconds = -1};
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    if (fraction_ > 0.03 && elapsed > 2) p.eta_seconds = elapsed * (1 - fraction_) / fraction_;
    report_(p);
  }

  std::function<void(const JobProgress&)> report_;
  int64_t methods_;
  std::chrono::steady_clock::time_point begin_, stage_begin_;
  std::mutex mutex_;
  int64_t method_ = 0;
  std::string stage_;
  double fraction_ = 0;
  std::vector<StageTime> times_;
};

// What the pipeline as a whole takes and gives.
struct Paints {
  int64_t channels = 0, classes = 0;
};

struct Job {
  const CallScope& scope;
  const QuantizeJobInput& input;
  Lanes& lanes;
  const ModelFolder& folder;
  const CalibrationPlan& plan;
  const Paints& paints;
  ProgressMeter& meter;
};

// Samples take classes and prompts in turn.
Result<CalibrationPlan> MakePlan(const QuantSpec& spec, const ModelFolder& folder, Paints& paints) {
  nn::Params params(folder.network.weights, at::kCPU);
  TEMPERA_ASSIGN(const auto network, BuildDenoiser(folder.network.config, folder.network.label, params));
  TEMPERA_ASSIGN(const auto stages, Stages::Open(folder, network->info()));
  paints = {.channels = stages->image_channels(), .classes = stages->classes()};
  CalibrationPlan plan{
      .samples = spec.samples_per_step,
      .latent = {stages->latent_channels(), spec.height / stages->factor(), spec.width / stages->factor()},
      .beside = {},
      .on = {},
      .rows_per_sample = 1,
      .guidance = spec.guidance};
  std::vector<nn::Conditioning> samples;
  for (int64_t i = 0; i < plan.samples; ++i) {
    const auto at_turn = [&](const auto& list) { return list[static_cast<size_t>(i) % list.size()]; };
    Wish wish;
    wish.guidance = spec.guidance;
    wish.size = {spec.height, spec.width};
    if (!spec.prompts.empty()) wish.prompt = at_turn(spec.prompts);
    if (!spec.classes.empty()) wish.class_label = at_turn(spec.classes);
    TEMPERA_ASSIGN(Conditions conditions, stages->Encode(wish));
    plan.rows_per_sample = conditions.rows;
    samples.push_back(std::move(conditions.on));
  }
  plan.on = nn::Conditioning::Cat(samples);
  if (stages->beside_channels() > 0) {
    const at::NoGradGuard guard;
    // There is no picture to leave anything of: all is painted anew.
    plan.beside = stages->Beside({}, {}, at::zeros({1, plan.latent[0], plan.latent[1], plan.latent[2]}));
  }
  return plan;
}

// Everything of one method: its quantizer with all stages done, and the tensors of its artifact.
struct Quantized {
  std::unique_ptr<Quantizer> quantizer;
  std::vector<LayerError> layers;
  FeatureTable used;
  nn::TensorMap weights, tables, reference;
};

Result<Quantized> QuantizeOne(const Job& job, const QuantSpec& spec, const Checkpoints& checkpoints) {
  Quantized out;
  const CallScope& scope = job.scope;
  TEMPERA_ASSIGN(out.quantizer, Quantizer::Create(scope, job.folder, spec, job.plan,
                                                  SpillStore(job.input.work_folder, kValueBytes), job.lanes));
  Quantizer& q = *out.quantizer;
  const auto units = [&](const std::string& unit, int64_t done, int64_t total) {
    job.meter.Unit(unit, done, total);
  };

  job.meter.Stage("calibrate");
  TEMPERA_TRY(q.Calibrate(scope, units));
  job.meter.Stage("scales");
  TEMPERA_TRY(q.InitWeights(scope, units));

  job.meter.Stage("temporal");
  if (const auto saved = checkpoints.Load("temporal"); saved.ok()) {
    TEMPERA_TRY(q.ImportTemporal(*saved));
  } else {
    TEMPERA_TRY(q.Temporal(scope));
    TEMPERA_TRY(checkpoints.Save("temporal", q.ExportTemporal()));
  }
  job.meter.Stage("cache");
  TEMPERA_TRY(q.CacheAndSelect(scope));

  job.meter.Stage("blocks");
  const auto ranges = checkpoints.Load("ranges");
  for (int64_t u = 0; u < q.unit_count(); ++u) {
    job.meter.Unit(q.unit_name(u), u, q.unit_count());
    const std::string name = Cat("unit-", u);
    bool learn = q.UnitLearns(u);
    if (learn) {
      if (const auto saved = checkpoints.Load(name); saved.ok()) {
        TEMPERA_TRY(q.ImportUnit(u, *saved));
        learn = false;
      }
    }
    // Values are needed only to learn from.
    if (!ranges.ok() || learn) {
      TEMPERA_TRY(q.RunUnit(scope, u, learn));
      if (learn) TEMPERA_TRY(checkpoints.Save(name, q.ExportUnit(u)));
    }
  }

  job.meter.Stage("ranges");
  if (ranges.ok()) {
    TEMPERA_TRY(q.ImportRanges(*ranges));
  } else {
    TEMPERA_TRY(q.Ranges(scope, units));
    TEMPERA_TRY(checkpoints.Save("ranges", q.ExportRanges()));
  }
  job.meter.Stage("measure");
  TEMPERA_ASSIGN(out.layers, q.MeasureLayers(scope));
  TEMPERA_ASSIGN(out.used, q.UsedFeatures(scope));
  job.meter.Stage("pack");
  out.weights = q.ArtifactWeights();
  out.tables = q.ArtifactTables();
  out.reference = q.ArtifactReference();
  return out;
}

// The manifest without its files.
Result<Manifest> DescribeArtifact(const Job& job, const QuantSpec& spec, const Quantized& q) {
  Manifest m;
  m.source_name = job.folder.name;
  TEMPERA_ASSIGN(m.source_sha256, job.folder.Digest());
  m.spec = spec.ToJson();
  m.schedule = ArtifactSchedule{.scheduler = spec.scheduler,
                                .config = job.folder.scheduler_config,
                                .options = spec.SchedulerOptions(),
                                .steps = spec.steps,
                                .eta = spec.eta,
                                .timesteps = q.quantizer->scheduler().timesteps()}
                   .ToJson();
  const bool cached = FindMethod(spec.method)->temporal_apart;
  ArtifactModel model{.name = job.folder.name,
                      .pipeline = job.folder.pipeline->class_name,
                      .family = q.quantizer->network().info().family,
                      .network_label = job.folder.network.label,
                      .network_config = job.folder.network.config,
                      .index = job.folder.index,
                      .class_names = job.folder.class_names,
                      .latent = job.plan.latent,
                      .picture = {job.paints.channels, spec.height, spec.width},
                      .classes = job.paints.classes,
                      .stage_bits = spec.stage_bits,
                      .temporal_bits = cached ? spec.activation_bits : 0,
                      .guidance = q.quantizer->network().info().guidance_width > 0 ? spec.guidance : 0,
                      .dropped_parameters = {}};
  model.dropped_parameters = q.quantizer->DroppedParameters();
  m.model = model.ToJson();
  m.slots = SlotTable(q.quantizer->network());
  m.libraries = {{"tool", kToolVersion}, {"torch", TORCH_VERSION}};
  return m;
}

// Expected error per timestep bin and block group: against the reference as serving loads it, over steps and
// classes.
Result<Json> Baseline(const Job& job, const Quantized& q, const std::filesystem::path& folder) {
  const Denoiser& network = q.quantizer->network();
  const Scheduler& scheduler = q.quantizer->scheduler();
  TEMPERA_ASSIGN(const auto source, WeightSource::OpenFile(folder / kReferenceFile, kReferenceFile));
  FeatureTable reference;
  if (q.quantizer->trace().temporal_class == TemporalClass::kC) {
    TEMPERA_ASSIGN(const auto layers, BuildReferenceLayers(job.folder.network.config, network, source));
    TEMPERA_ASSIGN(reference, ComputeFeatures(job.scope, *layers, scheduler.timesteps(),
                                              q.quantizer->conditions(), nullptr));
  } else {
    TEMPERA_ASSIGN(reference, ImportReference(job.scope, job.folder.network.config, network,
                                              scheduler.timesteps(), source));
  }
  struct Ratios {
    double sum = 0, low = 0, high = 0;
    int64_t count = 0;
  };
  std::map<std::pair<int, std::string>, Ratios> of_bin;  // (bin, group)
  for (int64_t k = 0; k < reference.steps; ++k) {
    const int bin = TimestepBin(scheduler.timesteps()[static_cast<size_t>(k)], scheduler.train_timesteps());
    for (int64_t c = 0; c < reference.classes; ++c) {
      std::map<std::string, std::pair<double, double>> of_group;
      for (const Unit& unit : network.units())
        for (const nn::Slot* slot : unit.slots) {
          if (slot->temporal_index < 0) continue;
          const auto i = static_cast<size_t>(slot->temporal_index);
          const at::Tensor exact = reference.features[i][k][c].to(at::kDouble),
                           used = q.used.features[i][k][c].to(at::kDouble);
          of_group[unit.group].first += (used - exact).square().sum().item<double>();
          of_group[unit.group].second += exact.square().sum().item<double>();
        }
      for (const auto& [group, pair] : of_group) {
        const double ratio = std::sqrt(pair.first / std::max(pair.second, 1e-30));
        Ratios& r = of_bin[{bin, group}];
        r.low = r.count == 0 ? ratio : std::min(r.low, ratio);
        r.high = std::max(r.high, ratio);
        r.sum += ratio;
        ++r.count;
      }
    }
  }
  Json list = Json::array();
  for (const auto& [key, r] : of_bin)
    list.push_back({{"timestep_bin", key.first},
                    {"block_group", key.second},
                    {"ratio", r.sum / static_cast<double>(r.count)},
                    {"low", r.low},
                    {"high", r.high}});
  return list;
}

FeatureMap DescribeFeatures(const Quantized& q) {
  FeatureMap map;
  const Denoiser& network = q.quantizer->network();
  const FeatureTable& exact = q.quantizer->exact_features();
  for (const nn::Slot* slot : network.temporal_slots())
    for (const Unit& unit : network.units())
      if (std::find(unit.slots.begin(), unit.slots.end(), slot) != unit.slots.end())
        map.features.push_back({.name = slot->name, .group = unit.group, .elements = slot->out_channels});
  const Selection& selection = q.quantizer->selection();
  const FeatureErrors used = CompareFeatures(exact, q.used);
  for (int64_t k = 0; k < exact.steps; ++k) {
    const auto kk = static_cast<size_t>(k);
    std::vector<std::string> strategy;
    std::vector<double> reconstruct, cache;
    for (size_t i = 0; i < exact.features.size(); ++i) {
      if (selection.choice.empty()) {
        strategy.push_back("reconstruct");
        reconstruct.push_back(used.per_feature[kk][i]);
        continue;
      }
      const double norm = std::max(exact.features[i][k].to(at::kDouble).square().sum().item<double>(), 1e-30);
      strategy.push_back(selection.choice[kk][i] == Strategy::kCache ? "cache" : "reconstruct");
      reconstruct.push_back(std::sqrt(selection.error_reconstruct[kk][i] / norm));
      cache.push_back(std::sqrt(selection.error_cache[kk][i] / norm));
    }
    map.strategy.push_back(strategy);
    map.reconstruct_error.push_back(reconstruct);
    if (!cache.empty()) map.cache_error.push_back(cache);
  }
  return map;
}

std::vector<LayerResult> DescribeLayers(const Quantized& q, const Json& table) {
  std::vector<LayerResult> layers;
  for (const Json& row : table) {
    LayerResult layer{.slot = row["slot"],
                      .role = row["role"],
                      .unit = row["unit"],
                      .weight_bits = row["weight_bits"],
                      .activation_bits = row["activation_bits"],
                      .format = "",
                      .output_error = {},
                      .weight_error = {},
                      .clipping_ratio = {}};
    if (layer.weight_bits > 0) layer.format = layer.weight_bits <= 4 ? "int4" : "int8";
    for (const LayerError& e : q.layers) {
      if (e.slot != layer.slot) continue;
      layer.output_error = e.output_error;
      if (layer.weight_bits > 0) layer.weight_error = e.weight_error;
      if (layer.activation_bits > 0) layer.clipping_ratio = e.clipping;
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

// What the report says of one method, gathered while its quantizer lives: a large network goes before the
// pictures are painted.
struct MethodFacts {
  DenoiserInfo network;
  int64_t training_timesteps = 0;
  std::vector<double> timesteps;
  std::vector<LayerResult> layers;
  FeatureMap features;
  TemporalErrors temporal;
  ByteFacts bytes;
};

Result<QuantizeJobOutput> Run(const Job& job) {
  const QuantSpec& spec = job.input.spec;
  const std::filesystem::path folder = job.input.work_folder / "artifact";
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  TEMPERA_TRY(MakeFolders(folder, "artifact"));
  TEMPERA_ASSIGN(const std::string model_digest, job.folder.Digest());
  const auto checkpoints_of = [&](const QuantSpec& s) {
    return Checkpoints(job.input.work_folder / "checkpoints" / s.method,
                       Sha256Hex(Cat(model_digest, "\n", CanonicalJson(s.ToJson()), "\n", kToolVersion, "\n",
                                     TORCH_VERSION)));
  };
  const std::string started = NowText();
  const auto quantize = [&](const QuantSpec& s, const std::filesystem::path& to,
                            Manifest& manifest) -> Result<MethodFacts> {
    const nn::FreedMemoryRelease after;
    TEMPERA_ASSIGN(const Quantized q, QuantizeOne(job, s, checkpoints_of(s)));
    TEMPERA_TRY(MakeFolders(to, "artifact"));
    TEMPERA_TRY(WriteTensors(to / kWeightsFile, q.weights));
    TEMPERA_TRY(WriteTensors(to / kTablesFile, q.tables));
    TEMPERA_TRY(WriteTensors(to / kReferenceFile, q.reference));
    TEMPERA_ASSIGN(manifest, DescribeArtifact(job, s, q));
    TEMPERA_ASSIGN(manifest.baseline, Baseline(job, q, to));
    for (const char* name : {kWeightsFile, kTablesFile, kReferenceFile})
      TEMPERA_TRY(AddFile(manifest, to, name));
    TEMPERA_TRY(AddStages(manifest, to, job.folder, s.stage_bits));
    const Denoiser& network = q.quantizer->network();
    return MethodFacts{.network = network.info(),
                       .training_timesteps = q.quantizer->scheduler().train_timesteps(),
                       .timesteps = q.quantizer->scheduler().timesteps(),
                       .layers = DescribeLayers(q, manifest.slots),
                       .features = DescribeFeatures(q),
                       .temporal = MeasureTemporal(network, network.info().block_groups,
                                                   q.quantizer->exact_features(), q.used),
                       .bytes = CountBytes(network, q.weights, q.tables, q.reference)};
  };

  Manifest manifest;
  job.meter.BeginMethod(0);
  TEMPERA_ASSIGN(const MethodFacts own, quantize(spec, folder, manifest));

  Evaluation evaluation;
  evaluation.model = {.name = job.folder.name,
                      .sha256 = model_digest,
                      .family = own.network.family,
                      .pipeline = job.folder.pipeline->class_name,
                      .channels = job.paints.channels,
                      .height = spec.height,
                      .width = spec.width,
                      .classes = job.folder.class_names};
  const int64_t classes = job.paints.classes;
  if (static_cast<int64_t>(evaluation.model.classes.size()) != classes) {
    evaluation.model.classes.clear();
    for (int64_t c = 0; c < classes; ++c) evaluation.model.classes.push_back(Cat(c));
  }
  evaluation.schedule = {.scheduler = spec.scheduler,
                         .spacing = spec.spacing,
                         .eta = spec.eta,
                         .training_timesteps = own.training_timesteps,
                         .timesteps = own.timesteps};
  evaluation.calibration = {.seed = spec.seed,
                            .samples_per_step = spec.samples_per_step,
                            .classes = {},
                            .max_iterations = spec.max_iterations,
                            .batch = spec.batch,
                            .temporal_strategy = spec.temporal_strategy,
                            .boundary_bits = spec.boundary_bits,
                            .quantize_attention = spec.quantize_attention,
                            .stage_bits = spec.stage_bits};
  for (const int64_t c : spec.classes)
    evaluation.calibration.classes.push_back(evaluation.model.classes[static_cast<size_t>(c)]);
  evaluation.groups = own.network.block_groups;
  evaluation.layers = own.layers;
  evaluation.temporal_features = own.features;
  evaluation.bytes = own.bytes;

  TEMPERA_ASSIGN(const auto features, FeatureExtractor::Open(job.input.model_folder));
  const bool fits = features != nullptr && features->info().classes == classes;
  const std::string why_none = features == nullptr ? "the model's folder ships no feature network"
                                                   : "the feature network has other classes than the model";
  const FeatureExtractor* scorer = fits ? features.get() : nullptr;
  // Networks that paint what is no picture are quantized all the same; there is nothing to look at then.
  const int64_t channels = job.paints.channels;
  const int64_t count = channels == 1 || channels == 3 || channels == 4 ? spec.evaluation_pictures : 0;

  job.meter.Stage("evaluate");
  // One engine is loaded at a time. `bytes`: what it holds in memory.
  const auto paint = [&](const auto& load, const QuantSpec& s, const char* what,
                         std::optional<int64_t>& bytes) -> Result<PaintedPairs> {
    job.folder.ReleasePages();
    TEMPERA_ASSIGN(const std::shared_ptr<const Engine> engine, load());
    bytes = engine->info().memory_bytes();
    return PaintPairs(job.scope, *engine, s, count, job.lanes,
                      [&](int64_t done, int64_t total) { job.meter.Unit(what, done, total); });
  };
  const auto load_artifact = [&](const std::filesystem::path& at, const Manifest& of) {
    return LoadArtifactAs(job.scope, at, of, "", {.metric = false});
  };
  Measurements measurements;
  TEMPERA_ASSIGN(const PaintedPairs original,
                 paint([&] { return LoadModelOf(job.scope, job.folder); }, spec, "full precision",
                       measurements.full_precision_resident_bytes));
  TEMPERA_ASSIGN(const PaintedPairs quantized, paint([&] { return load_artifact(folder, manifest); }, spec,
                                                     "quantized", measurements.quantized_resident_bytes));
  evaluation.pairs = original.pairs;
  if (spec.stage_bits == 8) {
    TEMPERA_ASSIGN(evaluation.parts, MeasureParts(job.folder, folder, own.network, spec, job.plan,
                                                  original.latents, job.lanes));
  }
  TEMPERA_ASSIGN(const FeatureScores of_original,
                 ScoreFeatures(job.scope, original, scorer, why_none, job.lanes));
  evaluation.full_precision = {.frechet_distance = of_original.distance,
                               .class_accuracy = of_original.accuracy};
  if (scorer != nullptr)
    evaluation.feature_network =
        FeatureNetwork{.metric = features->info().metric,
                       .dimension = features->info().dimension,
                       .pictures = count,
                       .against = Cat(features->info().real_pictures, " real pictures")};
  TEMPERA_ASSIGN(MethodResult own_result, ScoreMethod(job.scope, spec, own.temporal, original, quantized,
                                                      scorer, why_none, job.lanes));
  evaluation.methods.push_back(std::move(own_result));

  std::vector<std::pair<std::string, PaintedPairs>> others;
  for (size_t i = 0; i < spec.compare.size(); ++i) {
    job.meter.BeginMethod(static_cast<int64_t>(i) + 1);
    QuantSpec other = spec;
    other.method = spec.compare[i];
    other.compare.clear();
    other.temporal_strategy = FindMethod(other.method)->temporal_apart ? "select" : "reconstruct";
    const std::filesystem::path beside = job.input.work_folder / ("compare-" + other.method);
    Manifest of_other;
    TEMPERA_ASSIGN(const MethodFacts facts, quantize(other, beside, of_other));
    job.meter.Stage("evaluate");
    std::optional<int64_t> bytes;
    TEMPERA_ASSIGN(PaintedPairs painted,
                   paint([&] { return load_artifact(beside, of_other); }, other, "compared", bytes));
    TEMPERA_ASSIGN(MethodResult result, ScoreMethod(job.scope, other, facts.temporal, original, painted,
                                                    scorer, why_none, job.lanes));
    evaluation.methods.push_back(std::move(result));
    others.emplace_back(other.method, std::move(painted));
    std::filesystem::remove_all(beside, ignored);
  }

  job.meter.Stage("publish");
  std::vector<std::pair<std::string, const PaintedPairs*>> shown{{spec.method, &quantized}};
  for (const auto& [name, painted] : others) shown.emplace_back(name, &painted);
  TEMPERA_ASSIGN(evaluation.samples, WriteSamples(folder, original, shown));
  TEMPERA_TRY(CheckEvaluation(evaluation, kEvaluationFile));
  TEMPERA_TRY(WriteFileAtomic(folder / kEvaluationFile, CanonicalJson(ToJson(evaluation)), kEvaluationFile));
  TEMPERA_TRY(AddFile(manifest, folder, kEvaluationFile));
  for (const Sample& sample : evaluation.samples.rows) {
    TEMPERA_TRY(AddFile(manifest, folder, sample.full_precision));
    for (const SampleOfMethod& s : sample.methods) {
      TEMPERA_TRY(AddFile(manifest, folder, s.picture));
      TEMPERA_TRY(AddFile(manifest, folder, s.difference));
    }
  }
  TEMPERA_TRY(WriteFileAtomic(folder / kManifestFile, manifest.Text(), kManifestFile));
  const std::string id = manifest.Id();

  measurements.job.id = job.input.job_id;
  Fields notes(job.input.notes, "notes");
  notes.Get("name", measurements.job.name);
  if (const Json* labels = notes.Raw("labels"); labels != nullptr && labels->is_object())
    for (const auto& [key, value] : labels->items())
      if (value.is_string()) measurements.job.labels[key] = value.get<std::string>();
  measurements.job.started = started;
  measurements.job.finished = NowText();
  measurements.machine = DescribeMachine(job.lanes.count());
  measurements.software = {{"tempera", kToolVersion}, {"LibTorch", TORCH_VERSION}, {"compiler", __VERSION__}};
  measurements.stages = job.meter.Finish();
  if (!original.step_milliseconds.empty()) {
    measurements.steps = {{.subject = "full_precision",
                           .batch = 1,
                           .threads = 1,
                           .runs = static_cast<int64_t>(original.step_milliseconds.size()),
                           .milliseconds = Median(original.step_milliseconds)},
                          {.subject = "quantized",
                           .batch = 1,
                           .threads = 1,
                           .runs = static_cast<int64_t>(quantized.step_milliseconds.size()),
                           .milliseconds = Median(quantized.step_milliseconds)}};
  }
  TEMPERA_TRY(WriteFileAtomic(folder / kMeasurementsFile, ToJson(measurements).dump(2), kMeasurementsFile));
  TEMPERA_ASSIGN(const Report report, BuildReport(id, evaluation, measurements, folder));
  TEMPERA_TRY(WriteFileAtomic(folder / kReportJsonFile, report.json, kReportJsonFile));
  TEMPERA_TRY(WriteFileAtomic(folder / kReportHtmlFile, report.html, kReportHtmlFile));
  Manifest beside;
  for (const char* name : {kMeasurementsFile, kReportJsonFile, kReportHtmlFile})
    TEMPERA_TRY(AddFile(beside, folder, name));
  TEMPERA_TRY(WriteFileAtomic(folder / kDigestsFile, DigestsText(beside.files), kDigestsFile));
  return QuantizeJobOutput{.artifact_id = id, .folder = folder};
}

}  // namespace

Result<QuantizeJobOutput> RunQuantizeJob(const CallScope& scope, const QuantizeJobInput& input, Lanes& lanes,
                                         const std::function<void(const JobProgress&)>& progress) {
  return nn::TorchEdge("quantize job", [&]() -> Result<QuantizeJobOutput> {
    const nn::FreedMemoryRelease after;
    TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(input.model_folder));
    ProgressMeter meter(progress, 1 + static_cast<int64_t>(input.spec.compare.size()));
    const at::NoGradGuard guard;
    Paints paints;
    TEMPERA_ASSIGN(const CalibrationPlan plan, MakePlan(input.spec, folder, paints));
    return Run({.scope = scope,
                .input = input,
                .lanes = lanes,
                .folder = folder,
                .plan = plan,
                .paints = paints,
                .meter = meter});
  });
}

}  // namespace tempera
