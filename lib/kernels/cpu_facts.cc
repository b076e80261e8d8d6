// What the processor really does. CPUID says what it has; AMX tiles are tried in a child process besides,
// because some virtual machines show them and then kill who uses them, or leave leaf 0x1D (the shape of the
// tiles) empty, from which libraries compute shapes that fault.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "kernels/internal.h"
#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tempera::kernels {
namespace {

#if defined(__x86_64__)

uint64_t EnabledState() {  // XCR0: what the system saves at a task switch
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

bool AmxShown() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  return (d >> 24 & 1) != 0 && (d >> 25 & 1) != 0;  // AMX-TILE, AMX-INT8
}

// Leaf 0x1D, palette 1: at least 8 tiles of 16 rows of 64 bytes.
bool TilesDescribed() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(0x1d, 0, &a, &b, &c, &d) || a < 1) return false;
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false;
  return (b & 0xffff) >= 64 && (b >> 16) >= 8 && (c & 0xffff) >= 16;
}

// Multiplies one pair of tiles. In a child: calls nothing that is not async-signal-safe.
bool MultiplyTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return false;
  struct Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64};
    uint8_t rows[16] = {16, 16, 16};
  };
  static_assert(sizeof(Config) == 64);
  alignas(64) const Config config;
  alignas(64) int8_t a[16][64], b[16][64];  // b: [k / 4][column][k % 4]
  alignas(64) int32_t c[16][16] = {};
  for (int row = 0; row < 16; ++row) {
    for (int i = 0; i < 64; ++i) {
      a[row][i] = static_cast<int8_t>(row - 8);
      b[row][i] = static_cast<int8_t>(i / 4 - 5);
    }
  }
  const int64_t stride = 64;
  __asm__ volatile(
      "ldtilecfg (%[config])\n\t"
      "tilezero %%tmm0\n\t"
      "tileloadd (%[a],%[stride],1), %%tmm1\n\t"
      "tileloadd (%[b],%[stride],1), %%tmm2\n\t"
      "tdpbssd %%tmm2, %%tmm1, %%tmm0\n\t"
      "tilestored %%tmm0, (%[c],%[stride],1)\n\t"
      "tilerelease"
      :
      : [config] "r"(&config), [a] "r"(a), [b] "r"(b), [c] "r"(c), [stride] "r"(stride)
      : "memory");
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 16; ++column)
      if (c[row][column] != 64 * (row - 8) * (column - 5)) return false;
  return true;
}

bool TilesWork() {
  const pid_t child = fork();
  if (child < 0) return false;
  if (child == 0) {
    prctl(PR_SET_DUMPABLE, 0);  // no core file
    for (const int fault : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP}) signal(fault, SIG_DFL);
    _exit(MultiplyTiles() ? 0 : 1);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return false;
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

CpuFacts FindFacts() {
  CpuFacts f;
  __builtin_cpu_init();  // these look at XCR0 as well
  f.avx2 = __builtin_cpu_supports("avx2");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  f.avx512_vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  constexpr uint64_t kTileState = uint64_t{3} << 17;
  f.amx_int8 = f.avx512_vnni && AmxShown() && (EnabledState() & kTileState) == kTileState &&
               TilesDescribed() && TilesWork();
  return f;
}

#else

bool AmxShown() { return false; }
CpuFacts FindFacts() { return {}; }

#endif

}  // namespace

std::string CpuFacts::text() const {
  std::string out;
  const auto add = [&out](bool has, const char* name) {
    if (!has) return;
    if (!out.empty()) out += ' ';
    out += name;
  };
  add(avx2, "avx2");
  add(avx512, "avx512");
  add(avx512_vnni, "vnni");
  add(amx_int8, "amx");
  return out.empty() ? "baseline" : out;
}

const CpuFacts& Cpu() {
  static const CpuFacts facts = FindFacts();
  return facts;
}

bool AmxShownFalsely() { return AmxShown() && !Cpu().amx_int8; }

void CapOneDnnOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (AmxShownFalsely()) CapOneDnnAtVnni();
  });
}

void InitCpu() {
  CapOneDnnOnce();
  // LibTorch carries a oneDNN of its own, which reads this at its first use.
  if (AmxShownFalsely()) setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", /*overwrite=*/0);
}

}  // namespace tempera::kernels
