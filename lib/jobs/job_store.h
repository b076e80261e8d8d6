// Where jobs, leases, idempotency keys and aliases live. Server and workers are processes that share one
// store.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "jobs/job.h"

namespace tempera {

// One mutating request of a client. The same id with the same hash is answered as before; with another hash
// it is AlreadyExists (REQUEST_ID_REUSED).
struct RequestKey {
  std::string request_id;   // 1 to 36 characters
  std::string body_sha256;  // over the method's name and the request without its id
};

struct Created {
  Job job;
  bool replayed = false;  // the request id was known: `job` is the earlier one as it is now
};

// The right to run a job. `token` rises with every claim: a holder whose token is old changes nothing
// (fencing).
struct Lease {
  std::string job_id;
  std::string worker;
  int64_t token = 0;
};

struct Claimed {
  Job job;
  Lease lease;
};

struct Heart {
  bool cancel_requested = false;
  int64_t lease_until_ms = 0;
};

// How a holder ends a job. `state` is a terminal one.
struct Outcome {
  JobState state = JobState::kFailed;
  Status error = {};             // FAILED and REJECTED
  std::string artifact_id = {};  // SUCCEEDED
};

struct JobQuery {
  // A conjunction (AIP-160 subset), empty: all. `state = RUNNING`, `model = "faces"`, `method = tfmq`, `name
  // = "a:b"`, `labels.team = "x"`, `create_time >= "2026-01-31T00:00:00Z"` (also <, <=, >), joined by AND.
  // `=` and `!=` for the rest.
  std::string filter = {};
  std::string order_by = {};    // "create_time desc" (default) or "create_time"
  int64_t page_size = 50;       // 1 to 1000
  std::string page_token = {};  // opaque; of the same filter and order, else InvalidArgument
};

struct JobPage {
  std::vector<Job> jobs;
  std::string next_page_token;  // empty: the last page
  int64_t total_size = 0;       // of all pages
};

struct Alias {
  std::string name;
  std::string artifact_id;
  int64_t update_ms = 0;
};

struct AliasMove {
  std::string name;
  std::string artifact_id;  // empty: the alias is removed
  // Where it must point now, "" = it must not exist: Aborted otherwise. Unset: anywhere.
  std::optional<std::string> expected = {};
};

struct Changes {
  std::vector<Job> jobs;  // each once, as it is now; oldest change first
  int64_t revision = 0;   // give it as `since` next time
};

struct Swept {
  int64_t requeued = 0;  // leases that ran out; their jobs wait again
  int64_t ended = 0;  // leases that ran out and ended their job (cancelled, or too many fruitless attempts)
  int64_t deleted_jobs = 0;
  int64_t deleted_keys = 0;
};

struct JobStoreOptions {
  // Milliseconds since 1970 UTC. Every time in the store is this clock's; workers on one store must agree on
  // it.
  std::function<int64_t()> now_ms;
  // A job fails when this many leases in a row were lost without getting further than before: it kills its
  // workers.
  int64_t max_fruitless = 50;
  int64_t keep_keys_ms = 25LL * 3600 * 1000;       // idempotency: at least a day
  int64_t keep_jobs_ms = 30LL * 24 * 3600 * 1000;  // terminal jobs
  std::chrono::milliseconds busy_timeout{10'000};  // wait for another process's transaction
};

// The clock of the machine.
int64_t WallClockMs();

// Every call is one transaction: it happened wholly and is durable, or not at all. Besides what is said at
// each call: NotFound (no such job or alias), Unavailable (the store is busy: try again), ResourceExhausted
// (disk full), DataLoss (the store is damaged). Thread-safe; calls block on disk, so never on a gRPC thread.
class JobStore {
 public:
  virtual ~JobStore() = default;

  // For clients of the service.
  virtual Result<Created> Create(const NewJob& job, const std::optional<RequestKey>& key) = 0;
  virtual Result<Job> Get(const std::string& id) = 0;
  virtual Result<JobPage> List(const JobQuery& query) = 0;
  // QUEUED becomes CANCELLED, RUNNING becomes CANCELLING, CANCELLING and CANCELLED stay. FailedPrecondition
  // for other terminal states. `etag`, when not empty, must be the job's: Aborted.
  virtual Result<Job> Cancel(const std::string& id, const std::string& etag = {}) = 0;
  // FailedPrecondition unless the state is terminal.
  virtual Status Delete(const std::string& id, const std::string& etag = {}) = 0;
  virtual Result<std::map<JobState, int64_t>> CountByState() = 0;

  // Rises with every change of a job. Cheap: watchers poll it.
  virtual Result<int64_t> Revision() = 0;
  // Jobs changed after revision `since`, at most `limit`. Deleted ones are not told: Get says NotFound.
  virtual Result<Changes> ChangedSince(int64_t since, int64_t limit) = 0;

  // For workers. Takes the oldest job that waits, if any; Sweep brings back those of dead workers.
  virtual Result<std::optional<Claimed>> Claim(const std::string& worker,
                                               std::chrono::milliseconds lease) = 0;
  // Extends the lease and records progress when given. Aborted: the lease is lost, stop at once.
  virtual Result<Heart> Heartbeat(const Lease& lease, std::chrono::milliseconds extend,
                                  const std::optional<Progress>& progress) = 0;
  // Ends the job; SUCCEEDED moves the job's alias in the same transaction. Aborted as above.
  virtual Result<Job> Finish(const Lease& lease, const Outcome& outcome) = 0;
  // Gives the job back to the queue (a CANCELLING one is CANCELLED), not to be claimed before `delay`.
  // `reason` not OK counts as a fruitless attempt, OK (a drain) does not. Aborted as above.
  virtual Result<Job> Release(const Lease& lease, const Status& reason, std::chrono::milliseconds delay) = 0;
  // Ends leases that ran out and forgets old keys and old terminal jobs. Cheap when there is nothing to do:
  // every worker and server calls it often.
  virtual Result<Swept> Sweep() = 0;
  // Ends the leases of a worker that is known to be dead, as if they had run out.
  virtual Result<Swept> EndLeasesOf(const std::string& worker) = 0;

  // Names for artifacts. `key` as in Create: a repeated request gets the earlier answer.
  virtual Result<Alias> MoveAlias(const AliasMove& move, const std::optional<RequestKey>& key = {}) = 0;
  virtual Result<Alias> GetAlias(const std::string& name) = 0;
  // Aliases of one artifact, or all for "". In the order of their names.
  virtual Result<std::vector<Alias>> ListAliases(const std::string& artifact_id = {}) = 0;

  // Other mutating requests: what was answered to this key, or nothing. AlreadyExists: used with another
  // body.
  virtual Result<std::optional<std::string>> FindAnswer(const RequestKey& key) = 0;
  virtual Status SaveAnswer(const RequestKey& key, const std::string& answer) = 0;
};

// One SQLite file (WAL) on a local disk, made or brought to this version's schema. FailedPrecondition: made
// by a newer version; DataLoss: not a job store, or damaged.
Result<std::unique_ptr<JobStore>> OpenSqliteJobStore(const std::filesystem::path& file,
                                                     JobStoreOptions options);

}  // namespace tempera
