// The compute threads. Work is cut into fixed shards, so that results do not depend on how many threads there
// are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"

namespace tempera {

// A fixed set of compute threads. Thread-safe.
class Lanes {
 public:
  // `init` runs first on every thread. REQUIRES: count >= 1.
  Lanes(int count, std::function<void()> init);
  // Finishes what was posted.
  ~Lanes();
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;

  int count() const;

  // Runs `work` on some lane.
  void Post(std::function<void()> work);

  // Runs fn(0) .. fn(shards - 1) on the lanes and waits. Each shard's result must depend on its index alone;
  // then the whole does not depend on count(). The error of the lowest failing shard is returned; after a
  // failure, shards not yet begun are skipped. REQUIRES: not called from a lane of this object.
  Status ParallelFor(int64_t shards, const std::function<Status(int64_t)>& fn);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The processors that this process may use: the smaller of the affinity mask and the cgroup's CPU quota, at
// least 1.
int AvailableCpus();

}  // namespace tempera
