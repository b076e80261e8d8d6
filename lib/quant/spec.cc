#include "quant/spec.h"

#include <algorithm>
#include <cmath>

#include "models/family.h"
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
          {"overrides", list},
          {"scheduler", scheduler},
          {"steps", steps},
          {"eta", eta},
          {"spacing", spacing},
          {"samples_per_step", samples_per_step},
          {"seed", seed},
          {"classes", classes},
          {"max_iterations", max_iterations},
          {"batch", batch},
          {"temporal_strategy", temporal_strategy},
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
  f.Need("max_iterations", s.max_iterations);
  f.Need("batch", s.batch);
  f.Need("temporal_strategy", s.temporal_strategy);
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
  s.seed = r.seed.value_or(s.seed);
  s.samples_per_step = r.samples_per_step.value_or(32);
  TEMPERA_TRY(CheckRange("samples_per_step", s.samples_per_step, 1, 4096));
  s.max_iterations = r.max_iterations.value_or(250);
  TEMPERA_TRY(CheckRange("max_iterations", s.max_iterations, 0, 1000000));
  s.batch = r.batch.value_or(16);
  TEMPERA_TRY(CheckRange("batch", s.batch, 1, 4096));
  s.evaluation_pictures = r.evaluation_pictures.value_or(64);
  TEMPERA_TRY(CheckRange("evaluation_pictures", s.evaluation_pictures, 0, 100000));
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
  for (const std::string& name : r.compare) {
    TEMPERA_TRY(CheckMethod("compare", name));
    if (name != s.method && std::find(s.compare.begin(), s.compare.end(), name) == s.compare.end())
      s.compare.push_back(name);
  }

  // What only the model can tell.
  TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(model_folder));
  nn::Params params(folder.weights, at::kCPU);
  TEMPERA_ASSIGN(const std::unique_ptr<Denoiser> network,
                 BuildDenoiser(folder.network_config, folder.network_label, params));
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
  const int64_t classes = network->info().classes;
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
                        .spacing = r.spacing};
  TEMPERA_ASSIGN(const auto scheduler, CreateScheduler(want));
  s.scheduler = scheduler->name();
  s.steps = static_cast<int>(scheduler->steps());
  s.eta = scheduler->eta();
  const auto spacing = scheduler->config().find("timestep_spacing");
  s.spacing = spacing != scheduler->config().end() && spacing->is_string() ? spacing->get<std::string>() : "";
  return s;
}

}  // namespace tempera
