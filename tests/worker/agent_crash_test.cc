// Workers killed at random moments: the job ends with the artifact that it would have had.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <random>

#include "base/temp_folder.h"
#include "storage/artifacts.h"
#include "storage/child.h"
#include "worker/agent.h"
#include "worker/fake_compute.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr int kKills = 24;
constexpr int64_t kHour = 3600 * 1000;

// Tells a waiting test that a run has ended.
class Ended final : public AgentObserver {
 public:
  void OnLeaseHeld(bool) override {}
  void OnLeasesExpired(int64_t) override {}
  void OnHeartbeat() override {}
  void OnProgress(const std::string&, double) override {}
  void OnStage(const std::string&, double) override {}
  void OnLeft(const std::string&, const std::string&, JobState state, double) override {
    const std::lock_guard lock(mutex_);
    state_ = state;
    changed_.notify_all();
  }
  std::optional<JobState> Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(60), [&] { return state_.has_value(); });
    return state_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<JobState> state_;
};

// Runs an agent in `folder` until its first job is left. Every generation lives an hour after the one before:
// the leases of the dead have run out.
std::optional<JobState> RunGeneration(const TempFolder& folder, int generation, const FakeHooks& hooks) {
  JobStoreOptions options;
  options.now_ms = [generation] { return 1'700'000'000'000 + generation * kHour; };
  options.max_fruitless = 1000;  // most die before they could tell of progress
  const auto jobs = OpenSqliteJobStore(folder / "jobs.db", options);
  const auto objects = OpenFolderStore(folder / "store");
  if (!jobs.ok() || !objects.ok()) return std::nullopt;
  Lanes lanes(1, nullptr);
  Ended ended;
  AgentOptions agent_options;
  agent_options.work_root = folder / "work";
  agent_options.model_roots = {folder / "models"};
  agent_options.poll = milliseconds(1);
  const auto compute = [&](const CallScope& scope, const QuantizeJobInput& input, Lanes&,
                           const std::function<void(const JobProgress&)>& progress) {
    return FakeCompute(hooks, scope, input, progress);
  };
  WorkerAgent agent(agent_options, **jobs, **objects, lanes, compute, &FakeParse, &ended);
  agent.Start();
  return ended.Wait();
}

// The law at every moment: a published artifact is whole.
void ExpectWholeOrAbsent(ObjectStore& objects, uint64_t seed) {
  if (!*ArtifactExists({}, objects, ArtifactOf(seed))) return;
  for (int block = 0; block < kBlocks; ++block) {
    const auto object = objects.Get({}, Cat("artifacts/", ArtifactOf(seed), "/block", block));
    ASSERT_TRUE(object.ok()) << object.status();
    EXPECT_EQ(object->bytes, BlockBytes(seed, block));
  }
}

TEST(AgentCrash, AJobWhoseWorkersAreKilledEndsWithTheSameArtifact) {
  TempFolder folder;
  fs::create_directories(folder / "models/m");
  std::mt19937 random(29);
  uint64_t seed = 0;
  int generation = 0, kills_of_unfinished = 0;
  std::string id;
  // Killed workers finish a job now and then: then the next one is made.
  while (kills_of_unfinished < kKills && generation < 40 * kKills) {
    {
      JobStoreOptions options;
      options.now_ms = [&] { return 1'700'000'000'000 + generation * kHour; };
      const auto jobs = OpenSqliteJobStore(folder / "jobs.db", options);
      ASSERT_TRUE(jobs.ok()) << jobs.status();
      if (id.empty() || IsTerminal((*jobs)->Get(id)->state)) {
        if (!id.empty()) {
          EXPECT_EQ((*jobs)->Get(id)->artifact_id, ArtifactOf(seed)) << (*jobs)->Get(id)->error;
        }
        ++seed;
        const NewJob job{.model = folder / "models/m",
                         .name = "stable",
                         .labels = {},
                         .spec = {{"seed", seed}},
                         .method = "tfmq"};
        id = (*jobs)->Create(job, {})->job.id;
      }
    }
    ++generation;
    KillAtRandom(random, 2, [&](const std::function<void()>& did) {
      const FakeHooks hooks{.before_block = [&](const CallScope&, int) {
        did();
        return OkStatus();
      }};
      // A finished job leaves the child waiting for its death, whatever number of things that comes after.
      if (RunGeneration(folder, generation, hooks))
        for (;;) did();
    });
    const auto objects = OpenFolderStore(folder / "store");
    ASSERT_TRUE(objects.ok()) << objects.status();
    ExpectWholeOrAbsent(**objects, seed);
    const auto jobs = OpenSqliteJobStore(folder / "jobs.db", {});
    ASSERT_TRUE(jobs.ok()) << jobs.status();
    const Job job = *(*jobs)->Get(id);
    kills_of_unfinished += !IsTerminal(job.state);
    if (job.state == JobState::kSucceeded) {
      EXPECT_TRUE(*ArtifactExists({}, **objects, ArtifactOf(seed)));
    }
  }
  EXPECT_GE(kills_of_unfinished, kKills);
  // At last a worker that lives.
  ++generation;
  const auto jobs = OpenSqliteJobStore(folder / "jobs.db", {});
  if (!IsTerminal((*jobs)->Get(id)->state)) {
    const auto state = RunGeneration(folder, generation, {});
    ASSERT_TRUE(state);
    EXPECT_EQ(*state, JobState::kSucceeded) << (*jobs)->Get(id)->error;
  }
  EXPECT_EQ((*jobs)->Get(id)->artifact_id, ArtifactOf(seed));
  EXPECT_EQ((*jobs)->GetAlias("stable")->artifact_id, ArtifactOf(seed));
  EXPECT_FALSE(fs::exists(folder / "work" / id));
}

TEST(AgentFullDisk, FailsTheJobAndSaysWhy) {
  TempFolder folder;
  fs::create_directories(folder / "disk");
  fs::create_directories(folder / "models/m");
  const std::string said = RunOnSmallDisk(folder / "disk", "500k", [&]() -> std::string {
    const auto jobs = OpenSqliteJobStore(folder / "disk/jobs.db", {});
    const auto objects = OpenFolderStore(folder / "disk/store");
    if (!jobs.ok() || !objects.ok()) return "no stores";
    const NewJob job{
        .model = folder / "models/m", .name = {}, .labels = {}, .spec = {{"seed", 1}}, .method = "m"};
    const std::string id = (*jobs)->Create(job, {})->job.id;
    Lanes lanes(1, nullptr);
    Ended ended;
    AgentOptions options;
    options.work_root = folder / "disk/work";
    options.model_roots = {folder / "models"};
    options.poll = milliseconds(1);
    const auto compute = [&](const CallScope&, const QuantizeJobInput& input, Lanes&,
                             const std::function<void(const JobProgress&)>&) -> Result<QuantizeJobOutput> {
      for (int i = 0;; ++i)
        TEMPERA_TRY(
            WriteFileAtomic(input.work_folder / Cat(i), std::string(20'000, 'x'), Cat("checkpoint ", i)));
    };
    WorkerAgent agent(options, **jobs, **objects, lanes, compute, &FakeParse, &ended);
    agent.Start();
    if (!ended.Wait()) return "the run did not end";
    agent.Stop();
    const Job left = *(*jobs)->Get(id);
    if (left.state != JobState::kFailed) return Cat("state ", JobStateName(left.state));
    if (!absl::IsResourceExhausted(left.error)) return left.error.ToString();
    if (fs::exists(folder / "disk/work" / id)) return "the work folder was left";
    return "";
  });
  if (said == kNoMount) GTEST_SKIP() << "this kernel lets no test mount a tmpfs";
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace tempera
