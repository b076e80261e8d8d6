#include "zoo/dataset.h"

#include <ATen/Functions.h>
#include <zlib.h>

#include <sstream>

#include "base/files.h"
#include "base/json.h"

namespace tempera::zoo {
namespace {

Result<std::vector<uint8_t>> ReadGzip(const std::filesystem::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr)
    return NotFound(path.string(), ": cannot open; Debian's package dataset-fashion-mnist has it");
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> chunk(1 << 20);
  int n = 0;
  while ((n = gzread(file, chunk.data(), static_cast<unsigned>(chunk.size()))) > 0)
    bytes.insert(bytes.end(), chunk.begin(), chunk.begin() + n);
  gzclose(file);
  if (n < 0) return DataLoss(path.string(), ": damaged gzip data");
  return bytes;
}

int64_t BigEndian(const std::vector<uint8_t>& b, size_t at) {
  return (int64_t{b[at]} << 24) | (b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3];
}

}  // namespace

Result<Dataset> LoadFashion(const std::filesystem::path& folder, const std::string& split) {
  TEMPERA_ASSIGN(const std::vector<uint8_t> images, ReadGzip(folder / (split + "-images-idx3-ubyte.gz")));
  TEMPERA_ASSIGN(const std::vector<uint8_t> labels, ReadGzip(folder / (split + "-labels-idx1-ubyte.gz")));
  // IDX: magic 0x803 (three dimensions of bytes) and 0x801, then the sizes, big-endian.
  if (images.size() < 16 || BigEndian(images, 0) != 0x803 || labels.size() < 8 ||
      BigEndian(labels, 0) != 0x801)
    return DataLoss(split, ": not IDX files of bytes");
  const int64_t count = BigEndian(images, 4), height = BigEndian(images, 8), width = BigEndian(images, 12);
  if (height != 28 || width != 28 || static_cast<int64_t>(images.size()) != 16 + count * 784 ||
      static_cast<int64_t>(labels.size()) != 8 + count || BigEndian(labels, 4) != count)
    return DataLoss(split, ": sizes do not fit");
  Dataset data;
  data.pictures = at::from_blob(const_cast<uint8_t*>(images.data()) + 16, {count, 1, 28, 28}, at::kByte)
                      .to(at::kFloat)
                      .div(127.5)
                      .sub(1);
  data.pictures = at::constant_pad_nd(data.pictures, {2, 2, 2, 2}, -1);
  data.labels = at::from_blob(const_cast<uint8_t*>(labels.data()) + 8, {count}, at::kByte).to(at::kLong);
  return data;
}

at::Tensor EmojiData::Pictures(const at::Tensor& index) const {
  return pictures.index_select(0, index).to(at::kFloat).div_(127.5).sub_(1);
}

Result<EmojiData> LoadEmoji(const std::filesystem::path& folder) {
  constexpr int64_t kSide = 64, kBytes = kSide * kSide * 3;
  TEMPERA_ASSIGN(const std::string pixels, ReadFile(folder / "emoji-64.rgb", "emoji-64.rgb"));
  TEMPERA_ASSIGN(const std::string lines, ReadFile(folder / "emoji-pairs.jsonl", "emoji-pairs.jsonl"));
  EmojiData data;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    const std::string label = Cat("emoji-pairs.jsonl: line ", data.rows.size() + 1);
    TEMPERA_ASSIGN(const Json json, ParseJson(line, label));
    EmojiData::Row row;
    Fields f(json, label);
    f.Need("style", row.style);
    f.Need("label", row.label);
    f.Get("group", row.group);
    f.Get("tags", row.tags);
    f.Ignore({"hex"});
    TEMPERA_TRY(f.Finish());
    data.rows.push_back(std::move(row));
  }
  const auto count = static_cast<int64_t>(data.rows.size());
  if (static_cast<int64_t>(pixels.size()) != count * kBytes)
    return DataLoss("emoji-64.rgb: wrong size, got ", pixels.size(), ", want ", count * kBytes, " for ",
                    count, " lines");
  data.pictures = at::from_blob(const_cast<char*>(pixels.data()), {count, kSide, kSide, 3}, at::kByte)
                      .permute({0, 3, 1, 2})
                      .contiguous();
  return data;
}

}  // namespace tempera::zoo
