#include "worker/agent.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/log.h"
#include "storage/artifacts.h"
#include "weights/layout.h"
#include "worker/worker_name.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Work folders whose jobs ended without an agent at hand are looked for this often.
constexpr std::chrono::minutes kCleanEvery{10};
// Longest wait before a job that met a passing trouble is tried again.
constexpr milliseconds kLongestDelay{60'000};

double SecondsSince(Steady::time_point begin) {
  return std::chrono::duration<double>(Steady::now() - begin).count();
}

bool IsJobId(const std::string& name) {
  return name.size() == 16 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void RemoveFolder(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);  // what stays is found by the next cleaning
  if (error)
    Log(LogLevel::kWarn, "work_folder_kept",
        {{"job", folder.filename().string()}, {"error", error.message()}});
}

class Silent final : public AgentObserver {
  void OnLeaseHeld(bool) override {}
  void OnLeasesExpired(int64_t) override {}
  void OnHeartbeat() override {}
  void OnProgress(const std::string&, double) override {}
  void OnStage(const std::string&, double) override {}
  void OnLeft(const std::string&, const std::string&, JobState, double) override {}
};

// One job under one lease, shared by the thread that computes and the one that keeps the lease.
struct Run {
  Claimed claimed;
  Steady::time_point begin = Steady::now();
  std::stop_source compute_stop;  // cancel, drain or lost
  std::stop_source publish_stop;  // drain or lost: a cancel comes too late then

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  Progress last;  // as the computation last told it
  bool unsaved = false;
  bool drained = false;
  bool cancelled = false;
  bool lost = false;
  bool done = false;  // the keeper may go
  Steady::time_point stage_begin = Steady::now();
};

// How a run ends: with an outcome, or given back to the queue.
struct Ending {
  std::optional<Outcome> outcome = {};
  Status reason = {};  // of giving back; OK: a drain
  milliseconds delay{0};
};

Ending GiveBackLater(const Job& job, const Status& reason) {
  return {.reason = reason,
          .delay = std::min(kLongestDelay, milliseconds(1000LL << std::min<int64_t>(job.fruitless, 6)))};
}

// A link among the files of a model's folder, or of its sub-folders, that leads out of the roots: readers
// would follow it.
Status CheckLinks(const fs::path& folder, const std::string& model, const std::vector<fs::path>& roots) {
  std::error_code error;
  std::vector<fs::path> folders{folder};
  for (size_t i = 0; i < folders.size(); ++i)
    for (fs::directory_iterator it(folders[i], error), end; !error && it != end; it.increment(error)) {
      std::error_code ignored;
      if (fs::is_symlink(it->symlink_status(ignored)) &&
          absl::IsPermissionDenied(ResolveUnder(it->path().string(), roots).status()))
        return PermissionDenied("path \"", model, "\": ", it->path().lexically_relative(folder).string(),
                                " is a link that leads outside of the served roots (--model-root)");
      if (i == 0 && fs::is_directory(it->status(ignored))) folders.push_back(it->path());
    }
  return OkStatus();  // what cannot be listed is an error of its reader
}

}  // namespace

Result<fs::path> ResolveModelFolder(const std::string& model, const std::vector<fs::path>& roots) {
  constexpr std::string_view kScheme = "file://";
  const std::string path = model.starts_with(kScheme) ? model.substr(kScheme.size()) : model;
  if (!path.starts_with('/'))
    return InvalidArgument("model \"", model.substr(0, 200), "\": want an absolute path or file:///path");
  TEMPERA_ASSIGN(const fs::path folder, ResolveUnder(path, roots));
  std::error_code error;
  if (!fs::is_directory(folder, error))
    return InvalidArgument("model \"", model, "\": is no folder", ModelPathHint(folder));
  TEMPERA_TRY(CheckLinks(folder, model, roots));
  return folder;
}

struct WorkerAgent::State {
  const AgentOptions options;
  JobStore& jobs;
  ObjectStore& objects;
  Lanes& lanes;
  const ComputeJob compute;
  const ParseSpec parse;
  AgentObserver& observer;

  std::mutex mutex = {};  // guards what follows; may be held while a Run's is taken, not the other way round
  std::condition_variable changed = {};
  bool stopping = false;
  std::shared_ptr<Run> current = {};
  Status health = {};

  std::mutex stop_mutex = {};  // guards starting and stopping
  bool started = false;
  std::unique_ptr<Lanes> taker = {};   // claims and computes
  std::unique_ptr<Lanes> keeper = {};  // keeps the lease of the job that the taker computes; outlives it

  void TakeJobs();
  Result<bool> TakeOne();
  void CleanWork();
  Status BuryTheDead();
  void RunJob(Run& run);
  void Keep(Run& run);
  bool Beat(Run& run, const std::optional<Progress>& progress);
  void Report(Run& run, const JobProgress& progress);
  Result<QuantizeJobInput> Prepare(const Job& job);
  Result<std::string> ComputeAndPublish(Run& run, const QuantizeJobInput& input);
  Ending Decide(Run& run, const Result<std::string>& artifact);
  JobState Leave(Run& run, const Ending& ending);
};

WorkerAgent::WorkerAgent(AgentOptions options, JobStore& jobs, ObjectStore& objects, Lanes& lanes,
                         ComputeJob compute, ParseSpec parse, AgentObserver* observer) {
  TEMPERA_CHECK(compute && parse && !options.work_root.empty(),
                "agent: compute, parse and work_root must be set");
  if (options.worker.empty()) options.worker = ThisWorkerName();
  static Silent silent;
  state_.reset(new State{.options = std::move(options),
                         .jobs = jobs,
                         .objects = objects,
                         .lanes = lanes,
                         .compute = std::move(compute),
                         .parse = std::move(parse),
                         .observer = observer != nullptr ? *observer : silent});
}

WorkerAgent::~WorkerAgent() { Stop(); }

void WorkerAgent::Start() {
  const std::lock_guard lock(state_->stop_mutex);
  TEMPERA_CHECK(!std::exchange(state_->started, true), "agent: started twice");
  state_->keeper = std::make_unique<Lanes>(1, nullptr);
  state_->taker = std::make_unique<Lanes>(1, nullptr);
  state_->taker->Post([s = state_.get()] { s->TakeJobs(); });
}

void WorkerAgent::Stop() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    if (state_->current != nullptr) {
      const std::lock_guard run_lock(state_->current->mutex);
      state_->current->drained = true;
      state_->current->changed.notify_all();
    }
  }
  state_->changed.notify_all();
  const std::lock_guard lock(state_->stop_mutex);
  state_->taker.reset();
  state_->keeper.reset();
}

std::string WorkerAgent::current_job() const {
  const std::lock_guard lock(state_->mutex);
  return state_->current == nullptr ? "" : state_->current->claimed.job.id;
}

Status WorkerAgent::health() const {
  const std::lock_guard lock(state_->mutex);
  return state_->health;
}

void WorkerAgent::State::TakeJobs() {
  const Status buried = BuryTheDead();
  if (!buried.ok()) Log(LogLevel::kWarn, "dead_workers_kept", {{"error", Message(buried)}});
  Steady::time_point cleaned = Steady::time_point::min();
  for (;;) {
    if (cleaned == Steady::time_point::min() || Steady::now() - cleaned >= kCleanEvery) {
      CleanWork();
      cleaned = Steady::now();
    }
    const Result<bool> took = TakeOne();
    std::unique_lock lock(mutex);
    if (!took.ok() && health != took.status())
      Log(LogLevel::kError, "agent_cannot_take_jobs", {{"error", Message(took.status())}});
    health = took.status();
    const bool idle = !took.ok() || !*took;
    if (idle) changed.wait_for(lock, options.poll, [&] { return stopping; });
    if (stopping) return;
  }
}

// Runs the next job to its end, if there is one.
Result<bool> WorkerAgent::State::TakeOne() {
  TEMPERA_ASSIGN(const Swept swept, jobs.Sweep());
  const int64_t expired = swept.requeued + swept.ended;
  if (expired > 0) observer.OnLeasesExpired(expired);
  TEMPERA_ASSIGN(std::optional<Claimed> claimed, jobs.Claim(options.worker, options.lease));
  if (!claimed) return false;
  auto run = std::make_shared<Run>();
  run->claimed = *std::move(claimed);
  {
    const std::lock_guard lock(mutex);
    current = run;
    // A Stop() before this line found no job to drain.
    run->drained = stopping;
  }
  RunJob(*run);
  const std::lock_guard lock(mutex);
  current = nullptr;
  return true;
}

// A worker that was killed and begins again need not wait for its own lease to run out.
Status WorkerAgent::State::BuryTheDead() {
  std::set<std::string> dead;
  for (const char* filter : {"state = RUNNING", "state = CANCELLING"}) {
    JobQuery query{.filter = filter, .page_size = 1000};
    do {
      TEMPERA_ASSIGN(const JobPage page, jobs.List(query));
      for (const Job& job : page.jobs)
        if (IsDeadWorker(job.worker)) dead.insert(job.worker);
      query.page_token = page.next_page_token;
    } while (!query.page_token.empty());
  }
  for (const std::string& worker : dead) {
    TEMPERA_ASSIGN(const Swept swept, jobs.EndLeasesOf(worker));
    observer.OnLeasesExpired(swept.requeued + swept.ended);
  }
  return OkStatus();
}

// Removes the work folders of jobs that are no more or have ended: they were cancelled while they waited, or
// an agent died right after their end.
void WorkerAgent::State::CleanWork() {
  std::error_code error;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(options.work_root, error)) folders.push_back(entry.path());
  for (const fs::path& folder : folders) {
    if (!IsJobId(folder.filename().string())) continue;
    const Result<Job> job = jobs.Get(folder.filename().string());
    if (job.ok() ? IsTerminal(job->state) : absl::IsNotFound(job.status())) RemoveFolder(folder);
  }
}

void WorkerAgent::State::RunJob(Run& run) {
  const Job& job = run.claimed.job;
  Log(LogLevel::kInfo, "job_claimed",
      {{"job", job.id}, {"worker", options.worker}, {"attempt", job.attempts}});
  observer.OnLeaseHeld(true);
  const Result<QuantizeJobInput> input = Prepare(job);
  Ending ending;
  if (input.ok()) {
    std::promise<void> kept;
    keeper->Post([&] {
      Keep(run);
      kept.set_value();
    });
    const Result<std::string> artifact = ComputeAndPublish(run, *input);
    {
      const std::lock_guard lock(run.mutex);
      run.done = true;
      run.changed.notify_all();
    }
    kept.get_future().wait();
    if (!run.last.stage.empty()) observer.OnStage(run.last.stage, SecondsSince(run.stage_begin));
    ending = Decide(run, artifact);
  } else if (absl::IsUnavailable(input.status())) {
    ending = GiveBackLater(job, input.status());
  } else {
    ending.outcome = Outcome{.state = JobState::kRejected, .error = input.status()};
  }
  const JobState left = Leave(run, ending);
  observer.OnLeaseHeld(false);
  observer.OnLeft(job.id, job.method, left, SecondsSince(run.begin));
}

// Keeps the lease until the run is done: saves progress, learns of a cancel, a drain and a lost lease.
void WorkerAgent::State::Keep(Run& run) {
  Steady::time_point beaten = run.begin;  // the last time the lease was surely ours
  for (;;) {
    std::optional<Progress> progress;
    bool drained = false, lost = false, cancelled = false;
    {
      std::unique_lock lock(run.mutex);
      run.changed.wait_for(lock, options.poll,
                           [&] { return run.done || (run.drained && !run.publish_stop.stop_requested()); });
      if (run.done) return;
      drained = run.drained;
      lost = run.lost;
      if (!lost && std::exchange(run.unsaved, false)) progress = run.last;
    }
    // Outside of the lock: whoever is told may call back.
    if (drained) {
      run.compute_stop.request_stop();
      run.publish_stop.request_stop();
    }
    if (lost) continue;
    const Steady::time_point now = Steady::now();
    bool beat = progress.has_value() || now - beaten >= options.lease / 3;
    if (!beat) {
      // A cheap look for news: a heartbeat then says whether it is a cancel or a lost lease.
      const Result<Job> job = jobs.Get(run.claimed.job.id);
      const bool cancelling = job.ok() && job->state == JobState::kCancelling;
      const bool ours =
          job.ok() && (cancelling || job->state == JobState::kRunning) && job->worker == options.worker;
      beat = !ours || (cancelling && !run.compute_stop.stop_requested());
    }
    if (!beat) continue;
    if (Beat(run, progress)) beaten = now;
    {
      const std::lock_guard lock(run.mutex);
      if (now - beaten >= options.lease) run.lost = true;
      lost = run.lost;
      cancelled = run.cancelled;
    }
    if (lost || cancelled) run.compute_stop.request_stop();
    if (lost) run.publish_stop.request_stop();
  }
}

// True: the lease was extended.
bool WorkerAgent::State::Beat(Run& run, const std::optional<Progress>& progress) {
  const Result<Heart> heart = jobs.Heartbeat(run.claimed.lease, options.lease, progress);
  if (heart.ok()) {
    observer.OnHeartbeat();
    if (progress) observer.OnProgress(run.claimed.job.id, progress->fraction);
  } else {
    Log(LogLevel::kWarn, "heartbeat_failed",
        {{"job", run.claimed.job.id}, {"error", Message(heart.status())}});
  }
  const std::lock_guard lock(run.mutex);
  if (heart.ok() && heart->cancel_requested) run.cancelled = true;
  if (absl::IsAborted(heart.status())) run.lost = true;
  if (!heart.ok() && progress) run.unsaved = true;
  return heart.ok();
}

void WorkerAgent::State::Report(Run& run, const JobProgress& progress) {
  std::string ended;
  double seconds = 0;
  {
    const std::lock_guard lock(run.mutex);
    if (progress.stage != run.last.stage) {
      ended = run.last.stage;
      seconds = SecondsSince(run.stage_begin);
      run.stage_begin = Steady::now();
    }
    run.last = {progress.stage, progress.unit,     progress.done,
                progress.total, progress.fraction, progress.eta_seconds};
    run.unsaved = true;
  }
  if (!ended.empty()) observer.OnStage(ended, seconds);
}

// What the computation needs. Fails before anything is computed.
Result<QuantizeJobInput> WorkerAgent::State::Prepare(const Job& job) {
  QuantizeJobInput input;
  input.job_id = job.id;
  TEMPERA_ASSIGN(input.spec, parse(job.spec, "spec"));
  TEMPERA_ASSIGN(input.model_folder, ResolveModelFolder(job.model, options.model_roots));
  input.work_folder = options.work_root / job.id;
  input.notes = Json{{"job", job.id},
                     {"name", job.name},
                     {"labels", job.labels},
                     {"model", job.model},
                     {"worker", options.worker},
                     {"attempts", job.attempts},
                     {"create_time_ms", job.create_ms},
                     {"start_time_ms", job.start_ms}};
  return input;
}

// The id of the published artifact.
Result<std::string> WorkerAgent::State::ComputeAndPublish(Run& run, const QuantizeJobInput& input) {
  TEMPERA_TRY(MakeFolders(input.work_folder, "work folder"));
  const CallScope compute_scope{run.compute_stop.get_token()};
  const auto report = [&](const JobProgress& progress) { Report(run, progress); };
  TEMPERA_ASSIGN(const QuantizeJobOutput output, compute(compute_scope, input, lanes, report));
  JobProgress publishing{.stage = "publish", .unit = {}};
  {
    const std::lock_guard lock(run.mutex);
    publishing.fraction = run.last.fraction;
  }
  report(publishing);
  const CallScope publish_scope{run.publish_stop.get_token()};
  TEMPERA_TRY(
      Annotate(PublishArtifact(publish_scope, objects, output.folder, output.artifact_id), "publish"));
  return output.artifact_id;
}

Ending WorkerAgent::State::Decide(Run& run, const Result<std::string>& artifact) {
  const std::lock_guard lock(run.mutex);
  const Status& status = artifact.status();
  if (artifact.ok()) return {.outcome = Outcome{.state = JobState::kSucceeded, .artifact_id = *artifact}};
  // One that was cancelled ends by it; one that was drained waits for another worker.
  if (absl::IsCancelled(status) && run.cancelled) return {.outcome = Outcome{.state = JobState::kCancelled}};
  if (absl::IsCancelled(status) && run.drained) return {};
  if (absl::IsUnavailable(status)) return GiveBackLater(run.claimed.job, status);
  return {.outcome = Outcome{.state = JobState::kFailed, .error = status}};
}

// Tells the store how the run ended; the state that the job was left in. REQUIRES: the keeper has gone, which
// alone writes run.lost.
JobState WorkerAgent::State::Leave(Run& run, const Ending& ending) {
  const Job& job = run.claimed.job;
  if (run.lost) {
    Log(LogLevel::kWarn, "lease_lost", {{"job", job.id}, {"worker", options.worker}});
    observer.OnLeasesExpired(1);
    return JobState::kQueued;
  }
  const fs::path work = options.work_root / job.id;
  // First the folder, where nothing in it is worth keeping: on a full disk the store then has room to say so.
  if (ending.outcome && ending.outcome->state != JobState::kSucceeded) RemoveFolder(work);
  // A store in passing trouble is asked again, while the lease may still be ours.
  const Steady::time_point end = Steady::now() + options.lease;
  Result<Job> left = absl::UnknownError("");
  for (;;) {
    left = ending.outcome ? jobs.Finish(run.claimed.lease, *ending.outcome)
                          : jobs.Release(run.claimed.lease, ending.reason, ending.delay);
    const bool passing = absl::IsUnavailable(left.status()) || absl::IsResourceExhausted(left.status());
    if (!passing || Steady::now() >= end) break;
    std::unique_lock lock(run.mutex);
    run.changed.wait_for(lock, options.poll);
  }
  if (!left.ok()) {
    Log(LogLevel::kError, "job_end_not_stored", {{"job", job.id}, {"error", Message(left.status())}});
    return JobState::kQueued;
  }
  if (IsTerminal(left->state)) RemoveFolder(work);
  Log(left->state == JobState::kFailed ? LogLevel::kError : LogLevel::kInfo, "job_left",
      {{"job", job.id},
       {"state", JobStateName(left->state)},
       {"artifact", left->artifact_id},
       {"error", Message(left->error)},
       {"seconds", SecondsSince(run.begin)}});
  return left->state;
}

}  // namespace tempera
