// The command line of `tempera`: words to commands, errors to exit codes.
#pragma once

#include <filesystem>
#include <ostream>
#include <stop_token>
#include <string>
#include <vector>

namespace tempera {

// What a run of the program touches besides the server.
struct CliWorld {
  std::ostream& out;
  std::ostream& err;
  int width = 0;               // columns of the terminal that `err` is; 0: none
  std::filesystem::path cwd;   // relative paths begin here
  std::string default_server;  // where no --server is given
  std::stop_token stop;        // Ctrl-C
};

// `args` without the program's name. Returns the exit code (commands.h).
int RunCli(std::vector<std::string> args, const CliWorld& world);

}  // namespace tempera
