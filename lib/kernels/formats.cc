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

// 8 codes of 4 stored bytes, low nibbles first.
uint64_t Spread(uint32_t packed) {
  uint64_t x = packed;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
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
    for (; i + 8 <= k; i += 8, packed += 4) {
      uint32_t four;
      std::memcpy(&four, packed, 4);
      const uint64_t eight = Spread(four);
      std::memcpy(codes + i, &eight, 8);
    }
    for (; i + 2 <= k; i += 2, ++packed) {
      codes[i] = *packed & 15;
      codes[i + 1] = *packed >> 4;
    }
    if (i < k) codes[i] = *packed++ & 15;
  }
}

namespace {

// An empty matrix, its codes padding.
PackedMatrix Begin(Format format, int bits, int64_t n, int64_t k, const int32_t* zero) {
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
  const int64_t step_bytes = format == Format::kInt4 ? kInt4StepBytes : kInt8StepBytes;
  w.codes.assign(static_cast<size_t>(Blocks(n, kPanel) * Blocks(k, kStep) * step_bytes), 0);
  return w;
}

// codes: [K] of one row, followed by at least 7 bytes that may be read.
void PutRow(PackedMatrix& w, int64_t row, uint8_t* codes) {
  const bool int4 = w.format == Format::kInt4;
  const int64_t panel_bytes = Blocks(w.k, kStep) * (int4 ? kInt4StepBytes : kInt8StepBytes);
  uint8_t* out = w.codes.data() + (row / kPanel) * panel_bytes + (row % kPanel) * 4;
  std::memset(codes + w.k, 0, 7);
  const uint32_t flip = static_cast<uint32_t>(HeldShift(w.bits)) * 0x01010101u;  // code ^ 128 is code - 128
  uint64_t sums = 0;  // of codes, in lanes of 16 bits: emptied before they can overflow
  uint32_t sum = 0;
  const auto empty = [&] {
    sum +=
        static_cast<uint32_t>((sums & 0xffff) + (sums >> 16 & 0xffff) + (sums >> 32 & 0xffff) + (sums >> 48));
    sums = 0;
  };
  for (int64_t i = 0; i < w.k; i += 8, out += int4 ? kPanel * 4 : 2 * kPanel * 4) {
    uint64_t eight;
    std::memcpy(&eight, codes + i, 8);
    sums += (eight & 0x00ff00ff00ff00ffu) + (eight >> 8 & 0x00ff00ff00ff00ffu);
    if (i % 1024 == 0) empty();
    const auto low = static_cast<uint32_t>(eight), high = static_cast<uint32_t>(eight >> 32);
    if (int4) {
      const uint32_t both = (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4;
      std::memcpy(out, &both, 4);
      continue;
    }
    // Padding stays 0 where codes are held with another shift.
    const auto put = [&](uint32_t four, int64_t at, uint8_t* to) {
      const int64_t left = w.k - at;
      if (left <= 0) return;
      const uint32_t held = left >= 4 ? 0xffffffffu : (1u << 8 * left) - 1;
      four = (four ^ flip) & held;
      std::memcpy(to, &four, 4);
    };
    put(low, i, out);
    put(high, i + 4, out + kPanel * 4);
  }
  empty();
  w.code_sum[static_cast<size_t>(row)] = static_cast<int32_t>(sum);
}

}  // namespace

PackedMatrix Pack(Format format, int bits, int64_t n, int64_t k, const uint8_t* codes, const int32_t* zero) {
  PackedMatrix w = Begin(format, bits, n, k, zero);
  std::vector<uint8_t> row_codes(static_cast<size_t>(k) + 7);
  for (int64_t row = 0; row < n; ++row, codes += k) {
    if (k > 0) std::memcpy(row_codes.data(), codes, static_cast<size_t>(k));
    PutRow(w, row, row_codes.data());
  }
  return w;
}

PackedMatrix PackStored(Format format, int bits, int64_t n, int64_t channels, int64_t taps,
                        const uint8_t* stored, const int32_t* zero) {
  const int64_t k = channels * taps;
  PackedMatrix w = Begin(format, bits, n, k, zero);
  const auto row_bytes = static_cast<int64_t>(FormatBytes(format, 1, k));
  std::vector<uint8_t> flat(static_cast<size_t>(k) + 7), turned(flat.size());
  for (int64_t row = 0; row < n; ++row, stored += row_bytes) {
    UnpackCodes(format, 1, k, stored, flat.data());
    if (taps > 1)
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t c = 0; c < channels; ++c)
          turned[static_cast<size_t>(t * channels + c)] = flat[static_cast<size_t>(c * taps + t)];
    PutRow(w, row, taps > 1 ? turned.data() : flat.data());
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
