// Every kernel this machine can run gives the sums of plain 64-bit arithmetic.
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "tests/kernels/gemm_case.h"

namespace tempera::kernels {
namespace {

TEST(Gemm, EveryUsableKernelIsExact) {
  std::map<std::string, int> runs;
  for (const GemmCase& c : GemmCases()) {
    const PackedMatrix w = c.Packed();
    const std::vector<int64_t> want = c.Expected();
    for (const Kernel& kernel : Kernels()) {
      if (!kernel.usable(w)) continue;
      ++runs[kernel.name];
      ASSERT_EQ(c.Run(w, kernel.gemm), want) << kernel.name << ", " << c.Text();
    }
  }
  EXPECT_GT(runs["scalar"], 0);
  EXPECT_EQ(runs["avx2"] > 0, Cpu().avx2);
  EXPECT_EQ(runs["vnni512"] > 0, Cpu().avx512_vnni);
  for (const auto& [name, count] : runs) std::printf("%s: %d products\n", name.c_str(), count);
}

TEST(Gemm, TheLongestSumReachesTheEndOfItsRange) {
  GemmCase c{.m = 1, .n = 1, .k = 32768};
  c.Fill(255, 255, 0);
  EXPECT_EQ(c.Expected()[0], 2130739200);  // what the cases above run: inside int32, beyond 2^30
  c.a_zero = 255;
  c.Fill(0, 255, 0);
  EXPECT_EQ(c.Expected()[0], -2130739200);
}

TEST(Gemm, RowsDoNotDependOnTheirNeighbours) {
  std::mt19937 random(7);
  GemmCase c{.m = 37, .n = 50, .k = 301, .bits = 4, .format = Format::kInt4, .a_zero = 9};
  c.Randomize(random);
  const PackedMatrix w = c.Packed();
  const Kernel& kernel = Choose(w);
  const std::vector<int64_t> together = c.Run(w, kernel.gemm);
  for (int64_t row = 0; row < c.m; ++row) {
    std::vector<int32_t> alone(static_cast<size_t>(c.n));
    kernel.gemm({.m = 1,
                 .a = c.a.data() + row * c.lda(),
                 .lda = c.lda(),
                 .a_zero = c.a_zero,
                 .w = &w,
                 .acc = alone.data()});
    for (int64_t n = 0; n < c.n; ++n)
      ASSERT_EQ(alone[static_cast<size_t>(n)], together[static_cast<size_t>(row * c.n + n)]);
  }
}

TEST(Gemm, ThreadsShareOneMatrix) {
  std::mt19937 random(8);
  for (const int bits : {6, 8}) {
    GemmCase c{.m = 20, .n = 33, .k = 530, .bits = bits, .a_zero = 131};
    c.Randomize(random);
    const PackedMatrix w = c.Packed();
    const std::vector<int64_t> want = c.Expected();
    for (const Kernel& kernel : Kernels()) {
      if (!kernel.usable(w)) continue;
      std::vector<std::vector<int64_t>> got(4);
      std::vector<std::thread> threads;
      for (auto& result : got)
        threads.emplace_back([&] {
          for (int i = 0; i < 5; ++i) result = c.Run(w, kernel.gemm);
        });
      for (std::thread& thread : threads) thread.join();
      for (const auto& result : got) EXPECT_EQ(result, want) << kernel.name << " at " << bits << " bits";
    }
  }
}

}  // namespace
}  // namespace tempera::kernels
