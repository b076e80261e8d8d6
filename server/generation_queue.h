// Generations that wait for a compute thread: bounded, in order of arrival, each told its place.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/executors.h"
#include "base/status.h"
#include "metrics/metrics.h"

namespace tempera {

// Thread-safe. Laws: a task is started, or removed, or neither, never both; what was started is finished
// before the destructor returns.
class GenerationQueue {
 public:
  struct Task {
    std::string model;  // label of the metrics
    int64_t steps = 0;  // all that it will run
    // Its place changed: 0 = it begins next. Called without locks, on any thread, never after start.
    std::function<void(int position)> moved;
    std::function<void()> start;  // on a lane
  };

  // REQUIRES: max_waiting >= 1.
  GenerationQueue(int max_waiting, Lanes& lanes, Metrics& metrics);
  ~GenerationQueue();

  struct Place {
    uint64_t ticket;
    int position;  // tasks that go first; 0 = a lane is free, it begins at once
  };
  // ResourceExhausted with a delay for the retry when max_waiting tasks wait. `accepted` is called with the
  // place before the task can start.
  Result<uint64_t> Push(Task task, const std::function<void(const Place&)>& accepted);
  // True: it waited, and will not start.
  bool Remove(uint64_t ticket);

  int waiting() const;
  int running() const;
  // Returns when nothing waits or runs, or at the deadline; false then.
  bool WaitIdle(std::chrono::steady_clock::time_point deadline);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tempera
