// Pictures as files. The same picture and text give the same bytes.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/status.h"
#include "pipeline/engine.h"

namespace tempera {

enum class ImageFormat { kPng, kWebp, kJpeg };

// InvalidArgument names the word and the three that are known: png, webp, jpeg.
Result<ImageFormat> ParseImageFormat(std::string_view word);
std::string_view MimeType(ImageFormat format);

// PNG is lossless at a fixed zlib level and carries `text` as tEXt chunks; WebP is lossless; JPEG has
// quality 95. REQUIRES: 1, 3 or 4 channels.
Result<std::string> EncodeImage(const Picture& picture, ImageFormat format,
                                const std::map<std::string, std::string>& text = {});

// Decodes PNG, JPEG or WebP, told apart by their first bytes, to gray or RGB as picture tools read them:
// alpha is dropped and the colour below it kept, palettes are looked up, values stay as they are stored (no
// gamma or colour profile is applied), and the picture is turned as its Exif orientation says.
// InvalidArgument, before memory is taken for pixels: another format, which is named where it is a common
// one; an animation; 16 bits a channel; CMYK; sides or pixels beyond kMaxSide and kMaxPixels; a file too
// small for its picture. InvalidArgument too for a file that is damaged or ends early.
Result<Picture> DecodeImage(std::string_view bytes);

}  // namespace tempera
