// The options of `tempera quantize` and `tempera generate`.
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <memory>
#include <optional>

#include "client/cli_options.h"
#include "client/json_view.h"
#include "text/unicode.h"

namespace tempera {
namespace {

constexpr char kQuantizeFooter[] = R"(
Whatever is not said takes a default that suits the model. Ctrl-C leaves the job running.

Examples:
  tempera quantize ./zoo/fashion                             W4A8 with tfmq, on the model's own schedule
  tempera quantize ./zoo/fashion --weight-bits 8 --steps 20  other bits, another schedule
  tempera quantize ./zoo/fashion --dry-run                   show what would be done
  tempera quantize ./zoo/fashion --detach                    print the job's id and return
  tempera --json quantize ./zoo/fashion | tail -n 1 | jq -r .artifact)";

constexpr char kGenerateFooter[] = R"(
The same request gives the same picture, byte for byte. Picture i of several has seed S + i.

Examples:
  tempera generate fashion:w4a8 --class 0                    writes fashion-w4a8-SEED.png
  tempera generate ./zoo/fashion --class 0 --seed 7 --out full.png
  tempera generate fashion:w4a8 --class 9 --count 8 --out boots/
  tempera generate fashion:w4a8 --class 5 --preview 5 --out sandal.webp
  tempera generate ./sd15 --prompt "a red fox in the snow" --negative-prompt blurry --width 640)";

template <typename T, typename Target>
void Set(const std::optional<T>& value, Target set) {
  if (value) set(*value);
}

void AddSchedulerOptions(App& c, std::vector<std::string>& options) {
  c.add_option("--scheduler-option", options,
               "NAME=VALUE, an option of scheduler_config.json, such as use_karras_sigmas=true; repeatable")
      ->allow_extra_args(false);
}

// Values are JSON; what is none is a word.
google::protobuf::Struct SchedulerOptions(const std::vector<std::string>& options) {
  Json object = Json::object();
  for (const std::string& option : options) {
    const size_t eq = option.find('=');
    if (eq == 0 || eq == std::string::npos)
      throw CLI::ValidationError("--scheduler-option", "got " + option + ", want NAME=VALUE");
    const std::string text = option.substr(eq + 1);
    const Json value = Json::parse(text, nullptr, false);
    object[option.substr(0, eq)] = value.is_discarded() ? Json(text) : value;
  }
  google::protobuf::Struct message;
  const auto read = google::protobuf::util::JsonStringToMessage(OneLine(object), &message);
  if (!read.ok()) throw CLI::ValidationError("--scheduler-option", std::string(read.message()));
  return message;
}

// Text that a message can carry.
CLI::Validator Utf8Text() {
  return CLI::Validator(
      [](const std::string& text) {
        const auto at = FindInvalidUtf8(text);
        return at ? Cat("not valid UTF-8 at byte ", *at) : std::string();
      },
      "");
}

}  // namespace

CLI::Validator WholeNumber() {
  return CLI::Validator(
      [](const std::string& text) {
        const bool sound = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
        return sound ? std::string() : Cat("got ", text, ", want a whole number of 0 or more");
      },
      "");
}

void AddQuantize(App& app, Typed& typed) {
  struct Options {
    QuantizeArgs args;
    std::string model, name, request_id;
    std::optional<std::string> method, scheduler, spacing, strategy;
    std::optional<int> weight_bits, activation_bits, boundary_bits, stage_bits, steps, samples, iterations,
        batch, pictures;
    std::optional<double> eta, guidance;
    std::optional<uint64_t> seed;
    std::optional<int64_t> height, width;
    std::vector<int64_t> classes;
    std::vector<std::string> prompts, compare, labels, overrides;
    std::string prompts_file;
    std::vector<std::string> scheduler_options;
    bool attention = false, keep_time_layers = false, dry_run = false;
  };
  auto o = std::make_shared<Options>();
  App* c = app.add_subcommand("quantize", "Make a small artifact of a full-precision model")
               ->footer(kQuantizeFooter);
  c->add_option("MODEL", o->model, "Folder of the model, under one of the server's model roots")->required();
  c->add_option("--method", o->method, "minmax, brecq, tfmq or tfmq-paper (default tfmq)");
  c->add_option("--weight-bits", o->weight_bits, "4, 5, 6 or 8 (default 4)");
  c->add_option("--activation-bits", o->activation_bits,
                "4, 5, 6 or 8; 32 keeps activations in float (default 8)");
  c->add_option("--boundary-bits", o->boundary_bits,
                "Bits of the first and last layers: 8, or 0 for float (default 0)");
  c->add_flag("--quantize-attention", o->attention, "Quantize the operands of attention too");
  c->add_option("--stage-bits", o->stage_bits,
                "Bits of text encoders and first stage: 8, or 32 to leave them as they are (default 32)");
  c->add_option("--override", o->overrides,
                "Bits of one layer, LAYER=W or LAYER=W/A, 0 for float; repeatable")
      ->allow_extra_args(false);
  c->add_option("--scheduler", o->scheduler,
                "Scheduler that the artifact will serve, by name; default: the model's own");
  c->add_option("--steps", o->steps, "Denoising steps that it will serve");
  c->add_option("--eta", o->eta, "Noise of each DDIM step, 0 to 1 (default 0)");
  c->add_option("--spacing", o->spacing, "How timesteps are chosen: leading, trailing or linspace");
  AddSchedulerOptions(*c, o->scheduler_options);
  c->add_option("--samples-per-step", o->samples, "Calibration samples for each step");
  c->add_option("--seed", o->seed, "Seed of calibration (default 0)")->check(WholeNumber());
  c->add_option("--classes", o->classes, "Classes to calibrate on, as 0,3,5 (default all)")
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_option("--prompt", o->prompts,
                "A prompt to calibrate and evaluate on (default: the model's, or neutral ones); repeatable")
      ->allow_extra_args(false)
      ->check(Utf8Text());
  c->add_option("--prompts-file", o->prompts_file, "The same, one prompt a line")->check(CLI::ExistingFile);
  c->add_option("--guidance", o->guidance, "Guidance scale of calibration and evaluation");
  c->add_option("--width", o->width, "Width of the calibration pictures, pixels (default: the model's)");
  c->add_option("--height", o->height, "Height of them");
  c->add_option("--max-iterations", o->iterations, "Most iterations of reconstruction for each block");
  c->add_option("--batch", o->batch, "Rows in one iteration");
  c->add_option("--temporal-strategy", o->strategy, "reconstruct, cache or select");
  c->add_flag("--keep-time-layers", o->keep_time_layers,
              "Keep them in full precision, to serve other schedulers and step counts too");
  c->add_option("--evaluation-pictures", o->pictures,
                "Pairs of pictures in the report, 0 for none (default 64)");
  c->add_option("--compare", o->compare, "Other methods to run for the report, as minmax,brecq")
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_option("--name", o->name, "Alias that points to the artifact once it is made");
  c->add_option("--label", o->labels, "A note KEY=VALUE that the job keeps; repeatable")
      ->allow_extra_args(false);
  c->add_option("--request-id", o->request_id, "Name of this request: sent again, it starts nothing new");
  c->add_flag("--dry-run", o->dry_run, "Check everything, show the resolved settings and start nothing");
  c->add_flag("--detach", o->args.detach, "Do not wait: print the job's id and return");
  c->callback([o, &typed] {
    v1::QuantizeRequest& r = o->args.request;
    v1::QuantizationSpec& spec = *r.mutable_spec();
    r.set_model(o->model);
    r.set_alias(o->name);
    r.set_request_id(o->request_id);
    r.set_validate_only(o->dry_run);
    for (const std::string& label : o->labels) {
      const size_t eq = label.find('=');
      if (eq == 0 || eq == std::string::npos)
        throw CLI::ValidationError("--label", "got " + label + ", want KEY=VALUE");
      (*r.mutable_labels())[label.substr(0, eq)] = label.substr(eq + 1);
    }
    for (const std::string& text : o->overrides) {
      const size_t eq = text.rfind('=');
      const size_t slash = text.find('/', eq == std::string::npos ? 0 : eq);
      int weight = 0, activation = 0;
      const bool sound =
          eq != 0 && eq != std::string::npos &&
          CLI::detail::lexical_cast(text.substr(eq + 1, slash == std::string::npos ? slash : slash - eq - 1),
                                    weight) &&
          (slash == std::string::npos || CLI::detail::lexical_cast(text.substr(slash + 1), activation));
      if (!sound) throw CLI::ValidationError("--override", "got " + text + ", want LAYER=W or LAYER=W/A");
      v1::SlotOverride& slot = *spec.add_overrides();
      slot.set_slot(text.substr(0, eq));
      slot.set_weight_bits(weight);
      if (slash != std::string::npos) slot.set_activation_bits(activation);
    }
    Set(o->method, [&](const auto& v) { spec.set_method(v); });
    Set(o->weight_bits, [&](int v) { spec.set_weight_bits(v); });
    Set(o->activation_bits, [&](int v) { spec.set_activation_bits(v); });
    Set(o->boundary_bits, [&](int v) { spec.set_boundary_bits(v); });
    if (o->attention) spec.set_quantize_attention(true);
    Set(o->stage_bits, [&](int v) { spec.set_stage_bits(v); });
    Set(o->scheduler, [&](const auto& v) { spec.set_scheduler(v); });
    Set(o->steps, [&](int v) { spec.set_steps(v); });
    Set(o->eta, [&](double v) { spec.set_eta(v); });
    Set(o->spacing, [&](const auto& v) { spec.set_spacing(v); });
    Set(o->samples, [&](int v) { spec.set_samples_per_step(v); });
    Set(o->seed, [&](uint64_t v) { spec.set_seed(v); });
    for (const int64_t v : o->classes) spec.add_classes(v);
    for (const std::string& v : o->prompts) spec.add_prompts(v);
    if (!o->prompts_file.empty()) {
      std::ifstream lines(o->prompts_file);
      int number = 0;
      for (std::string line; std::getline(lines, line);) {
        ++number;
        if (const auto at = FindInvalidUtf8(line))
          throw CLI::ValidationError("--prompts-file",
                                     Cat("line ", number, ": not valid UTF-8 at byte ", *at));
        if (!line.empty()) spec.add_prompts(line);
      }
    }
    Set(o->guidance, [&](double v) { spec.set_guidance(v); });
    Set(o->height, [&](int64_t v) { spec.set_height(v); });
    Set(o->width, [&](int64_t v) { spec.set_width(v); });
    Set(o->iterations, [&](int v) { spec.set_max_iterations(v); });
    Set(o->batch, [&](int v) { spec.set_batch(v); });
    Set(o->strategy, [&](const auto& v) { spec.set_temporal_strategy(v); });
    if (o->keep_time_layers) spec.set_keep_time_layers(true);
    if (!o->scheduler_options.empty())
      *spec.mutable_scheduler_options() = SchedulerOptions(o->scheduler_options);
    Set(o->pictures, [&](int v) { spec.set_evaluation_pictures(v); });
    for (const auto& v : o->compare) spec.add_compare(v);
    typed.run = [o](const Session& s) { return RunQuantize(s, o->args); };
  });
}

void AddGenerate(App& app, Typed& typed) {
  struct Options {
    GenerateArgs args;
    std::string ref, request_id;
    std::optional<int64_t> class_label;
    std::optional<uint64_t> seed;
    std::optional<int> count, steps, preview, clip_skip;
    std::optional<std::string> prompt, prompt_2, negative, negative_2, scheduler;
    std::optional<double> eta, guidance, rescale;
    std::optional<int64_t> height, width;
    std::vector<int64_t> original_size, crop, target_size;
    std::string init_image, mask;
    std::vector<std::string> scheduler_options;
    std::optional<double> strength;
    bool dry_run = false, long_prompt = false, preview_full = false, audit = false;
  };
  auto o = std::make_shared<Options>();
  App* c = app.add_subcommand("generate", "Paint pictures with an artifact or a full-precision model")
               ->footer(kGenerateFooter);
  c->add_option("REF", o->ref, "Artifact id, alias, or folder of a full-precision model")->required();
  c->add_option("--class", o->class_label, "Class label; a class-conditional model needs one");
  c->add_option("--prompt", o->prompt, "What the picture shall show; a text-to-image model needs it")
      ->check(Utf8Text());
  c->add_option("--prompt-2", o->prompt_2, "The prompt of SDXL's second text encoder (default: the same)")
      ->check(Utf8Text());
  c->add_option("--negative-prompt", o->negative, "What it shall not show")->check(Utf8Text());
  c->add_option("--negative-prompt-2", o->negative_2, "The same for SDXL's second text encoder")
      ->check(Utf8Text());
  c->add_option("--guidance", o->guidance, "How strongly the prompt is followed; 1 or less: no guidance");
  c->add_option("--guidance-rescale", o->rescale,
                "Draw guided output back to the spread of plain one, 0 to 1");
  c->add_option("--width", o->width, "Width in pixels (default: the model's)");
  c->add_option("--height", o->height, "Height in pixels (default: the model's)");
  c->add_option("--init-image", o->init_image, "PNG, JPEG or WebP to begin from, of the size that is painted")
      ->check(CLI::ExistingFile);
  c->add_option("--mask", o->mask,
                "Picture, white where --init-image is painted anew, black where it is kept")
      ->check(CLI::ExistingFile);
  c->add_option("--strength", o->strength,
                "How much of the schedule is run on it, above 0 to 1 (default 0.8, with --mask 1)");
  c->add_option("--clip-skip", o->clip_skip, "Layers of the text encoders to leave out");
  c->add_flag("--long-prompt", o->long_prompt, "Read a long prompt in chunks instead of cutting it");
  for (const auto& [name, target, meaning] :
       {std::tuple("--original-size", &o->original_size, "SDXL: size of the photograph, HEIGHT WIDTH"),
        std::tuple("--crop", &o->crop, "SDXL: where it was cut out, TOP LEFT"),
        std::tuple("--target-size", &o->target_size, "SDXL: size that it was shown at, HEIGHT WIDTH")})
    c->add_option(name, *target, meaning)->expected(2);
  c->add_option("--seed", o->seed, "Seed of the first picture (default: drawn by the server)")
      ->check(WholeNumber());
  c->add_option("--count", o->count, "How many pictures (default 1)");
  c->add_option("--scheduler", o->scheduler,
                "Scheduler; an artifact without time layers serves the timesteps of its own only");
  c->add_option("--steps", o->steps, "Denoising steps (the same)");
  c->add_option("--eta", o->eta, "Noise of each DDIM step, 0 to 1");
  AddSchedulerOptions(*c, o->scheduler_options);
  c->add_option("--format", o->args.format,
                "png, webp or jpeg (default: by the extension of --out, else png)");
  c->add_option("--preview", o->preview,
                "A preview after every N steps (1 if left out): on a terminal that shows pictures, else as "
                "NAME-stepNNNN.png");
  c->add_flag("--preview-full", o->preview_full,
              "Previews as large and as dear as the picture (default: small ones, of the latent)");
  c->add_flag("--audit", o->audit, "Ask for a comparison with full precision, where the server can");
  c->add_option("--out", o->args.out,
                "File for one picture; for several a folder, or a name that gets -SEED");
  c->add_option("--request-id", o->request_id, "Name of this request in the server's logs");
  c->add_flag("--dry-run", o->dry_run, "Check everything and paint nothing");
  c->callback([o, &typed] {
    v1::GenerateRequest& r = o->args.request;
    r.set_ref(o->ref);
    r.set_request_id(o->request_id);
    r.set_validate_only(o->dry_run);
    Set(o->class_label, [&](int64_t v) { r.set_class_label(v); });
    Set(o->prompt, [&](const auto& v) { r.set_prompt(v); });
    Set(o->prompt_2, [&](const auto& v) { r.set_prompt_2(v); });
    Set(o->negative, [&](const auto& v) { r.set_negative_prompt(v); });
    Set(o->negative_2, [&](const auto& v) { r.set_negative_prompt_2(v); });
    Set(o->guidance, [&](double v) { r.set_guidance(v); });
    Set(o->rescale, [&](double v) { r.set_guidance_rescale(v); });
    Set(o->width, [&](int64_t v) { r.set_width(v); });
    Set(o->height, [&](int64_t v) { r.set_height(v); });
    const auto read = [](const std::string& path) {
      std::ifstream file(path, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    if (!o->init_image.empty()) r.set_init_image(read(o->init_image));
    if (!o->mask.empty()) r.set_mask(read(o->mask));
    Set(o->strength, [&](double v) { r.set_strength(v); });
    Set(o->clip_skip, [&](int v) { r.set_clip_skip(v); });
    r.set_long_prompt(o->long_prompt);
    const auto set_size = [](const std::vector<int64_t>& pair, auto mutable_size) {
      if (pair.empty()) return;
      mutable_size()->set_height(pair[0]);
      mutable_size()->set_width(pair[1]);
    };
    set_size(o->original_size, [&] { return r.mutable_original_size(); });
    set_size(o->crop, [&] { return r.mutable_crop(); });
    set_size(o->target_size, [&] { return r.mutable_target_size(); });
    Set(o->seed, [&](uint64_t v) { r.set_seed(v); });
    Set(o->count, [&](int v) { r.set_count(v); });
    Set(o->scheduler, [&](const auto& v) { r.set_scheduler(v); });
    Set(o->steps, [&](int v) { r.set_steps(v); });
    Set(o->eta, [&](double v) { r.set_eta(v); });
    if (!o->scheduler_options.empty())
      *r.mutable_scheduler_options() = SchedulerOptions(o->scheduler_options);
    Set(o->preview, [&](int v) { r.set_preview_interval(v); });
    if (o->preview_full) r.set_preview_kind(v1::FULL_DECODE);
    r.set_audit(o->audit);
    typed.run = [o](const Session& s) { return RunGenerate(s, o->args); };
  });
}

}  // namespace tempera
