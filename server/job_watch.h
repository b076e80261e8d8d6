// Tells who wants to know when a job changes, whichever process changes it: one poller of the store for all.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/executors.h"
#include "base/status.h"
#include "jobs/job_store.h"

namespace tempera {

// Thread-safe. Callbacks run on the io threads, one at a time for each watch, newest state last; a state may
// be skipped when the next one is there already.
class JobWatch {
 public:
  // The job as it is, or why it can't be told any more. False: enough, the watch ends.
  using Tell = std::function<bool(const Result<Job>&)>;

  JobWatch(JobStore& jobs, Lanes& io);
  ~JobWatch();

  // Tells the job at once, at every change, and after `silence` without one. NotFound ends a watch.
  uint64_t Add(const std::string& job_id, std::chrono::milliseconds silence, Tell tell);
  // No call begins after this returns; one may be under way.
  void Remove(uint64_t watch);
  // Looks for changes; call about ten times a second. Does nothing while nobody watches.
  void Poll();
  // Tells every watch this error and ends it.
  void EndAll(const Status& status);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tempera
