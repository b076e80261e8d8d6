#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "base/temp_folder.h"
#include "jobs/clock.h"
#include "jobs/job_store.h"
#include "storage/child.h"

namespace tempera {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using enum JobState;

constexpr milliseconds kLease{10'000};
constexpr milliseconds kNow{0};
const std::string kArtifact(64, 'a');

NewJob Wanted(const std::string& model = "/models/m", const std::string& name = "") {
  return {.model = model,
          .name = name,
          .labels = {},
          .spec = {{"method", "tfmq"}, {"eta", 0.1}},
          .method = "tfmq"};
}

class JobStoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<JobStore> Open() {
    JobStoreOptions options = clock_.Options();
    options.max_fruitless = 3;
    auto store = OpenSqliteJobStore(folder_ / "jobs.db", options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  std::string Make(const NewJob& job = Wanted()) {
    clock_.Advance(1);
    const auto created = store_->Create(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job.id : "";
  }
  Lease Take(const std::string& worker = "w") {
    const auto claimed = store_->Claim(worker, kLease);
    EXPECT_TRUE(claimed.ok() && *claimed) << claimed.status();
    return claimed.ok() && *claimed ? (*claimed)->lease : Lease{};
  }
  JobState StateOf(const std::string& id) {
    const auto job = store_->Get(id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job->state;
  }
  std::vector<std::string> Ids(const JobQuery& query) {
    const auto page = store_->List(query);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> ids;
    if (page.ok())
      for (const Job& job : page->jobs) ids.push_back(job.id);
    return ids;
  }

  TempFolder folder_;
  FakeClock clock_;
  std::unique_ptr<JobStore> store_ = Open();
};

TEST_F(JobStoreTest, KeepsAJobAsItWasMade) {
  NewJob wanted = Wanted("/models/ünï", "a:b");
  wanted.labels = {{"team", "x"}, {"empty", ""}};
  const std::string id = Make(wanted);
  EXPECT_EQ(id.size(), 16u);
  store_ = Open();
  const auto job = store_->Get(id);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->model, wanted.model);
  EXPECT_EQ(job->name, "a:b");
  EXPECT_EQ(job->labels, wanted.labels);
  EXPECT_EQ(job->spec, wanted.spec);
  EXPECT_EQ(job->method, "tfmq");
  EXPECT_EQ(job->state, kQueued);
  EXPECT_EQ(job->create_ms, clock_.now());
  EXPECT_EQ(job->progress.eta_seconds, -1);
  EXPECT_TRUE(job->error.ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Get("none").status()));
}

TEST_F(JobStoreTest, RunsAJobToSuccess) {
  const std::string id = Make(Wanted("/m", "emoji:stable"));
  const auto claimed = store_->Claim("w1", kLease);
  ASSERT_TRUE(claimed.ok() && *claimed);
  EXPECT_EQ((*claimed)->job.state, kRunning);
  EXPECT_EQ((*claimed)->job.attempts, 1);
  EXPECT_EQ((*claimed)->job.worker, "w1");
  EXPECT_EQ((*claimed)->job.lease_until_ms, clock_.now() + kLease.count());
  clock_.Advance(5000);
  const Progress progress{"blocks", "down.0", 3, 9, 0.4, 12.5};
  const auto heart = store_->Heartbeat((*claimed)->lease, kLease, progress);
  ASSERT_TRUE(heart.ok()) << heart.status();
  EXPECT_FALSE(heart->cancel_requested);
  EXPECT_EQ(heart->lease_until_ms, clock_.now() + kLease.count());
  const Job running = *store_->Get(id);
  EXPECT_EQ(running.progress.unit, "down.0");
  EXPECT_EQ(running.progress.done, 3);
  EXPECT_EQ(running.progress.fraction, 0.4);
  const auto done = store_->Finish((*claimed)->lease, {.state = kSucceeded, .artifact_id = kArtifact});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->state, kSucceeded);
  EXPECT_EQ(done->artifact_id, kArtifact);
  EXPECT_EQ(done->end_ms, clock_.now());
  EXPECT_EQ(done->progress.fraction, 1);
  EXPECT_EQ(store_->GetAlias("emoji:stable")->artifact_id, kArtifact);
}

TEST_F(JobStoreTest, KeepsWhyAJobFailed) {
  const std::string id = Make(Wanted("/m", "name"));
  ASSERT_TRUE(store_->Finish(Take(), {.state = kFailed, .error = DataLoss("unet: 3 bytes short")}).ok());
  store_ = Open();
  EXPECT_EQ(store_->Get(id)->error, DataLoss("unet: 3 bytes short"));
  EXPECT_TRUE(absl::IsNotFound(store_->GetAlias("name").status())) << "a failed job moved its alias";
}

TEST_F(JobStoreTest, ClaimsTheOldestOnce) {
  const std::string first = Make(), second = Make();
  const auto other = Open();
  EXPECT_EQ((*store_->Claim("a", kLease))->job.id, first);
  EXPECT_EQ((*other->Claim("b", kLease))->job.id, second);
  EXPECT_FALSE(*store_->Claim("a", kLease));
}

TEST_F(JobStoreTest, AnExpiredLeaseReturnsItsJobAndIsFencedOff) {
  const std::string id = Make();
  const Lease old = Take("dead");
  clock_.Advance(kLease.count() - 1);
  EXPECT_EQ(store_->Sweep()->requeued, 0);
  EXPECT_FALSE(*store_->Claim("other", kLease));
  clock_.Advance(1);
  EXPECT_EQ(store_->Sweep()->requeued, 1);
  const Job queued = *store_->Get(id);
  EXPECT_EQ(queued.state, kQueued);
  EXPECT_EQ(queued.fruitless, 1);
  EXPECT_THAT(Message(queued.error), HasSubstr("dead"));
  EXPECT_TRUE(absl::IsAborted(store_->Heartbeat(old, kLease, {}).status())) << "requeued, and not taken yet";
  const Lease now = Take("other");
  EXPECT_GT(now.token, old.token);
  EXPECT_TRUE(absl::IsAborted(store_->Heartbeat(old, kLease, {}).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Finish(old, {.state = kSucceeded, .artifact_id = kArtifact}).status()));
  EXPECT_TRUE(absl::IsAborted(store_->Release(old, OkStatus(), kNow).status()));
  EXPECT_EQ(StateOf(id), kRunning);
  EXPECT_TRUE(store_->Finish(now, {.state = kSucceeded, .artifact_id = kArtifact}).ok());
  EXPECT_TRUE(absl::IsAborted(store_->Heartbeat(now, kLease, {}).status())) << "it has ended";
}

TEST_F(JobStoreTest, EndsTheLeasesOfTheDeadAlone) {
  const std::string a = Make(), b = Make();
  Take("dead");
  const Lease alive = Take("alive");
  EXPECT_EQ(store_->EndLeasesOf("dead")->requeued, 1);
  EXPECT_EQ(StateOf(a), kQueued);
  EXPECT_EQ(StateOf(b), kRunning);
  EXPECT_TRUE(store_->Heartbeat(alive, kLease, {}).ok());
  EXPECT_EQ(store_->EndLeasesOf("dead")->requeued, 0);
}

TEST_F(JobStoreTest, AHeartbeatBeforeTheSweepSavesALateLease) {
  Make();
  const Lease lease = Take();
  clock_.Advance(kLease.count() * 2);
  EXPECT_TRUE(store_->Heartbeat(lease, kLease, {}).ok());
  EXPECT_EQ(store_->Sweep()->requeued, 0);
}

TEST_F(JobStoreTest, GivesUpOnAJobThatKillsItsWorkers) {
  const std::string id = Make();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StateOf(id), kQueued);
    Take(Cat("w", i));
    clock_.Advance(kLease.count());
    ASSERT_TRUE(store_->Sweep().ok());
  }
  const Job job = *store_->Get(id);
  EXPECT_EQ(job.state, kFailed);
  EXPECT_EQ(job.attempts, 3);
  EXPECT_THAT(Message(job.error), HasSubstr("given up after 3 attempts"));
  EXPECT_THAT(Message(job.error), HasSubstr("w2"));
}

TEST_F(JobStoreTest, AJobThatGetsFurtherIsNotGivenUp) {
  const std::string id = Make();
  for (int i = 0; i < 10; ++i) {
    const Lease lease = Take();
    ASSERT_TRUE(
        store_->Heartbeat(lease, kLease, Progress{.stage = "s", .unit = {}, .fraction = 0.05 * (i + 1)})
            .ok());
    clock_.Advance(kLease.count());
    ASSERT_TRUE(store_->Sweep().ok());
    EXPECT_EQ(StateOf(id), kQueued) << i;
  }
  // From here on it repeats what it had: three strikes.
  for (int i = 0; i < 2; ++i) {
    const Lease lease = Take();
    ASSERT_TRUE(store_->Heartbeat(lease, kLease, Progress{.stage = "s", .unit = {}, .fraction = 0.3}).ok());
    clock_.Advance(kLease.count());
    ASSERT_TRUE(store_->Sweep().ok());
  }
  EXPECT_EQ(store_->Get(id)->fruitless, 3);
  EXPECT_EQ(StateOf(id), kFailed);
}

TEST_F(JobStoreTest, AGivenBackJobWaitsAndKeepsTheReason) {
  const std::string id = Make();
  ASSERT_TRUE(store_->Release(Take(), Unavailable("store: no answer"), milliseconds(2000)).ok());
  EXPECT_EQ(store_->Get(id)->error, Unavailable("store: no answer"));
  EXPECT_EQ(store_->Get(id)->fruitless, 1);
  clock_.Advance(1999);
  EXPECT_FALSE(*store_->Claim("w", kLease));
  clock_.Advance(1);
  const auto claimed = *store_->Claim("w", kLease);
  ASSERT_TRUE(claimed);
  EXPECT_TRUE(claimed->job.error.ok());
  ASSERT_TRUE(store_->Release(claimed->lease, OkStatus(), kNow).ok());
  EXPECT_EQ(store_->Get(id)->fruitless, 1) << "a drain counts against no job";
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(store_->Release(Take(), Unavailable("again"), kNow).ok());
  EXPECT_EQ(StateOf(id), kFailed);
}

TEST_F(JobStoreTest, CancelsAtOnceWhatWaitsAndAsksWhatRuns) {
  const std::string waits = Make(), runs = Make();
  ASSERT_TRUE(store_->Cancel(waits).ok());
  EXPECT_EQ(StateOf(waits), kCancelled);
  const Lease lease = Take();
  ASSERT_EQ(lease.job_id, runs);
  EXPECT_EQ(store_->Cancel(runs)->state, kCancelling);
  EXPECT_EQ(store_->Cancel(runs)->state, kCancelling) << "again";
  const auto heart = store_->Heartbeat(lease, kLease, {});
  ASSERT_TRUE(heart.ok());
  EXPECT_TRUE(heart->cancel_requested);
  EXPECT_EQ(StateOf(runs), kCancelling);
  EXPECT_TRUE(store_->Finish(lease, {.state = kCancelled}).ok());
  EXPECT_EQ(store_->Cancel(runs)->state, kCancelled) << "again";
  EXPECT_TRUE(absl::IsNotFound(store_->Cancel("none").status()));
}

TEST_F(JobStoreTest, ACancelledJobEndsHoweverItsWorkerLeaves) {
  const std::string died = Make();
  Take();
  ASSERT_TRUE(store_->Cancel(died).ok());
  clock_.Advance(kLease.count());
  EXPECT_EQ(store_->Sweep()->ended, 1);
  EXPECT_EQ(StateOf(died), kCancelled);
  const std::string drained = Make();
  const Lease lease = Take();
  ASSERT_TRUE(store_->Cancel(drained).ok());
  ASSERT_TRUE(store_->Release(lease, OkStatus(), kNow).ok());
  EXPECT_EQ(StateOf(drained), kCancelled);
  const std::string late = Make();
  const Lease too_late = Take();
  ASSERT_TRUE(store_->Cancel(late).ok());
  ASSERT_TRUE(store_->Finish(too_late, {.state = kSucceeded, .artifact_id = kArtifact}).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Cancel(late).status()));
}

TEST_F(JobStoreTest, RefusesAnOutcomeThatIsNoLegalMove) {
  const std::string id = Make();
  const Lease lease = Take();
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Finish(lease, {.state = kCancelled}).status()))
      << "nobody asked for it";
  EXPECT_EQ(StateOf(id), kRunning);
}

TEST_F(JobStoreTest, DeletesOnlyWhatHasEnded) {
  const std::string id = Make();
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Delete(id)));
  const Lease lease = Take();
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Delete(id)));
  ASSERT_TRUE(store_->Finish(lease, {.state = kRejected, .error = InvalidArgument("x")}).ok());
  EXPECT_TRUE(store_->Delete(id).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->Get(id).status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Delete(id)));
}

TEST_F(JobStoreTest, AnEtagOfAnEarlierStateIsRefused) {
  const std::string id = Make();
  const std::string old = store_->Get(id)->etag();
  EXPECT_EQ(store_->Get(id)->etag(), old);
  Take();
  EXPECT_TRUE(absl::IsAborted(store_->Cancel(id, old).status()));
  EXPECT_TRUE(store_->Cancel(id, store_->Get(id)->etag()).ok());
}

TEST_F(JobStoreTest, ARepeatedRequestGetsTheSameJob) {
  const RequestKey key{"3f2a", "hash"};
  const auto first = store_->Create(Wanted(), key);
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(first->replayed);
  EXPECT_EQ(first->job.request_id, "3f2a");
  const auto other = Open();
  const auto again = other->Create(Wanted(), key);
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->replayed);
  EXPECT_EQ(again->job.id, first->job.id);
  EXPECT_EQ(store_->List({})->total_size, 1);
  const auto reused = store_->Create(Wanted("/other"), RequestKey{"3f2a", "other hash"});
  EXPECT_TRUE(absl::IsAlreadyExists(reused.status())) << reused.status();
  EXPECT_EQ(store_->List({})->total_size, 1);
  clock_.Advance(24LL * 3600 * 1000);
  EXPECT_TRUE(store_->Sweep().ok());
  EXPECT_TRUE(store_->Create(Wanted(), key)->replayed) << "a day is kept";
  clock_.Advance(2LL * 3600 * 1000);
  EXPECT_FALSE(store_->Create(Wanted(), key)->replayed);
}

TEST_F(JobStoreTest, OneOfManyEqualRequestsMakesTheJob) {
  const RequestKey key{"same", "hash"};
  std::vector<std::string> ids(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ids.size(); ++i)
    threads.emplace_back([&, i] {
      const auto store = Open();
      ids[i] = store->Create(Wanted(), key)->job.id;
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 1u);
  EXPECT_EQ(store_->List({})->total_size, 1);
}

TEST_F(JobStoreTest, OtherAnswersAreKeptByTheirKey) {
  const RequestKey key{"id", "hash"};
  EXPECT_FALSE(*store_->FindAnswer(key));
  ASSERT_TRUE(store_->SaveAnswer(key, "answer").ok());
  ASSERT_TRUE(store_->SaveAnswer(key, "later").ok());
  EXPECT_EQ(**store_->FindAnswer(key), "answer");
  EXPECT_TRUE(absl::IsAlreadyExists(store_->FindAnswer({"id", "other"}).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(store_->SaveAnswer({"id", "other"}, "x")));
  clock_.Advance(26LL * 3600 * 1000);
  EXPECT_EQ(store_->Sweep()->deleted_keys, 1);
}

TEST_F(JobStoreTest, ForgetsOldJobsThatHaveEnded) {
  const std::string old = Make(), waits = Make();
  ASSERT_TRUE(store_->Cancel(old).ok());
  clock_.Advance(30LL * 24 * 3600 * 1000 - 2);
  EXPECT_EQ(store_->Sweep()->deleted_jobs, 0);
  clock_.Advance(3);
  EXPECT_EQ(store_->Sweep()->deleted_jobs, 1);
  EXPECT_TRUE(absl::IsNotFound(store_->Get(old).status()));
  EXPECT_EQ(StateOf(waits), kQueued);
}

TEST_F(JobStoreTest, ListsByFilter) {
  NewJob wanted = Wanted("/a");
  wanted.labels = {{"team", "x"}};
  const std::string a = Make(wanted);
  clock_.Advance(1000);
  const std::string b = Make(Wanted("/b", "n"));
  ASSERT_TRUE(store_->Cancel(b).ok());
  EXPECT_THAT(Ids({}), ElementsAre(b, a));
  EXPECT_THAT(Ids({.order_by = "create_time"}), ElementsAre(a, b));
  EXPECT_THAT(Ids({.filter = "state = QUEUED"}), ElementsAre(a));
  EXPECT_THAT(Ids({.filter = "state != QUEUED"}), ElementsAre(b));
  EXPECT_THAT(Ids({.filter = "model = \"/b\" AND state = CANCELLED AND name = n"}), ElementsAre(b));
  EXPECT_THAT(Ids({.filter = "labels.team = x"}), ElementsAre(a));
  EXPECT_THAT(Ids({.filter = "labels.team != x"}), ElementsAre(b)) << "no label differs from each value";
  EXPECT_THAT(Ids({.filter = "method = tac"}), IsEmpty());
  // The fake clock begins at 2023-11-14T22:13:20Z.
  EXPECT_THAT(Ids({.filter = "create_time > \"2023-11-14T22:13:20.500Z\""}), ElementsAre(b));
  EXPECT_THAT(Ids({.filter = "create_time < \"2023-11-14T22:13:20.500Z\""}), ElementsAre(a));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.filter = "x"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.order_by = "name"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.page_size = 0}).status()));
  EXPECT_THAT(Ids({.filter = "model = \"' OR 1 = 1 --\""}), IsEmpty());
}

TEST_F(JobStoreTest, PagesMeetEveryJobOnceWhileOthersComeAndGo) {
  std::vector<std::string> ids;
  for (int i = 0; i < 12; ++i)
    ids.push_back(store_->Create(Wanted(), {})->job.id);  // in the same millisecond
  JobQuery query{.page_size = 5};
  std::set<std::string> seen;
  for (int pages = 0;; ++pages) {
    const auto page = store_->List(query);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->total_size, 12 + pages);
    for (const Job& job : page->jobs) EXPECT_TRUE(seen.insert(job.id).second);
    Make();  // newer than the first page: not met
    query.page_token = page->next_page_token;
    if (query.page_token.empty()) break;
  }
  EXPECT_EQ(seen, std::set<std::string>(ids.begin(), ids.end()));
}

TEST_F(JobStoreTest, APageTokenBelongsToItsFilterAndOrder) {
  for (int i = 0; i < 3; ++i) Make();
  const std::string token = store_->List({.filter = "state = QUEUED", .page_size = 1})->next_page_token;
  EXPECT_TRUE(store_->List({.filter = "state = QUEUED", .page_token = token}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.page_token = token}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      store_->List({.filter = "state = QUEUED", .order_by = "create_time", .page_token = token}).status()));
  for (size_t cut = 0; cut < token.size(); ++cut) {
    const auto page = store_->List({.filter = "state = QUEUED", .page_token = token.substr(0, cut)});
    EXPECT_TRUE(page.ok() || absl::IsInvalidArgument(page.status())) << cut;
  }
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List({.page_token = "..."}).status()));
}

TEST_F(JobStoreTest, WatchersLearnOfEveryChange) {
  const int64_t begin = *store_->Revision();
  EXPECT_THAT(store_->ChangedSince(begin, 10)->jobs, IsEmpty());
  const std::string a = Make(), b = Make();
  const int64_t made = *store_->Revision();
  EXPECT_GT(made, begin);
  const auto first = store_->ChangedSince(begin, 1);
  ASSERT_EQ(first->jobs.size(), 1u);
  EXPECT_EQ(first->jobs[0].id, a);
  const auto second = store_->ChangedSince(first->revision, 10);
  ASSERT_EQ(second->jobs.size(), 1u);
  EXPECT_EQ(second->jobs[0].id, b);
  EXPECT_EQ(second->revision, made);
  const Lease lease = Take();
  ASSERT_TRUE(store_->Heartbeat(lease, kLease, Progress{.stage = "s", .unit = {}}).ok());
  const auto third = store_->ChangedSince(second->revision, 10);
  ASSERT_EQ(third->jobs.size(), 1u) << "each once";
  EXPECT_EQ(third->jobs[0].progress.stage, "s");
  EXPECT_EQ(third->revision, *store_->Revision());
}

TEST_F(JobStoreTest, CountsByState) {
  Make();
  Make();
  ASSERT_TRUE(store_->Cancel(Make()).ok());
  Take();
  const auto counts = *store_->CountByState();
  EXPECT_EQ(counts, (std::map<JobState, int64_t>{{kQueued, 1}, {kRunning, 1}, {kCancelled, 1}}));
}

TEST_F(JobStoreTest, AnAliasMovesInOneStep) {
  const std::string other(64, 'b');
  ASSERT_TRUE(store_->MoveAlias({.name = "n", .artifact_id = kArtifact, .expected = ""}).ok());
  EXPECT_TRUE(
      absl::IsAborted(store_->MoveAlias({.name = "n", .artifact_id = other, .expected = ""}).status()));
  EXPECT_TRUE(
      absl::IsAborted(store_->MoveAlias({.name = "n", .artifact_id = other, .expected = other}).status()));
  EXPECT_EQ(store_->GetAlias("n")->artifact_id, kArtifact);
  ASSERT_TRUE(store_->MoveAlias({.name = "n", .artifact_id = other, .expected = kArtifact}).ok());
  ASSERT_TRUE(store_->MoveAlias({.name = "a", .artifact_id = other}).ok());
  ASSERT_TRUE(store_->MoveAlias({.name = "z", .artifact_id = kArtifact}).ok());
  const auto of_other = store_->ListAliases(other);
  ASSERT_EQ(of_other->size(), 2u);
  EXPECT_EQ((*of_other)[0].name, "a");
  EXPECT_EQ((*of_other)[1].name, "n");
  EXPECT_EQ(store_->ListAliases()->size(), 3u);
  ASSERT_TRUE(store_->MoveAlias({.name = "n", .artifact_id = ""}).ok());
  EXPECT_TRUE(absl::IsNotFound(store_->GetAlias("n").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->MoveAlias({.name = "n", .artifact_id = ""}).status()));
}

TEST_F(JobStoreTest, ARepeatedAliasMoveGetsItsFirstAnswer) {
  const RequestKey key{"k", "h"};
  const AliasMove move{.name = "n", .artifact_id = kArtifact, .expected = ""};
  const auto first = store_->MoveAlias(move, key);
  ASSERT_TRUE(first.ok());
  clock_.Advance(10);
  const auto again = store_->MoveAlias(move, key);
  ASSERT_TRUE(again.ok()) << "the expected value is gone, but this is the same request: " << again.status();
  EXPECT_EQ(again->update_ms, first->update_ms);
}

// Two connections, four threads: every job is run exactly once, and no token twice.
TEST_F(JobStoreTest, ManyWorkersRunEveryJobOnce) {
  constexpr int kJobs = 40;
  for (int i = 0; i < kJobs; ++i) Make();
  const auto other = Open();
  std::mutex mutex;
  std::multiset<std::string> ran;
  std::set<int64_t> tokens;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      JobStore& store = t % 2 == 0 ? *store_ : *other;
      for (;;) {
        const auto claimed = store.Claim(Cat("w", t), kLease);
        ASSERT_TRUE(claimed.ok()) << claimed.status();
        if (!*claimed) return;
        const Lease& lease = (*claimed)->lease;
        ASSERT_TRUE(store.Heartbeat(lease, kLease, Progress{.stage = "s", .unit = {}}).ok());
        ASSERT_TRUE(store.Finish(lease, {.state = kSucceeded, .artifact_id = kArtifact}).ok());
        const std::lock_guard lock(mutex);
        ran.insert(lease.job_id);
        EXPECT_TRUE(tokens.insert(lease.token).second);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(ran.size(), static_cast<size_t>(kJobs));
  EXPECT_EQ(std::set<std::string>(ran.begin(), ran.end()).size(), static_cast<size_t>(kJobs));
  EXPECT_EQ((*store_->CountByState())[kSucceeded], kJobs);
}

TEST(OpenJobStore, ManyAtOnceMakeOneStore) {
  for (int round = 0; round < 5; ++round) {
    TempFolder folder;
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t)
      threads.emplace_back([&] {
        const auto store = OpenSqliteJobStore(folder / "jobs.db", {});
        ASSERT_TRUE(store.ok()) << store.status();
        EXPECT_TRUE((*store)->Create(Wanted(), {}).ok());
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ((*OpenSqliteJobStore(folder / "jobs.db", {}))->List({})->total_size, 6);
  }
}

TEST(OpenJobStore, RefusesWhatIsNoJobStore) {
  TempFolder folder;
  folder.Write("text", std::string(5000, 'x'));
  const auto text = OpenSqliteJobStore(folder / "text", {});
  EXPECT_TRUE(absl::IsDataLoss(text.status())) << text.status();
  EXPECT_EQ(Slurp(folder / "text"), std::string(5000, 'x'));
  EXPECT_TRUE(absl::IsUnavailable(OpenSqliteJobStore(folder / "none/jobs.db", {}).status()));
}

TEST(OpenJobStore, DamageIsAnErrorAndNeverACrash) {
  TempFolder folder;
  {
    const auto store = OpenSqliteJobStore(folder / "jobs.db", {});
    for (int i = 0; i < 60; ++i)
      ASSERT_TRUE((*store)->Create(Wanted(std::string(300, 'm')), RequestKey{Cat(i), "h"}).ok());
  }
  const std::string whole = Slurp(folder / "jobs.db");
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 60; ++round) {
    std::string damaged = whole;
    if (round % 6 == 5) {
      damaged.resize(random() % damaged.size());
    } else {
      // A stretch of noise, as a bad sector leaves it.
      const size_t begin = random() % damaged.size();
      for (size_t i = begin; i < std::min(damaged.size(), begin + 600); ++i)
        damaged[i] = static_cast<char>(random());
    }
    folder.Write("damaged.db", damaged);
    const auto store = OpenSqliteJobStore(folder / "damaged.db", {});
    bool ok = store.ok();
    if (ok) {
      // What passed the check may still hold wrong values in its rows.
      ok = (*store)->List({.page_size = 1000}).ok() && ok;
      (void)(*store)->Claim("w", kLease);
      (void)(*store)->Sweep();
    }
    refused += !ok;
    std::error_code error;
    for (const char* name : {"damaged.db", "damaged.db-wal", "damaged.db-shm"})
      std::filesystem::remove(folder / name, error);
  }
  EXPECT_GT(refused, 30);
}

TEST(JobStoreFullDisk, SaysSoAndKeepsWhatWasThere) {
  TempFolder folder;
  std::filesystem::create_directories(folder / "disk");
  const std::string said = RunOnSmallDisk(folder / "disk", "600k", [&]() -> std::string {
    const auto file = folder / "disk/jobs.db";
    int64_t made = 0;
    {
      auto store = OpenSqliteJobStore(file, {});
      if (!store.ok()) return store.status().ToString();
      Status status;
      while (status.ok() && made < 100'000) {
        status = (*store)->Create(Wanted(std::string(2000, 'm')), {}).status();
        made += status.ok();
      }
      if (!absl::IsResourceExhausted(status)) return "create: " + status.ToString();
      if ((*store)->List({})->total_size != made) return "a failed job is listed";
      if (!(*store)->Get((*store)->List({})->jobs[0].id).ok()) return "no read on a full disk";
    }
    auto store = OpenSqliteJobStore(file, {});
    if (!store.ok()) return "opened again: " + store.status().ToString();
    if ((*store)->List({})->total_size != made) return "jobs were lost";
    return "";
  });
  if (said == kNoMount) GTEST_SKIP() << "this kernel lets no test mount a tmpfs";
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace tempera
