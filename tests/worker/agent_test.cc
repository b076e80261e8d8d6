#include "worker/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>

#include "base/temp_folder.h"
#include "jobs/clock.h"
#include "storage/artifacts.h"
#include "storage/child.h"
#include "worker/fake_compute.h"
#include "worker/worker_name.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using enum JobState;

constexpr milliseconds kLease{10'000};

// Long enough for any machine; a test that waits for it has failed.
constexpr std::chrono::seconds kPatience{60};

// Lets one thread wait for what another tells. Thread-safe.
class Signal {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool Wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class Recorder final : public AgentObserver {
 public:
  void OnLeaseHeld(bool held) override {
    Note([&] { leases += held ? 1 : -1; });
  }
  void OnLeasesExpired(int64_t count) override {
    Note([&] { expired += count; });
  }
  void OnHeartbeat() override {
    Note([&] { ++heartbeats; });
  }
  void OnProgress(const std::string&, double f) override {
    Note([&] { fraction = f; });
  }
  void OnStage(const std::string& stage, double seconds) override {
    Note([&] { stages.push_back(seconds >= 0 ? stage : "negative time"); });
  }
  void OnLeft(const std::string&, const std::string& method, JobState state, double) override {
    Note([&] { left.push_back(Cat(method, " ", JobStateName(state))); });
  }
  // Waits until `n` runs have ended.
  bool WaitLeft(size_t n) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, [&] { return left.size() >= n; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  int leases = 0;
  int64_t expired = 0, heartbeats = 0;
  double fraction = 0;
  std::vector<std::string> stages, left;

 private:
  template <typename Fn>
  void Note(Fn&& fn) {
    const std::lock_guard lock(mutex);
    fn();
    changed.notify_all();
  }
};

// A job store whose heartbeats or ends fail when told so.
class TroubledStore final : public JobStore {
 public:
  explicit TroubledStore(JobStore& base) : base_(base) {}
  std::atomic<int> failing_ends{0};
  std::atomic<bool> failing_heartbeats{false};
  std::atomic<bool> failing_claims{false};

  Result<Created> Create(const NewJob& job, const std::optional<RequestKey>& key) override {
    return base_.Create(job, key);
  }
  Result<Job> Get(const std::string& id) override { return base_.Get(id); }
  Result<JobPage> List(const JobQuery& query) override { return base_.List(query); }
  Result<Job> Cancel(const std::string& id, const std::string& etag) override {
    return base_.Cancel(id, etag);
  }
  Status Delete(const std::string& id, const std::string& etag) override { return base_.Delete(id, etag); }
  Result<std::map<JobState, int64_t>> CountByState() override { return base_.CountByState(); }
  Result<int64_t> Revision() override { return base_.Revision(); }
  Result<Changes> ChangedSince(int64_t since, int64_t limit) override {
    return base_.ChangedSince(since, limit);
  }
  Result<std::optional<Claimed>> Claim(const std::string& worker, milliseconds lease) override {
    if (failing_claims) return Unavailable("job store: injected");
    return base_.Claim(worker, lease);
  }
  Result<Heart> Heartbeat(const Lease& lease, milliseconds extend,
                          const std::optional<Progress>& progress) override {
    if (failing_heartbeats) return Unavailable("job store: injected");
    return base_.Heartbeat(lease, extend, progress);
  }
  Result<Job> Finish(const Lease& lease, const Outcome& outcome) override {
    if (failing_ends-- > 0) return Unavailable("job store: injected");
    return base_.Finish(lease, outcome);
  }
  Result<Job> Release(const Lease& lease, const Status& reason, milliseconds delay) override {
    return base_.Release(lease, reason, delay);
  }
  Result<Swept> Sweep() override { return base_.Sweep(); }
  Result<Swept> EndLeasesOf(const std::string& worker) override { return base_.EndLeasesOf(worker); }
  Result<Alias> MoveAlias(const AliasMove& move, const std::optional<RequestKey>& key) override {
    return base_.MoveAlias(move, key);
  }
  Result<Alias> GetAlias(const std::string& name) override { return base_.GetAlias(name); }
  Result<std::vector<Alias>> ListAliases(const std::string& id) override { return base_.ListAliases(id); }
  Result<std::optional<std::string>> FindAnswer(const RequestKey& key) override {
    return base_.FindAnswer(key);
  }
  Status SaveAnswer(const RequestKey& key, const std::string& answer) override {
    return base_.SaveAnswer(key, answer);
  }

 private:
  JobStore& base_;
};

class AgentTest : public ::testing::Test {
 protected:
  // Before any thread begins.
  static void SetUpTestSuite() {
    dead_worker_ = RunInChild([] { return ThisWorkerName(); });
  }
  static inline std::string dead_worker_;

  AgentTest() {
    fs::create_directories(folder_ / "models/m");
    auto jobs = OpenSqliteJobStore(folder_ / "jobs.db", clock_.Options());
    auto objects = OpenFolderStore(folder_ / "store");
    EXPECT_TRUE(jobs.ok() && objects.ok()) << jobs.status() << objects.status();
    jobs_ = *std::move(jobs);
    objects_ = *std::move(objects);
    troubled_ = std::make_unique<TroubledStore>(*jobs_);
    options_.worker = "me";
    options_.work_root = folder_ / "work";
    options_.model_roots = {folder_ / "models"};
    options_.lease = kLease;
    options_.poll = milliseconds(5);
  }

  std::string Make(uint64_t seed, const std::string& name = "") {
    clock_.Advance(1);
    const NewJob job{.model = folder_ / "models/m",
                     .name = name,
                     .labels = {{"team", "x"}},
                     .spec = {{"seed", seed}},
                     .method = "tfmq"};
    return jobs_->Create(job, {})->job.id;
  }
  std::unique_ptr<WorkerAgent> Agent(ComputeJob compute) {
    auto agent = std::make_unique<WorkerAgent>(options_, *troubled_, *objects_, lanes_, std::move(compute),
                                               &FakeParse, &recorder_);
    agent->Start();
    return agent;
  }
  ComputeJob Compute(FakeHooks hooks = {}) {
    return [hooks](const CallScope& scope, const QuantizeJobInput& input, Lanes&,
                   const std::function<void(const JobProgress&)>& progress) {
      return FakeCompute(hooks, scope, input, progress);
    };
  }
  // At its first block 3: tells `arrived_`, then waits for its scope to stop.
  ComputeJob Hanging() {
    return Compute({.before_block = [this](const CallScope& scope, int block) -> Status {
      computed_.push_back(block);
      if (block != 3 || std::exchange(hung_, true)) return OkStatus();
      arrived_.Set();
      Signal stopped;
      const std::stop_callback on_stop(scope.stop, [&] { stopped.Set(); });
      return stopped.Wait() ? scope.Check() : Internal("nobody stopped the computation");
    }});
  }
  Job Get(const std::string& id) { return *jobs_->Get(id); }
  // Another worker takes the job, as after a lease that ran out. (By the clock, a heartbeat could come in
  // between.)
  Lease Steal() {
    // The agent, once it has lost the job, waits here before it looks for another: or it takes this one
    // again.
    std::lock_guard lock(recorder_.mutex);
    EXPECT_EQ(jobs_->EndLeasesOf("me")->requeued, 1);
    const auto claimed = jobs_->Claim("thief", kLease);
    EXPECT_TRUE(claimed.ok() && *claimed);
    return claimed.ok() && *claimed ? (*claimed)->lease : Lease{};
  }

  TempFolder folder_;
  FakeClock clock_;
  std::unique_ptr<JobStore> jobs_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<TroubledStore> troubled_;
  AgentOptions options_;
  Lanes lanes_{1, nullptr};
  Recorder recorder_;
  Signal arrived_;
  std::vector<int> computed_;
  bool hung_ = false;
};

TEST_F(AgentTest, RunsAJobAndPublishesItsArtifact) {
  const std::string id = Make(7, "emoji:stable");
  const auto agent = Agent(Compute());
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  const Job job = Get(id);
  EXPECT_EQ(job.state, kSucceeded) << job.error;
  EXPECT_EQ(job.artifact_id, ArtifactOf(7));
  EXPECT_EQ(job.worker, "me");
  EXPECT_EQ(job.attempts, 1);
  EXPECT_EQ(jobs_->GetAlias("emoji:stable")->artifact_id, ArtifactOf(7));
  const auto folder = OpenArtifact({}, *objects_, ArtifactOf(7), folder_ / "cache");
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(Slurp(*folder / "block9"), BlockBytes(7, 9));
  const Json notes = *ParseJson(Slurp(*folder / "measurements.json"), "notes");
  EXPECT_EQ(notes["name"], "emoji:stable");
  EXPECT_EQ(notes["labels"]["team"], "x");
  EXPECT_FALSE(fs::exists(options_.work_root / id));
  EXPECT_THAT(recorder_.left, ElementsAre("tfmq SUCCEEDED"));
  EXPECT_THAT(recorder_.stages, ElementsAre("calibrate", "blocks", "publish"));
  EXPECT_EQ(recorder_.leases, 0);
  EXPECT_TRUE(agent->health().ok());
  EXPECT_EQ(agent->current_job(), "");
}

TEST_F(AgentTest, ShowsProgressWhileItRuns) {
  const std::string id = Make(1);
  const auto agent = Agent(Hanging());
  ASSERT_TRUE(arrived_.Wait());
  EXPECT_EQ(agent->current_job(), id);
  {
    std::unique_lock lock(recorder_.mutex);
    ASSERT_TRUE(recorder_.changed.wait_for(lock, kPatience, [&] { return recorder_.fraction == 3 / 12.0; }));
  }
  const Job job = Get(id);
  EXPECT_EQ(job.state, kRunning);
  EXPECT_EQ(job.progress.stage, "calibrate");
  EXPECT_EQ(job.progress.unit, "block 2");
  EXPECT_EQ(job.progress.done, 3);
  EXPECT_EQ(job.progress.fraction, 3 / 12.0);
}

TEST_F(AgentTest, StopsACancelledJobAndForgetsItsWork) {
  const std::string id = Make(1);
  const auto agent = Agent(Hanging());
  ASSERT_TRUE(arrived_.Wait());
  EXPECT_EQ(jobs_->Cancel(id)->state, kCancelling);
  ASSERT_TRUE(recorder_.WaitLeft(1));
  EXPECT_EQ(Get(id).state, kCancelled);
  EXPECT_FALSE(fs::exists(options_.work_root / id));
  EXPECT_FALSE(*ArtifactExists({}, *objects_, ArtifactOf(1)));
  // And goes on with the next.
  const std::string next = Make(2);
  ASSERT_TRUE(recorder_.WaitLeft(2)) << "the agent no longer takes jobs";
  EXPECT_EQ(Get(next).state, kSucceeded);
}

TEST_F(AgentTest, AStoppedAgentGivesItsJobBackAndAnotherGoesOn) {
  const std::string id = Make(5);
  {
    const auto agent = Agent(Hanging());
    ASSERT_TRUE(arrived_.Wait());
    agent->Stop();
  }
  const Job back = Get(id);
  EXPECT_EQ(back.state, kQueued);
  EXPECT_EQ(back.fruitless, 0);
  EXPECT_TRUE(back.error.ok());
  EXPECT_TRUE(fs::exists(options_.work_root / id / "artifact/block2"));
  EXPECT_THAT(computed_, ElementsAre(0, 1, 2, 3));
  std::vector<int> resumed;
  const auto agent = Agent(Compute({.before_block = [&](const CallScope&, int block) {
    resumed.push_back(block);
    return OkStatus();
  }}));
  ASSERT_TRUE(recorder_.WaitLeft(2));
  EXPECT_EQ(Get(id).artifact_id, ArtifactOf(5));
  EXPECT_EQ(Get(id).attempts, 2);
  EXPECT_THAT(resumed, ElementsAre(3, 4, 5, 6, 7, 8, 9));
}

TEST_F(AgentTest, ALostLeaseStopsTheComputationAndChangesNothing) {
  const std::string id = Make(1, "name");
  const auto agent = Agent(Hanging());
  ASSERT_TRUE(arrived_.Wait());
  const Lease thief = Steal();
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(id).state, kRunning);
  EXPECT_EQ(Get(id).worker, "thief");
  EXPECT_TRUE(fs::exists(options_.work_root / id / "artifact/block2"));
  EXPECT_FALSE(*ArtifactExists({}, *objects_, ArtifactOf(1)));
  EXPECT_THAT(recorder_.left, ElementsAre("tfmq QUEUED"));
  EXPECT_EQ(recorder_.expired, 1);
  EXPECT_TRUE(jobs_->Finish(thief, {.state = kSucceeded, .artifact_id = ArtifactOf(2)}).ok());
}

TEST_F(AgentTest, AHeartbeatIsSentEveryThirdOfALease) {
  options_.lease = milliseconds(60);
  Make(1);
  const auto agent = Agent(Hanging());
  ASSERT_TRUE(arrived_.Wait());
  std::unique_lock lock(recorder_.mutex);
  const int64_t before = recorder_.heartbeats;
  EXPECT_TRUE(
      recorder_.changed.wait_for(lock, kPatience, [&] { return recorder_.heartbeats >= before + 5; }));
  EXPECT_EQ(recorder_.expired, 0);
}

// The old holder notices nothing (its next heartbeat is far away) and comes to its end: the store refuses it.
TEST_F(AgentTest, AnUnnoticedLossIsFencedOffAtTheEnd) {
  options_.poll = std::chrono::hours(1);
  const std::string id = Make(1, "name");
  Signal go;
  const auto agent = Agent(Compute({.before_block = [&](const CallScope&, int block) {
    if (block == 3) {
      arrived_.Set();
      EXPECT_TRUE(go.Wait());
    }
    return OkStatus();
  }}));
  ASSERT_TRUE(arrived_.Wait());
  Steal();
  go.Set();
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(id).state, kRunning);
  EXPECT_EQ(Get(id).worker, "thief");
  EXPECT_TRUE(absl::IsNotFound(jobs_->GetAlias("name").status()));
  EXPECT_TRUE(fs::exists(options_.work_root / id)) << "the thief works in it";
}

TEST_F(AgentTest, StopsWhenItCannotKeepItsLease) {
  options_.lease = milliseconds(100);
  const std::string id = Make(1);
  const auto agent = Agent(Hanging());
  ASSERT_TRUE(arrived_.Wait());
  troubled_->failing_heartbeats = true;
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_THAT(recorder_.left, ElementsAre("tfmq QUEUED"));
  EXPECT_EQ(Get(id).state, kRunning) << "by the store's clock the lease goes on";
  EXPECT_TRUE(fs::exists(options_.work_root / id));
}

TEST_F(AgentTest, RejectsWhatItMayNotOrCannotRun) {
  fs::create_directories(folder_ / "elsewhere/m");
  folder_.Write("models/file", "x");
  folder_.Write("models/sd.ckpt", "x");
  fs::create_directory_symlink(folder_ / "elsewhere", folder_ / "models/link");
  const std::vector<std::pair<std::string, std::string>> cases{
      {folder_ / "elsewhere/m", "outside of the served roots"},
      {folder_ / "models/../elsewhere/m", "outside of the served roots"},
      {folder_ / "models/link/m", "outside of the served roots"},
      {folder_ / "models/none", "does not exist"},
      {folder_ / "models/file", "is no folder"},
      {folder_ / "models/sd.ckpt", "it looks like a pickled Stable Diffusion checkpoint"},
      {"models/m", "want an absolute path"},
      {"s3://bucket/m", "want an absolute path"}};
  std::vector<std::string> ids;
  for (const auto& [model, want] : cases) {
    clock_.Advance(1);
    ids.push_back(
        jobs_->Create({.model = model, .name = {}, .labels = {}, .spec = {{"seed", 1}}, .method = "m"}, {})
            ->job.id);
  }
  ids.push_back(jobs_
                    ->Create({.model = folder_ / "models/m",
                              .name = {},
                              .labels = {},
                              .spec = {{"seed", 1}, {"colour", "red"}},
                              .method = "m"},
                             {})
                    ->job.id);
  const auto agent = Agent(Compute());
  ASSERT_TRUE(recorder_.WaitLeft(ids.size()));
  agent->Stop();
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(Get(ids[i]).state, kRejected) << cases[i].first;
    EXPECT_THAT(Message(Get(ids[i]).error), HasSubstr(cases[i].second));
  }
  EXPECT_EQ(Get(ids.back()).state, kRejected);
  EXPECT_THAT(Message(Get(ids.back()).error), HasSubstr("colour is not supported"));
}

TEST(ModelFolder, LinksInItMustStayUnderTheRoots) {
  TempFolder top;
  top.Write("roots/m/model_index.json", "{}");
  top.Write("roots/blobs/weights", "w");
  top.Write("secret/config.json", "s");
  fs::create_directories(top / "roots/m/unet");
  fs::create_symlink(top / "roots/blobs/weights", top / "roots/m/unet/model.safetensors");
  const std::vector<fs::path> roots{top / "roots"};
  const std::string model = (top / "roots/m").string();
  EXPECT_TRUE(ResolveModelFolder(model, roots).ok()) << ResolveModelFolder(model, roots).status();
  for (const auto& [link, target] : std::map<fs::path, fs::path>{
           {"roots/m/unet/config.json", top / "secret/config.json"}, {"roots/m/scheduler", top / "secret"}}) {
    fs::create_symlink(target, top.path() / link);
    const Status status = ResolveModelFolder(model, roots).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(fs::path(link).lexically_relative("roots/m").string()));
    EXPECT_THAT(Message(status), Not(HasSubstr("secret")));
    fs::remove(top.path() / link);
  }
}

TEST_F(AgentTest, TakesAModelByItsFileAddress) {
  const std::string id = jobs_
                             ->Create({.model = Cat("file://", (folder_ / "models/m").string()),
                                       .name = {},
                                       .labels = {},
                                       .spec = {{"seed", 1}},
                                       .method = "m"},
                                      {})
                             ->job.id;
  const auto agent = Agent(Compute());
  ASSERT_TRUE(recorder_.WaitLeft(1));
  EXPECT_EQ(Get(id).state, kSucceeded) << Get(id).error;
}

TEST_F(AgentTest, KeepsWhyAComputationFailed) {
  const std::string id = Make(1);
  const auto agent = Agent(Compute({.before_block = [](const CallScope&, int block) {
    return block < 4 ? OkStatus() : DataLoss("unet/a.safetensors: 3 bytes short");
  }}));
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(id).state, kFailed);
  EXPECT_EQ(Get(id).error, DataLoss("unet/a.safetensors: 3 bytes short"));
  EXPECT_FALSE(fs::exists(options_.work_root / id));
}

TEST_F(AgentTest, AnArtifactThatIsNotWhatItSaysFailsItsJob) {
  const std::string id = Make(1);
  const auto agent =
      Agent([](const CallScope& scope, const QuantizeJobInput& input, Lanes&,
               const std::function<void(const JobProgress&)>& progress) -> Result<QuantizeJobOutput> {
        TEMPERA_ASSIGN(QuantizeJobOutput output, FakeCompute({}, scope, input, progress));
        TEMPERA_TRY(WriteFileAtomic(output.folder / "block3", "flipped", "block3"));
        return output;
      });
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(id).state, kFailed);
  EXPECT_THAT(Message(Get(id).error), HasSubstr("block3: wrong SHA-256"));
  EXPECT_TRUE(objects_->List({}, {})->objects.empty()) << "half an artifact was left";
}

TEST_F(AgentTest, GivesAJobBackWhenTheTroublePasses) {
  const std::string id = Make(1);
  std::atomic<int> tries{0};
  const auto agent = Agent(Compute({.before_block = [&](const CallScope&, int block) {
    return block == 4 && tries++ == 0 ? Unavailable("store: no answer") : OkStatus();
  }}));
  ASSERT_TRUE(recorder_.WaitLeft(1));
  EXPECT_EQ(Get(id).state, kQueued);
  EXPECT_EQ(Get(id).error, Unavailable("store: no answer"));
  EXPECT_TRUE(fs::exists(options_.work_root / id / "artifact/block3"));
  clock_.Advance(1000);
  ASSERT_TRUE(recorder_.WaitLeft(2));
  EXPECT_EQ(Get(id).state, kSucceeded) << Get(id).error;
}

TEST_F(AgentTest, AsksAStoreInTroubleAgainForTheEnd) {
  const std::string id = Make(1);
  troubled_->failing_ends = 3;
  const auto agent = Agent(Compute());
  ASSERT_TRUE(recorder_.WaitLeft(1));
  EXPECT_EQ(Get(id).state, kSucceeded);
}

TEST_F(AgentTest, TellsThatItCannotTakeJobsAndRecovers) {
  troubled_->failing_claims = true;
  const std::string id = Make(1);
  const auto agent = Agent(Compute());
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (agent->health().ok() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(absl::IsUnavailable(agent->health()));
  troubled_->failing_claims = false;
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_TRUE(agent->health().ok());
  EXPECT_EQ(Get(id).state, kSucceeded);
}

TEST_F(AgentTest, RemovesTheWorkOfJobsThatEndedWithoutIt) {
  const std::string cancelled = Make(1), waits = Make(2);
  ASSERT_TRUE(jobs_->Cancel(cancelled).ok());
  ASSERT_TRUE(jobs_->Release((*jobs_->Claim("w", kLease))->lease, OkStatus(), std::chrono::hours(1)).ok());
  for (const std::string& name : {cancelled, waits, std::string("0123456789abcdef"), std::string("kept")})
    folder_.Write(Cat("work/", name, "/checkpoint"), "x");
  const std::string runs = Make(3);
  const auto agent = Agent(Compute());
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(runs).state, kSucceeded);
  EXPECT_FALSE(fs::exists(options_.work_root / cancelled));
  EXPECT_FALSE(fs::exists(options_.work_root / "0123456789abcdef")) << "of a job that is no more";
  EXPECT_TRUE(fs::exists(options_.work_root / waits));
  EXPECT_TRUE(fs::exists(options_.work_root / "kept")) << "not a job's";
}

TEST_F(AgentTest, SeveralAgentsShareTheJobs) {
  std::vector<std::string> ids;
  for (uint64_t i = 0; i < 8; ++i) ids.push_back(Make(i));
  std::mutex mutex;
  std::multiset<std::string> ran;
  const ComputeJob compute = [&](const CallScope& scope, const QuantizeJobInput& input, Lanes&,
                                 const std::function<void(const JobProgress&)>& progress) {
    {
      const std::lock_guard lock(mutex);
      ran.insert(input.job_id);
    }
    return FakeCompute({}, scope, input, progress);
  };
  const auto a = Agent(compute);
  options_.worker = "other";
  const auto b = Agent(compute);
  ASSERT_TRUE(recorder_.WaitLeft(8));
  a->Stop();
  b->Stop();
  EXPECT_EQ(ran.size(), 8u);
  for (uint64_t i = 0; i < 8; ++i) EXPECT_EQ(Get(ids[i]).artifact_id, ArtifactOf(i));
}

TEST_F(AgentTest, TakesOverAtOnceFromADeadWorkerOfThisMachine) {
  const std::string id = Make(1);
  ASSERT_TRUE(*jobs_->Claim(dead_worker_, kLease));
  const std::string other = Make(2);
  ASSERT_TRUE(*jobs_->Claim("elsewhere:1:2.3", kLease));
  const auto agent = Agent(Compute());  // and the clock stands still
  ASSERT_TRUE(recorder_.WaitLeft(1));
  agent->Stop();
  EXPECT_EQ(Get(id).state, kSucceeded);
  EXPECT_EQ(Get(id).attempts, 2);
  EXPECT_EQ(recorder_.expired, 1);
  EXPECT_EQ(Get(other).state, kRunning) << "who knows of a worker elsewhere?";
}

TEST(WorkerName, TellsTheDeadOfThisMachineFromAllOthers) {
  const std::string mine = ThisWorkerName();
  EXPECT_EQ(ThisWorkerName(), mine);
  EXPECT_FALSE(IsDeadWorker(mine));
  const std::string child = RunInChild([&]() -> std::string {
    if (IsDeadWorker(mine)) return "a child takes its parent for dead";
    return ThisWorkerName();
  });
  EXPECT_NE(child, mine);
  EXPECT_TRUE(IsDeadWorker(child)) << child;
  EXPECT_TRUE(IsDeadWorker(mine + "0")) << "this process's number, used before";
  for (const std::string& unknown :
       {std::string(), std::string("me"), std::string("host:12"), "x" + child, child.substr(0, 3),
        child.substr(0, child.rfind('.')), child.substr(0, child.rfind('.') + 1),
        child.substr(0, child.rfind(':')) + ":1.2"})
    EXPECT_FALSE(IsDeadWorker(unknown)) << unknown;
}

TEST_F(AgentTest, StopsAtOnceWhenIdleAndMayBeStoppedTwice) {
  options_.poll = std::chrono::hours(1);
  const auto agent = Agent(Compute());
  agent->Stop();
  agent->Stop();
  EXPECT_THAT(recorder_.left, ElementsAre());
}

}  // namespace
}  // namespace tempera
