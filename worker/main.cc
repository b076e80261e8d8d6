// tempera-worker: takes quantize jobs from a data folder that a server shares, until it is told to stop.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "base/executors.h"
#include "base/files.h"
#include "base/log.h"
#include "jobs/job_store.h"
#include "pipeline/engine.h"
#include "storage/object_store.h"
#include "worker/agent.h"

namespace tempera {
namespace {

struct WorkerConfig {
  std::string data;
  std::vector<std::string> model_roots;
  int threads = 0;
  std::string log_level = "info";
};

Status Run(const WorkerConfig& config, const sigset_t& stop_signals) {
  TEMPERA_ASSIGN(const LogLevel level, ParseLogLevel(config.log_level));
  SetLogLevel(level);
  const DataFolder data{config.data};
  TEMPERA_TRY(MakeFolders(data.work(), "data folder"));
  TEMPERA_ASSIGN(const auto objects, OpenFolderStore(data.objects()));
  TEMPERA_ASSIGN(const auto jobs, OpenSqliteJobStore(data.jobs(), {}));
  const int threads = config.threads > 0 ? config.threads : AvailableCpus();
  Lanes lanes(threads, &InitComputeThread);
  AgentOptions options;
  options.work_root = data.work();
  options.model_roots.assign(config.model_roots.begin(), config.model_roots.end());
  WorkerAgent agent(std::move(options), *jobs, *objects, lanes, &RunQuantizeJob, &QuantSpec::FromJson);
  agent.Start();
  Log(LogLevel::kInfo, "worker_started", {{"threads", threads}});

  int number = 0;
  sigwait(&stop_signals, &number);
  Log(LogLevel::kInfo, "worker_draining", {{"signal", number}, {"job", agent.current_job()}});
  // A second signal ends the process at once: the lease runs out, and another worker goes on from the
  // checkpoints.
  struct sigaction at_once {};
  at_once.sa_handler = [](int) { ::_exit(1); };
  sigaction(SIGTERM, &at_once, nullptr);
  sigaction(SIGINT, &at_once, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
  agent.Stop();
  Log(LogLevel::kInfo, "worker_stopped");
  return OkStatus();
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  tempera::WorkerConfig config;
  CLI::App app(
      "Runs quantize jobs of a Tempera data folder.\n"
      "Several workers may share one folder with a server (tempera-server --no-worker). SIGTERM drains: the\n"
      "running job stops at its next checkpoint and another worker goes on.");
  app.add_option("--data", config.data, "Folder of jobs, artifacts and checkpoints; the server's --data")
      ->required();
  app.add_option("--model-root", config.model_roots,
                 "Folder whose models may be read; give it once for each. A job whose model lies elsewhere "
                 "is rejected")
      ->allow_extra_args(false);
  app.add_option("--threads", config.threads, "Compute threads; 0: as many as processors may be used")
      ->check(CLI::Range(0, 1024));
  app.add_option("--log-level", config.log_level, "debug, info, warn or error");
  app.set_version_flag("--version", "tempera-worker " TEMPERA_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  // Before any thread begins, so that all inherit it and sigwait alone sees them.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);

  const tempera::Status status = tempera::Run(config, stop_signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "tempera-worker: %s\n", tempera::Message(status).c_str());
  return 1;
}
