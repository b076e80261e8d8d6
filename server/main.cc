// tempera-server: quantizes models and serves them, until it is told to stop.
#include <csignal>
#include <cstdio>

#include "base/executors.h"
#include "base/log.h"
#include "server/app.h"
#include "server/compute.h"
#include "server/config.h"

int main(int argc, char** argv) {
  const tempera::ParsedConfig parsed = tempera::ParseConfig(argc, argv);
  if (!parsed.run) return parsed.exit_code;
  std::signal(SIGPIPE, SIG_IGN);
  tempera::SetLogLevel(*tempera::ParseLogLevel(parsed.config.log_level));
  const int threads = parsed.config.threads > 0 ? parsed.config.threads : tempera::AvailableCpus();
  auto app = tempera::App::Create(parsed.config, tempera::RealCompute(threads));
  if (!app.ok()) {
    std::fprintf(stderr, "tempera-server: %s\n", tempera::Message(app.status()).c_str());
    return 1;
  }
  (*app)->Run(/*handle_signals=*/true);
  return 0;
}
