#include "quant/spec.h"

#include <algorithm>
#include <cmath>

#include "models/family.h"
#include "models/folder.h"
#include "quant/method.h"
#include "schedulers/scheduler.h"

namespace tempera {
namespace {

constexpr int kBits[] = {4, 5, 6, 8};
constexpr const char* kStrategies[] = {"reconstruct", "cache", "select"};

bool IsBits(int bits) { return std::find(std::begin(kBits), std::end(kBits), bits) != std::end(kBits); }

Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return OkStatus();
  return InvalidArgument(field, ": out of range, got ", value, ", want ", low, " to ", high);
}

Status CheckMethod(const char* field, const std::string& name) {
  if (FindMethod(name) != nullptr) return OkStatus();
  std::string known;
  for (const std::string& n : QuantMethodNames()) known += Cat(known.empty() ? "" : ", ", n);
  return InvalidArgument(field, ": unknown method, got \"", name, "\", want one of ", known);
}

}  // namespace

Json QuantSpec::SchedulerOptions() const {
  Json options = scheduler_options;
  if (!spacing.empty()) options["timestep_spacing"] = spacing;
  return options;
}

Json QuantSpec::ToJson() const {
  Json list = Json::array();
  for (const SlotOverride& o : overrides) {
    Json item{{"slot", o.slot}};
    if (o.weight_bits) item["weight_bits"] = *o.weight_bits;
    if (o.activation_bits) item["activation_bits"] = *o.activation_bits;
    list.push_back(item);
  }
  return {{"method", method},
          {"weight_bits", weight_bits},
          {"activation_bits", activation_bits},
          {"boundary_bits", boundary_bits},
          {"quantize_attention", quantize_attention},
          {"stage_bits", stage_bits},
          {"overrides", list},
          {"scheduler", scheduler},
          {"steps", steps},
          {"eta", eta},
          {"spacing", spacing},
          {"scheduler_options", scheduler_options},
          {"samples_per_step", samples_per_step},
          {"seed", seed},
          {"classes", classes},
          {"prompts", prompts},
          {"guidance", guidance},
          {"height", height},
          {"width", width},
          {"max_iterations", max_iterations},
          {"batch", batch},
          {"temporal_strategy", temporal_strategy},
          {"keep_time_layers", keep_time_layers},
          {"evaluation_pictures", evaluation_pictures},
          {"compare", compare}};
}

Result<QuantSpec> QuantSpec::FromJson(const Json& json, const std::string& label) {
  QuantSpec s;
  Fields f(json, label);
  f.Need("method", s.method);
  f.Need("weight_bits", s.weight_bits);
  f.Need("activation_bits", s.activation_bits);
  f.Need("boundary_bits", s.boundary_bits);
  f.Need("quantize_attention", s.quantize_attention);
  f.Get("stage_bits", s.stage_bits);
  f.Need("scheduler", s.scheduler);
  f.Need("steps", s.steps);
  f.Need("eta", s.eta);
  f.Need("spacing", s.spacing);
  f.Need("samples_per_step", s.samples_per_step);
  if (const Json* seed = f.Raw("seed"); seed != nullptr && seed->is_number_unsigned())
    s.seed = seed->get<uint64_t>();
  else
    f.Fail("seed", "is wrong, want an unsigned integer");
  f.Need("classes", s.classes);
  f.Need("prompts", s.prompts);
  f.Need("guidance", s.guidance);
  f.Need("height", s.height);
  f.Need("width", s.width);
  f.Need("max_iterations", s.max_iterations);
  f.Need("batch", s.batch);
  f.Need("temporal_strategy", s.temporal_strategy);
  f.Need("keep_time_layers", s.keep_time_layers);
  if (const Json* options = f.Raw("scheduler_options"); options != nullptr && options->is_object())
    s.scheduler_options = *options;
  else
    f.Fail("scheduler_options", "is wrong, want an object");
  f.Need("evaluation_pictures", s.evaluation_pictures);
  f.Need("compare", s.compare);
  if (const Json* list = f.Raw("overrides"); list != nullptr && list->is_array()) {
    for (const Json& item : *list) {
      SlotOverride o;
      Fields g(item, label + ": overrides");
      g.Need("slot", o.slot);
      g.Get("weight_bits", o.weight_bits);
      g.Get("activation_bits", o.activation_bits);
      TEMPERA_TRY(g.Finish());
      s.overrides.push_back(std::move(o));
    }
  } else {
    f.Fail("overrides", "is wrong, want a list");
  }
  TEMPERA_TRY(f.Finish());
  return s;
}

std::vector<std::string> QuantMethodNames() {
  std::vector<std::string> names;
  for (const QuantMethod& m : QuantMethods()) names.push_back(m.name);
  return names;
}

namespace {

// Of every sort of thing, so that no prompt in use is far from all of them; none names a style or a person.
constexpr const char* kNeutralPrompts[] = {
    "a photo of a red apple on a wooden table",
    "a mountain lake at sunrise",
    "a black cat asleep on a sofa",
    "an old street in the rain at night",
    "a bowl of noodle soup with vegetables",
    "portrait of a woman with a straw hat",
    "a steam train crossing a stone bridge",
    "a watercolor painting of a sailing boat",
    "a desk with a lamp, books and a cup of coffee",
    "a yellow sports car on a desert road",
    "a field of sunflowers under a blue sky",
    "a child flying a kite on the beach",
    "a pencil drawing of a castle on a hill",
    "close-up of a bee on a lavender flower",
    "a modern kitchen with white walls",
    "a rocket launch seen from far away",
    "a wolf in a snowy forest",
    "a plate of sushi, top view",
    "a man playing the violin on a stage",
    "an astronaut floating above the earth",
    "a cartoon robot waving its hand",
    "a waterfall in a green jungle",
    "a pair of leather boots on a white background",
    "a crowded market with colorful fruit",
    "a lighthouse in a storm, oil painting",
    "an owl on a branch in moonlight",
    "a glass of orange juice with ice",
    "a city skyline reflected in a river",
    "a knitted blanket with a geometric pattern",
    "a dragon carved in stone",
    "a bicycle leaning against a brick wall",
    "a dog running through autumn leaves",
};

Status ResolvePrompts(const QuantRequest& r, const ModelFolder& folder, QuantSpec& s) {
  s.guidance = r.guidance.value_or(folder.pipeline->guidance);
  if (!(std::isfinite(s.guidance) && s.guidance >= 0 && s.guidance <= 1000))
    return InvalidArgument("guidance: got ", s.guidance, ", want 0 to 1000");
  if (folder.pipeline->guidance == 1 && s.guidance != 1)
    return InvalidArgument("guidance: got ", s.guidance, ", but a ", folder.pipeline->class_name,
                           " has nothing to be guided by, want none");
  if (folder.tokenizers.empty()) {
    if (!r.prompts.empty())
      return InvalidArgument("prompts: got ", r.prompts.size(), ", but a ", folder.pipeline->class_name,
                             " takes no prompt, want none");
    return OkStatus();
  }
  s.prompts = r.prompts.empty() ? folder.prompts : r.prompts;
  if (s.prompts.empty()) s.prompts.assign(std::begin(kNeutralPrompts), std::end(kNeutralPrompts));
  constexpr size_t kMostPrompts = 4096, kMostBytes = 16384;
  if (s.prompts.size() > kMostPrompts)
    return InvalidArgument("prompts: got ", s.prompts.size(), ", want at most ", kMostPrompts);
  for (size_t i = 0; i < s.prompts.size(); ++i)
    if (s.prompts[i].size() > kMostBytes)
      return InvalidArgument("prompts: number ", i, " is too long, got ", s.prompts[i].size(),
                             " bytes, want at most ", kMostBytes);
  return OkStatus();
}

Status ResolveSize(const QuantRequest& r, const ModelFolder& folder, const DenoiserInfo& network,
                   QuantSpec& s) {
  TEMPERA_ASSIGN(const int64_t factor, LatentFactor(folder));
  for (const auto& [field, asked, own, out] :
       {std::tuple("height", r.height, network.height * factor, &s.height),
        std::tuple("width", r.width, network.width * factor, &s.width)}) {
    *out = asked.value_or(own);
    if (*out == 0)
      return InvalidArgument(field, ": is missing, ", folder.network.label, " has no sample_size");
    if (*out == own) continue;
    if (factor == 1) return InvalidArgument(field, ": got ", *out, ", the model paints ", own);
    if (*out < factor || *out > 16384 || *out % factor != 0)
      return InvalidArgument(field, ": got ", *out, ", want a multiple of ", factor, " up to 16384");
  }
  // Large pictures carry as much to calibrate on as many small ones, and cost as much.
  const int64_t area = s.height / factor * (s.width / factor);
  s.samples_per_step =
      r.samples_per_step.value_or(static_cast<int>(std::clamp<int64_t>(32 * 1024 / area, 4, 32)));
  TEMPERA_TRY(CheckRange("samples_per_step", s.samples_per_step, 1, 4096));
  s.batch = r.batch.value_or(static_cast<int>(std::clamp<int64_t>(16 * 1024 / area, 4, 16)));
  TEMPERA_TRY(CheckRange("batch", s.batch, 1, 4096));
  s.evaluation_pictures =
      r.evaluation_pictures.value_or(static_cast<int>(std::clamp<int64_t>(64 * 1024 / area, 4, 64)));
  return CheckRange("evaluation_pictures", s.evaluation_pictures, 0, 100000);
}

}  // namespace

Result<QuantSpec> ResolveSpec(const QuantRequest& r, const std::filesystem::path& model_folder) {
  QuantSpec s;
  s.method = r.method.value_or(s.method);
  TEMPERA_TRY(CheckMethod("method", s.method));
  s.weight_bits = r.weight_bits.value_or(s.weight_bits);
  if (!IsBits(s.weight_bits))
    return InvalidArgument("weight_bits: got ", s.weight_bits, ", want 4, 5, 6 or 8");
  s.activation_bits = r.activation_bits.value_or(s.activation_bits);
  if (!IsBits(s.activation_bits) && s.activation_bits != 32)
    return InvalidArgument("activation_bits: got ", s.activation_bits, ", want 4, 5, 6, 8 or 32");
  s.boundary_bits = r.boundary_bits.value_or(s.boundary_bits);
  if (s.boundary_bits != 0 && s.boundary_bits != 8)
    return InvalidArgument("boundary_bits: got ", s.boundary_bits, ", want 0 or 8");
  s.quantize_attention = r.quantize_attention.value_or(s.quantize_attention);
  if (s.quantize_attention && s.activation_bits == 32)
    return InvalidArgument(
        "quantize_attention: got true with activation_bits 32, want activation_bits of at most 8");
  s.stage_bits = r.stage_bits.value_or(s.stage_bits);
  if (s.stage_bits != 8 && s.stage_bits != 32)
    return InvalidArgument("stage_bits: got ", s.stage_bits, ", want 8 or 32");
  s.seed = r.seed.value_or(s.seed);
  s.max_iterations = r.max_iterations.value_or(500);
  TEMPERA_TRY(CheckRange("max_iterations", s.max_iterations, 0, 1000000));
  s.temporal_strategy = r.temporal_strategy.value_or("select");
  if (std::find(std::begin(kStrategies), std::end(kStrategies), s.temporal_strategy) == std::end(kStrategies))
    return InvalidArgument("temporal_strategy: got \"", s.temporal_strategy,
                           "\", want reconstruct, cache or select");
  if (!FindMethod(s.method)->temporal_apart) {
    if (r.temporal_strategy && s.temporal_strategy != "reconstruct")
      return InvalidArgument("temporal_strategy: got \"", s.temporal_strategy, "\" for method ", s.method,
                             ", want reconstruct (only tfmq and tfmq-paper keep temporal features apart)");
    s.temporal_strategy = "reconstruct";
  }
  s.keep_time_layers = r.keep_time_layers.value_or(false);
  for (const std::string& name : r.compare) {
    TEMPERA_TRY(CheckMethod("compare", name));
    if (name != s.method && std::find(s.compare.begin(), s.compare.end(), name) == s.compare.end())
      s.compare.push_back(name);
  }

  // What only the model can tell.
  TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(model_folder));
  if (s.stage_bits == 8 && std::none_of(folder.stages.begin(), folder.stages.end(),
                                        [](const ModelPart& part) { return part.has_layers(); }))
    return InvalidArgument("stage_bits: got 8, but a ", folder.pipeline->class_name,
                           " has neither text encoder nor first stage, want 32");
  nn::Params params(folder.network.weights, at::kCPU);
  TEMPERA_ASSIGN(const std::unique_ptr<Denoiser> network,
                 BuildDenoiser(folder.network.config, folder.network.label, params));
  for (const SlotOverride& o : r.overrides) {
    if (network->FindSlot(o.slot) == nullptr)
      return InvalidArgument("overrides: the model has no layer \"", o.slot, "\"");
    if (o.weight_bits && *o.weight_bits != 0 && !IsBits(*o.weight_bits))
      return InvalidArgument("overrides: ", o.slot, ": weight_bits: got ", *o.weight_bits,
                             ", want 0, 4, 5, 6 or 8");
    if (o.activation_bits && *o.activation_bits != 0 && *o.activation_bits != 32 &&
        !IsBits(*o.activation_bits))
      return InvalidArgument("overrides: ", o.slot, ": activation_bits: got ", *o.activation_bits,
                             ", want 0, 4, 5, 6, 8 or 32");
  }
  s.overrides = r.overrides;
  TEMPERA_ASSIGN(const int64_t embedded, EmbeddedClasses(folder));
  const int64_t classes = std::max(embedded, network->info().classes);
  TEMPERA_TRY(ResolvePrompts(r, folder, s));
  TEMPERA_TRY(ResolveSize(r, folder, network->info(), s));
  for (const int64_t c : r.classes) {
    if (classes == 0) return InvalidArgument("classes: got ", c, " for an unconditional model, want none");
    if (c < 0 || c >= classes) return InvalidArgument("classes: got ", c, ", want 0 to ", classes - 1);
  }
  s.classes = r.classes;
  if (s.classes.empty()) {
    constexpr int64_t kMost = 32;  // evenly spaced where there are more, as the reference does for ImageNet
    const int64_t count = std::min(classes, kMost);
    for (int64_t i = 0; i < count; ++i) s.classes.push_back(i * classes / count);
  }
  SchedulerRequest want{.config = folder.scheduler_config,
                        .name = r.scheduler,
                        .steps = r.steps,
                        .eta = r.eta,
                        .spacing = r.spacing,
                        .options = r.scheduler_options};
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler(want));
  s.scheduler = scheduler->name();
  s.steps = static_cast<int>(scheduler->steps());
  s.eta = scheduler->eta();
  const auto spacing = scheduler->config().find("timestep_spacing");
  if (r.scheduler_options.is_object()) s.scheduler_options = r.scheduler_options;
  s.spacing = spacing != scheduler->config().end() && spacing->is_string() ? spacing->get<std::string>() : "";
  return s;
}

}  // namespace tempera
