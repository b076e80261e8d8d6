// Named tensors as bytes: what a model is built from and an artifact is made of. Free of LibTorch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tempera {

class MappedFile;

// The element types of safetensors that the project reads and writes.
enum class Dtype { kBool, kU8, kI8, kI16, kI32, kI64, kF16, kBF16, kF32, kF64 };

int64_t DtypeBytes(Dtype dtype);
// The name that safetensors uses: "F32", "U8" ...
std::string_view DtypeName(Dtype dtype);

using Shape = std::vector<int64_t>;
// "[4, 3, 3, 3]"
std::string ShapeText(std::span<const int64_t> shape);

// One tensor's place in a mapped file. `owner` keeps the bytes alive; they are little-endian, C order, and
// aligned only as the file aligned them.
struct TensorView {
  Dtype dtype = Dtype::kF32;
  Shape shape;
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> owner;
  int64_t elements() const;
};

// All tensors of a model's folder, from one safetensors file or from shards. Immutable, shareable.
class WeightSource {
 public:
  // Maps every file and checks every header; no tensor is read. Takes `<folder>/<stem>.safetensors` or, when
  // there is none, `<folder>/<stem>.safetensors.index.json` and its shards. `label` is the folder's name in
  // errors; every error names the file within it. Limits: header <= 100 MB, <= 1,000,000 tensors a file, <= 8
  // dimensions, index <= 16 MiB. Refused: overlapping or reversed offsets, holes, bytes after the last
  // tensor, sizes that do not fit dtype and shape, products that overflow, unknown dtypes, a name that stands
  // there twice, a file outside the folder (by name or by symbolic link), a tensor that the index puts in
  // another shard or does not name; a folder with pickled weights only (.bin, .pt, .ckpt, .pth) is refused by
  // the pickle's name, for no pickle is ever read, and one with a variant only ("<stem>.fp16.safetensors") by
  // its name.
  static Result<std::shared_ptr<const WeightSource>> Open(const std::filesystem::path& folder,
                                                          std::string_view stem, std::string_view label);
  // One file, which `label` names in errors; the same checks, but `file` may be a link to anywhere.
  static Result<std::shared_ptr<const WeightSource>> OpenFile(const std::filesystem::path& file,
                                                              std::string_view label);

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  // The file that holds `name`, as errors name it ("unet/diffusion_pytorch_model.safetensors"); if there is
  // no such tensor, the file or the index that would tell of it.
  std::string FileOf(const std::string& name) const;
  // NotFound names the file and the tensor.
  Result<TensorView> Find(const std::string& name) const;
  // Metadata of a single file ("__metadata__"), or empty.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& label() const { return label_; }
  // Names of the files that hold it within the folder, the index of a sharded one among them.
  std::vector<std::string> files() const;
  // SHA-256 over the digests (as text) of all weight files in name order: the identity of the weights. Reads
  // them all.
  Result<std::string> Digest() const;
  // Takes what has been read of the files out of the process's memory; the next read brings it back.
  void ReleasePages() const;

 private:
  friend class SafetensorsLoader;
  WeightSource() = default;
  std::string label_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> file_of_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;  // by name relative to the folder
  std::string where_;  // the file, or the index, that says which tensors there are
};

// A tensor to write; the bytes must live until the write is done.
struct TensorOut {
  std::string name;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  std::span<const uint8_t> bytes;
};

// The bytes of a safetensors file: tensors in the order of element size, largest first, then name; header
// padded with spaces so that data begins at a multiple of 64. So every tensor is aligned to its element. The
// same input gives the same bytes. REQUIRES: distinct names, sizes that fit dtype and shape.
std::string SafetensorsBytes(std::vector<TensorOut> tensors,
                             const std::map<std::string, std::string>& metadata = {});

}  // namespace tempera
