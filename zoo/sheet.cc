#include "zoo/sheet.h"

namespace tempera::zoo {

Result<Picture> JoinPictures(const std::vector<Picture>& pictures, int64_t columns, int64_t scale) {
  if (columns < 1 || columns > 1000 || scale < 1 || scale > 64)
    return InvalidArgument("sheet: got ", columns, " columns and scale ", scale,
                           ", want 1 to 1000 and 1 to 64");
  if (pictures.empty()) return InvalidArgument("sheet: got no picture, want at least 1");
  constexpr int64_t kGap = 4;
  const Picture& first = pictures[0];
  const int64_t cell_w = first.width * scale + kGap, cell_h = first.height * scale + kGap;
  const auto count = static_cast<int64_t>(pictures.size());
  Picture sheet{.width = columns * cell_w + kGap,
                .height = (count + columns - 1) / columns * cell_h + kGap,
                .channels = first.channels,
                .pixels = {}};
  sheet.pixels.assign(static_cast<size_t>(sheet.width * sheet.height * sheet.channels), 128);
  for (int64_t i = 0; i < count; ++i) {
    const Picture& p = pictures[static_cast<size_t>(i)];
    if (p.width != first.width || p.height != first.height || p.channels != first.channels)
      return InvalidArgument("sheet: picture ", i + 1, " is not as large as the first");
    const int64_t left = kGap + i % columns * cell_w, top = kGap + i / columns * cell_h;
    for (int64_t y = 0; y < p.height * scale; ++y)
      for (int64_t x = 0; x < p.width * scale; ++x)
        for (int64_t c = 0; c < p.channels; ++c)
          sheet.pixels[static_cast<size_t>(((top + y) * sheet.width + left + x) * sheet.channels + c)] =
              p.pixels[static_cast<size_t>((y / scale * p.width + x / scale) * p.channels + c)];
  }
  return sheet;
}

}  // namespace tempera::zoo
