#include "client/paths.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <system_error>

#include "base/files.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

bool IsHex(const std::string& text) {
  return text.size() >= 12 && text.size() <= 64 &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

// The last component, with what does not belong into a file name replaced.
std::string StemOf(const std::string& ref) {
  std::string text = ref;
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  text = text.substr(text.rfind('/') + 1);
  if (IsHex(text)) text = text.substr(0, 12);
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') c = '-';
  return text.empty() || text[0] == '.' ? "picture" : text;
}

}  // namespace

std::string RefToSend(const std::string& text, const fs::path& cwd) {
  if (text.empty() || IsHex(text) || text.find("://") != std::string::npos) return text;
  const std::string prefix = "artifacts/";
  if (text.starts_with(prefix) && IsHex(text.substr(prefix.size()))) return text;
  if (text.find('/') == std::string::npos && !IsFolder(cwd / text)) return text;
  std::string path = (cwd / text).lexically_normal().string();
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

Result<v1::ImageFormat> ParseFormatWord(const std::string& word) {
  if (word == "png") return v1::PNG;
  if (word == "webp") return v1::WEBP;
  if (word == "jpeg" || word == "jpg") return v1::JPEG;
  return InvalidArgument("format: got \"", word, "\", want png, webp or jpeg");
}

std::string ExtensionOf(v1::ImageFormat format) {
  if (format == v1::WEBP) return "webp";
  return format == v1::JPEG ? "jpeg" : "png";
}

fs::path PictureNames::Picture(uint64_t seed) const {
  return folder / (seed_in_name ? Cat(stem, "-", seed, extension) : stem + extension);
}

fs::path PictureNames::Preview(uint64_t seed, int step) const {
  char number[32];
  std::snprintf(number, sizeof number, "-step%04d.png", step);
  return folder / Cat(stem, seed_in_name ? Cat("-", seed) : "", number);
}

Result<PictureNames> PlanPictures(const std::string& out, const std::string& ref, int count,
                                  v1::ImageFormat format, const fs::path& cwd) {
  PictureNames names;
  names.extension = "." + ExtensionOf(format);
  names.stem = StemOf(ref);
  names.folder = cwd;
  if (out.empty()) return names;
  const fs::path path = cwd / out;
  const bool is_folder = out.back() == '/' || IsFolder(path) || (count > 1 && !path.has_extension());
  if (is_folder) {
    names.folder = path;
  } else {
    names.folder = path.parent_path();
    names.stem = path.stem().string();
    if (path.has_extension()) names.extension = path.extension().string();
    names.seed_in_name = count > 1;
    const std::string mark = "<seed>";  // a pattern written out: NAME-<seed>.png
    if (names.stem.ends_with("-" + mark)) {
      names.stem.resize(names.stem.size() - mark.size() - 1);
      names.seed_in_name = true;
    }
  }
  if (is_folder && !IsFolder(names.folder)) {
    std::error_code error;
    fs::create_directory(names.folder.string().ends_with('/') ? names.folder.parent_path() : names.folder,
                         error);
    if (error) return FileError(error.value(), "make folder", out);
  }
  if (!IsFolder(names.folder)) return NotFound("out: folder of ", out, ", got none, want one that exists");
  return names;
}

Status CheckInside(const std::string& path) {
  const fs::path p(path);
  const bool sound =
      !path.empty() && p.is_relative() && path.find('\0') == std::string::npos && p.has_filename() &&
      std::none_of(p.begin(), p.end(), [](const fs::path& c) { return c == ".." || c == "."; });
  if (!sound)
    return DataLoss("report: path of a file, got \"", path, "\", want a relative one without \"..\"");
  return OkStatus();
}

}  // namespace tempera
