// What the command line's paths mean: a model named by a local folder, and the files that pictures go to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/status.h"
#include "tempera/v1/generation.pb.h"

namespace tempera {

// The text of a MODEL or REF argument as the server shall get it. A folder that exists and anything else with
// a "/" is a path: made absolute from `cwd`, without "." and "..". file:// and s3:// addresses, artifact ids,
// "artifacts/{id}" and aliases stay as they are.
std::string RefToSend(const std::string& text, const std::filesystem::path& cwd);

// png, webp, jpeg (also jpg). InvalidArgument names the word and the three.
Result<v1::ImageFormat> ParseFormatWord(const std::string& word);
// "png" ...
std::string ExtensionOf(v1::ImageFormat format);

// Names for the pictures of one generation.
struct PictureNames {
  std::filesystem::path folder;  // exists
  std::string stem;
  bool seed_in_name = true;
  std::string extension;

  std::filesystem::path Picture(uint64_t seed) const;
  std::filesystem::path Preview(uint64_t seed, int step) const;
};

// `out` is the --out argument: a file for one picture; for several a folder, or a name that "-<seed>" is put
// into. Empty: `ref`'s last component in `cwd`. A folder is made if only its last component is missing.
Result<PictureNames> PlanPictures(const std::string& out, const std::string& ref, int count,
                                  v1::ImageFormat format, const std::filesystem::path& cwd);

// `path` of a file to be written inside a folder: relative, without "..", no other way out of it. DataLoss
// otherwise.
Status CheckInside(const std::string& path);

}  // namespace tempera
