#include "server/model_manager.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "rpc/status_map.h"
#include "server/fakes.h"

namespace tempera {
namespace {

using testing::Controls;
using testing::Counter;
using testing::FakeInfo;
using testing::MakeFakeEngine;

ModelRef Artifact(char digit) {
  ModelRef ref;
  ref.is_artifact = true;
  ref.id = ref.shown = std::string(64, digit);
  return ref;
}

class ModelManagerTest : public ::testing::Test {
 protected:
  void Start(int64_t budget = 0) {
    manager_ = std::make_unique<ModelManager>(
        ModelManager::Options{budget},
        [this](const CallScope& scope, const ModelRef& ref) -> Result<std::shared_ptr<const Engine>> {
          controls_->loads.Add();
          controls_->load.Pass();
          while (until_stopped_ && scope.Check().ok()) std::this_thread::yield();
          TEMPERA_TRY(scope.Check());
          if (fail_) return DataLoss("artifact: damaged");
          return MakeFakeEngine(FakeInfo("m", ref.id, 10, *controls_), controls_);
        },
        [this](const ModelRef&) { return estimate_.load(); }, metrics_, [this] { changes_.Add(); }, nullptr);
  }
  Result<ModelLease> Acquire(const ModelRef& ref, const CallScope& scope = {}) {
    std::promise<Result<ModelLease>> lease;
    manager_->Acquire(scope, ref, [&](Result<ModelLease> l) { lease.set_value(std::move(l)); });
    return lease.get_future().get();
  }
  std::vector<char> Loaded() {
    std::vector<char> loaded;
    for (const LoadedModel& m : manager_->List()) loaded.push_back(m.ref.id[0]);
    return loaded;
  }
  // Everything posted to the lifecycle thread before has run.
  void Settle() {
    const bool fail = fail_.exchange(true);
    EXPECT_FALSE(Acquire(Artifact('f')).ok());
    fail_ = fail;
  }

  Metrics metrics_{BuildInfo{}};
  std::shared_ptr<Controls> controls_ = std::make_shared<Controls>();
  std::atomic<bool> fail_ = false;
  std::atomic<bool> until_stopped_ = false;
  std::atomic<int64_t> estimate_ = 0;
  Counter changes_;
  std::unique_ptr<ModelManager> manager_;
};

constexpr int64_t kBytes = 1030;  // of one fake artifact: weights, cache, reference

TEST_F(ModelManagerTest, LoadsOnceAndLeases) {
  Start();
  {
    const auto a = Acquire(Artifact('a'));
    const auto b = Acquire(Artifact('a'));
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(&a->engine(), &b->engine());
    EXPECT_EQ(manager_->List().at(0).active, 2);
    EXPECT_EQ(b->load_time.count(), 0);
  }
  EXPECT_EQ(controls_->loads.count(), 1);
  EXPECT_EQ(manager_->List().at(0).active, 0);
  EXPECT_EQ(manager_->used_bytes(), kBytes);
}

TEST_F(ModelManagerTest, ManyWaitersShareOneLoad) {
  Start();
  controls_->load.Close();
  std::vector<std::future<bool>> waiters;
  std::vector<std::shared_ptr<std::promise<bool>>> promises;
  for (int i = 0; i < 20; ++i) {
    promises.push_back(std::make_shared<std::promise<bool>>());
    waiters.push_back(promises.back()->get_future());
    manager_->Acquire({}, Artifact('a'),
                      [p = promises.back()](Result<ModelLease> l) { p->set_value(l.ok()); });
  }
  controls_->load.Open();
  for (auto& waiter : waiters) EXPECT_TRUE(waiter.get());
  EXPECT_EQ(controls_->loads.count(), 1);
}

TEST_F(ModelManagerTest, FailedLoadIsToldAndTriedAnew) {
  Start();
  fail_ = true;
  EXPECT_EQ(Acquire(Artifact('a')).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(manager_->List().empty());
  EXPECT_EQ(manager_->used_bytes(), 0);
  fail_ = false;
  EXPECT_TRUE(Acquire(Artifact('a')).ok());
}

TEST_F(ModelManagerTest, LeastRecentlyUsedLeavesFirst) {
  Start(3 * kBytes);
  for (const char c : {'a', 'b', 'c'}) EXPECT_TRUE(Acquire(Artifact(c)).ok());
  EXPECT_TRUE(Acquire(Artifact('a')).ok());
  EXPECT_TRUE(Acquire(Artifact('d')).ok());
  EXPECT_EQ(Loaded(), (std::vector<char>{'d', 'a', 'c'}));
  EXPECT_LE(manager_->used_bytes(), 3 * kBytes);
  EXPECT_EQ(metrics_.cache_evictions.Value("m", "budget"), 1);
}

TEST_F(ModelManagerTest, NothingInUseIsEvicted) {
  Start(2 * kBytes);
  auto a = Acquire(Artifact('a'));
  auto b = Acquire(Artifact('b'));
  const auto c = Acquire(Artifact('c'));
  ASSERT_FALSE(c.ok());
  EXPECT_EQ(c.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rpc::Reason(c.status()), rpc::kMemoryBudget);
  EXPECT_TRUE(rpc::RetryDelay(c.status())) << "the others may leave";
  *a = ModelLease();
  EXPECT_TRUE(Acquire(Artifact('c')).ok());
  EXPECT_EQ(Loaded(), (std::vector<char>{'c', 'b'}));
}

TEST_F(ModelManagerTest, WhatIsLargerThanTheBudgetIsRefusedAndTheRestStays) {
  Start(2 * kBytes);
  EXPECT_TRUE(Acquire(Artifact('a')).ok());
  controls_->model_bytes = 5000;
  const auto b = Acquire(Artifact('b'));
  EXPECT_EQ(b.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(rpc::RetryDelay(b.status())) << "it never fits";
  EXPECT_EQ(Loaded(), (std::vector<char>{'a'}));
}

// With an estimate, room is made before the load, so that both are never in memory at once.
TEST_F(ModelManagerTest, EstimateMakesRoomFirst) {
  Start(kBytes);
  EXPECT_TRUE(Acquire(Artifact('a')).ok());
  estimate_ = kBytes;
  controls_->load.Close();
  std::promise<bool> done;
  manager_->Acquire({}, Artifact('b'), [&](Result<ModelLease> l) { done.set_value(l.ok()); });
  controls_->load.AwaitWaiting(1);
  EXPECT_TRUE(Loaded().empty());
  EXPECT_EQ(manager_->used_bytes(), 0);
  controls_->load.Open();
  EXPECT_TRUE(done.get_future().get());
}

TEST_F(ModelManagerTest, UnloadedStaysUntilItsLeasesEnd) {
  Start();
  auto lease = Acquire(Artifact('a'));
  EXPECT_TRUE(manager_->Unload(Artifact('a')).ok());
  EXPECT_TRUE(manager_->List().empty());
  EXPECT_EQ(lease->engine().info().name, "m");
  EXPECT_EQ(manager_->used_bytes(), kBytes);
  // A new one is loaded beside it.
  auto again = Acquire(Artifact('a'));
  ASSERT_TRUE(again.ok());
  EXPECT_NE(&lease->engine(), &again->engine());
  EXPECT_EQ(manager_->used_bytes(), 2 * kBytes);
  *lease = ModelLease();
  Settle();
  EXPECT_EQ(manager_->used_bytes(), kBytes);
  EXPECT_EQ(metrics_.model_loaded.Value("m", "aaaaaaaaaaaa"), 1) << "the labels are still in use";
  *again = ModelLease();
  EXPECT_TRUE(manager_->Unload(Artifact('a')).ok());
  Settle();
  EXPECT_EQ(manager_->used_bytes(), 0);
  EXPECT_EQ(metrics_.model_loaded.series(), 0);
  EXPECT_EQ(metrics_.temporal_error_baseline.series(), 0);
  EXPECT_EQ(metrics_.temporal_error.series(), 0);
}

TEST_F(ModelManagerTest, UnloadOfWhatIsNotLoadedSaysSo) {
  Start();
  const Status status = manager_->Unload(Artifact('a'));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(rpc::Reason(status), rpc::kModelNotLoaded);
  EXPECT_TRUE(manager_->UnloadIdle(Artifact('a')).ok());
}

TEST_F(ModelManagerTest, UnloadIdleRefusesWhileInUse) {
  Start();
  {
    auto lease = Acquire(Artifact('a'));
    EXPECT_EQ(manager_->UnloadIdle(Artifact('a')).code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(Loaded().size(), 1u);
  }
  EXPECT_TRUE(manager_->UnloadIdle(Artifact('a')).ok());
  EXPECT_TRUE(Loaded().empty());
}

TEST_F(ModelManagerTest, WaitersWhoLeaveGetTheirErrorAndNothingIsLoadedForNobody) {
  Start();
  controls_->load.Close();
  std::promise<void> first;
  manager_->Acquire({}, Artifact('a'), [&](Result<ModelLease>) { first.set_value(); });
  controls_->load.AwaitWaiting(1);
  std::stop_source stop;
  std::promise<Status> left;
  manager_->Acquire({stop.get_token()}, Artifact('b'),
                    [&](Result<ModelLease> l) { left.set_value(l.status()); });
  stop.request_stop();
  controls_->load.Open();
  first.get_future().wait();
  EXPECT_EQ(left.get_future().get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(controls_->loads.count(), 1);
}

TEST_F(ModelManagerTest, DestructionStopsTheLoadInProgress) {
  Start();
  until_stopped_ = true;
  std::promise<Status> end;
  manager_->Acquire({}, Artifact('a'), [&](Result<ModelLease> l) { end.set_value(l.status()); });
  controls_->loads.Await(1);
  manager_.reset();
  EXPECT_EQ(end.get_future().get().code(), absl::StatusCode::kCancelled);
}

TEST_F(ModelManagerTest, TellsOfChanges) {
  Start();
  EXPECT_TRUE(Acquire(Artifact('a')).ok());
  EXPECT_EQ(changes_.count(), 1);
  EXPECT_TRUE(manager_->Unload(Artifact('a')).ok());
  changes_.Await(2);
}

// Many threads, few places: what TSan watches. The laws hold at the end.
TEST_F(ModelManagerTest, ManyThreads) {
  Start(3 * kBytes);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([this, t] {
        for (int i = 0; i < 100; ++i) {
          const ModelRef ref = Artifact(static_cast<char>('a' + (i * 7 + t) % 5));
          auto lease = Acquire(ref);
          if (!lease.ok()) {
            EXPECT_EQ(lease.status().code(), absl::StatusCode::kResourceExhausted);
          }
          if (i % 10 == t) (void)manager_->Unload(ref);
        }
      });
  }
  Settle();
  EXPECT_LE(manager_->used_bytes(), 3 * kBytes);
  EXPECT_EQ(manager_->used_bytes(), kBytes * static_cast<int64_t>(Loaded().size()));
  EXPECT_EQ(metrics_.model_loaded.series(), static_cast<int64_t>(Loaded().size()));
  EXPECT_EQ(metrics_.memory_used_bytes.Value(), static_cast<double>(manager_->used_bytes()));
}

}  // namespace
}  // namespace tempera
