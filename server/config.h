// Everything that tempera-server can be told: one row for each field, flag and environment variable alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace tempera {

struct ServerConfig {
  // Jobs, artifacts, checkpoints. One server at a time; workers may share it. Made if it is not there.
  std::string data;
  // Folders whose models may be read; what lies elsewhere is refused, also through symlinks.
  std::vector<std::string> model_roots;
  // Loaded and verified before /readyz says 200; tried again until they are.
  std::vector<std::string> load;
  // What loaded models may take together: weights, caches, references. 0: no limit. The least recently used
  // leaves first.
  int64_t memory_budget_bytes = 0;
  // There is no authentication yet: the default is this machine alone.
  std::string listen = "127.0.0.1:50051";
  std::string metrics_listen = "127.0.0.1:9464";
  // Quantize jobs wait for a tempera-worker on the same folder.
  bool no_worker = false;
  // Compute threads of generations, and as many of the embedded worker. 0: as many as processors may be used.
  int threads = 0;
  std::string log_level = "info";
  // Generations that may wait for a thread; one more is answered RESOURCE_EXHAUSTED at once: a client retries
  // better than a queue waits.
  int max_queued_generations = 64;
  // Pictures of one Generate call.
  int max_count = 64;
  // After SIGTERM: health says NOT_SERVING this long before calls are refused, for load balancers to notice.
  int drain_delay_seconds = 0;
  // After that: running generations may take this long.
  int drain_seconds = 60;
  // The error metric loads the full-precision features of each artifact.
  bool no_temporal_metric = false;
  bool no_reflection = false;
};

// From the command line, then from TEMPERA_... variables, then the defaults. What is asked for and done
// (--help,
// --version) gives `exit_code` 0 with the text printed; a wrong argument prints what is wrong and gives
// another.
struct ParsedConfig {
  ServerConfig config;
  bool run = false;
  int exit_code = 0;
};
ParsedConfig ParseConfig(int argc, const char* const* argv);

// InvalidArgument names flag, value and what is wanted. Model roots become absolute.
Status CheckConfig(ServerConfig& config);

// "1073741824", "512M", "2G", "1.5GiB": K, M, G, T are powers of 1024.
Result<int64_t> ParseBytes(const std::string& text);

}  // namespace tempera
