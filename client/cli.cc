#include "client/cli.h"

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "client/commands.h"
#include "client/completion.h"
#include "client/json_view.h"

namespace tempera {
namespace {

constexpr char kMainFooter[] = R"(
A model is a folder in the diffusers layout under one of the server's model roots. An artifact is a quantized model: its
id, a prefix of 12 digits or more, or an alias. REF is either. A folder here wins over an alias of the same name.

Examples:
  tempera quantize ./zoo/fashion --weight-bits 4 --activation-bits 8 --name fashion:w4a8
  tempera generate fashion:w4a8 --class 3 --seed 7 --out dress.png
  tempera report fashion:w4a8 --out report
  tempera --json jobs list | jq -r .name

Exit codes:
  0 done                       4 no server, full, or out of time: may work later
  1 wrong command or request   5 stored or received bytes are damaged
  2 not found                  6 the job ended without success
  3 refused in this state      7 a bug        130 interrupted

With --json every result is one JSON object a line on stdout, and an error is one on stderr.)";

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

// What was typed; `run` is set by the command's callback.
struct Typed {
  std::string server;
  bool json = false;
  double timeout_s = 30;
  std::function<Result<int>(const Session&)> run;
};

using App = CLI::App;

// A whole number that is not negative, said in words.
CLI::Validator WholeNumber() {
  return CLI::Validator(
      [](const std::string& text) {
        const bool sound = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
        return sound ? std::string() : Cat("got ", text, ", want a whole number of 0 or more");
      },
      "");
}

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
                "A prompt to calibrate and evaluate on (default: neutral ones); repeatable")
      ->allow_extra_args(false);
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
      for (std::string line; std::getline(lines, line);)
        if (!line.empty()) spec.add_prompts(line);
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
  c->add_option("--prompt", o->prompt, "What the picture shall show; a text-to-image model needs it");
  c->add_option("--prompt-2", o->prompt_2, "The prompt of SDXL's second text encoder (default: the same)");
  c->add_option("--negative-prompt", o->negative, "What it shall not show");
  c->add_option("--negative-prompt-2", o->negative_2, "The same for SDXL's second text encoder");
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

// A command with one argument.
App* AddOne(App& parent, Typed& typed, const char* name, const char* help, const char* argument,
            const char* meaning, Result<int> (*run)(const Session&, const std::string&)) {
  auto id = std::make_shared<std::string>();
  App* c = parent.add_subcommand(name, help);
  c->add_option(argument, *id, meaning)->required();
  c->callback([id, run, &typed] { typed.run = [id, run](const Session& s) { return run(s, *id); }; });
  return c;
}

void AddList(App& parent, Typed& typed, const char* help, const char* footer,
             Result<int> (*run)(const Session&, const ListArgs&)) {
  auto args = std::make_shared<ListArgs>();
  App* c = parent.add_subcommand("list", help)->footer(footer);
  c->add_option("--filter", args->filter, "Comparisons joined by AND");
  c->add_option("--limit", args->limit, "Most lines, 0 for all (default 50)")->check(WholeNumber());
  c->callback([args, run, &typed] { typed.run = [args, run](const Session& s) { return run(s, *args); }; });
}

void AddJobs(App& app, Typed& typed) {
  App* jobs = app.add_subcommand("jobs", "Look at quantize jobs and stop them")
                  ->require_subcommand(1)
                  ->footer(
                      "\nExamples:\n"
                      "  tempera jobs list --filter 'state = RUNNING'\n"
                      "  tempera jobs watch 3f2a9c1b77de0045   a job's id, as quantize and list print it");
  AddList(*jobs, typed, "List jobs, newest first",
          "\nExample:\n  tempera jobs list --filter 'state = RUNNING'", &RunJobsList);
  AddOne(*jobs, typed, "show", "Show one job", "ID", "The job's id", &RunJobsShow);
  AddOne(*jobs, typed, "watch", "Follow a job to its end", "ID", "The job's id", &RunJobsWatch);
  AddOne(*jobs, typed, "cancel", "Stop a job at its next block", "ID", "The job's id", &RunJobsCancel);
  AddOne(*jobs, typed, "delete", "Forget a finished job; its artifact stays", "ID", "The job's id",
         &RunJobsDelete);
}

void AddArtifacts(App& app, Typed& typed) {
  App* artifacts = app.add_subcommand("artifacts", "Look at artifacts and check them")
                       ->require_subcommand(1)
                       ->footer(
                           "\nExamples:\n"
                           "  tempera artifacts show fashion:w4a8\n"
                           "  tempera artifacts verify 3f2a9c1b77de");
  AddList(*artifacts, typed, "List artifacts, newest first",
          "\nExample:\n  tempera artifacts list --filter 'method = tfmq AND create_time > "
          "\"2026-01-01T00:00:00Z\"'",
          &RunArtifactsList);
  AddOne(*artifacts, typed, "show", "Show one artifact", "ID", "Id, prefix or alias", &RunArtifactsShow);
  AddOne(*artifacts, typed, "verify", "Compare every file with the manifest", "ID", "Id, prefix or alias",
         &RunArtifactsVerify);
  auto id = std::make_shared<std::string>();
  auto force = std::make_shared<bool>(false);
  App* c = artifacts->add_subcommand("delete", "Delete an artifact's files");
  c->add_option("ID", *id, "Id or prefix; not an alias")->required();
  c->add_flag("--force", *force, "Remove the aliases that point to it, too");
  c->callback(
      [=, &typed] { typed.run = [=](const Session& s) { return RunArtifactsDelete(s, *id, *force); }; });
}

void AddAlias(App& app, Typed& typed) {
  struct Options {
    std::string alias, id;
    std::optional<std::string> expected;
    bool remove = false;
  };
  auto o = std::make_shared<Options>();
  App* c = app.add_subcommand("alias", "Point an alias to an artifact, in one atomic step")
               ->footer(
                   "\nExamples:\n"
                   "  tempera alias fashion:stable 3f2a9c1b77de\n"
                   "  tempera alias fashion:stable fashion:w4a8 --expect 3f2a9c1b77de...   only if it still "
                   "points there\n"
                   "  tempera alias fashion:stable --remove");
  c->add_option("ALIAS", o->alias, "The alias, such as fashion:stable")->required();
  auto* id = c->add_option("ID", o->id, "Artifact id, prefix, or another alias");
  auto* remove = c->add_flag("--remove", o->remove, "Remove the alias");
  id->excludes(remove);
  c->add_option("--expect", o->expected, "Id that the alias must point to now; empty: that it must be new");
  c->callback([o, &typed] {
    if (!o->remove && o->id.empty()) throw CLI::RequiredError("ID");
    typed.run = [o](const Session& s) { return RunAlias(s, o->alias, o->id, o->expected); };
  });
}

void AddReport(App& app, Typed& typed) {
  auto id = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>();
  App* c =
      app.add_subcommand("report", "Fetch the quality report of an artifact")
          ->footer("\nExample:\n  tempera report fashion:w4a8 --out report   then open report/report.html");
  c->add_option("ID", *id, "Id, prefix or alias")->required();
  c->add_option("--out", *out, "Folder for the files; made if it is not there")->required();
  c->callback([=, &typed] { typed.run = [=](const Session& s) { return RunReport(s, *id, *out); }; });
}

void AddExplain(App& app, Typed& typed) {
  struct Options {
    std::string id, layer;
    std::optional<int> step;
  };
  auto o = std::make_shared<Options>();
  App* c = app.add_subcommand("explain", "Show how each layer is quantized, step by step")
               ->footer(
                   "\nExamples:\n"
                   "  tempera explain fashion:w4a8 --step 0\n"
                   "  tempera explain fashion:w4a8 --layer mid_block");
  c->add_option("ID", o->id, "Id, prefix or alias")->required();
  c->add_option("--layer", o->layer, "A layer's path, or the beginning of paths, such as down_blocks.0");
  c->add_option("--step", o->step, "Step k, 0 = the noisiest");
  c->callback(
      [o, &typed] { typed.run = [o](const Session& s) { return RunExplain(s, o->id, o->layer, o->step); }; });
}

void AddModels(App& app, Typed& typed) {
  App* models = app.add_subcommand("models", "Look at what is loaded; load and unload")
                    ->require_subcommand(1)
                    ->footer(
                        "\nA generation loads what it needs by itself.\n\nExamples:\n"
                        "  tempera models load fashion:w4a8\n"
                        "  tempera models caches   resident temporal features, and whether they are all");
  models->add_subcommand("list", "List loaded models and artifacts")->callback([&typed] {
    typed.run = &RunModelsList;
  });
  models->add_subcommand("caches", "List resident temporal-feature caches")->callback([&typed] {
    typed.run = &RunModelsCaches;
  });
  AddOne(*models, typed, "load", "Load a model or an artifact", "REF", "Artifact id, alias, or model folder",
         &RunModelsLoad);
  AddOne(*models, typed, "unload", "Unload it", "REF", "Artifact id, alias, or model folder",
         &RunModelsUnload);
}

void AddView(App& app, Typed& typed) {
  AddOne(app, typed, "view", "Show a PNG on the terminal, by kitty's protocol or as sixels", "FILE",
         "The picture; TEMPERA_PICTURES=kitty, sixel or none says what the terminal takes", &RunView);
}

void AddCapabilities(App& app, Typed& typed) {
  auto ref = std::make_shared<std::string>();
  App* c = app.add_subcommand("capabilities", "Show what the server, or one model on it, can do");
  c->add_option("REF", *ref, "A model or an artifact to describe too");
  c->callback([=, &typed] { typed.run = [=](const Session& s) { return RunCapabilities(s, *ref); }; });
}

// The commands and options of the program, for shell completion.
void Walk(const App& app, const std::string& path, std::vector<CompletionNode>& nodes) {
  CompletionNode node{path, {}};
  for (const App* sub : app.get_subcommands([](const App*) { return true; }))
    node.words.push_back({sub->get_name(), sub->get_description()});
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames())
      node.words.push_back({"--" + name, option->get_description()});
  nodes.push_back(std::move(node));
  for (const App* sub : app.get_subcommands([](const App*) { return true; }))
    Walk(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), nodes);
}

void AddCompletion(App& app, Typed& typed) {
  auto shell = std::make_shared<std::string>();
  App* c = app.add_subcommand("completion", "Print a script that completes commands in your shell")
               ->footer(
                   "\nExamples:\n"
                   "  tempera completion bash > ~/.local/share/bash-completion/completions/tempera\n"
                   "  tempera completion zsh > \"${fpath[1]}/_tempera\"");
  c->add_option("SHELL", *shell, "bash or zsh")->required()->check(CLI::IsMember({"bash", "zsh"}));
  c->callback([=, &app, &typed] {
    typed.run = [=, &app](const Session& s) -> Result<int> {
      std::vector<CompletionNode> nodes;
      Walk(app, "", nodes);
      s.out << CompletionScript(*shell, nodes) << std::flush;
      return kExitDone;
    };
  });
}

// Options of the whole program are taken after a command's name, too.
void FallThrough(App& app) {
  for (App* sub : app.get_subcommands([](const App*) { return true; })) {
    sub->fallthrough();
    FallThrough(*sub);
  }
}

void ShowError(const CliWorld& world, const Typed& typed, const Status& status) {
  if (typed.json) {
    world.err << OneLine({{"error", ErrorJson(status)}}) << std::endl;
    return;
  }
  world.err << "tempera: " << ErrorText(status) << std::endl;
  // Without a reason it was not the server that said so.
  if (status.code() == absl::StatusCode::kUnavailable && DetailsOf(status).reason.empty())
    world.err << "  is a server running at " << typed.server << "? (--server HOST:PORT)" << std::endl;
}

// What was typed makes no sense.
int ShowUsageError(const CliWorld& world, const App& app, const CLI::ParseError& error, bool json) {
  const App* at = &app;
  std::string command = "tempera", commands;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    command += " " + at->get_name();
  }
  std::string message = error.what();
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && at->get_require_subcommand_min() > 0) {
    for (const App* sub : at->get_subcommands([](const App*) { return true; }))
      commands += Cat(commands.empty() ? "" : ", ", sub->get_name());
    const std::vector<std::string> rest = app.remaining(true);
    message = rest.empty() ? Cat("command: is missing, want one of ", commands)
                           : Cat("command: got ", rest.front(), ", want one of ", commands);
  }
  if (json) {
    world.err << OneLine({{"error", {{"code", "INVALID_ARGUMENT"}, {"message", message}}}}) << std::endl;
  } else {
    world.err << "tempera: " << message << "\n  `" << command << " --help` says what it takes" << std::endl;
  }
  return kExitUsage;
}

}  // namespace

int RunCli(std::vector<std::string> args, const CliWorld& world) {
  Typed typed;
  typed.server = world.default_server;
  App app("Quantize diffusion models without losing the meaning of time, and paint with them.", "tempera");
  app.set_version_flag("--version", "tempera " TEMPERA_VERSION);
  app.add_option("--server", typed.server,
                 "Server, HOST:PORT (default " + world.default_server + ", or $TEMPERA_SERVER)");
  app.add_flag("--json", typed.json, "Results as JSON, one object a line");
  app.add_option("--timeout", typed.timeout_s, "Seconds to wait for short calls (default 30)")
      ->check(CLI::Range(0.001, 86400.0));
  app.require_subcommand(1);
  AddQuantize(app, typed);
  AddGenerate(app, typed);
  AddJobs(app, typed);
  AddArtifacts(app, typed);
  AddAlias(app, typed);
  AddReport(app, typed);
  AddExplain(app, typed);
  AddModels(app, typed);
  AddView(app, typed);
  AddCapabilities(app, typed);
  AddCompletion(app, typed);
  app.footer(kMainFooter);  // not before: commands would inherit it
  FallThrough(app);

  // --preview takes its number or none.
  for (size_t i = 0; i < args.size(); ++i) {
    const bool number = i + 1 < args.size() && !args[i + 1].empty() &&
                        args[i + 1].find_first_not_of("-0123456789") == std::string::npos &&
                        args[i + 1] != "--";
    if (args[i] == "--preview" && !number) args[i] = "--preview=1";
  }
  const bool json_asked = std::find(args.begin(), args.end(), "--json") != args.end();
  std::reverse(args.begin(), args.end());
  try {
    app.parse(std::move(args));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e, world.out, world.err);  // help, version
    return ShowUsageError(world, app, e, json_asked);
  }

  ClientOptions options;
  options.server = typed.server;
  options.timeout = std::chrono::milliseconds(static_cast<int64_t>(typed.timeout_s * 1000));
  auto client = Client::Create(options);
  if (!client.ok()) {
    ShowError(world, typed, client.status());
    return ExitCodeOf(client.status());
  }
  const Session session{.client = **client,
                        .scope = {.stop = world.stop},
                        .out = world.out,
                        .err = world.err,
                        .json = typed.json,
                        .width = typed.json ? 0 : world.width,
                        .cwd = world.cwd};
  const Result<int> code = typed.run(session);
  if (code.ok()) return *code;
  ShowError(world, typed, code.status());
  return world.stop.stop_requested() ? static_cast<int>(kExitInterrupted) : ExitCodeOf(code.status());
}

}  // namespace tempera
