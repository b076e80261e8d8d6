#include "weights/weights.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <utility>

#include "base/files.h"
#include "base/json.h"
#include "weights/safetensors.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

struct DtypeRow {
  std::string_view name;
  int64_t bytes;
};
// In the order of Dtype.
constexpr std::array<DtypeRow, 10> kDtypes{{{"BOOL", 1},
                                            {"U8", 1},
                                            {"I8", 1},
                                            {"I16", 2},
                                            {"I32", 4},
                                            {"I64", 8},
                                            {"F16", 2},
                                            {"BF16", 2},
                                            {"F32", 4},
                                            {"F64", 8}}};
static_assert(static_cast<size_t>(Dtype::kF64) + 1 == kDtypes.size());

const DtypeRow& Row(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

// Takes the place of 100,000 tensors and keeps the parsed index well below a gigabyte, whatever it holds.
constexpr uint64_t kMaxIndexBytes = 16 << 20;

// The first pickled weights in the folder, those of `stem` before others; empty if none.
std::string FindPickle(const fs::path& folder, std::string_view stem) {
  std::set<std::pair<bool, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".ckpt" || extension == ".pth") {
      std::string name = it->path().filename().string();
      const bool other = !name.starts_with(stem);
      found.emplace(other, std::move(name));
    }
  }
  return found.empty() ? "" : found.begin()->second;
}

// The first file of a variant as diffusers names them, "<stem>.fp16.safetensors"; empty if none.
std::string FindVariant(const fs::path& folder, std::string_view stem) {
  std::set<std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.starts_with(Cat(stem, ".")) && name.ends_with(".safetensors")) found.insert(std::move(name));
  }
  return found.empty() ? "" : *found.begin();
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == name.npos &&
         name.find('\\') == name.npos && name.find('\0') == name.npos;
}

// Tensor name -> shard.
Result<std::map<std::string, std::string>> ReadIndex(const fs::path& path, std::string_view label) {
  TEMPERA_ASSIGN(const std::string text, ReadFile(path, label, kMaxIndexBytes));
  TEMPERA_ASSIGN(const Json index, ParseJson(text, label));
  Fields fields(index, std::string(label));
  fields.Ignore({"metadata"});
  const Json* map = fields.Raw("weight_map");
  if (map == nullptr) fields.Fail("weight_map", "is missing");
  TEMPERA_TRY(fields.Finish());
  if (!map->is_object() || map->empty())
    return InvalidArgument(label, ": weight_map is wrong, want an object that maps tensors to files");
  std::map<std::string, std::string> shard_of;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string())
      return InvalidArgument(label, ": weight_map: tensor ", Json(tensor), ": got ", shard.type_name(),
                             ", want a file name");
    const auto& name = shard.get_ref<const std::string&>();
    if (!IsPlainName(name) || !name.ends_with(".safetensors"))
      return InvalidArgument(label, ": weight_map: tensor ", Json(tensor), ": got file ", shard,
                             ", want the plain name of a .safetensors file in the same folder");
    shard_of.emplace(tensor, name);
  }
  return shard_of;
}

}  // namespace

int64_t DtypeBytes(Dtype dtype) { return Row(dtype).bytes; }
std::string_view DtypeName(Dtype dtype) { return Row(dtype).name; }

std::optional<Dtype> ParseDtype(std::string_view name) {
  for (size_t i = 0; i < kDtypes.size(); ++i)
    if (kDtypes[i].name == name) return static_cast<Dtype>(i);
  return std::nullopt;
}

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Cat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

int64_t TensorView::elements() const {
  const std::optional<int64_t> n = ElementsOf(shape);
  TEMPERA_CHECK(n, ShapeText(shape));
  return *n;
}

// Fills a WeightSource file by file.
class SafetensorsLoader {
 public:
  SafetensorsLoader(std::string_view label, std::string where) {
    source_->label_ = label;
    source_->where_ = std::move(where);
  }

  // Maps `path`, whose name relative to the folder is `name`, and takes all its tensors.
  Status Add(const fs::path& path, const std::string& name, const std::string& label) {
    // Before it is opened: to open a pipe would wait for its writer.
    std::error_code error;
    if (fs::exists(path, error) && !fs::is_regular_file(path, error))
      return InvalidArgument(label, ": not a regular file");
    TEMPERA_ASSIGN(std::shared_ptr<const MappedFile> file, MappedFile::Open(path, label));
    TEMPERA_ASSIGN(SafetensorsFile content, ParseSafetensors(file->bytes(), file, label));
    for (const auto& [tensor, view] : content.tensors) {
      if (shard_of_ != nullptr) {
        const auto it = shard_of_->find(tensor);
        if (it == shard_of_->end())
          return InvalidArgument(label, ": tensor ", Json(tensor), " is not in the index");
        if (it->second != name)
          return InvalidArgument(label, ": tensor ", Json(tensor), " is in the wrong shard, got ", Json(name),
                                 ", want ", Json(it->second), " as the index says");
      }
      source_->file_of_.emplace(tensor, label);
    }
    source_->tensors_.merge(content.tensors);
    source_->metadata_ = std::move(content.metadata);
    source_->files_.emplace(name, std::move(file));
    return OkStatus();
  }

  Status AddShards(const fs::path& folder, const std::map<std::string, std::string>& shard_of) {
    shard_of_ = &shard_of;
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
    for (const std::string& shard : shards) {
      const std::string label = Cat(source_->label_, "/", shard);
      TEMPERA_ASSIGN(const fs::path path, RealPathInside(folder, shard, label));
      TEMPERA_TRY(Add(path, shard, label));
    }
    for (const auto& [tensor, shard] : shard_of)
      if (!source_->tensors_.contains(tensor))
        return InvalidArgument(source_->where_, ": tensor ", Json(tensor), " is not in ", Json(shard),
                               ", where the index puts it");
    source_->metadata_.clear();
    return OkStatus();
  }

  std::shared_ptr<const WeightSource> Take() { return std::move(source_); }

 private:
  std::shared_ptr<WeightSource> source_{new WeightSource};
  const std::map<std::string, std::string>* shard_of_ = nullptr;
};

Result<std::shared_ptr<const WeightSource>> WeightSource::Open(const fs::path& folder, std::string_view stem,
                                                               std::string_view label) {
  const std::string file = Cat(stem, ".safetensors");
  const std::string index = file + ".index.json";
  // A dangling link is there too: its own error is the better one.
  const auto there = [&](const std::string& name) {
    std::error_code error;
    return fs::exists(fs::symlink_status(folder / name, error));
  };
  if (there(file)) {
    const std::string where = Cat(label, "/", file);
    TEMPERA_ASSIGN(const fs::path path, RealPathInside(folder, file, where));
    SafetensorsLoader loader(label, where);
    TEMPERA_TRY(loader.Add(path, file, where));
    return loader.Take();
  }
  if (there(index)) {
    const std::string where = Cat(label, "/", index);
    TEMPERA_ASSIGN(const fs::path path, RealPathInside(folder, index, where));
    TEMPERA_ASSIGN(const auto shard_of, ReadIndex(path, where));
    SafetensorsLoader loader(label, where);
    TEMPERA_TRY(loader.AddShards(folder, shard_of));
    return loader.Take();
  }
  const std::string pickle = FindPickle(folder, stem);
  if (!pickle.empty())
    return InvalidArgument(label, "/", pickle, ": a pickle, which is never read, want ", file,
                           ": save it again with save_pretrained(FOLDER, safe_serialization=True)");
  const std::string variant = FindVariant(folder, stem);
  if (!variant.empty())
    return InvalidArgument(label, "/", variant, ": a variant, want ", file,
                           ": load it with its variant and save it without");
  return NotFound(label, "/", file, ": does not exist, nor does ", index);
}

Result<std::shared_ptr<const WeightSource>> WeightSource::OpenFile(const fs::path& file,
                                                                   std::string_view label) {
  SafetensorsLoader loader(label, std::string(label));
  TEMPERA_TRY(loader.Add(file, file.filename().string(), std::string(label)));
  return loader.Take();
}

std::string WeightSource::FileOf(const std::string& name) const {
  const auto it = file_of_.find(name);
  return it == file_of_.end() ? where_ : it->second;
}

Result<TensorView> WeightSource::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return NotFound(where_, ": tensor \"", name, "\" is missing");
  return it->second;
}

std::vector<std::string> WeightSource::files() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) names.push_back(name);
  if (where_.ends_with(".index.json")) names.push_back(fs::path(where_).filename().string());
  return names;
}

Result<std::string> WeightSource::Digest() const {
  Sha256 all;
  for (const auto& [name, file] : files_) {
    Sha256 one;
    one.Update(file->bytes().data(), file->bytes().size());
    const std::string hex = one.Hex();
    all.Update(hex.data(), hex.size());
  }
  return all.Hex();
}

void WeightSource::ReleasePages() const {
  for (const auto& [name, file] : files_) file->ReleasePages();
}

}  // namespace tempera
