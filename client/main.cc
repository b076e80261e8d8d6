// The program `tempera`: signals, terminal and environment around RunCli.
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <stop_token>
#include <string>
#include <system_error>
#include <vector>

#include "base/executors.h"
#include "client/cli.h"
#include "client/commands.h"

namespace {

int TerminalWidth() {
  if (!isatty(STDERR_FILENO)) return 0;
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

}  // namespace

int main(int argc, char** argv) {
  // The first Ctrl-C asks the command to stop, the second ends the program. Blocked before any thread is
  // made, so that one thread alone takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::stop_source stop;
  std::atomic<bool> over{false};
  int code;
  {
    tempera::Lanes waiter(1, [] {});
    waiter.Post([&] {
      while (true) {
        int signal = 0;
        sigwait(&signals, &signal);
        if (over) return;
        if (stop.stop_requested()) _exit(tempera::kExitInterrupted);
        stop.request_stop();
      }
    });
    std::error_code error;
    const std::filesystem::path cwd = std::filesystem::current_path(error);
    const char* server = std::getenv("TEMPERA_SERVER");
    code =
        tempera::RunCli({argv + 1, argv + argc},
                        {.out = std::cout,
                         .err = std::cerr,
                         .width = TerminalWidth(),
                         .cwd = error ? std::filesystem::path("/") : cwd,
                         .default_server = server != nullptr && *server != '\0' ? server : "127.0.0.1:50051",
                         .stop = stop.get_token()});
    over = true;
    kill(getpid(), SIGTERM);
  }
  std::cout.flush();
  return code;
}
