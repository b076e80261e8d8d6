// Integer kernels: contracts and the table of implementations. Plain pointers, no LibTorch, no absl.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tempera::kernels {

// How weight codes lie in memory.
// Persisted: the names stand in artifacts.
enum class Format : uint8_t {
  kInt8 = 1,  // one u8 code a byte, [N, K]
  kInt4 = 2,  // two u4 codes a byte, low nibble first, each row padded to whole bytes, [N, ceil(K / 2)]
};
const char* FormatName(Format format);  // "int8", "int4"
// Bytes of N rows of K codes.
size_t FormatBytes(Format format, int64_t n, int64_t k);
// codes: [N, K] u8, each < 2^4 for kInt4. out: FormatBytes.
void PackCodes(Format format, int64_t n, int64_t k, const uint8_t* codes, uint8_t* out);
void UnpackCodes(Format format, int64_t n, int64_t k, const uint8_t* packed, uint8_t* codes);

// One weight matrix ready for a kernel: codes stay packed (4-bit weights stay 4-bit in memory), zero points
// are kept apart, and what the epilogue needs is precomputed. Immutable; points into nothing else.
//   real weight w[n][k] = scale[n] * (code[n][k] - zero[n]), code and zero in [0, 2^bits)
struct PackedMatrix {
  int64_t n = 0, k = 0;
  int bits = 8;
  Format format = Format::kInt8;
  std::vector<uint8_t> codes;     // layout private to kernels; see bytes()
  std::vector<int32_t> zero;      // [N]
  std::vector<int32_t> code_sum;  // [N], sum over k of code[n][k]
  size_t bytes() const { return codes.size() + 4 * (zero.size() + code_sum.size()); }
};
// The greatest K. Sums of so many products of codes fit int32: 32768 * 255 * 255 < 2^31.
inline constexpr int64_t kMostColumns = 32768;
// REQUIRES: 0 <= K <= kMostColumns, 1 <= bits <= 8 (4 for kInt4); else aborts, for sums might leave int32.
PackedMatrix Pack(Format format, int bits, int64_t n, int64_t k, const uint8_t* codes, const int32_t* zero);
// The same, K = channels * taps, from rows that lie as artifacts hold them: in `format`, as PackCodes lays
// them, the taps of a convolution innermost, [channels][taps], where kernels want [taps][channels].
PackedMatrix PackStored(Format format, int bits, int64_t n, int64_t channels, int64_t taps,
                        const uint8_t* stored, const int32_t* zero);
// The inverse of Pack: codes [N, K] u8 row-major.
void UnpackMatrix(const PackedMatrix& w, uint8_t* codes);

// acc[m][n] = sum_k (a[m][k] - a_zero) * (code[n][k] - zero[n])       exact in int32, on every instruction
// set
//   a    [M, K] u8 row-major, lda >= K bytes between rows
//   acc  [M, N] s32 row-major, overwritten
// REQUIRES: K <= kMostColumns, a_zero in [0, 255].
// Thread-safe; one call runs on the calling thread.
struct GemmArgs {
  int64_t m = 0;
  const uint8_t* a = nullptr;
  int64_t lda = 0;
  int32_t a_zero = 0;
  const PackedMatrix* w = nullptr;
  int32_t* acc = nullptr;
};

// q[i] = clamp(nearbyint(x[i] / scale) + zero, 0, levels - 1), rounding half to even: the same numbers as
// at::clamp(at::round(x / scale) + zero, 0, levels - 1) gives. NaN gives 0.
// REQUIRES: scale > 0, 2 <= levels <= 256.
void QuantizeU8(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q);
// x: [C, H*W] f32 (one picture, NCHW)  ->  q: [H*W, C] u8 (NHWC); the same rounding of x * gain. gain: [C],
// or null for 1.
void QuantizeToNhwc(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                    int32_t zero, int32_t levels, uint8_t* q);

struct ConvShape {
  int64_t c_in = 0, h_in = 0, w_in = 0;
  int64_t kh = 1, kw = 1, stride = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  int64_t h_out() const { return (h_in + pad_top + pad_bottom - kh) / stride + 1; }
  int64_t w_out() const { return (w_in + pad_left + pad_right - kw) / stride + 1; }
  int64_t k() const { return kh * kw * c_in; }
};
// Rows [row_begin, row_end) of the im2col matrix: row = output pixel (y * w_out + x), columns in the order
// [kh][kw][c_in]; places outside of the picture hold `zero`, which is the code of 0.0.
//   q: [h_in * w_in, c_in] u8;  columns: [row_end - row_begin, k()] u8
void Im2Col(const ConvShape& shape, const uint8_t* q, int32_t zero, int64_t row_begin, int64_t row_end,
            uint8_t* columns);

// One row of the kernel table. Best first; the first that `usable` accepts for the matrix serves.
struct Kernel {
  const char* name;  // "vnni512", "avx2", "onednn", "scalar"
  // True if this machine runs it and its result for these bits is exact (u8 x s8 pairs saturate in 16 bits
  // inside kernels without VNNI: a kernel that has that weakness says no where it could show).
  bool (*usable)(const PackedMatrix& w);
  void (*gemm)(const GemmArgs& args);
};
const std::vector<Kernel>& Kernels();
// The kernel that serves `w`. TEMPERA_KERNEL=<name> pins one (where it is usable), for tests and bug reports;
// an unknown name is said on stderr and ignored.
const Kernel& Choose(const PackedMatrix& w);

// What this machine can do, found by running it: instructions that CPUID shows may still die in a virtual
// machine, so AMX tiles are tried in a child process (leaf 0x1D must describe them too).
struct CpuFacts {
  bool avx2 = false, avx512 = false, avx512_vnni = false, amx_int8 = false;
  std::string text() const;  // "avx2 avx512 vnni"
};
const CpuFacts& Cpu();
// Caps oneDNN at what the probe allows (dnnl::set_max_cpu_isa), before its first use; ONEDNN_MAX_CPU_ISA
// still caps lower. Call once at program start, before any thread. Also forbids LibTorch's own oneDNN the
// same (environment), so that no bf16 or AMX path is taken on a CPU whose AMX is not usable.
void InitCpu();

}  // namespace tempera::kernels
