#include "server/job_watch.h"

#include <atomic>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace tempera {

using Clock = std::chrono::steady_clock;

struct JobWatch::State {
  struct Watch {
    std::string job_id;
    std::chrono::milliseconds silence;
    Tell tell;
    std::mutex mutex;  // held while it is told
    std::atomic<bool> over = false;
    int64_t revision = -1;  // of the state told last
    std::atomic<Clock::time_point> due = Clock::time_point::min();
  };

  State(JobStore& j, Lanes& l) : jobs(j), io(l) {}

  JobStore& jobs;
  Lanes& io;
  std::mutex mutex;  // guards what follows
  std::map<uint64_t, std::shared_ptr<Watch>> watches;
  uint64_t last = 0;
  int64_t revision = -1;  // of the store, up to which changes were told; -1: not known
  bool polling = false;

  void End(uint64_t id) {
    std::lock_guard lock(mutex);
    watches.erase(id);
  }
  void TellOne(uint64_t id, Watch& watch, const Result<Job>& job, bool changed) {
    bool more;
    {
      std::lock_guard lock(watch.mutex);
      if (watch.over) return;
      if (job.ok()) {
        // Older than what was told, or nothing new and the silence is not over.
        if (job->revision < watch.revision) return;
        if (job->revision == watch.revision && (changed || Clock::now() < watch.due.load())) return;
        watch.revision = job->revision;
      }
      watch.due = Clock::now() + watch.silence;
      more = watch.tell(job) && !absl::IsNotFound(job.status());
      if (!more) watch.over = true;
    }
    if (!more) End(id);
  }
  void Look();
};

JobWatch::JobWatch(JobStore& jobs, Lanes& io) : state_(std::make_shared<State>(jobs, io)) {}
JobWatch::~JobWatch() = default;

uint64_t JobWatch::Add(const std::string& job_id, std::chrono::milliseconds silence, Tell tell) {
  auto watch = std::make_shared<State::Watch>();
  watch->job_id = job_id;
  watch->silence = silence;
  watch->tell = std::move(tell);
  uint64_t id;
  {
    std::lock_guard lock(state_->mutex);
    id = ++state_->last;
    state_->watches[id] = watch;
  }
  state_->io.Post(
      [state = state_, id, watch] { state->TellOne(id, *watch, state->jobs.Get(watch->job_id), false); });
  return id;
}

void JobWatch::Remove(uint64_t watch) {
  std::shared_ptr<State::Watch> removed;
  {
    std::lock_guard lock(state_->mutex);
    const auto it = state_->watches.find(watch);
    if (it == state_->watches.end()) return;
    removed = std::move(it->second);
    state_->watches.erase(it);
  }
  removed->over = true;
}

void JobWatch::Poll() {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->watches.empty()) state_->revision = -1;
    if (state_->watches.empty() || state_->polling) return;
    state_->polling = true;
  }
  state_->io.Post([state = state_] {
    state->Look();
    std::lock_guard lock(state->mutex);
    state->polling = false;
  });
}

void JobWatch::State::Look() {
  std::vector<std::pair<uint64_t, std::shared_ptr<Watch>>> now;
  int64_t since;
  {
    std::lock_guard lock(mutex);
    now.assign(watches.begin(), watches.end());
    since = revision;
  }
  std::map<std::string, Job> changed;
  bool all = since < 0;  // nothing is known of what went before
  const Result<int64_t> head = jobs.Revision();
  if (!head.ok()) return;  // the store is busy: the next poll sees it
  if (!all && *head != since) {
    constexpr int64_t kMost = 1000;
    Result<Changes> changes = jobs.ChangedSince(since, kMost);
    if (!changes.ok()) return;
    for (Job& job : changes->jobs) {
      const std::string id = job.id;
      changed.insert_or_assign(id, std::move(job));
    }
    since = changes->revision;
  } else {
    since = *head;
  }
  {
    std::lock_guard lock(mutex);
    revision = since;
  }
  for (const auto& [id, watch] : now) {
    const auto it = changed.find(watch->job_id);
    if (it != changed.end()) {
      TellOne(id, *watch, it->second, true);
    } else if (all || Clock::now() >= watch->due.load()) {
      TellOne(id, *watch, jobs.Get(watch->job_id), all);
    }
  }
}

void JobWatch::EndAll(const Status& status) {
  std::map<uint64_t, std::shared_ptr<State::Watch>> all;
  {
    std::lock_guard lock(state_->mutex);
    all = std::move(state_->watches);
    state_->watches.clear();
  }
  for (auto& [id, watch] : all) {
    std::lock_guard lock(watch->mutex);
    if (!watch->over.exchange(true)) watch->tell(status);
  }
}

}  // namespace tempera
