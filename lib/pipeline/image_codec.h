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

// Decodes PNG to 8 bits a channel.
Result<Picture> DecodePng(std::string_view bytes);

}  // namespace tempera
