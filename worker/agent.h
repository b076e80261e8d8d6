// Takes quantize jobs from the store and runs them, one at a time. No SQLite, gRPC or LibTorch here.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/executors.h"
#include "base/status.h"
#include "jobs/job_store.h"
#include "storage/object_store.h"
#include "worker/quantize_job.h"

namespace tempera {

// The layout of --data: one place for server and worker.
struct DataFolder {
  std::filesystem::path root;
  std::filesystem::path jobs() const { return root / "jobs.db"; }
  std::filesystem::path objects() const { return root / "store"; }  // artifacts/<id>/ lie in it
  std::filesystem::path work() const { return root / "work"; }      // <job id>/: checkpoints
  std::filesystem::path cache() const { return root / "cache"; }  // artifacts of a store that is not a folder
};

// The folder that a job's model names: an absolute path or file:///path, real and inside one of `roots`. The
// server resolves it to validate, the worker again to read. InvalidArgument, PermissionDenied or NotFound
// name it as given; links in it must stay under the roots, too.
Result<std::filesystem::path> ResolveModelFolder(const std::string& model,
                                                 const std::vector<std::filesystem::path>& roots);

// RunQuantizeJob and QuantSpec::FromJson, or a test's own.
using ComputeJob = std::function<Result<QuantizeJobOutput>(const CallScope&, const QuantizeJobInput&, Lanes&,
                                                           const std::function<void(const JobProgress&)>&)>;
using ParseSpec = std::function<Result<QuantSpec>(const Json&, const std::string& label)>;

struct AgentOptions {
  std::string worker;               // this worker's name, unlike any other's; empty: of host and process
  std::filesystem::path work_root;  // DataFolder::work()
  std::vector<std::filesystem::path> model_roots;  // a job's model must lie in one of them
  std::chrono::milliseconds lease{15'000};         // heartbeats every third of it
  std::chrono::milliseconds poll{500};  // how often an idle worker asks for a job, a busy one for a cancel
};

// What happens in an agent, for metrics. Calls come from several of its threads: thread-safe and quick.
class AgentObserver {
 public:
  virtual ~AgentObserver() = default;
  virtual void OnLeaseHeld(bool held) = 0;          // a job was taken, or left
  virtual void OnLeasesExpired(int64_t count) = 0;  // found to have run out, its own among them
  virtual void OnHeartbeat() = 0;
  virtual void OnProgress(const std::string& job_id, double fraction) = 0;
  virtual void OnStage(const std::string& stage, double seconds) = 0;
  // Left with `state` (QUEUED: given back); seconds of this lease.
  virtual void OnLeft(const std::string& job_id, const std::string& method, JobState state,
                      double seconds) = 0;
};

// Laws: a job is computed only under a live lease; an artifact is published before its job succeeds; an agent
// whose lease is lost changes nothing of the job from then on; the work folder of a job goes when the job
// ends, and only then. Thread-safe.
class WorkerAgent {
 public:
  // Everything given by reference or pointer must outlive the agent. REQUIRES: compute, parse and work_root
  // are set.
  WorkerAgent(AgentOptions options, JobStore& jobs, ObjectStore& objects, Lanes& lanes, ComputeJob compute,
              ParseSpec parse, AgentObserver* observer = nullptr);
  // Stop().
  ~WorkerAgent();
  WorkerAgent(const WorkerAgent&) = delete;
  WorkerAgent& operator=(const WorkerAgent&) = delete;

  // Begins to take jobs on a thread of its own. Call once.
  void Start();
  // Drains: the running job stops at its next check, its lease is given back, and its checkpoints let another
  // worker go on. Returns when that is done. May be called again.
  void Stop();
  // The id of the job in work, or empty.
  std::string current_job() const;
  // The last error of store or disk that kept the agent from taking jobs; OK again after the next success.
  Status health() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tempera
