#include "base/executors.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tempera {

struct Lanes::State {
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<std::function<void()>> queue;
  bool closing = false;
  std::vector<std::thread> threads;
};

Lanes::Lanes(int count, std::function<void()> init) : state_(std::make_unique<State>()) {
  TEMPERA_CHECK(count >= 1, Cat("lanes: ", count));
  for (int i = 0; i < count; ++i) {
    state_->threads.emplace_back([state = state_.get(), init] {
      if (init) init();
      for (;;) {
        std::function<void()> work;
        {
          std::unique_lock lock(state->mutex);
          state->ready.wait(lock, [&] { return state->closing || !state->queue.empty(); });
          if (state->queue.empty()) return;
          work = std::move(state->queue.front());
          state->queue.pop_front();
        }
        work();
      }
    });
  }
}

Lanes::~Lanes() {
  {
    std::lock_guard lock(state_->mutex);
    state_->closing = true;
  }
  state_->ready.notify_all();
  for (std::thread& t : state_->threads) t.join();
}

int Lanes::count() const { return static_cast<int>(state_->threads.size()); }

void Lanes::Post(std::function<void()> work) {
  {
    std::lock_guard lock(state_->mutex);
    state_->queue.push_back(std::move(work));
  }
  state_->ready.notify_one();
}

Status Lanes::ParallelFor(int64_t shards, const std::function<Status(int64_t)>& fn) {
  if (shards <= 0) return OkStatus();
  struct Join {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable done;
    int64_t running = 0;
    int64_t failed_at = INT64_MAX;
    Status error;
  };
  Join join;
  const int64_t workers = std::min<int64_t>(count(), shards);
  join.running = workers;
  for (int64_t w = 0; w < workers; ++w) {
    Post([&join, &fn, shards] {
      for (;;) {
        const int64_t shard = join.next.fetch_add(1);
        if (shard >= shards) break;
        Status status = fn(shard);
        if (!status.ok()) {
          std::lock_guard lock(join.mutex);
          if (shard < join.failed_at) {
            join.failed_at = shard;
            join.error = std::move(status);
          }
          join.next = shards;
          break;
        }
      }
      // Notified under the lock: the waiter may destroy `join` as soon as it can take it.
      std::lock_guard lock(join.mutex);
      if (--join.running == 0) join.done.notify_one();
    });
  }
  std::unique_lock lock(join.mutex);
  join.done.wait(lock, [&] { return join.running == 0; });
  return join.error;
}

int AvailableCpus() {
  int cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = std::max(1, CPU_COUNT(&set));
  // cgroup v2: "quota period" or "max period".
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0)
    cpus = std::min(cpus, std::max(1, static_cast<int>(std::ceil(std::atof(quota.c_str()) / period))));
  return cpus;
}

}  // namespace tempera
