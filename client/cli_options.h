// What the commands' options share.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "client/commands.h"

namespace tempera {

// What was typed; `run` is set by the command's callback.
struct Typed {
  std::string server;
  bool json = false;
  double timeout_s = 30;
  std::function<Result<int>(const Session&)> run;
};

using App = CLI::App;

// A whole number that is not negative, said in words.
CLI::Validator WholeNumber();

// The two commands with many options.
void AddQuantize(App& app, Typed& typed);
void AddGenerate(App& app, Typed& typed);

}  // namespace tempera
