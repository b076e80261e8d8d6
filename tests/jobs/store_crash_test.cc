// Writers killed in the middle of transactions: the store stays whole, and what was answered is kept.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "base/temp_folder.h"
#include "jobs/job_store.h"
#include "storage/child.h"

namespace tempera {
namespace {

using std::chrono::milliseconds;
using enum JobState;

constexpr int kKills = 25;

std::string ArtifactOf(const std::string& job_id) { return job_id + job_id + job_id + job_id; }

// Random moves of every kind on an ever growing store; `did` after each job made.
void Work(const std::filesystem::path& file, unsigned seed, const std::function<void()>& did) {
  std::mt19937 random(seed);
  auto opened = OpenSqliteJobStore(file, {});
  if (!opened.ok()) return;
  JobStore& store = **opened;
  for (int i = 0;; ++i) {
    const RequestKey key{Cat("r", seed, ".", i), Cat("body", i)};
    const NewJob job{
        .model = "/m", .name = Cat("alias", random() % 3), .labels = {}, .spec = {{"i", i}}, .method = "m"};
    if (!store.Create(job, key).ok()) return;
    did();
    const auto claimed = store.Claim("w", milliseconds(1 + random() % 20));
    if (!claimed.ok()) return;
    if (*claimed) {
      const Lease& lease = (*claimed)->lease;
      (void)store.Heartbeat(lease, milliseconds(5), Progress{.stage = "s", .unit = {}, .fraction = 0.5});
      switch (random() % 5) {
        case 0:
          (void)store.Cancel(lease.job_id);
          (void)store.Finish(lease, {.state = kCancelled});
          (void)store.Delete(lease.job_id);
          break;
        case 1:
          (void)store.Release(lease, OkStatus(), milliseconds(0));
          break;
        case 2:
          (void)store.Finish(lease, {.state = kFailed, .error = Internal("x")});
          break;
        case 3:
          (void)store.Finish(lease, {.state = kSucceeded, .artifact_id = ArtifactOf(lease.job_id)});
          break;
        default:
          break;  // the lease runs out
      }
    }
    if (!store.Sweep().ok()) return;
  }
}

TEST(JobStoreCrash, KilledWritersLeaveAWholeStore) {
  TempFolder folder;
  const auto file = folder / "jobs.db";
  std::mt19937 random(23);
  int64_t revision_before = 0;
  for (unsigned kill = 0; kill < kKills; ++kill) {
    const int answered =
        KillAtRandom(random, 15, [&](const std::function<void()>& did) { Work(file, kill, did); });
    ASSERT_GE(answered, 0);

    const auto opened = OpenSqliteJobStore(file, {});  // checks the file's own structure
    ASSERT_TRUE(opened.ok()) << opened.status();
    JobStore& store = **opened;
    const int64_t revision = *store.Revision();
    EXPECT_GE(revision, revision_before);
    revision_before = revision;

    std::map<std::string, Job> jobs;
    std::set<int64_t> revisions;
    JobQuery query{.page_size = 1000};
    do {
      const auto page = store.List(query);
      ASSERT_TRUE(page.ok()) << page.status();
      for (const Job& job : page->jobs) jobs[job.id] = job;
      query.page_token = page->next_page_token;
    } while (!query.page_token.empty());
    std::map<std::string, std::string> latest;  // alias -> artifact of the last success
    std::map<std::string, int64_t> latest_revision;
    for (const auto& [id, job] : jobs) {
      EXPECT_TRUE(revisions.insert(job.revision).second) << "two jobs share revision " << job.revision;
      EXPECT_LE(job.revision, revision);
      EXPECT_EQ(IsTerminal(job.state), job.end_ms != 0) << id;
      EXPECT_EQ(job.state == kSucceeded, job.artifact_id == ArtifactOf(id)) << id;
      EXPECT_EQ(job.state == kRunning || job.state == kCancelling, job.lease_until_ms != 0) << id;
      if (job.state == kSucceeded && job.revision > latest_revision[job.name]) {
        latest_revision[job.name] = job.revision;
        latest[job.name] = job.artifact_id;
      }
    }
    // Success and alias are one step.
    for (const auto& [name, artifact] : latest) EXPECT_EQ(store.GetAlias(name)->artifact_id, artifact);
    EXPECT_EQ(store.ListAliases()->size(), latest.size());
    // Each job that was answered is kept under its request, once; one that was deleted is remembered as
    // deleted.
    for (int i = 0; i < answered; ++i) {
      const auto job_id = store.FindAnswer({Cat("r", kill, ".", i), Cat("body", i)});
      ASSERT_TRUE(job_id.ok() && *job_id) << "request " << i << " of " << answered << " is forgotten";
      const auto it = jobs.find(**job_id);
      if (it == jobs.end()) continue;
      EXPECT_EQ(it->second.request_id, Cat("r", kill, ".", i));
    }
  }
}

}  // namespace
}  // namespace tempera
