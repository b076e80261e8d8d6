// Which kernel serves, and what the processor can do. ctest runs these under several caps and pins.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

PackedMatrix Matrix(int bits, Format format = Format::kInt8) {
  const std::vector<uint8_t> codes(32, 1);
  const int32_t zero[] = {0, 1};
  return Pack(format, bits, 2, 16, codes.data(), zero);
}

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

TEST(Choice, TableEndsWithTheKernelThatAlwaysServes) {
  ASSERT_FALSE(Kernels().empty());
  EXPECT_STREQ(Kernels().back().name, "scalar");
  for (const int bits : {1, 4, 5, 6, 7, 8}) EXPECT_TRUE(Kernels().back().usable(Matrix(bits)));
}

TEST(Choice, TakesThePinWhereItIsUsableElseTheFirstUsable) {
  for (const PackedMatrix& w : {Matrix(4, Format::kInt4), Matrix(6), Matrix(8)}) {
    const Kernel* want = nullptr;
    for (const Kernel& kernel : Kernels())
      if (kernel.usable(w) && want == nullptr) want = &kernel;
    for (const Kernel& kernel : Kernels())
      if (kernel.usable(w) && kernel.name == Variable("TEMPERA_KERNEL")) want = &kernel;
    ASSERT_NE(want, nullptr);
    EXPECT_STREQ(Choose(w).name, want->name);
  }
}

TEST(Choice, OneDnnServesOnlyWhereItCannotSaturate) {
  if (!OneDnnUsable(Matrix(6))) GTEST_SKIP() << "built without oneDNN";
  const std::string cap = Variable("ONEDNN_MAX_CPU_ISA");
  const bool vnni = Cpu().avx512_vnni && (cap.empty() || cap == "AVX512_CORE_VNNI");
  EXPECT_EQ(OneDnnUsable(Matrix(8)), vnni) << "cap " << cap;
  EXPECT_EQ(OneDnnUsable(Matrix(7)), vnni) << "cap " << cap;
  EXPECT_TRUE(OneDnnUsable(Matrix(4, Format::kInt4)));
}

TEST(Choice, FactsAreConsistent) {
  const CpuFacts& f = Cpu();
  EXPECT_TRUE(!f.avx512_vnni || f.avx512);
  EXPECT_TRUE(!f.avx512 || f.avx2);
  EXPECT_TRUE(!f.amx_int8 || f.avx512_vnni);
  EXPECT_FALSE(f.text().empty());
  EXPECT_EQ(f.text().find("vnni") != std::string::npos, f.avx512_vnni);
  EXPECT_EQ(f.text().find("amx") != std::string::npos, f.amx_int8);
  std::printf("this machine: %s%s\n", f.text().c_str(), AmxShownFalsely() ? " (AMX shown falsely)" : "");
}

TEST(Choice, InitCapsTheEnvironmentOnlyWhereAmxIsShownFalsely) {
  const std::string before = Variable("ONEDNN_MAX_CPU_ISA");
  InitCpu();
  InitCpu();
  const std::string want = before.empty() && AmxShownFalsely() ? "AVX512_CORE_VNNI" : before;
  EXPECT_EQ(Variable("ONEDNN_MAX_CPU_ISA"), want);
}

}  // namespace
}  // namespace tempera::kernels
