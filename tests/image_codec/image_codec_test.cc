#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <jpeglib.h>
#include <png.h>
#include <webp/decode.h>

#include <array>
#include <cmath>
#include <cstring>

#include "sample.h"

namespace tempera {
namespace {

using ::testing::StartsWith;

// Type and data of every chunk.
std::vector<std::pair<std::string, std::string>> Chunks(const std::string& png) {
  std::vector<std::pair<std::string, std::string>> chunks;
  for (size_t at = 8; at + 12 <= png.size();) {
    uint32_t size = 0;
    for (size_t i = 0; i < 4; ++i) size = size << 8 | static_cast<uint8_t>(png[at + i]);
    chunks.emplace_back(png.substr(at + 4, 4), png.substr(at + 8, size));
    at += 12 + size;
  }
  return chunks;
}

TEST(ParseImageFormat, KnowsThreeWords) {
  EXPECT_EQ(*ParseImageFormat("png"), ImageFormat::kPng);
  EXPECT_EQ(*ParseImageFormat("webp"), ImageFormat::kWebp);
  EXPECT_EQ(*ParseImageFormat("jpeg"), ImageFormat::kJpeg);
  const Status status = ParseImageFormat("gif").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(Message(status), "image format: got \"gif\", want png, webp or jpeg");
}

TEST(MimeType, NamesEachFormat) {
  EXPECT_EQ(MimeType(ImageFormat::kPng), "image/png");
  EXPECT_EQ(MimeType(ImageFormat::kWebp), "image/webp");
  EXPECT_EQ(MimeType(ImageFormat::kJpeg), "image/jpeg");
}

TEST(EncodeImage, BeginsWithTheSignatureOfItsFormat) {
  const Picture p = Sample(5, 4, 3);
  EXPECT_THAT(*EncodeImage(p, ImageFormat::kPng), StartsWith(kPngSignature));
  EXPECT_THAT(*EncodeImage(p, ImageFormat::kJpeg), StartsWith("\xff\xd8\xff"));
  const std::string webp = *EncodeImage(p, ImageFormat::kWebp);
  EXPECT_EQ(webp.substr(0, 4), "RIFF");
  EXPECT_EQ(webp.substr(8, 8), "WEBPVP8L") << "VP8L: lossless";
}

TEST(EncodeImage, TheSamePictureGivesTheSameBytes) {
  for (const ImageFormat format : {ImageFormat::kPng, ImageFormat::kWebp, ImageFormat::kJpeg}) {
    const std::string bytes = *EncodeImage(Sample(64, 48, 3), format, {{"seed", "7"}});
    EXPECT_EQ(*EncodeImage(Sample(64, 48, 3), format, {{"seed", "7"}}), bytes);
    EXPECT_NE(*EncodeImage(Sample(64, 48, 3, 2), format, {{"seed", "7"}}), bytes);
  }
}

// What libpng's own reader makes of a file, in the channels that it has.
Picture ReadPng(const std::string& bytes) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) << image.message;
  Picture p{.width = image.width,
            .height = image.height,
            .channels = PNG_IMAGE_PIXEL_CHANNELS(image.format),
            .pixels = std::vector<uint8_t>(PNG_IMAGE_SIZE(image))};
  EXPECT_TRUE(png_image_finish_read(&image, nullptr, p.pixels.data(), 0, nullptr)) << image.message;
  return p;
}

TEST(EncodeImage, PngRoundTripIsExact) {
  for (const int64_t channels : {1, 3, 4}) {
    for (const auto& [width, height] :
         {std::pair<int64_t, int64_t>{1, 1}, {7, 3}, {32, 32}, {300, 200}, {1, 500}, {500, 1}}) {
      const Picture p = Sample(width, height, channels);
      const Result<std::string> png = EncodeImage(p, ImageFormat::kPng);
      ASSERT_TRUE(png.ok()) << png.status();
      const Picture back = ReadPng(*png);
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.pixels, p.pixels);
    }
  }
}

TEST(EncodeImage, PngOfNoiseFitsTheBufferSetAside) {
  std::mt19937 random(9);
  Picture p{.width = 1000, .height = 700, .channels = 4, .pixels = std::vector<uint8_t>(2'800'000)};
  for (uint8_t& v : p.pixels) v = static_cast<uint8_t>(random());
  const Result<std::string> png = EncodeImage(p, ImageFormat::kPng);
  ASSERT_TRUE(png.ok()) << png.status();
  EXPECT_EQ(ReadPng(*png).pixels, p.pixels);
}

TEST(EncodeImage, PngCarriesItsTextAndNoTime) {
  const std::string png =
      *EncodeImage(Sample(4, 4, 1), ImageFormat::kPng,
                   {{"artifact", std::string(64, 'a')}, {"prompt", "caf\u00e9"}, {"seed", "42"}});
  const auto chunks = Chunks(png);
  ASSERT_EQ(chunks.size(), 6u);
  EXPECT_EQ(chunks[0].first, "IHDR");
  EXPECT_EQ(chunks[1].first, "tEXt");
  EXPECT_EQ(chunks[1].second, std::string("artifact\0", 9) + std::string(64, 'a'));
  EXPECT_EQ(chunks[2].first, "iTXt") << "not ASCII: UTF-8";
  EXPECT_EQ(chunks[2].second, std::string("prompt\0\0\0\0\0", 11) + "caf\u00e9");
  EXPECT_EQ(chunks[3].first, "tEXt");
  EXPECT_EQ(chunks[3].second, std::string("seed\0", 5) + "42");
  EXPECT_EQ(chunks[5].first, "IEND");
}

TEST(EncodeImage, PngTextThatTheFormatCannotHoldIsRefused) {
  const Picture p = Sample(4, 4, 1);
  for (const std::string& key :
       {std::string(""), std::string(80, 'k'), std::string(" a"), std::string("a "), std::string("a  b"),
        std::string("caf\u00e9"), std::string("a\nb"), std::string("a\0b", 3)})
    EXPECT_TRUE(absl::IsInvalidArgument(EncodeImage(p, ImageFormat::kPng, {{key, "v"}}).status())) << key;
  EXPECT_TRUE(
      absl::IsInvalidArgument(EncodeImage(p, ImageFormat::kPng, {{"k", std::string("a\0b", 3)}}).status()));
  EXPECT_TRUE(EncodeImage(p, ImageFormat::kPng, {{std::string(79, 'k'), ""}}).ok());
}

TEST(EncodeImage, WebpIsLossless) {
  for (const int64_t channels : {1, 3, 4}) {
    Picture p = Sample(33, 21, channels);
    if (channels == 4) p.pixels[3] = 0;  // colour below full transparency is kept too
    const std::string webp = *EncodeImage(p, ImageFormat::kWebp);
    int width = 0, height = 0;
    uint8_t* rgba =
        WebPDecodeRGBA(reinterpret_cast<const uint8_t*>(webp.data()), webp.size(), &width, &height);
    ASSERT_NE(rgba, nullptr);
    EXPECT_EQ(width, 33);
    EXPECT_EQ(height, 21);
    for (size_t i = 0; i < 33 * 21; ++i)
      for (size_t c = 0; c < 3; ++c) {
        const size_t from = channels == 1 ? i : i * static_cast<size_t>(channels) + c;
        ASSERT_EQ(rgba[4 * i + c], p.pixels[from]) << i << " " << c;
      }
    EXPECT_EQ(rgba[3], channels == 4 ? 0 : 255);
    WebPFree(rgba);
  }
}

// What libjpeg reads in a file: pixels, and the quantization table of each component.
struct Jpeg {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;
  std::vector<std::array<int, 64>> tables;
};

Jpeg ReadJpeg(const std::string& bytes) {
  jpeg_decompress_struct info{};
  jpeg_error_mgr error;
  info.err = jpeg_std_error(&error);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  Jpeg jpeg;
  for (int c = 0; c < info.num_components; ++c) {
    EXPECT_EQ(info.comp_info[c].h_samp_factor * info.comp_info[c].v_samp_factor, 1)
        << "colour at half resolution";
    const JQUANT_TBL* table = info.quant_tbl_ptrs[info.comp_info[c].quant_tbl_no];
    std::copy(table->quantval, table->quantval + 64, jpeg.tables.emplace_back().begin());
  }
  jpeg_start_decompress(&info);
  jpeg.width = info.output_width;
  jpeg.height = info.output_height;
  jpeg.channels = info.output_components;
  const size_t stride = static_cast<size_t>(jpeg.width * jpeg.channels);
  jpeg.pixels.resize(stride * static_cast<size_t>(jpeg.height));
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = jpeg.pixels.data() + info.output_scanline * stride;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return jpeg;
}

// Root of the mean square of the largest error that a quantization table lets into a coefficient; the
// transform is orthonormal, so it is that of a pixel too. 1 is for the roundings to whole numbers on the way
// there and back.
double TableError(const std::array<int, 64>& table) {
  double sum = 0;
  for (const int q : table) sum += q * q / 4.0;
  return std::sqrt(sum / 64) + 1;
}

TEST(EncodeImage, JpegHasQuality95AndIsAsCloseAsThat) {
  for (const int64_t channels : {1, 3, 4}) {
    const Picture p = Sample(64, 40, channels);
    const Jpeg jpeg = ReadJpeg(*EncodeImage(p, ImageFormat::kJpeg));
    ASSERT_EQ(jpeg.width, 64);
    ASSERT_EQ(jpeg.height, 40);
    ASSERT_EQ(jpeg.channels, channels == 1 ? 1 : 3);
    // Quality 95 is a tenth of the standard's tables, whose first and last entries are 16 and 99 for
    // luminance.
    EXPECT_EQ(jpeg.tables[0].front(), 2);
    EXPECT_EQ(jpeg.tables[0].back(), 10);
    double sum = 0;
    for (size_t i = 0; i < 64 * 40; ++i)
      for (size_t c = 0; c < static_cast<size_t>(jpeg.channels); ++c) {
        const int got = jpeg.pixels[i * static_cast<size_t>(jpeg.channels) + c];
        const int want = p.pixels[i * static_cast<size_t>(channels) + c];
        sum += (got - want) * (got - want);
      }
    // The columns of the matrix from YCbCr to RGB have lengths 1.732, 1.806 and 1.573.
    double bound = TableError(jpeg.tables[0]);
    if (jpeg.channels == 3)
      bound = 1.732 * bound + 1.806 * TableError(jpeg.tables[1]) + 1.573 * TableError(jpeg.tables[2]);
    EXPECT_LT(std::sqrt(sum / (64 * 40)), bound) << channels;
    EXPECT_GT(sum, 0);
  }
}

TEST(EncodeImage, TooLargeAPictureIsRefused) {
  const auto wide = [](int64_t width) { return Sample(width, 1, 1); };
  EXPECT_TRUE(EncodeImage(wide(16384), ImageFormat::kPng).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeImage(wide(16385), ImageFormat::kPng).status()));
  EXPECT_TRUE(EncodeImage(wide(16383), ImageFormat::kWebp).ok());
  const Status status = EncodeImage(wide(16384), ImageFormat::kWebp).status();
  EXPECT_EQ(Message(status), "webp: picture is too large, got 16384 x 1, want at most 16383 x 16383");
}

TEST(EncodeImageDeathTest, BrokenPromisesStopTheProgram) {
  EXPECT_DEATH(
      (void)EncodeImage(Picture{.width = 2, .height = 2, .channels = 2, .pixels = std::vector<uint8_t>(8)},
                        ImageFormat::kPng),
      "channels: 2");
  EXPECT_DEATH(
      (void)EncodeImage(Picture{.width = 2, .height = 2, .channels = 3, .pixels = std::vector<uint8_t>(11)},
                        ImageFormat::kPng),
      "pixels do not fit");
}

}  // namespace
}  // namespace tempera
