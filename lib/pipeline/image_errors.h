// How libpng and libjpeg tell of errors: by a jump. So each function that calls them between setjmp and its
// end holds plain data only, and nothing that a jump would leave undestroyed. Private to the codecs.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdio>
// libjpeg's header wants the two above.
#include <jpeglib.h>
#include <png.h>

namespace tempera::image {

struct PngError {
  char text[200] = {};
};

inline void PngFail(png_structp png, png_const_charp message) {
  auto* error = static_cast<PngError*>(png_get_error_ptr(png));
  std::snprintf(error->text, sizeof(error->text), "%s", message);
  png_longjmp(png, 1);
}

inline void PngWarn(png_structp, png_const_charp) {}

struct JpegError {
  jpeg_error_mgr base;  // first: libjpeg knows only this part
  std::jmp_buf jump;
  char text[JMSG_LENGTH_MAX];
};

inline void JpegFail(j_common_ptr info) {
  auto* error = reinterpret_cast<JpegError*>(info->err);
  info->err->format_message(info, error->text);
  std::longjmp(error->jump, 1);
}

inline void JpegQuiet(j_common_ptr) {}

}  // namespace tempera::image
