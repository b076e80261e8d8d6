#include "pipeline/image_codec.h"

#include <webp/encode.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "pipeline/image_errors.h"

namespace tempera {
namespace {

struct FormatRow {
  ImageFormat format;
  std::string_view word;
  std::string_view mime;
  int64_t max_side;
};
constexpr std::array<FormatRow, 3> kFormats{{{ImageFormat::kPng, "png", "image/png", kMaxSide},
                                             {ImageFormat::kWebp, "webp", "image/webp", WEBP_MAX_DIMENSION},
                                             {ImageFormat::kJpeg, "jpeg", "image/jpeg", kMaxSide}}};

const FormatRow& Row(ImageFormat format) {
  return *std::find_if(kFormats.begin(), kFormats.end(),
                       [&](const FormatRow& r) { return r.format == format; });
}

struct PngWriter {
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
};

// The text of a tEXt chunk is Latin-1 and that of iTXt is UTF-8: ASCII goes into the first, all else into the
// second.
Status CheckPngText(const std::map<std::string, std::string>& text) {
  for (const auto& [key, value] : text) {
    const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
    if (key.empty() || key.size() > 79 || !printable || key.front() == ' ' || key.back() == ' ' ||
        key.find("  ") != key.npos)
      return InvalidArgument(
          "png text: key of ", key.size(),
          " bytes is wrong, want 1 to 79 printable ASCII characters with single spaces between words");
    if (value.find('\0') != value.npos) return InvalidArgument("png text: \"", key, "\" holds a NUL byte");
  }
  return OkStatus();
}

// REQUIRES: capacity of `out` for the whole file; the callback must not allocate.
void PngAppend(png_structp png, png_bytep data, size_t size) {
  auto* out = static_cast<std::string*>(png_get_io_ptr(png));
  if (out->capacity() - out->size() < size) png_error(png, "file is larger than expected");
  out->append(reinterpret_cast<const char*>(data), size);
}

void PngFlush(png_structp) {}

bool WritePng(PngWriter& w, const Picture& p, png_bytepp rows, png_textp text, int texts, std::string* out) {
  if (setjmp(png_jmpbuf(w.png)) != 0) return false;
  png_set_write_fn(w.png, out, &PngAppend, &PngFlush);
  const int color = p.channels == 1   ? PNG_COLOR_TYPE_GRAY
                    : p.channels == 3 ? PNG_COLOR_TYPE_RGB
                                      : PNG_COLOR_TYPE_RGB_ALPHA;
  png_set_IHDR(w.png, w.info, static_cast<png_uint_32>(p.width), static_cast<png_uint_32>(p.height), 8, color,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  // All that decides the bytes is fixed here.
  png_set_compression_level(w.png, 6);
  png_set_compression_mem_level(w.png, 8);
  png_set_compression_strategy(w.png, 0);
  png_set_compression_window_bits(w.png, 15);
  png_set_compression_buffer_size(w.png, 8192);
  png_set_filter(w.png, PNG_FILTER_TYPE_BASE, PNG_FILTER_PAETH);
  if (texts > 0) png_set_text(w.png, w.info, text, texts);
  png_write_info(w.png, w.info);
  png_write_image(w.png, rows);
  png_write_end(w.png, w.info);
  return true;
}

Result<std::string> EncodePng(const Picture& p, const std::map<std::string, std::string>& text) {
  TEMPERA_TRY(CheckPngText(text));
  image::PngError failure;
  PngWriter writer;
  writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &failure, &image::PngFail, &image::PngWarn);
  if (writer.png != nullptr) writer.info = png_create_info_struct(writer.png);
  if (writer.info == nullptr) return ResourceExhausted("png: out of memory");

  const size_t stride = static_cast<size_t>(p.width * p.channels);
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < p.height; ++y)
    rows.push_back(const_cast<png_bytep>(p.pixels.data()) + static_cast<size_t>(y) * stride);
  std::vector<png_text> chunks;
  size_t text_bytes = 0;
  for (const auto& [key, value] : text) {
    const bool ascii =
        std::all_of(value.begin(), value.end(), [](char c) { return static_cast<signed char>(c) >= 0; });
    png_text chunk{};
    chunk.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<png_charp>(key.c_str());
    chunk.text = const_cast<png_charp>(value.c_str());
    (ascii ? chunk.text_length : chunk.itxt_length) = value.size();
    chunks.push_back(chunk);
    text_bytes += key.size() + value.size() + 64;
  }
  // Deflate grows its input by less than 1/1000, a chunk by 12 bytes per 8192; 4096 covers headers.
  const size_t raw = (stride + 1) * rows.size();
  std::string out;
  out.reserve(raw + raw / 256 + text_bytes + 4096);
  if (!WritePng(writer, p, rows.data(), chunks.data(), static_cast<int>(chunks.size()), &out))
    return Internal("png: cannot encode: ", failure.text);
  return out;
}

struct JpegOut {
  unsigned char* data = nullptr;
  unsigned long size = 0;
  ~JpegOut() { std::free(data); }
};

bool WriteJpeg(jpeg_compress_struct& info, image::JpegError& error, const Picture& p, JpegOut& out) {
  if (setjmp(error.jump) != 0) return false;
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, &out.data, &out.size);
  info.image_width = static_cast<JDIMENSION>(p.width);
  info.image_height = static_cast<JDIMENSION>(p.height);
  info.input_components = static_cast<int>(p.channels);
  info.in_color_space = p.channels == 1 ? JCS_GRAYSCALE : p.channels == 3 ? JCS_RGB : JCS_EXT_RGBX;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  info.dct_method = JDCT_ISLOW;
  for (int c = 0; c < info.num_components; ++c)
    info.comp_info[c].h_samp_factor = info.comp_info[c].v_samp_factor = 1;
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(p.pixels.data()) +
                   static_cast<size_t>(info.next_scanline) * static_cast<size_t>(p.width * p.channels);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  return true;
}

Result<std::string> EncodeJpeg(const Picture& p) {
  jpeg_compress_struct info{};
  image::JpegError error{};
  JpegOut out;
  info.err = jpeg_std_error(&error.base);
  error.base.error_exit = &image::JpegFail;
  error.base.output_message = &image::JpegQuiet;
  const bool ok = WriteJpeg(info, error, p, out);
  jpeg_destroy_compress(&info);
  if (!ok) {
    out.data = nullptr;  // libjpeg tells of a grown buffer only at its end: this one may be freed already
    return Internal("jpeg: cannot encode: ", error.text);
  }
  return std::string(reinterpret_cast<const char*>(out.data), out.size);
}

struct WebpJob {
  WebPPicture picture;
  WebPMemoryWriter writer;
  ~WebpJob() {
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&writer);
  }
};

Result<std::string> EncodeWebp(const Picture& p) {
  WebPConfig config;
  WebpJob job;
  WebPMemoryWriterInit(&job.writer);
  TEMPERA_CHECK(WebPPictureInit(&job.picture) && WebPConfigInit(&config), "webp version");
  TEMPERA_CHECK(WebPConfigLosslessPreset(&config, 6), "webp preset");
  config.exact = 1;  // the colour below full transparency too
  config.thread_level = 0;
  job.picture.use_argb = 1;
  job.picture.width = static_cast<int>(p.width);
  job.picture.height = static_cast<int>(p.height);
  job.picture.writer = &WebPMemoryWrite;
  job.picture.custom_ptr = &job.writer;
  const int stride = static_cast<int>(p.width * p.channels);
  bool ok = false;
  if (p.channels == 4) {
    ok = WebPPictureImportRGBA(&job.picture, p.pixels.data(), stride);
  } else if (p.channels == 3) {
    ok = WebPPictureImportRGB(&job.picture, p.pixels.data(), stride);
  } else {
    std::vector<uint8_t> rgb;
    rgb.reserve(3 * p.pixels.size());
    for (const uint8_t v : p.pixels) rgb.insert(rgb.end(), 3, v);
    ok = WebPPictureImportRGB(&job.picture, rgb.data(), 3 * stride);
  }
  if (!ok) return ResourceExhausted("webp: out of memory");
  if (!WebPEncode(&config, &job.picture))
    return Internal("webp: cannot encode: error ", static_cast<int>(job.picture.error_code));
  return std::string(reinterpret_cast<const char*>(job.writer.mem), job.writer.size);
}

}  // namespace

Result<ImageFormat> ParseImageFormat(std::string_view word) {
  for (const FormatRow& row : kFormats)
    if (row.word == word) return row.format;
  return InvalidArgument("image format: got \"", word.substr(0, 100), "\", want png, webp or jpeg");
}

std::string_view MimeType(ImageFormat format) { return Row(format).mime; }

Result<std::string> EncodeImage(const Picture& p, ImageFormat format,
                                const std::map<std::string, std::string>& text) {
  TEMPERA_CHECK(p.channels == 1 || p.channels == 3 || p.channels == 4, Cat("channels: ", p.channels));
  TEMPERA_CHECK(p.width >= 1 && p.height >= 1, Cat("picture of ", p.width, " x ", p.height));
  const FormatRow& row = Row(format);
  if (p.width > row.max_side || p.height > row.max_side)
    return InvalidArgument(row.word, ": picture is too large, got ", p.width, " x ", p.height,
                           ", want at most ", row.max_side, " x ", row.max_side);
  TEMPERA_CHECK(p.pixels.size() == static_cast<size_t>(p.width * p.height * p.channels),
                "pixels do not fit the size");
  switch (format) {
    case ImageFormat::kPng:
      return EncodePng(p, text);
    case ImageFormat::kWebp:
      return EncodeWebp(p);
    case ImageFormat::kJpeg:
      return EncodeJpeg(p);
  }
  TEMPERA_CHECK(false, "image format");
}

}  // namespace tempera
