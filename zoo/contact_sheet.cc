// Joins PNG pictures of one size into a sheet.
//   contact-sheet OUT.png COLUMNS SCALE FILE...      rows are filled left to right; each pixel becomes SCALE
//   x SCALE
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/files.h"
#include "pipeline/image_codec.h"
#include "zoo/sheet.h"

namespace tempera::zoo {
namespace {

Status Join(const std::string& out, int64_t columns, int64_t scale, const std::vector<std::string>& files) {
  std::vector<Picture> pictures;
  for (const std::string& file : files) {
    TEMPERA_ASSIGN(const std::string bytes, ReadFile(file, file));
    TEMPERA_ASSIGN(Picture picture, DecodeImage(bytes));
    pictures.push_back(std::move(picture));
  }
  TEMPERA_ASSIGN(const Picture sheet, JoinPictures(pictures, columns, scale));
  TEMPERA_ASSIGN(const std::string png, EncodeImage(sheet, ImageFormat::kPng));
  return WriteFileAtomic(out, png, out);
}

}  // namespace
}  // namespace tempera::zoo

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: contact-sheet OUT.png COLUMNS SCALE FILE...\n");
    return 1;
  }
  const tempera::Status status =
      tempera::zoo::Join(argv[1], std::atoll(argv[2]), std::atoll(argv[3]), {argv + 4, argv + argc});
  if (!status.ok()) std::fprintf(stderr, "contact-sheet: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
