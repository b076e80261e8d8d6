// Private to lib/kernels: the packed layout and what each file supplies to the others. Plain types only,
// because files compiled with the flags of one instruction set include it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempera::kernels {

// Packed layout. N is cut into panels of kPanel rows, K into steps of kStep codes; both are padded, padding
// holds 0. A panel lies before the next, a step before the next in its panel. A step is 4 quads of 4 codes of
// K:
//   kInt8: 4 x [kPanel][4] bytes. A byte is the code; at 8 bits it is code - 128 (so it fits s8 always).
//   kInt4: 2 x [kPanel][4] bytes. Low nibbles hold the quads 0 and 2, high nibbles 1 and 3, raw codes.
constexpr int kPanel = 16;
constexpr int kStep = 16;
constexpr int kInt8StepBytes = kPanel * kStep;
constexpr int kInt4StepBytes = kInt8StepBytes / 2;
// What is subtracted from a code before it is held.
constexpr int32_t HeldShift(int bits) { return bits == 8 ? 128 : 0; }

// One call into an instruction set: rows x (panels * kPanel) sums over `steps` steps of K.
struct Tile {
  const uint8_t* a;  // [steps][rows][kStep * a_bytes], as pack_a laid it
  const uint8_t* b;  // panel 0: [steps][kStep * kPanel * b_bytes]; the next begins b_stride bytes later
  int64_t b_stride;
  int64_t steps;
  int rows;
  int panels;
  int32_t* c;  // [rows][columns], ldc elements between rows
  int64_t ldc;
  int columns;             // of c, in (16 * (panels - 1), 16 * panels]
  bool first;              // c holds nothing yet
  bool last;               // the sums over K are complete: add row_sum[row] * u[column] + v[column]
  const int32_t* row_sum;  // [rows]
  const int32_t* u;        // [panels * kPanel]
  const int32_t* v;        // [panels * kPanel]
};

// What one instruction set does; tiled_gemm.cc has the loops around it. All sums are modulo 2^32.
struct TileOps {
  const int* heights;    // rows that one Tile may have, falling; ends with 1
  int panels;            // panels that one Tile may have
  int64_t steps;         // steps of one block of K, such that a block of B stays in the first-level cache
  int a_bytes, b_bytes;  // bytes that a code takes in `a`, `b`
  // a: [rows, k] u8 -> out: [ceil(k / kStep)][rows][kStep * a_bytes], zero beyond k; adds each row's codes to
  // row_sum.
  void (*pack_a)(const uint8_t* a, int64_t lda, int rows, int64_t k, uint8_t* out, int32_t* row_sum);
  // Stored steps of one panel -> the layout of Tile::b. Null: they are used as they lie.
  void (*unpack_b)(const uint8_t* stored, int64_t steps, uint8_t* out);
  void (*multiply)(const Tile& tile);
};
const TileOps& Avx2Ops(bool int4, int bits);
const TileOps& VnniOps(bool int4);

// Scratch of the calling thread, at least `bytes`, 64-byte aligned; valid until the thread's next call.
uint8_t* Scratch(size_t bytes);

// The AVX2 halves of QuantizeU8 and QuantizeToNhwc; the same numbers.
void QuantizeU8Avx2(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q);
void QuantizeToNhwcAvx2(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                        int32_t zero, int32_t levels, uint8_t* q);
void QuantizeU8Scalar(const float* x, int64_t count, float scale, int32_t zero, int32_t levels, uint8_t* q);
void QuantizeToNhwcScalar(const float* x, int64_t channels, int64_t pixels, const float* gain, float scale,
                          int32_t zero, int32_t levels, uint8_t* q);

struct GemmArgs;
struct PackedMatrix;
// codes of row n: [K] u8.
void UnpackRow(const PackedMatrix& w, int64_t n, uint8_t* codes);
void TiledGemm(const GemmArgs& args, const TileOps& ops);

bool ScalarUsable(const PackedMatrix& w);
void ScalarGemm(const GemmArgs& args);

bool OneDnnUsable(const PackedMatrix& w);
void OneDnnGemm(const GemmArgs& args);
// Caps oneDNN below AMX and bf16, unless ONEDNN_MAX_CPU_ISA caps it at that or lower already. Before its
// first use.
void CapOneDnnAtVnni();

// True if CPUID shows AMX but it cannot be used here (see CpuFacts).
bool AmxShownFalsely();
// Does the above, once, if AMX is shown falsely.
void CapOneDnnOnce();

}  // namespace tempera::kernels
