// Weight formats: the bytes of artifacts, and the layout that the kernels multiply from.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels/internal.h"
#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

int64_t Blocks(int64_t count, int64_t size) { return (count + size - 1) / size; }

[[noreturn]] void Fail(const char* what, int64_t got, const char* want) {
  std::fprintf(stderr, "kernels: %s, got %lld, want %s\n", what, static_cast<long long>(got), want);
  std::abort();
}

}  // namespace

const char* FormatName(Format format) { return format == Format::kInt4 ? "int4" : "int8"; }

size_t FormatBytes(Format format, int64_t n, int64_t k) {
  return static_cast<size_t>(n) * static_cast<size_t>(format == Format::kInt4 ? (k + 1) / 2 : k);
}

void PackCodes(Format format, int64_t n, int64_t k, const uint8_t* codes, uint8_t* out) {
  if (format == Format::kInt8) {
    if (n * k > 0) std::memcpy(out, codes, static_cast<size_t>(n * k));
    return;
  }
  for (int64_t row = 0; row < n; ++row, codes += k) {
    int64_t i = 0;
    for (; i + 2 <= k; i += 2) *out++ = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 1] << 4));
    if (i < k) *out++ = codes[i] & 15;
  }
}

void UnpackCodes(Format format, int64_t n, int64_t k, const uint8_t* packed, uint8_t* codes) {
  if (format == Format::kInt8) {
    if (n * k > 0) std::memcpy(codes, packed, static_cast<size_t>(n * k));
    return;
  }
  for (int64_t row = 0; row < n; ++row, codes += k) {
    int64_t i = 0;
    for (; i + 2 <= k; i += 2, ++packed) {
      codes[i] = *packed & 15;
      codes[i + 1] = *packed >> 4;
    }
    if (i < k) codes[i] = *packed++ & 15;
  }
}

PackedMatrix Pack(Format format, int bits, int64_t n, int64_t k, const uint8_t* codes, const int32_t* zero) {
  const int most_bits = format == Format::kInt4 ? 4 : 8;
  if (bits < 1 || bits > most_bits)
    Fail("bits of a packed matrix", bits, format == Format::kInt4 ? "1 to 4" : "1 to 8");
  if (k < 0 || k > kMostColumns) Fail("K of a packed matrix", k, "0 to 32768: beyond, a sum may leave int32");
  PackedMatrix w;
  w.n = n;
  w.k = k;
  w.bits = bits;
  w.format = format;
  w.zero.assign(zero, zero + n);
  w.code_sum.resize(static_cast<size_t>(n));
  const int64_t steps = Blocks(k, kStep);
  const int64_t step_bytes = format == Format::kInt4 ? kInt4StepBytes : kInt8StepBytes;
  w.codes.assign(static_cast<size_t>(Blocks(n, kPanel) * steps * step_bytes), 0);
  const uint8_t flip = static_cast<uint8_t>(HeldShift(bits));  // code - 128 modulo 256 is code ^ 128
  const uint32_t flip4 = flip * 0x01010101u;
  for (int64_t row = 0; row < n; ++row, codes += k) {
    uint8_t* out = w.codes.data() + (row / kPanel) * steps * step_bytes + (row % kPanel) * 4;
    uint32_t sum = 0;
    for (int64_t i = 0; i < k; ++i) sum += codes[i];
    w.code_sum[static_cast<size_t>(row)] = static_cast<int32_t>(sum);
    for (int64_t i = 0; i < k; i += 4) {
      const int64_t quad = i / 4;
      uint32_t four = 0;
      if (i + 4 <= k) {
        std::memcpy(&four, codes + i, 4);
        four ^= flip4;
      } else {
        uint8_t tail[4] = {};
        for (int64_t j = i; j < k; ++j) tail[j - i] = codes[j] ^ flip;
        std::memcpy(&four, tail, 4);
      }
      if (format == Format::kInt8) {
        std::memcpy(out + quad * (kPanel * 4), &four, 4);
      } else {
        uint8_t* to = out + (quad / 2) * (kPanel * 4);
        uint32_t both;
        std::memcpy(&both, to, 4);
        both |= (four & 0x0f0f0f0fu) << (quad % 2 * 4);
        std::memcpy(to, &both, 4);
      }
    }
  }
  return w;
}

void UnpackRow(const PackedMatrix& w, int64_t n, uint8_t* codes) {
  const bool int4 = w.format == Format::kInt4;
  const int64_t panel_bytes = Blocks(w.k, kStep) * (int4 ? kInt4StepBytes : kInt8StepBytes);
  const uint8_t* from = w.codes.data() + (n / kPanel) * panel_bytes + (n % kPanel) * 4;
  const uint32_t flip4 = static_cast<uint32_t>(HeldShift(w.bits)) * 0x01010101u;
  for (int64_t i = 0; i < w.k; i += 4) {
    const int64_t quad = i / 4;
    uint32_t four;
    std::memcpy(&four, from + (int4 ? quad / 2 : quad) * (kPanel * 4), 4);
    four = int4 ? (four >> (quad % 2 * 4)) & 0x0f0f0f0fu : four ^ flip4;
    std::memcpy(codes + i, &four, static_cast<size_t>(w.k - i < 4 ? w.k - i : 4));
  }
}

void UnpackMatrix(const PackedMatrix& w, uint8_t* codes) {
  for (int64_t row = 0; row < w.n; ++row) UnpackRow(w, row, codes + row * w.k);
}

}  // namespace tempera::kernels
