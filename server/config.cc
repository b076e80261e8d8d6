#include "server/config.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/log.h"
#include "rpc/http_server.h"
#include "server/version.h"

namespace tempera {
namespace {

constexpr char kAbout[] =
    "Quantizes diffusion models and serves them over gRPC.\n"
    "\n"
    "  tempera-server --data /var/lib/tempera --model-root /models\n"
    "  tempera-server --data data --model-root zoo --load fashion:stable --memory-budget 2G\n"
    "\n"
    "Health, readiness and metrics are on --metrics-listen: /livez, /readyz, /metrics. SIGTERM drains: "
    "running\n"
    "generations finish, then the process ends; a second one ends it at once.";

}  // namespace

Result<int64_t> ParseBytes(const std::string& text) {
  const auto bad = [&] {
    return InvalidArgument("got \"", text, "\", want bytes such as 1073741824, 512M or 2G");
  };
  size_t used = 0;
  double value = 0;
  if (text.empty() || !(std::isdigit(static_cast<unsigned char>(text[0])))) return bad();
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    return bad();
  }
  std::string unit = text.substr(used);
  if (unit.ends_with("iB")) {
    unit.resize(unit.size() - 2);
    if (unit.empty()) return bad();
  } else if (unit.size() == 2 && unit.ends_with('B')) {
    unit.resize(1);
  }
  int power = 0;
  if (!unit.empty()) {
    constexpr std::string_view kUnits = "KMGT";
    const size_t at = unit.size() == 1
                          ? kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))))
                          : std::string_view::npos;
    if (at == std::string_view::npos) return bad();
    power = static_cast<int>(at) + 1;
  }
  value *= std::pow(1024.0, power);
  if (!(value >= 0 && value < 9e18)) return bad();
  return static_cast<int64_t>(value);
}

ParsedConfig ParseConfig(int argc, const char* const* argv) {
  ParsedConfig parsed;
  ServerConfig& c = parsed.config;
  std::string budget = "0";
  CLI::App app(kAbout, "tempera-server");
  app.set_version_flag("--version", std::string("tempera-server ") + kVersion);
  app.get_formatter()->column_width(34);

  app.add_option("--data", c.data, "Folder of jobs, artifacts and checkpoints; made if it is not there")
      ->envname("TEMPERA_DATA")
      ->required()
      ->type_name("DIR");
  app.add_option("--model-root", c.model_roots,
                 "Folder whose models may be read; give it once for each "
                 "(in the environment: separated by ':')")
      ->envname("TEMPERA_MODEL_ROOT")
      ->allow_extra_args(false)
      ->delimiter(':')
      ->type_name("DIR");
  app.add_option("--load", c.load,
                 "Model or artifact to load before the server is ready; once for each "
                 "(in the environment: separated by ',')")
      ->envname("TEMPERA_LOAD")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->type_name("REF");
  app.add_option("--memory-budget", budget,
                 "What loaded models may take together: bytes, or with K, M, G; 0: no limit")
      ->envname("TEMPERA_MEMORY_BUDGET")
      ->type_name("BYTES");
  app.add_option("--listen", c.listen, "Address of gRPC")
      ->envname("TEMPERA_LISTEN")
      ->capture_default_str()
      ->type_name("ADDR");
  app.add_option("--metrics-listen", c.metrics_listen, "Address of /livez, /readyz and /metrics")
      ->envname("TEMPERA_METRICS_LISTEN")
      ->capture_default_str()
      ->type_name("ADDR");
  app.add_flag("--no-worker", c.no_worker, "Run no quantize jobs in this process")
      ->envname("TEMPERA_NO_WORKER");
  app.add_option("--threads", c.threads, "Compute threads; 0: as many as processors may be used")
      ->envname("TEMPERA_THREADS")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024))
      ->type_name("N");
  app.add_option("--log-level", c.log_level, "debug, info, warn or error")
      ->envname("TEMPERA_LOG_LEVEL")
      ->capture_default_str()
      ->type_name("LEVEL");
  app.add_option("--max-queued-generations", c.max_queued_generations,
                 "Generations that may wait for a thread")
      ->envname("TEMPERA_MAX_QUEUED_GENERATIONS")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000))
      ->type_name("N");
  app.add_option("--max-count", c.max_count, "Pictures that one call may ask for")
      ->envname("TEMPERA_MAX_COUNT")
      ->capture_default_str()
      ->check(CLI::Range(1, 10'000))
      ->type_name("N");
  app.add_option("--drain-delay", c.drain_delay_seconds, "Seconds from SIGTERM to the refusal of new calls")
      ->envname("TEMPERA_DRAIN_DELAY")
      ->capture_default_str()
      ->check(CLI::Range(0, 3600))
      ->type_name("S");
  app.add_option("--drain", c.drain_seconds, "Seconds that running generations may take after that")
      ->envname("TEMPERA_DRAIN")
      ->capture_default_str()
      ->check(CLI::Range(0, 86'400))
      ->type_name("S");
  app.add_flag("--no-temporal-metric", c.no_temporal_metric,
               "Don't compute the temporal-feature error: saves the memory of the full-precision features")
      ->envname("TEMPERA_NO_TEMPORAL_METRIC");
  app.add_flag("--no-reflection", c.no_reflection, "Don't offer gRPC server reflection")
      ->envname("TEMPERA_NO_REFLECTION");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    parsed.exit_code = app.exit(e) == 0 ? 0 : 2;
    return parsed;
  }
  const Result<int64_t> bytes = ParseBytes(budget);
  Status status = bytes.ok() ? OkStatus() : Annotate(bytes.status(), "--memory-budget");
  if (bytes.ok()) c.memory_budget_bytes = *bytes;
  if (status.ok()) status = CheckConfig(c);
  if (!status.ok()) {
    std::fprintf(stderr, "tempera-server: %s\n", Message(status).c_str());
    parsed.exit_code = 2;
    return parsed;
  }
  parsed.run = true;
  return parsed;
}

Status CheckConfig(ServerConfig& c) {
  if (c.data.empty()) return InvalidArgument("--data: is empty, want a folder");
  TEMPERA_TRY(Annotate(rpc::ParseHostPort(c.listen).status(), "--listen"));
  TEMPERA_TRY(Annotate(rpc::ParseHostPort(c.metrics_listen).status(), "--metrics-listen"));
  TEMPERA_TRY(ParseLogLevel(c.log_level).status());
  for (std::string& root : c.model_roots) {
    std::error_code error;
    const auto real = std::filesystem::canonical(root, error);
    if (error || !std::filesystem::is_directory(real, error))
      return InvalidArgument("--model-root: got \"", root, "\", want a folder that is there");
    root = real.string();
  }
  return OkStatus();
}

}  // namespace tempera
