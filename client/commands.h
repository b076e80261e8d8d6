// What each command of `tempera` does, once its arguments are known.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/status.h"
#include "client/client.h"

namespace tempera {

// Exit codes of the program, for scripts.
enum ExitCode : int {
  kExitDone = 0,
  kExitUsage = 1,        // command line or request is wrong
  kExitNotFound = 2,     // what was named is not there
  kExitRefused = 3,      // not in the present state: job not finished, alias moved meanwhile ...
  kExitUnavailable = 4,  // no server, queue or disk full, out of time: the same command may work later
  kExitDamaged = 5,      // stored or received bytes are damaged
  kExitJobFailed = 6,    // the job ended, but not SUCCEEDED
  kExitInternal = 7,     // a bug
  kExitInterrupted = 130,
};
int ExitCodeOf(const Status& status);

// What every command works with.
struct Session {
  Client& client;
  CallScope scope;
  std::ostream& out;
  std::ostream& err;
  bool json = false;
  int width = 0;  // columns of the terminal that `err` is; 0: none
  std::filesystem::path cwd;
};

// Commands return the exit code, or the error that main shows.

struct QuantizeArgs {
  v1::QuantizeRequest request;  // model as it was typed
  bool detach = false;
};
Result<int> RunQuantize(const Session& s, const QuantizeArgs& args);

struct GenerateArgs {
  v1::GenerateRequest request;  // ref as it was typed
  std::string format;           // empty: by the extension of `out`, else png
  std::string out;
};
Result<int> RunGenerate(const Session& s, const GenerateArgs& args);
// Shows a PNG on the terminal, or says that it cannot.
Result<int> RunView(const Session& s, const std::string& file);

struct ListArgs {
  std::string filter;
  int limit = 50;  // 0: all
};
Result<int> RunJobsList(const Session& s, const ListArgs& args);
Result<int> RunJobsShow(const Session& s, const std::string& id);
Result<int> RunJobsWatch(const Session& s, const std::string& id);
Result<int> RunJobsCancel(const Session& s, const std::string& id);
Result<int> RunJobsDelete(const Session& s, const std::string& id);

Result<int> RunArtifactsList(const Session& s, const ListArgs& args);
Result<int> RunArtifactsShow(const Session& s, const std::string& id);
Result<int> RunArtifactsVerify(const Session& s, const std::string& id);
Result<int> RunArtifactsDelete(const Session& s, const std::string& id, bool force);

// `artifact` empty removes the alias.
Result<int> RunAlias(const Session& s, const std::string& alias, const std::string& artifact,
                     const std::optional<std::string>& expected);
Result<int> RunReport(const Session& s, const std::string& id, const std::string& out);
Result<int> RunExplain(const Session& s, const std::string& id, const std::string& layer,
                       std::optional<int> step);

Result<int> RunModelsList(const Session& s);
Result<int> RunModelsCaches(const Session& s);
Result<int> RunModelsLoad(const Session& s, const std::string& ref);
Result<int> RunModelsUnload(const Session& s, const std::string& ref);
Result<int> RunCapabilities(const Session& s, const std::string& ref);

}  // namespace tempera
