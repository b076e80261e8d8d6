#include "base/executors.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <latch>
#include <set>
#include <thread>
#include <vector>

namespace tempera {
namespace {

// A value per shard that takes real arithmetic to make and whose sum over shards depends on the order of
// addition.
float ShardValue(int64_t shard) {
  float value = 0;
  for (int i = 1; i < 1000; ++i) value += 1.0f / static_cast<float>(i + 7 * shard);
  return value;
}

TEST(Lanes, ResultDoesNotDependOnTheirNumber) {
  const auto run = [](int count) {
    std::vector<float> parts(97);
    Lanes lanes(count, nullptr);
    const Status status = lanes.ParallelFor(97, [&](int64_t shard) {
      parts[static_cast<size_t>(shard)] = ShardValue(shard);
      return OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return parts;
  };
  const std::vector<float> one = run(1);
  EXPECT_EQ(one, run(2));
  EXPECT_EQ(one, run(3));
  EXPECT_EQ(one[96], ShardValue(96));
}

TEST(Lanes, EachShardRunsOnce) {
  Lanes lanes(4, nullptr);
  std::vector<std::atomic<int>> runs(1000);
  ASSERT_TRUE(lanes
                  .ParallelFor(1000,
                               [&](int64_t shard) {
                                 ++runs[static_cast<size_t>(shard)];
                                 return OkStatus();
                               })
                  .ok());
  for (const auto& n : runs) EXPECT_EQ(n, 1);
}

TEST(Lanes, NoShardsIsDone) {
  Lanes lanes(2, nullptr);
  EXPECT_TRUE(lanes.ParallelFor(0, [](int64_t) { return Internal("ran"); }).ok());
}

TEST(Lanes, TheLowestErrorWinsWhereAHigherOneCameFirst) {
  Lanes lanes(2, nullptr);
  std::latch second_failed(1);
  const Status status = lanes.ParallelFor(8, [&](int64_t shard) -> Status {
    if (shard == 0) {
      second_failed.wait();
    } else if (shard == 1) {
      second_failed.count_down();
    }
    return Internal("shard ", shard);
  });
  EXPECT_EQ(Message(status), "shard 0");
}

TEST(Lanes, TheErrorIsTheSameWithAnyNumberOfLanes) {
  for (const int count : {1, 2, 4}) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      Lanes lanes(count, nullptr);
      const Status status = lanes.ParallelFor(40, [](int64_t shard) -> Status {
        return shard % 7 == 5 ? DataLoss("shard ", shard) : OkStatus();
      });
      ASSERT_EQ(Message(status), "shard 5") << count;
    }
  }
}

TEST(Lanes, AfterAFailureLaterShardsAreSkipped) {
  Lanes lanes(1, nullptr);
  std::vector<int64_t> ran;
  EXPECT_FALSE(lanes
                   .ParallelFor(100,
                                [&](int64_t shard) -> Status {
                                  ran.push_back(shard);
                                  return shard == 2 ? Internal("stop") : OkStatus();
                                })
                   .ok());
  EXPECT_EQ(ran, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Lanes, CanBeUsedAgainAfterAFailure) {
  Lanes lanes(2, nullptr);
  EXPECT_FALSE(lanes.ParallelFor(3, [](int64_t) { return Internal("x"); }).ok());
  EXPECT_TRUE(lanes.ParallelFor(3, [](int64_t) { return OkStatus(); }).ok());
}

TEST(Lanes, InitRunsFirstOnEveryThread) {
  static thread_local bool ready = false;
  std::atomic<int> inits = 0;
  std::latch all_busy(3);
  {
    Lanes lanes(3, [&] {
      ready = true;
      ++inits;
    });
    const Status status = lanes.ParallelFor(3, [&](int64_t) -> Status {
      all_busy.arrive_and_wait();  // so that each thread takes one shard
      return ready ? OkStatus() : Internal("init did not run");
    });
    EXPECT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(inits, 3);
  EXPECT_FALSE(ready) << "the caller's own thread is not a lane";
}

TEST(Lanes, FinishWhatWasPostedBeforeTheyEnd) {
  std::atomic<int> done = 0;
  {
    Lanes lanes(2, nullptr);
    for (int i = 0; i < 200; ++i) lanes.Post([&] { ++done; });
  }
  EXPECT_EQ(done, 200);
}

TEST(Lanes, OneLaneKeepsTheOrderOfPosts) {
  std::vector<int> order;
  {
    Lanes lanes(1, nullptr);
    for (int i = 0; i < 50; ++i) lanes.Post([&order, i] { order.push_back(i); });
  }
  ASSERT_EQ(order.size(), 50u);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Lanes, TwoCallersMayShareThem) {
  Lanes callers(2, nullptr);
  Lanes lanes(2, nullptr);
  std::atomic<int64_t> sum = 0;
  const Status status = callers.ParallelFor(2, [&](int64_t) {
    return lanes.ParallelFor(100, [&](int64_t shard) {
      sum += shard;
      return OkStatus();
    });
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(sum, 2 * 4950);
}

TEST(AvailableCpus, FollowsTheAffinityMask) {
  EXPECT_GE(AvailableCpus(), 1);
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(AvailableCpus(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

}  // namespace
}  // namespace tempera
