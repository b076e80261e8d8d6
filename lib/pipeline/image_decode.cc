// Pictures from outside: every size is checked before memory is taken for it.
#include <webp/decode.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "pipeline/image_codec.h"
#include "pipeline/image_errors.h"
// After jpeglib.h, which it needs.
#include <jerror.h>

namespace tempera {
namespace {

const uint8_t* Bytes(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// REQUIRES: at + count <= text.size(), count <= 4.
uint32_t BigEndian(std::string_view text, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value = value << 8 | static_cast<uint8_t>(text[at + i]);
  return value;
}

uint32_t LittleEndian(std::string_view text, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = count; i-- > 0;) value = value << 8 | static_cast<uint8_t>(text[at + i]);
  return value;
}

Status CheckSize(std::string_view format, int64_t width, int64_t height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide)
    return InvalidArgument(format, ": picture is of a wrong size, got ", width, " x ", height,
                           ", want sides of 1 to ", kMaxSide);
  if (width * height > kMaxPixels)
    return InvalidArgument(format, ": picture is too large, got ", width, " x ", height,
                           " pixels, want at most ", kMaxPixels, " in all");
  return OkStatus();
}

Status Damaged(std::string_view format, std::string_view text) {
  return InvalidArgument(format, ": is damaged: ", text);
}

// 1 to 8 from a TIFF block as Exif has it; 1, upright, where it says nothing or nonsense.
int Orientation(std::string_view exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  if (exif.starts_with(kPrefix)) exif.remove_prefix(kPrefix.size());
  const bool little = exif.starts_with("II");
  if (exif.size() < 8 || (!little && !exif.starts_with("MM"))) return 1;
  const auto number = [&](size_t at, size_t count) {
    return little ? LittleEndian(exif, at, count) : BigEndian(exif, at, count);
  };
  const size_t table = number(4, 4);
  if (number(2, 2) != 42 || table > exif.size() - 2) return 1;
  const size_t entries = number(table, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = table + 2 + 12 * i;
    if (at + 12 > exif.size()) return 1;
    constexpr uint32_t kTag = 0x0112, kShort = 3;
    if (number(at, 2) != kTag) continue;
    const uint32_t value = number(at + 8, 2);
    return number(at + 2, 2) == kShort && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

// As Exif 2.32, 4.6.4 defines the values: 5 to 8 swap the sides.
Picture Turned(Picture p, int orientation) {
  if (orientation == 1) return p;
  const bool swap = orientation >= 5;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool mirror_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Picture out{.width = swap ? p.height : p.width,
              .height = swap ? p.width : p.height,
              .channels = p.channels,
              .pixels = std::vector<uint8_t>(p.pixels.size())};
  uint8_t* to = out.pixels.data();
  for (int64_t y = 0; y < out.height; ++y)
    for (int64_t x = 0; x < out.width; ++x, to += p.channels) {
      int64_t from_x = swap ? y : x, from_y = swap ? x : y;
      if (mirror_x) from_x = p.width - 1 - from_x;
      if (mirror_y) from_y = p.height - 1 - from_y;
      std::copy_n(p.pixels.data() + (from_y * p.width + from_x) * p.channels, p.channels, to);
    }
  return out;
}

constexpr std::string_view kPngMagic = "\x89PNG\r\n\x1a\n";

struct PngFacts {
  uint64_t width = 0, height = 0;
  std::string_view exif;
};

// libpng takes the memory for a chunk before it reads it, whatever its limits: so each must lie in the file.
Result<PngFacts> CheckPngChunks(std::string_view png) {
  PngFacts facts;
  for (size_t at = kPngMagic.size(); at + 12 <= png.size();) {
    const uint64_t size = BigEndian(png, at, 4);
    const std::string_view type = png.substr(at + 4, 4);
    if (size > png.size() - at - 12)
      return InvalidArgument("png: chunk at byte ", at, " is longer than the file, got ", size,
                             " bytes, want at most ", png.size() - at - 12);
    const std::string_view data = png.substr(at + 8, size);
    if (at == kPngMagic.size()) {
      if (type != "IHDR" || size != 13) return Damaged("png", "it does not begin with a header");
      facts.width = BigEndian(data, 0, 4);
      facts.height = BigEndian(data, 4, 4);
      TEMPERA_TRY(CheckSize("png", static_cast<int64_t>(facts.width), static_cast<int64_t>(facts.height)));
      if (data[8] == 16) return InvalidArgument("png: got 16 bits a channel, want at most 8");
    }
    if (type == "acTL") return InvalidArgument("png: is animated, want a single picture");
    if (type == "eXIf") facts.exif = data;
    if (type == "IEND") return facts;
    at += 12 + size;
  }
  return InvalidArgument("png: file ends early");
}

// A source of bytes for libpng.
struct PngBytes {
  const char* at;
  size_t left;
};

void PngRead(png_structp png, png_bytep data, size_t size) {
  auto* bytes = static_cast<PngBytes*>(png_get_io_ptr(png));
  if (size > bytes->left) png_error(png, "file ends early");
  std::memcpy(data, bytes->at, size);
  bytes->at += size;
  bytes->left -= size;
}

struct PngReader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
};

bool ReadPngHeader(PngReader& r, PngBytes* bytes) {
  if (setjmp(png_jmpbuf(r.png)) != 0) return false;
  png_set_read_fn(r.png, bytes, &PngRead);
  png_set_chunk_malloc_max(r.png, 16 << 20);  // what a compressed text or profile may unpack to
  png_set_chunk_cache_max(r.png, 1000);
  png_read_info(r.png, r.info);
  png_set_expand(r.png);
  png_set_strip_alpha(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  return true;
}

bool ReadPngRows(PngReader& r, png_bytepp rows) {
  if (setjmp(png_jmpbuf(r.png)) != 0) return false;
  png_read_image(r.png, rows);
  png_read_end(r.png, nullptr);
  return true;
}

Result<Picture> DecodePng(std::string_view bytes) {
  TEMPERA_ASSIGN(const PngFacts facts, CheckPngChunks(bytes));
  image::PngError error;
  PngReader reader;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &error, &image::PngFail, &image::PngWarn);
  if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
  if (reader.info == nullptr) return ResourceExhausted("png: out of memory");
  PngBytes source{bytes.data(), bytes.size()};
  if (!ReadPngHeader(reader, &source)) return Damaged("png", error.text);

  Picture picture{.width = static_cast<int64_t>(facts.width),
                  .height = static_cast<int64_t>(facts.height),
                  .channels = png_get_channels(reader.png, reader.info),
                  .pixels = {}};
  const size_t stride = png_get_rowbytes(reader.png, reader.info);
  if (stride != facts.width * static_cast<uint64_t>(picture.channels))
    return InvalidArgument("png: got rows of ", stride, " bytes, want 8 bits a channel");
  // Deflate packs at most 1032 to 1, and the smallest pixel has one bit.
  if (facts.width * facts.height / 8 / 1032 > bytes.size())
    return InvalidArgument("png: got ", bytes.size(), " bytes, too few for ", facts.width, " x ",
                           facts.height, " pixels");
  picture.pixels.resize(stride * facts.height);
  std::vector<png_bytep> rows;
  for (uint64_t y = 0; y < facts.height; ++y) rows.push_back(picture.pixels.data() + y * stride);
  if (!ReadPngRows(reader, rows.data())) return Damaged("png", error.text);
  return Turned(std::move(picture), Orientation(facts.exif));
}

// libjpeg fills what it cannot decode with gray and warns: here that is an error. Other warnings are about
// marks that do not touch the picture.
void JpegWarn(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_ICC:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
      return;
    default:
      image::JpegFail(info);
  }
}

// A progressive file may ask for the whole picture to be gone over with each few bytes. Encoders write about
// ten scans.
constexpr int kMaxScans = 100;

void JpegProgress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
  auto* error = reinterpret_cast<image::JpegError*>(info->err);
  std::snprintf(error->text, sizeof(error->text), "more than %d scans", kMaxScans);
  std::longjmp(error->jump, 1);
}

struct JpegReader {
  jpeg_decompress_struct info{};
  image::JpegError error{};
  jpeg_progress_mgr progress{};
  ~JpegReader() { jpeg_destroy_decompress(&info); }
};

bool ReadJpegHeader(JpegReader& r, std::string_view bytes) {
  if (setjmp(r.error.jump) != 0) return false;
  jpeg_create_decompress(&r.info);
  jpeg_mem_src(&r.info, Bytes(bytes), bytes.size());
  jpeg_save_markers(&r.info, JPEG_APP0 + 1, 0xffff);
  jpeg_read_header(&r.info, TRUE);
  return true;
}

bool ReadJpegRows(JpegReader& r, const Picture& p, uint8_t* pixels) {
  if (setjmp(r.error.jump) != 0) return false;
  r.info.out_color_space = p.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  r.info.dct_method = JDCT_ISLOW;
  r.progress.progress_monitor = &JpegProgress;
  r.info.progress = &r.progress;
  jpeg_start_decompress(&r.info);
  while (r.info.output_scanline < r.info.output_height) {
    JSAMPROW row = pixels + static_cast<size_t>(r.info.output_scanline) * static_cast<size_t>(p.width) *
                                static_cast<size_t>(p.channels);
    jpeg_read_scanlines(&r.info, &row, 1);
  }
  jpeg_finish_decompress(&r.info);
  return true;
}

Status JpegFault(const image::JpegError& error) {
  if (error.base.msg_code == JERR_IMAGE_TOO_BIG)
    return InvalidArgument("jpeg: picture is of a wrong size, got a side above ", error.base.msg_parm.i[0],
                           ", want sides of 1 to ", kMaxSide);
  if (error.base.msg_code == JERR_EMPTY_IMAGE)
    return InvalidArgument("jpeg: picture is of a wrong size, got a side of 0, want sides of 1 to ",
                           kMaxSide);
  return Damaged("jpeg", error.text);
}

Result<Picture> DecodeJpeg(std::string_view bytes) {
  JpegReader reader;
  jpeg_decompress_struct& info = reader.info;
  info.err = jpeg_std_error(&reader.error.base);
  reader.error.base.error_exit = &image::JpegFail;
  reader.error.base.output_message = &image::JpegQuiet;
  reader.error.base.emit_message = &JpegWarn;
  if (!ReadJpegHeader(reader, bytes)) return JpegFault(reader.error);
  TEMPERA_TRY(CheckSize("jpeg", info.image_width, info.image_height));
  if (info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK)
    return InvalidArgument("jpeg: colour is CMYK, want gray or RGB");
  const bool gray = info.jpeg_color_space == JCS_GRAYSCALE;
  if (!gray && info.jpeg_color_space != JCS_YCbCr && info.jpeg_color_space != JCS_RGB)
    return InvalidArgument("jpeg: got ", info.num_components, " components, want gray or RGB");

  int orientation = 1;
  for (jpeg_saved_marker_ptr marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (!data.starts_with("Exif")) continue;
    orientation = Orientation(data);
    break;
  }
  Picture picture{
      .width = info.image_width, .height = info.image_height, .channels = gray ? 1 : 3, .pixels = {}};
  picture.pixels.resize(static_cast<size_t>(picture.width * picture.height * picture.channels));
  if (!ReadJpegRows(reader, picture, picture.pixels.data())) return JpegFault(reader.error);
  return Turned(std::move(picture), orientation);
}

Status WebpStatus(VP8StatusCode code) {
  switch (code) {
    case VP8_STATUS_OK:
      return OkStatus();
    case VP8_STATUS_OUT_OF_MEMORY:
      return ResourceExhausted("webp: out of memory");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return Damaged("webp", "a feature that no version of the format has");
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return Damaged("webp", "its data end early");
    default:
      return Damaged("webp", "not a sound stream");
  }
}

// What stands around the picture (RFC 9649, section 2): the Exif block.
Result<std::string_view> CheckWebpChunks(std::string_view webp) {
  const uint64_t size = uint64_t{8} + LittleEndian(webp, 4, 4);
  if (webp.size() < size)
    return InvalidArgument("webp: file ends early, got ", webp.size(), " bytes, want ", size);
  std::string_view exif;
  for (uint64_t at = 12; at + 8 <= size;) {
    const uint64_t length = LittleEndian(webp, at + 4, 4);
    if (length > size - at - 8)
      return InvalidArgument("webp: chunk at byte ", at, " is longer than the file, got ", length,
                             " bytes, want at most ", size - at - 8);
    const std::string_view type = webp.substr(at, 4), data = webp.substr(at + 8, length);
    if (type == "VP8X" && length >= 10)
      TEMPERA_TRY(
          CheckSize("webp", int64_t{1} + LittleEndian(data, 4, 3), int64_t{1} + LittleEndian(data, 7, 3)));
    if (type == "EXIF") exif = data;
    at += 8 + length + length % 2;
  }
  return exif;
}

Result<Picture> DecodeWebp(std::string_view bytes) {
  TEMPERA_ASSIGN(const std::string_view exif, CheckWebpChunks(bytes));
  WebPDecoderConfig config;
  TEMPERA_CHECK(WebPInitDecoderConfig(&config), "webp version");
  TEMPERA_TRY(WebpStatus(WebPGetFeatures(Bytes(bytes), bytes.size(), &config.input)));
  if (config.input.has_animation) return InvalidArgument("webp: is animated, want a single picture");
  TEMPERA_TRY(CheckSize("webp", config.input.width, config.input.height));

  Picture picture{.width = config.input.width, .height = config.input.height, .channels = 3, .pixels = {}};
  picture.pixels.resize(static_cast<size_t>(picture.width * picture.height * 3));
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = picture.pixels.data();
  config.output.u.RGBA.stride = static_cast<int>(3 * picture.width);
  config.output.u.RGBA.size = picture.pixels.size();
  TEMPERA_TRY(WebpStatus(WebPDecode(Bytes(bytes), bytes.size(), &config)));
  return Turned(std::move(picture), Orientation(exif));
}

struct MagicRow {
  size_t at;
  std::string_view bytes;
  const char* name;
  Result<Picture> (*decode)(std::string_view);  // null: not supported
};
constexpr std::array kMagics{
    MagicRow{0, kPngMagic, "PNG", &DecodePng},
    MagicRow{0, "\xff\xd8\xff", "JPEG", &DecodeJpeg},
    MagicRow{8, "WEBP", "WebP", &DecodeWebp},
    MagicRow{0, "GIF8", "GIF", nullptr},
    MagicRow{0, "BM", "BMP", nullptr},
    MagicRow{0, {"II*\0", 4}, "TIFF", nullptr},
    MagicRow{0, {"MM\0*", 4}, "TIFF", nullptr},
    MagicRow{4, "ftypavif", "AVIF", nullptr},
    MagicRow{4, "ftypavis", "AVIF", nullptr},
    MagicRow{4, "ftyphei", "HEIC", nullptr},
    MagicRow{4, "ftyphev", "HEIC", nullptr},
    MagicRow{4, "ftypmif1", "HEIF", nullptr},
    MagicRow{4, "ftypmsf1", "HEIF", nullptr},
    MagicRow{4, "JXL \r\n", "JPEG XL", nullptr},
    MagicRow{0, "\xff\x0a", "JPEG XL", nullptr},
    MagicRow{4, "jP  \r\n", "JPEG 2000", nullptr},
    MagicRow{0, "\xff\x4f\xff\x51", "JPEG 2000", nullptr},
    MagicRow{0, "8BPS", "Photoshop", nullptr},
    MagicRow{0, "<svg", "SVG", nullptr},
};

}  // namespace

Result<Picture> DecodeImage(std::string_view bytes) {
  for (const MagicRow& row : kMagics) {
    if (bytes.size() < row.at || !bytes.substr(row.at).starts_with(row.bytes)) continue;
    if (row.decode != nullptr) return row.decode(bytes);
    return InvalidArgument("format: got ", row.name, ", want PNG, JPEG or WebP");
  }
  std::string first;
  for (const char c : bytes.substr(0, 8)) {
    constexpr std::string_view kHex = "0123456789abcdef";
    const auto value = static_cast<uint8_t>(c);
    first += {' ', kHex[value >> 4], kHex[value & 15]};
  }
  return InvalidArgument("format: is unknown, got ", bytes.size(), " bytes",
                         first.empty() ? "" : " that begin with", first, ", want PNG, JPEG or WebP");
}

}  // namespace tempera
