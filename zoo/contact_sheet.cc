// Joins PNG pictures of one size into a sheet.
//   contact-sheet OUT.png COLUMNS SCALE FILE...      rows are filled left to right; each pixel becomes SCALE
//   x SCALE
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/files.h"
#include "pipeline/image_codec.h"

namespace tempera {
namespace {

Status Join(const std::string& out, int64_t columns, int64_t scale, const std::vector<std::string>& files) {
  if (columns < 1 || columns > 1000 || scale < 1 || scale > 64)
    return InvalidArgument("contact-sheet: want 1 to 1000 columns and a scale of 1 to 64");
  constexpr int64_t kGap = 4;
  Picture sheet;
  const auto count = static_cast<int64_t>(files.size());
  for (int64_t i = 0; i < count; ++i) {
    TEMPERA_ASSIGN(const std::string bytes,
                   ReadFile(files[static_cast<size_t>(i)], files[static_cast<size_t>(i)]));
    TEMPERA_ASSIGN(const Picture p, DecodePng(bytes));
    const int64_t cell_w = p.width * scale + kGap, cell_h = p.height * scale + kGap;
    if (i == 0) {
      sheet = {.width = columns * cell_w + kGap,
               .height = (count + columns - 1) / columns * cell_h + kGap,
               .channels = p.channels,
               .pixels = {}};
      sheet.pixels.assign(static_cast<size_t>(sheet.width * sheet.height * sheet.channels), 128);
    }
    const int64_t left = kGap + i % columns * cell_w, top = kGap + i / columns * cell_h;
    if (p.channels != sheet.channels || left + p.width * scale > sheet.width ||
        top + p.height * scale > sheet.height)
      return InvalidArgument(files[static_cast<size_t>(i)], ": has another size than the first picture");
    for (int64_t y = 0; y < p.height * scale; ++y)
      for (int64_t x = 0; x < p.width * scale; ++x)
        for (int64_t c = 0; c < p.channels; ++c)
          sheet.pixels[static_cast<size_t>(((top + y) * sheet.width + left + x) * sheet.channels + c)] =
              p.pixels[static_cast<size_t>((y / scale * p.width + x / scale) * p.channels + c)];
  }
  TEMPERA_ASSIGN(const std::string png, EncodeImage(sheet, ImageFormat::kPng));
  return WriteFileAtomic(out, png, out);
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: contact-sheet OUT.png COLUMNS SCALE FILE...\n");
    return 1;
  }
  const tempera::Status status =
      tempera::Join(argv[1], std::atoll(argv[2]), std::atoll(argv[3]), {argv + 4, argv + argc});
  if (!status.ok()) std::fprintf(stderr, "contact-sheet: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
