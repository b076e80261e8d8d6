// The loops around an instruction set's tile: cache blocks, packing, zero points.
//
// With h = code - shift as held in memory, summed over k:
//   sum (a - a_zero)(code - zero) = sum a h  +  (shift - zero) sum a  +  a_zero (K zero - sum code)
//                                               u[n]  * row_sum[m]      v[n]
// Tiles add modulo 2^32. The left side fits int32 (K <= 32768), so its residue is its value whatever wrapped
// before. For the record the products alone do not wrap either: |sum a h| <= 32768 * 255 * 128 < 2^31.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

// Rows of A that are packed at once: with a block of K they stay in the second-level cache.
constexpr int64_t kRowBlock = 192;

int64_t Blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }
size_t RoundUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};
struct ThreadScratch {
  std::unique_ptr<uint8_t, Free> bytes;
  size_t size = 0;
};

int Height(const int* heights, int64_t rows) {
  while (*heights > rows) ++heights;
  return *heights;
}

}  // namespace

uint8_t* Scratch(size_t bytes) {
  thread_local ThreadScratch scratch;
  if (scratch.size < bytes) {
    scratch.bytes.reset();
    scratch.size = RoundUp(bytes);
    scratch.bytes.reset(static_cast<uint8_t*>(std::aligned_alloc(64, scratch.size)));
    if (scratch.bytes == nullptr) std::abort();
  }
  return scratch.bytes.get();
}

void TiledGemm(const GemmArgs& g, const TileOps& ops) {
  const PackedMatrix& w = *g.w;
  if (g.m <= 0 || w.n <= 0) return;
  if (w.k <= 0) {
    std::fill_n(g.acc, g.m * w.n, 0);
    return;
  }
  const int64_t panels = Blocks(w.n, kPanel), all_steps = Blocks(w.k, kStep);
  const int64_t stored_step = w.format == Format::kInt4 ? kInt4StepBytes : kInt8StepBytes;
  const int64_t block_steps = std::min(ops.steps, all_steps);
  const int64_t block_rows = std::min(g.m, kRowBlock);

  const size_t a_bytes = RoundUp(static_cast<size_t>(block_rows * block_steps * kStep * ops.a_bytes));
  const size_t b_stride = static_cast<size_t>(block_steps * kStep * kPanel * ops.b_bytes);
  const size_t b_bytes = ops.unpack_b == nullptr ? 0 : b_stride * static_cast<size_t>(ops.panels);
  const size_t column_bytes = static_cast<size_t>(panels * kPanel) * sizeof(int32_t);
  const size_t row_bytes = RoundUp(static_cast<size_t>(block_rows) * sizeof(int32_t));
  uint8_t* packed_a = Scratch(a_bytes + b_bytes + row_bytes + 2 * column_bytes);
  uint8_t* unpacked_b = packed_a + a_bytes;
  int32_t* row_sum = reinterpret_cast<int32_t*>(unpacked_b + b_bytes);
  int32_t* u = reinterpret_cast<int32_t*>(unpacked_b + b_bytes + row_bytes);
  int32_t* v = u + panels * kPanel;
  std::memset(u, 0, 2 * column_bytes);
  for (int64_t n = 0; n < w.n; ++n) {
    const int64_t zero = w.zero[static_cast<size_t>(n)];
    u[n] = static_cast<int32_t>(HeldShift(w.bits) - zero);
    v[n] = static_cast<int32_t>(g.a_zero * (w.k * zero - w.code_sum[static_cast<size_t>(n)]));
  }

  for (int64_t row = 0; row < g.m; row += block_rows) {
    const int64_t rows = std::min(block_rows, g.m - row);
    std::fill_n(row_sum, rows, 0);
    for (int64_t step = 0; step < all_steps; step += block_steps) {
      const int64_t steps = std::min(block_steps, all_steps - step);
      const int64_t row_stride = steps * kStep * ops.a_bytes;  // of one row of A in the packed block
      const int64_t k = std::min(steps * kStep, w.k - step * kStep);
      for (int64_t r = 0; r < rows;) {
        const int height = Height(ops.heights, rows - r);
        ops.pack_a(g.a + (row + r) * g.lda + step * kStep, g.lda, height, k, packed_a + r * row_stride,
                   row_sum + r);
        r += height;
      }
      Tile tile{};
      tile.steps = steps;
      tile.ldc = w.n;
      tile.first = step == 0;
      tile.last = step + steps == all_steps;
      for (int64_t panel = 0; panel < panels; panel += ops.panels) {
        tile.panels = static_cast<int>(std::min<int64_t>(ops.panels, panels - panel));
        tile.columns = static_cast<int>(std::min<int64_t>(tile.panels * kPanel, w.n - panel * kPanel));
        tile.u = u + panel * kPanel;
        tile.v = v + panel * kPanel;
        const uint8_t* stored = w.codes.data() + (panel * all_steps + step) * stored_step;
        if (ops.unpack_b == nullptr) {
          tile.b = stored;
          tile.b_stride = all_steps * stored_step;
        } else {
          for (int p = 0; p < tile.panels; ++p)
            ops.unpack_b(stored + p * all_steps * stored_step, steps,
                         unpacked_b + static_cast<size_t>(p) * b_stride);
          tile.b = unpacked_b;
          tile.b_stride = static_cast<int64_t>(b_stride);
        }
        for (int64_t r = 0; r < rows; r += tile.rows) {
          tile.rows = Height(ops.heights, rows - r);
          tile.a = packed_a + r * row_stride;
          tile.c = g.acc + (row + r) * w.n + panel * kPanel;
          tile.row_sum = row_sum + r;
          ops.multiply(tile);
        }
      }
    }
  }
}

}  // namespace tempera::kernels
