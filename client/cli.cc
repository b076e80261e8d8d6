#include "client/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "client/cli_options.h"
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
