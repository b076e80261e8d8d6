#include <gtest/gtest.h>

#include <array>
#include <random>

#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

TEST(Formats, NamesAndBytes) {
  EXPECT_STREQ(FormatName(Format::kInt8), "int8");
  EXPECT_STREQ(FormatName(Format::kInt4), "int4");
  EXPECT_EQ(FormatBytes(Format::kInt8, 3, 5), 15u);
  EXPECT_EQ(FormatBytes(Format::kInt4, 3, 5), 9u);
  EXPECT_EQ(FormatBytes(Format::kInt4, 0, 5), 0u);
}

TEST(Formats, Int4LaysTheLowNibbleFirstAndPadsRows) {
  const uint8_t codes[] = {1, 2, 3, 15, 0, 9};  // 2 rows of 3
  uint8_t packed[4];
  PackCodes(Format::kInt4, 2, 3, codes, packed);
  EXPECT_EQ(packed[0], 0x21);
  EXPECT_EQ(packed[1], 0x03);
  EXPECT_EQ(packed[2], 0x0f);
  EXPECT_EQ(packed[3], 0x09);
}

TEST(Formats, RoundTrips) {
  std::mt19937 random(1);
  for (const Format format : {Format::kInt8, Format::kInt4}) {
    for (int64_t n : {0, 1, 2, 15, 16, 17, 40}) {
      for (int64_t k : {0, 1, 2, 3, 4, 5, 8, 15, 16, 17, 63, 64, 65, 130}) {
        const int bits = format == Format::kInt4 ? 4 : 8;
        std::vector<uint8_t> codes(static_cast<size_t>(n * k));
        std::vector<int32_t> zero(static_cast<size_t>(n));
        for (uint8_t& c : codes) c = static_cast<uint8_t>(random() % (1u << bits));
        for (int32_t& z : zero) z = static_cast<int32_t>(random() % (1u << bits));

        std::vector<uint8_t> packed(FormatBytes(format, n, k)), back(codes.size());
        PackCodes(format, n, k, codes.data(), packed.data());
        UnpackCodes(format, n, k, packed.data(), back.data());
        EXPECT_EQ(back, codes) << FormatName(format) << " n " << n << " k " << k;

        const PackedMatrix w = Pack(format, bits, n, k, codes.data(), zero.data());
        std::vector<uint8_t> unpacked(codes.size());
        UnpackMatrix(w, unpacked.data());
        EXPECT_EQ(unpacked, codes) << FormatName(format) << " n " << n << " k " << k;
        EXPECT_EQ(w.zero, zero);
        for (int64_t row = 0; row < n; ++row) {
          int32_t sum = 0;
          for (int64_t i = 0; i < k; ++i) sum += codes[static_cast<size_t>(row * k + i)];
          EXPECT_EQ(w.code_sum[static_cast<size_t>(row)], sum);
        }
      }
    }
  }
}

TEST(Formats, StoredRowsPackLikeTheirCodesTurned) {
  std::mt19937 random(2);
  for (const Format format : {Format::kInt8, Format::kInt4}) {
    for (const auto& [n, channels, taps] :
         {std::array<int64_t, 3>{17, 5, 9}, {16, 3, 1}, {1, 64, 9}, {3, 33, 4}, {2, 0, 9}, {5, 2000, 9}}) {
      const int bits = format == Format::kInt4 ? 4 : 8;
      const int64_t k = channels * taps;
      std::vector<uint8_t> codes(static_cast<size_t>(n * k)), turned(codes.size());
      for (uint8_t& c : codes) c = static_cast<uint8_t>(random() % (1u << bits));
      for (int64_t row = 0; row < n; ++row)
        for (int64_t c = 0; c < channels; ++c)
          for (int64_t t = 0; t < taps; ++t)
            turned[static_cast<size_t>(row * k + t * channels + c)] =
                codes[static_cast<size_t>(row * k + c * taps + t)];
      const std::vector<int32_t> zero(static_cast<size_t>(n), 3);
      std::vector<uint8_t> stored(FormatBytes(format, n, k));
      PackCodes(format, n, k, codes.data(), stored.data());

      const PackedMatrix got = PackStored(format, bits, n, channels, taps, stored.data(), zero.data());
      const PackedMatrix want = Pack(format, bits, n, k, turned.data(), zero.data());
      EXPECT_EQ(got.codes, want.codes) << FormatName(format) << " n " << n << " k " << k;
      EXPECT_EQ(got.code_sum, want.code_sum);
      EXPECT_EQ(got.zero, want.zero);
      EXPECT_EQ(got.k, want.k);
    }
  }
}

TEST(Formats, Int4StaysHalfAByteInMemory) {
  const std::vector<uint8_t> codes(64 * 576, 7);
  const std::vector<int32_t> zero(64, 8);
  const PackedMatrix w4 = Pack(Format::kInt4, 4, 64, 576, codes.data(), zero.data());
  const PackedMatrix w8 = Pack(Format::kInt8, 8, 64, 576, codes.data(), zero.data());
  EXPECT_EQ(w4.codes.size(), 64u * 576 / 2);
  EXPECT_EQ(w8.codes.size(), 64u * 576);
  EXPECT_EQ(w4.bytes(), 64u * 576 / 2 + 64 * 8);
}

TEST(FormatsDeathTest, RefusesWhatCouldOverflow) {
  const std::vector<uint8_t> codes(32769);
  const int32_t zero = 0;
  EXPECT_DEATH(Pack(Format::kInt8, 8, 1, 32769, codes.data(), &zero), "K of a packed matrix, got 32769");
  EXPECT_DEATH(Pack(Format::kInt4, 5, 1, 1, codes.data(), &zero), "bits of a packed matrix, got 5");
}

}  // namespace
}  // namespace tempera::kernels
