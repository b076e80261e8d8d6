#include "server/generation_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <thread>

#include "rpc/status_map.h"
#include "server/fakes.h"

namespace tempera {
namespace {

using testing::Counter;
using testing::Gate;

class GenerationQueueTest : public ::testing::Test {
 protected:
  void Start(int lanes, int max_waiting) {
    lanes_ = std::make_unique<Lanes>(lanes, nullptr);
    queue_ = std::make_unique<GenerationQueue>(max_waiting, *lanes_, metrics_);
  }
  Result<uint64_t> Push(int name) {
    GenerationQueue::Task task;
    task.model = "m";
    task.steps = 10;
    task.moved = [this, name](int position) { Note(name, position); };
    task.start = [this, name] {
      Note(name, -1);
      gate_.Pass();
      finished_.Add();
    };
    return queue_->Push(std::move(task),
                        [this, name](const GenerationQueue::Place& p) { Note(name, p.position); });
  }
  void Note(int name, int position) {
    std::lock_guard lock(mutex_);
    told_[name].push_back(position);
  }
  // What a task was told, repetitions left out; -1: started.
  std::vector<int> Told(int name) {
    std::lock_guard lock(mutex_);
    std::vector<int> told = told_[name];
    told.erase(std::unique(told.begin(), told.end()), told.end());
    return told;
  }

  Metrics metrics_{BuildInfo{}};
  Gate gate_;
  Counter finished_;
  std::mutex mutex_;
  std::map<int, std::vector<int>> told_;
  std::unique_ptr<Lanes> lanes_;
  std::unique_ptr<GenerationQueue> queue_;
};

TEST_F(GenerationQueueTest, RunsInOrderAndTellsPlaces) {
  Start(1, 8);
  gate_.Close();
  ASSERT_TRUE(Push(0).ok());
  gate_.AwaitWaiting(1);
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(Push(i).ok());
  EXPECT_EQ(queue_->waiting(), 3);
  EXPECT_EQ(metrics_.queue_depth.Value("m"), 3);
  EXPECT_EQ(metrics_.queued_steps.Value("m"), 30);
  gate_.Open();
  finished_.Await(4);
  ASSERT_TRUE(queue_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(Told(0).front(), 0);
  for (int i = 1; i <= 3; ++i) {
    const std::vector<int> told = Told(i);
    EXPECT_EQ(told.front(), i);
    EXPECT_EQ(told.back(), -1);
    EXPECT_TRUE(std::is_sorted(told.rbegin(), told.rend()))
        << "places only fall, and none comes after the start";
  }
  EXPECT_EQ(metrics_.queue_depth.Value("m"), 0);
  EXPECT_EQ(metrics_.queued_steps.Value("m"), 0);
  EXPECT_EQ(metrics_.queue_wait_seconds.Count("m"), 4);
}

TEST_F(GenerationQueueTest, FullQueueRefusesWithADelay) {
  Start(1, 2);
  gate_.Close();
  ASSERT_TRUE(Push(0).ok());
  gate_.AwaitWaiting(1);
  ASSERT_TRUE(Push(1).ok());
  ASSERT_TRUE(Push(2).ok());
  const auto refused = Push(3);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(rpc::Reason(refused.status()), rpc::kQueueFull);
  EXPECT_TRUE(rpc::RetryDelay(refused.status()));
  EXPECT_TRUE(Told(3).empty());
  gate_.Open();
  finished_.Await(3);
  EXPECT_EQ(finished_.count(), 3);
}

TEST_F(GenerationQueueTest, RemovedTasksNeverStart) {
  Start(1, 8);
  gate_.Close();
  const auto running = Push(0);
  gate_.AwaitWaiting(1);
  const auto first = Push(1), second = Push(2);
  EXPECT_TRUE(queue_->Remove(*first));
  EXPECT_FALSE(queue_->Remove(*first));
  EXPECT_FALSE(queue_->Remove(*running)) << "it runs";
  EXPECT_EQ(Told(2), (std::vector<int>{2, 1}));
  EXPECT_EQ(metrics_.queue_depth.Value("m"), 1);
  gate_.Open();
  ASSERT_TRUE(queue_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(Told(1), (std::vector<int>{1}));
  EXPECT_EQ(Told(2).back(), -1);
}

TEST_F(GenerationQueueTest, LanesRunSideBySide) {
  Start(2, 8);
  gate_.Close();
  ASSERT_TRUE(Push(0).ok());
  ASSERT_TRUE(Push(1).ok());
  gate_.AwaitWaiting(2);
  EXPECT_EQ(Told(0).front(), 0);
  EXPECT_EQ(Told(1).front(), 0);
  ASSERT_TRUE(Push(2).ok());
  EXPECT_EQ(Told(2).front(), 1);
  EXPECT_FALSE(queue_->WaitIdle(std::chrono::steady_clock::now()));
  gate_.Open();
  ASSERT_TRUE(queue_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(10)));
}

TEST_F(GenerationQueueTest, DestructionWaitsForWhatRunsAndDropsTheRest) {
  Start(1, 8);
  gate_.Close();
  ASSERT_TRUE(Push(0).ok());
  gate_.AwaitWaiting(1);
  // The gate opens when the waiting task is dropped, no sooner: it could still begin.
  GenerationQueue::Task task{.model = "m", .steps = 10, .moved = [](int) {}, .start = nullptr};
  task.start = [this, dropped = std::shared_ptr<void>(this, [this](void*) { gate_.Open(); })] {
    finished_.Add();
  };
  ASSERT_TRUE(queue_->Push(std::move(task), [](const GenerationQueue::Place&) {}).ok());
  queue_.reset();
  EXPECT_EQ(finished_.count(), 1);
  lanes_.reset();
  EXPECT_EQ(finished_.count(), 1);
}

TEST_F(GenerationQueueTest, ManyThreadsPushAndRemove) {
  Start(2, 16);
  std::atomic<int> accepted = 0, removed = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 200; ++i) {
          const auto ticket = Push(1000 * t + i);
          if (!ticket.ok()) continue;
          ++accepted;
          if (i % 3 == 0 && queue_->Remove(*ticket)) ++removed;
        }
      });
  }
  ASSERT_TRUE(queue_->WaitIdle(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
  EXPECT_EQ(finished_.count(), accepted - removed);
  EXPECT_EQ(metrics_.queue_depth.Value("m"), 0);
  EXPECT_EQ(metrics_.queued_steps.Value("m"), 0);
  for (auto& [name, told] : told_)
    for (size_t i = 0; i < told.size(); ++i)
      EXPECT_TRUE(told[i] >= 0 || i + 1 == told.size()) << "told after the start";
}

}  // namespace
}  // namespace tempera
