#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <webp/decode.h>
#include <webp/encode.h>
#include <zlib.h>

#include <cstdio>
// libjpeg's header wants the one above.
#include <jpeglib.h>

#include "sample.h"

namespace tempera {
namespace {

using ::testing::HasSubstr;

std::string BigEndian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string Chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const auto crc = static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size())));
  return BigEndian(static_cast<uint32_t>(data.size())) + body + BigEndian(crc);
}

std::string Header(uint32_t width, uint32_t height, char depth, char color, char interlace = 0) {
  return Chunk("IHDR", BigEndian(width) + BigEndian(height) + std::string{depth, color, 0, 0, interlace});
}

std::string Zipped(const std::string& raw) {
  uLongf size = compressBound(raw.size());
  std::string out(size, '\0');
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(raw.data()),
                     raw.size()),
            Z_OK);
  out.resize(size);
  return out;
}

// A PNG written by hand, apart from libpng's writer.
std::string Png(const std::string& header, const std::string& raw, const std::string& chunks = "") {
  return kPngSignature + header + chunks + Chunk("IDAT", Zipped(raw)) + Chunk("IEND", "");
}

TEST(DecodePng, ReadsEveryKindOfPixelAndDropsAlpha) {
  struct Case {
    std::string name, png;
    int64_t channels;
    std::vector<uint8_t> pixels;
  };
  const std::string palette = Chunk("PLTE", std::string("\x0a\x14\x1e\xff\x00\x80", 6));
  for (const Case& c : {
           // Two pixels each; a row begins with its filter byte.
           Case{"gray 1", Png(Header(2, 1, 1, 0), std::string("\0\x40", 2)), 1, {0, 255}},
           Case{"gray 4", Png(Header(2, 1, 4, 0), std::string("\0\x1f", 2)), 1, {17, 255}},
           Case{"gray alpha", Png(Header(2, 1, 8, 4), std::string("\0\x10\x20\x30\x40", 5)), 1, {16, 48}},
           Case{"RGBA",
                Png(Header(2, 1, 8, 6), std::string("\0\1\2\3\0\4\5\6\xff", 9)),
                3,
                {1, 2, 3, 4, 5, 6}},
           Case{"palette",
                Png(Header(2, 1, 8, 3), std::string("\0\1\0", 3), palette),
                3,
                {255, 0, 128, 10, 20, 30}},
           Case{"palette with transparency",
                Png(Header(2, 1, 8, 3), std::string("\0\1\0", 3), palette + Chunk("tRNS", "\x07")),
                3,
                {255, 0, 128, 10, 20, 30}},
           Case{"gray with a transparent value",
                Png(Header(2, 1, 8, 0), std::string("\0\x05\x06", 3), Chunk("tRNS", std::string("\0\5", 2))),
                1,
                {5, 6}},
           Case{"gamma is not applied",
                Png(Header(2, 1, 8, 0), std::string("\0\x05\x86", 3), Chunk("gAMA", BigEndian(100'000))),
                1,
                {5, 0x86}},
           // Adam7: the first pixel comes in pass 1, the second in pass 6.
           Case{"interlaced", Png(Header(2, 1, 8, 0, 1), std::string("\0\x05\0\x86", 4)), 1, {5, 0x86}},
       }) {
    const Result<Picture> p = DecodeImage(c.png);
    ASSERT_TRUE(p.ok()) << c.name << ": " << p.status();
    EXPECT_EQ(p->channels, c.channels) << c.name;
    EXPECT_EQ(p->pixels, c.pixels) << c.name;
  }
}

TEST(DecodePng, SixteenBitsAndAnimationsAreRefused) {
  EXPECT_EQ(Message(DecodeImage(Png(Header(1, 1, 16, 0), std::string(3, '\0'))).status()),
            "png: got 16 bits a channel, want at most 8");
  const std::string frames = Chunk("acTL", BigEndian(2) + BigEndian(0));
  EXPECT_EQ(Message(DecodeImage(Png(Header(1, 1, 8, 0), std::string(2, '\0'), frames)).status()),
            "png: is animated, want a single picture");
}

TEST(DecodePng, SidesBeyondTheLimitAreRefused) {
  for (const auto& [width, height] : {std::pair<uint32_t, uint32_t>{16385, 1},
                                      {1, 16385},
                                      {0, 1},
                                      {1, 0},
                                      {0x7fffffff, 0x7fffffff},
                                      {100'000, 1},
                                      {2049, 2048},
                                      {0xffffffff, 1}}) {
    const Status status = DecodeImage(Png(Header(width, height, 8, 0), std::string(2, '\0'))).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << width << " " << height << ": " << status;
  }
}

TEST(DecodePng, AShortFileThatPromisesMuchIsRefusedBeforeItsPixelsAreMade) {
  EXPECT_EQ(Message(DecodeImage(Png(Header(100'000, 5, 8, 2), "")).status()),
            "png: picture is of a wrong size, got 100000 x 5, want sides of 1 to 16384");
  EXPECT_EQ(Message(DecodeImage(Png(Header(16384, 16384, 8, 6), "")).status()),
            "png: picture is too large, got 16384 x 16384 pixels, want at most 4194304 in all");
  const Status status = DecodeImage(Png(Header(2048, 2048, 1, 0), std::string(100, '\0'))).status();
  EXPECT_THAT(Message(status), HasSubstr("too few for 2048 x 2048 pixels"));
}

TEST(DecodePng, AChunkThatClaimsMoreThanTheFileIsRefusedBeforeItIsRead) {
  const std::string png = std::string(kPngSignature) + Header(4, 4, 8, 0) + BigEndian(0x56000003) + "tEXtk" +
                          std::string(40, 'v');
  const Status status = DecodeImage(png).status();
  EXPECT_EQ(Message(status),
            "png: chunk at byte 33 is longer than the file, got 1442840579 bytes, want at most 37");
}

TEST(DecodePng, EveryTruncationIsRefused) {
  const std::string png = *EncodeImage(Sample(20, 20, 3), ImageFormat::kPng, {{"k", "v"}});
  for (size_t n = 0; n < png.size(); ++n) {
    const std::string cut = png.substr(0, n);
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeImage(cut).status())) << n;
  }
}

TEST(DecodePng, AFlippedBitIsRefusedOrLeavesThePixels) {
  const Picture p = Sample(20, 20, 3);
  const std::string png = *EncodeImage(p, ImageFormat::kPng, {{"k", "v"}});
  int refused = 0;
  for (size_t bit = 0; bit < 8 * png.size(); ++bit) {
    std::string bad = png;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    const Result<Picture> back = DecodeImage(bad);
    if (!back.ok()) {
      ++refused;
      continue;
    }
    ASSERT_EQ(back->pixels, p.pixels) << bit;  // damage to the text chunk alone
  }
  EXPECT_GT(refused, 0);
}

TEST(DecodePng, RandomDamageToItsChunksNeverCrashes) {
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    // Sound checksums, so that the damage reaches the decoder.
    std::string raw(static_cast<size_t>(random() % 200), '\0');
    for (char& c : raw) c = static_cast<char>(random() % 7);
    std::string zipped = Zipped(raw);
    if (random() % 2 == 0 && !zipped.empty())
      zipped[random() % zipped.size()] ^= static_cast<char>(1 << (random() % 8));
    const char depths[] = {1, 2, 4, 8, 16, 3}, colors[] = {0, 2, 3, 4, 6, 1};
    const std::string png = kPngSignature +
                            Header(random() % 12, random() % 12, depths[random() % 6], colors[random() % 6],
                                   static_cast<char>(random() % 3)) +
                            (random() % 2 == 0 ? Chunk("PLTE", std::string(random() % 10, 'p')) : "") +
                            (random() % 2 == 0 ? Chunk("tRNS", std::string(random() % 8, 't')) : "") +
                            Chunk("IDAT", zipped) + Chunk("IEND", "");
    const Result<Picture> p = DecodeImage(png);
    if (p.ok()) {
      ASSERT_EQ(p->pixels.size(), static_cast<size_t>(p->width * p->height * p->channels));
    }
  }
}

struct JpegOptions {
  J_COLOR_SPACE stored = JCS_YCbCr;
  bool progressive = false;
  std::string exif;  // an APP1 segment
};

// Written by libjpeg apart from the codec. CMYK is given four channels.
std::string Jpeg(const Picture& p, const JpegOptions& options = {}) {
  jpeg_compress_struct info{};
  jpeg_error_mgr error;
  info.err = jpeg_std_error(&error);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = static_cast<JDIMENSION>(p.width);
  info.image_height = static_cast<JDIMENSION>(p.height);
  info.input_components = static_cast<int>(p.channels);
  info.in_color_space = p.channels == 1 ? JCS_GRAYSCALE : p.channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, p.channels == 1 ? JCS_GRAYSCALE : options.stored);
  jpeg_set_quality(&info, 100, TRUE);
  if (options.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  if (!options.exif.empty())
    jpeg_write_marker(&info, JPEG_APP0 + 1, reinterpret_cast<const JOCTET*>(options.exif.data()),
                      static_cast<unsigned>(options.exif.size()));
  for (size_t y = 0; y < static_cast<size_t>(p.height); ++y) {
    JSAMPROW row = const_cast<JSAMPROW>(p.pixels.data()) + y * static_cast<size_t>(p.width * p.channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  std::free(data);
  return bytes;
}

// Width and height of the frame header overwritten.
std::string WithSize(std::string jpeg, uint32_t width, uint32_t height) {
  const size_t at = jpeg.find("\xff\xc0");
  EXPECT_NE(at, jpeg.npos);
  jpeg.replace(at + 5, 4, BigEndian(height << 16 | width));
  return jpeg;
}

std::string LittleEndian(uint32_t value, size_t count = 4) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string WebpChunk(const std::string& type, const std::string& data) {
  return type + LittleEndian(static_cast<uint32_t>(data.size())) + data + std::string(data.size() % 2, '\0');
}

std::string Riff(const std::string& chunks) {
  return "RIFF" + LittleEndian(static_cast<uint32_t>(chunks.size() + 4)) + "WEBP" + chunks;
}

std::string Vp8x(char flags, uint32_t width, uint32_t height) {
  return WebpChunk("VP8X",
                   std::string{flags, 0, 0, 0} + LittleEndian(width - 1, 3) + LittleEndian(height - 1, 3));
}

std::string LossyWebp(const Picture& p) {
  uint8_t* data = nullptr;
  const size_t size = WebPEncodeRGB(p.pixels.data(), static_cast<int>(p.width), static_cast<int>(p.height),
                                    static_cast<int>(3 * p.width), 90, &data);
  std::string bytes(reinterpret_cast<const char*>(data), size);
  WebPFree(data);
  return bytes;
}

// One entry: orientation.
std::string ExifBlock(char orientation, bool little) {
  if (little)
    return std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) + orientation +
           std::string(7, '\0');
  return std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", 19) + orientation +
         std::string(6, '\0');
}

TEST(DecodeImage, NamesTheKindThatItDoesNotTake) {
  const std::string rest(20, '\0');
  for (const auto& [bytes, name] : std::vector<std::pair<std::string, std::string>>{
           {"GIF89a" + rest, "GIF"},
           {"BM" + rest, "BMP"},
           {std::string("II*\0", 4) + rest, "TIFF"},
           {std::string("MM\0*", 4) + rest, "TIFF"},
           {std::string("\0\0\0\x1c"
                        "ftypavif",
                        12) +
                rest,
            "AVIF"},
           {std::string("\0\0\0\x1c"
                        "ftypheic",
                        12) +
                rest,
            "HEIC"},
           {std::string("\0\0\0\x0cJXL \r\n", 10) + rest, "JPEG XL"}})
    EXPECT_EQ(Message(DecodeImage(bytes).status()), "format: got " + name + ", want PNG, JPEG or WebP");
  EXPECT_EQ(Message(DecodeImage("<html>").status()),
            "format: is unknown, got 6 bytes that begin with 3c 68 74 6d 6c 3e, want PNG, JPEG or WebP");
  EXPECT_EQ(Message(DecodeImage("").status()), "format: is unknown, got 0 bytes, want PNG, JPEG or WebP");
  EXPECT_TRUE(absl::IsInvalidArgument(DecodeImage("\x89PNG").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(DecodeImage(kPngSignature).status()));
}

TEST(DecodeImage, ReadsJpegOfEachColourAsItsEncoderMeantIt) {
  for (const bool progressive : {false, true}) {
    for (const int64_t channels : {1, 3}) {
      for (const J_COLOR_SPACE stored : {JCS_YCbCr, JCS_RGB}) {
        Picture p{.width = 40, .height = 24, .channels = channels, .pixels = {}};
        for (int64_t y = 0; y < p.height; ++y)
          for (int64_t x = 0; x < p.width; ++x)
            for (int64_t c = 0; c < channels; ++c)
              p.pixels.push_back(static_cast<uint8_t>(2 * x + 3 * y + 40 * c));
        const Result<Picture> back =
            DecodeImage(Jpeg(p, {.stored = stored, .progressive = progressive, .exif = ""}));
        ASSERT_TRUE(back.ok()) << back.status();
        EXPECT_EQ(back->width, 40);
        EXPECT_EQ(back->height, 24);
        ASSERT_EQ(back->channels, channels);
        for (size_t i = 0; i < p.pixels.size(); ++i)
          // Quality 100: each of 64 coefficients errs by 1/2 at most, a pixel by 8 * 1/2. The colours keep
          // their distance, so what lies beside the luminance is flat and its half resolution takes nothing
          // away.
          ASSERT_LE(std::abs(int{back->pixels[i]} - int{p.pixels[i]}), 4) << i;
      }
    }
  }
}

TEST(DecodeImage, JpegOfOtherColourOrSizeIsRefused) {
  for (const J_COLOR_SPACE stored : {JCS_CMYK, JCS_YCCK})
    EXPECT_EQ(Message(DecodeImage(Jpeg(Sample(8, 8, 4), {.stored = stored, .progressive = false, .exif = ""}))
                          .status()),
              "jpeg: colour is CMYK, want gray or RGB");
  const std::string jpeg = Jpeg(Sample(8, 8, 3));
  EXPECT_EQ(Message(DecodeImage(WithSize(jpeg, 65000, 8)).status()),
            "jpeg: picture is of a wrong size, got 65000 x 8, want sides of 1 to 16384");
  EXPECT_EQ(Message(DecodeImage(WithSize(jpeg, 65535, 8)).status()),
            "jpeg: picture is of a wrong size, got a side above 65500, want sides of 1 to 16384");
  EXPECT_EQ(Message(DecodeImage(WithSize(jpeg, 0, 8)).status()),
            "jpeg: picture is of a wrong size, got a side of 0, want sides of 1 to 16384");
  EXPECT_EQ(Message(DecodeImage(WithSize(jpeg, 16384, 16384)).status()),
            "jpeg: picture is too large, got 16384 x 16384 pixels, want at most 4194304 in all");
}

TEST(DecodeImage, AProgressiveJpegOfManyScansIsRefused) {
  std::string jpeg = Jpeg(Sample(16, 16, 1), {.stored = JCS_GRAYSCALE, .progressive = true, .exif = ""});
  // The last scan refines; said again and again, it costs a pass over the picture each time.
  const size_t scan = jpeg.rfind("\xff\xda");
  const std::string last = jpeg.substr(scan, jpeg.size() - 2 - scan);
  std::string many = jpeg.substr(0, scan);
  for (int i = 0; i < 200; ++i) many += last;
  EXPECT_THAT(Message(DecodeImage(many + "\xff\xd9").status()), HasSubstr("jpeg: is damaged: "));
}

TEST(DecodeImage, ReadsWebpAndDropsAlpha) {
  for (const int64_t channels : {1, 3, 4}) {
    const Picture p = Sample(33, 21, channels);
    const Result<Picture> back = DecodeImage(*EncodeImage(p, ImageFormat::kWebp));
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->width, 33);
    EXPECT_EQ(back->height, 21);
    ASSERT_EQ(back->channels, 3);
    for (size_t i = 0; i < 33 * 21; ++i)
      for (size_t c = 0; c < 3; ++c)
        ASSERT_EQ(back->pixels[3 * i + c],
                  p.pixels[static_cast<size_t>(channels) * i + (channels == 1 ? 0 : c)]);
  }
  const std::string lossy = LossyWebp(Sample(33, 21, 3));
  int width = 0, height = 0;
  uint8_t* want =
      WebPDecodeRGB(reinterpret_cast<const uint8_t*>(lossy.data()), lossy.size(), &width, &height);
  ASSERT_NE(want, nullptr);
  EXPECT_EQ(DecodeImage(lossy)->pixels, std::vector<uint8_t>(want, want + 3 * 33 * 21));
  WebPFree(want);
}

TEST(DecodeImage, WebpThatIsAnimatedOrTooLargeIsRefused) {
  constexpr char kAnimation = 2;
  const std::string anim = WebpChunk("ANIM", std::string(6, '\0'));
  EXPECT_EQ(Message(DecodeImage(Riff(Vp8x(kAnimation, 8, 8) + anim)).status()),
            "webp: is animated, want a single picture");
  EXPECT_EQ(Message(DecodeImage(Riff(Vp8x(0, 100'000, 8))).status()),
            "webp: picture is of a wrong size, got 100000 x 8, want sides of 1 to 16384");
  // 0x2f, then 14 bits of width less 1, 14 of height less 1: 16383 x 16383 in a few bytes.
  const std::string vp8l = "\x2f" + LittleEndian(16382 | 16382 << 14) + std::string(30, '\0');
  EXPECT_EQ(Message(DecodeImage(Riff(WebpChunk("VP8L", vp8l))).status()),
            "webp: picture is too large, got 16383 x 16383 pixels, want at most 4194304 in all");
}

TEST(DecodeImage, WebpChunksLieInTheFile) {
  const std::string webp = *EncodeImage(Sample(8, 8, 3), ImageFormat::kWebp);
  EXPECT_EQ(Message(DecodeImage(webp.substr(0, webp.size() - 9)).status()),
            Cat("webp: file ends early, got ", webp.size() - 9, " bytes, want ", webp.size()));
  const Status status = DecodeImage(Riff("VP8L" + LittleEndian(0xfffffff0) + "abcd")).status();
  EXPECT_EQ(Message(status),
            "webp: chunk at byte 12 is longer than the file, got 4294967280 bytes, want at most 4");
}

// Two pixels wide and three high. As Exif 2.32 has it, the value says where the stored first row and first
// column lie in the upright picture: 6 = right side, top.
TEST(DecodeImage, TurnsThePictureAsItsExifSays) {
  const std::vector<std::vector<uint8_t>> want{{1, 2, 3, 4, 5, 6}, {2, 1, 4, 3, 6, 5}, {6, 5, 4, 3, 2, 1},
                                               {5, 6, 3, 4, 1, 2}, {1, 3, 5, 2, 4, 6}, {5, 3, 1, 6, 4, 2},
                                               {6, 4, 2, 5, 3, 1}, {2, 4, 6, 1, 3, 5}};
  const std::string raw("\0\1\2\0\3\4\0\5\6", 9);
  for (char o = 1; o <= 8; ++o)
    for (const bool little : {false, true}) {
      const Result<Picture> p =
          DecodeImage(Png(Header(2, 3, 8, 0), raw, Chunk("eXIf", ExifBlock(o, little))));
      ASSERT_TRUE(p.ok()) << p.status();
      EXPECT_EQ(p->width, o >= 5 ? 3 : 2);
      EXPECT_EQ(p->height, o >= 5 ? 2 : 3);
      EXPECT_EQ(p->pixels, want[static_cast<size_t>(o) - 1]) << int{o} << little;
    }
}

TEST(DecodeImage, TurnsJpegAndWebpToo) {
  const Picture p = Sample(20, 12, 3);
  const std::string exif = std::string("Exif\0\0", 6) + ExifBlock(6, false);
  const Picture upright = *DecodeImage(Jpeg(p));
  const Result<Picture> jpeg =
      DecodeImage(Jpeg(p, {.stored = JCS_YCbCr, .progressive = false, .exif = exif}));
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  const std::string vp8l = EncodeImage(p, ImageFormat::kWebp)->substr(12);
  constexpr char kExif = 8;
  const Result<Picture> webp =
      DecodeImage(Riff(Vp8x(kExif, 20, 12) + vp8l + WebpChunk("EXIF", ExifBlock(6, true))));
  ASSERT_TRUE(webp.ok()) << webp.status();
  for (const auto& [turned, from] : {std::pair(*jpeg, upright), std::pair(*webp, p)}) {
    ASSERT_EQ(turned.width, 12);
    ASSERT_EQ(turned.height, 20);
    for (size_t y = 0; y < 12; ++y)
      for (size_t x = 0; x < 20; ++x)  // a quarter turn clockwise: row y becomes the column 11 - y
        for (size_t c = 0; c < 3; ++c)
          ASSERT_EQ(turned.pixels[3 * (x * 12 + 11 - y) + c], from.pixels[3 * (y * 20 + x) + c]);
  }
}

TEST(DecodeImage, BrokenExifLeavesThePictureUpright) {
  const std::string raw("\0\1\2\0\3\4\0\5\6", 9);
  for (std::string exif :
       {std::string(), std::string("II"), std::string("XX*\0", 4), ExifBlock(0, true), ExifBlock(9, false),
        ExifBlock(6, true).substr(0, 20), std::string("II*\0\xff\xff\xff\xff", 8),
        std::string("II*\0\x08\0\0\0\xff\xff", 10)}) {
    const Result<Picture> p = DecodeImage(Png(Header(2, 3, 8, 0), raw, Chunk("eXIf", exif)));
    ASSERT_TRUE(p.ok()) << p.status();
    EXPECT_EQ(p->pixels, (std::vector<uint8_t>{1, 2, 3, 4, 5, 6}));
  }
}

struct Kind {
  const char* name;
  std::string bytes;
};

std::vector<Kind> Kinds() {
  const Picture p = Sample(24, 18, 3);
  const std::string exif = std::string("Exif\0\0", 6) + ExifBlock(6, false);
  return {{"png", *EncodeImage(p, ImageFormat::kPng, {{"k", "v"}})},
          {"jpeg", Jpeg(p, {.stored = JCS_YCbCr, .progressive = false, .exif = exif})},
          {"progressive jpeg", Jpeg(p, {.stored = JCS_YCbCr, .progressive = true, .exif = exif})},
          {"lossless webp", *EncodeImage(p, ImageFormat::kWebp)},
          {"lossy webp", LossyWebp(p)},
          {"extended webp",
           Riff(Vp8x(8, 24, 18) + LossyWebp(p).substr(12) + WebpChunk("EXIF", ExifBlock(3, true)))}};
}

TEST(DecodeImage, EveryTruncationOfEachKindIsRefused) {
  for (const Kind& kind : Kinds()) {
    ASSERT_TRUE(DecodeImage(kind.bytes).ok()) << kind.name << ": " << DecodeImage(kind.bytes).status();
    for (size_t n = 0; n < kind.bytes.size(); ++n) {
      const std::string cut = kind.bytes.substr(0, n);
      EXPECT_TRUE(absl::IsInvalidArgument(DecodeImage(cut).status())) << kind.name << " " << n;
    }
  }
}

TEST(DecodeImage, RandomDamageNeverCrashes) {
  std::mt19937 random(11);
  for (const Kind& kind : Kinds()) {
    int refused = 0;
    for (int i = 0; i < 3000; ++i) {
      std::string bad = kind.bytes;
      for (size_t edits = 1 + random() % 4; edits > 0 && !bad.empty(); --edits) {
        const size_t at = random() % bad.size();
        switch (random() % 5) {
          case 0:
            bad[at] = static_cast<char>(random());
            break;
          case 1:
            bad[at] = static_cast<char>(bad[at] ^ (1 << (random() % 8)));
            break;
          case 2:
            bad[at] = random() % 2 == 0 ? '\0' : '\xff';
            break;
          case 3:
            bad.insert(at, bad.substr(random() % bad.size(), random() % 16));
            break;
          default:
            bad.erase(at, 1 + random() % 8);
        }
      }
      const Result<Picture> p = DecodeImage(bad);
      if (p.ok()) {
        ASSERT_LE(p->width * p->height, kMaxPixels);
        ASSERT_EQ(p->pixels.size(), static_cast<size_t>(p->width * p->height * p->channels));
      } else {
        ++refused;
        ASSERT_TRUE(absl::IsInvalidArgument(p.status())) << kind.name << ": " << p.status();
      }
    }
    EXPECT_GT(refused, 0) << kind.name;
  }
}

}  // namespace
}  // namespace tempera
