#include "nn/large_blocks.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace tempera::nn {
namespace {

constexpr int64_t kMiB = 1 << 20;

at::Tensor Bytes(int64_t n) { return at::empty({n}, at::kByte); }

TEST(KeptBlocks, TheNextTensorOfTheSizeTakesTheMemory) {
  const KeptBlocks kept(64 * kMiB);
  ReleaseFreedMemory();
  const void* first = nullptr;
  {
    at::Tensor t = Bytes(16 * kMiB).fill_(7);
    first = t.data_ptr();
  }
  EXPECT_EQ(KeptBlockBytes(), 16 * kMiB);
  const at::Tensor smaller = Bytes(15 * kMiB);
  EXPECT_EQ(smaller.data_ptr(), first);
  EXPECT_EQ(KeptBlockBytes(), 0);
  EXPECT_EQ(at::zeros({16 * kMiB}, at::kByte).sum().item<int64_t>(), 0);
}

TEST(KeptBlocks, AMuchSmallerOneDoesNot) {
  const KeptBlocks kept(64 * kMiB);
  ReleaseFreedMemory();
  (void)Bytes(32 * kMiB);
  const at::Tensor half = Bytes(16 * kMiB);
  EXPECT_EQ(KeptBlockBytes(), 32 * kMiB);
}

TEST(KeptBlocks, TheOldestGoWhereTheLimitIsPassedAndAllWithTheLast) {
  ReleaseFreedMemory();
  {
    const KeptBlocks kept(24 * kMiB), more(8 * kMiB);
    std::vector<at::Tensor> tensors;
    for (const int64_t size : {20, 10, 12}) tensors.push_back(Bytes(size * kMiB));
    for (at::Tensor& t : tensors) t = at::Tensor();
    EXPECT_EQ(KeptBlockBytes(), 22 * kMiB);
  }
  EXPECT_EQ(KeptBlockBytes(), 0);
}

TEST(KeptBlocks, TensorsOutliveTheLimitAndCrossThreads) {
  std::vector<at::Tensor> tensors;
  {
    const KeptBlocks kept(256 * kMiB);
    std::vector<std::thread> threads;
    std::vector<at::Tensor> made(4);
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&made, i] {
        for (int n = 0; n < 20; ++n) made[static_cast<size_t>(i)] = Bytes((4 + i) * kMiB).fill_(i);
      });
    for (std::thread& t : threads) t.join();
    tensors = made;
  }
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(tensors[static_cast<size_t>(i)].sum().item<int64_t>(), i * (4 + i) * kMiB);
  tensors.clear();
  EXPECT_EQ(KeptBlockBytes(), 0);
}

#ifdef __GLIBC__
int64_t AnonymousMiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) / 1024;
  return -1;
}

TEST(FreedMemoryRelease, GivesBackWhatLiesBelowMemoryInUse) {
  const int64_t before = AnonymousMiB();
  std::vector<std::vector<char>> blocks(4096);  // 128 MiB, each small enough for malloc's heap
  {
    const FreedMemoryRelease after;
    for (auto& b : blocks) b.assign(32 << 10, 'x');
    const int64_t all = AnonymousMiB();
    std::for_each(blocks.begin(), blocks.end() - 1, [](auto& b) { std::vector<char>().swap(b); });
    EXPECT_GT(AnonymousMiB(), all - 64) << "malloc gave it back itself: this test shows nothing";
  }
  EXPECT_LT(AnonymousMiB(), before + 64);
}
#endif

}  // namespace
}  // namespace tempera::nn
