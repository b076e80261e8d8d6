#include "server/generation_queue.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "rpc/status_map.h"

namespace tempera {

using Clock = std::chrono::steady_clock;

struct GenerationQueue::State {
  struct Waiting {
    uint64_t ticket;
    std::shared_ptr<Task> task;
    Clock::time_point since = Clock::now();
  };
  // A task to be told its place, in the order in which places were given.
  using Moves = std::vector<std::pair<std::shared_ptr<Task>, int>>;

  State(int max, Lanes& l, Metrics& m) : max_waiting(max), lanes(l), metrics(m) {}

  const int max_waiting;
  Lanes& lanes;
  Metrics& metrics;
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::deque<Waiting> waiting;
  // Held while places are told and while a task leaves the front, before `mutex`: a task hears of its places
  // in order and of none once it has begun.
  std::mutex telling;
  std::mutex publishing;  // so that the gauges end with the latest values; after `telling`, before `mutex`
  int running = 0;
  uint64_t tickets = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> by_model;  // waiting tasks and their steps

  // REQUIRES: the lock is held.
  int PositionOf(size_t index) const {
    const int free = std::max(0, lanes.count() - running);
    return std::max(0, static_cast<int>(index) + 1 - free);
  }
  void Account(const Task& task, int sign) {
    auto& [tasks, steps] = by_model[task.model];
    tasks += sign;
    steps += sign * task.steps;
  }
  void Publish(const std::string& model) {
    std::lock_guard order(publishing);
    std::pair<int64_t, int64_t> now;
    {
      std::lock_guard lock(mutex);
      now = by_model[model];
    }
    metrics.queue_depth.Set(static_cast<double>(now.first), model);
    metrics.queued_steps.Set(static_cast<double>(now.second), model);
  }
  // Tells every waiting task from `from` on.
  void Tell(size_t from) {
    std::lock_guard order(telling);
    Moves moves;
    {
      std::lock_guard lock(mutex);
      for (size_t i = from; i < waiting.size(); ++i) moves.emplace_back(waiting[i].task, PositionOf(i));
    }
    for (const auto& [task, position] : moves) task->moved(position);
  }
  void RunNext();
};

GenerationQueue::GenerationQueue(int max_waiting, Lanes& lanes, Metrics& metrics)
    : state_(std::make_shared<State>(max_waiting, lanes, metrics)) {
  TEMPERA_CHECK(max_waiting >= 1, Cat("queue: ", max_waiting));
}

GenerationQueue::~GenerationQueue() {
  std::unique_lock lock(state_->mutex);
  state_->waiting.clear();
  state_->changed.wait(lock, [&] { return state_->running == 0; });
}

Result<uint64_t> GenerationQueue::Push(Task task, const std::function<void(const Place&)>& accepted) {
  uint64_t ticket;
  {
    // While places are told no task leaves the front and no other comes: the place holds, unless one is
    // removed, and then it is told anew.
    std::lock_guard order(state_->telling);
    std::unique_lock lock(state_->mutex);
    const int waiting = static_cast<int>(state_->waiting.size());
    // Those that find a lane free do not wait.
    if (state_->PositionOf(state_->waiting.size()) > state_->max_waiting)
      return rpc::WithRetry(
          rpc::WithReason(ResourceExhausted("queue: full, got ", waiting,
                                            " waiting generations, want at most ", state_->max_waiting),
                          rpc::kQueueFull),
          std::chrono::seconds(1));
    ticket = ++state_->tickets;
    const Place place{ticket, state_->PositionOf(state_->waiting.size())};
    state_->Account(task, 1);
    lock.unlock();
    // First the gauges: who was told a place finds itself counted.
    state_->Publish(task.model);
    accepted(place);
    lock.lock();
    state_->waiting.push_back({ticket, std::make_shared<Task>(std::move(task))});
  }
  state_->lanes.Post([state = state_] { state->RunNext(); });
  return ticket;
}

void GenerationQueue::State::RunNext() {
  Waiting next;
  {
    std::lock_guard order(telling);
    std::lock_guard lock(mutex);
    if (waiting.empty()) return;  // removed before a lane came
    next = std::move(waiting.front());
    waiting.pop_front();
    Account(*next.task, -1);
    ++running;
  }
  Publish(next.task->model);
  metrics.queue_wait_seconds.Observe(std::chrono::duration<double>(Clock::now() - next.since).count(),
                                     next.task->model);
  Tell(0);
  next.task->start();
  {
    std::lock_guard lock(mutex);
    --running;
    changed.notify_all();
  }
  Tell(0);
}

bool GenerationQueue::Remove(uint64_t ticket) {
  State::Waiting removed;
  size_t index;
  {
    std::lock_guard lock(state_->mutex);
    const auto it = std::find_if(state_->waiting.begin(), state_->waiting.end(),
                                 [&](const State::Waiting& w) { return w.ticket == ticket; });
    if (it == state_->waiting.end()) return false;
    index = static_cast<size_t>(it - state_->waiting.begin());
    removed = std::move(*it);
    state_->waiting.erase(it);
    state_->Account(*removed.task, -1);
    state_->changed.notify_all();
  }
  state_->Publish(removed.task->model);
  state_->Tell(index);
  return true;
}

int GenerationQueue::waiting() const {
  std::lock_guard lock(state_->mutex);
  return static_cast<int>(state_->waiting.size());
}

int GenerationQueue::running() const {
  std::lock_guard lock(state_->mutex);
  return state_->running;
}

bool GenerationQueue::WaitIdle(Clock::time_point deadline) {
  std::unique_lock lock(state_->mutex);
  return state_->changed.wait_until(lock, deadline,
                                    [&] { return state_->running == 0 && state_->waiting.empty(); });
}

}  // namespace tempera
