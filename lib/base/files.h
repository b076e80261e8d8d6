// Files and digests: whole reads, memory maps, writes that appear at once or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tempera {

// SHA-256 over bytes given in pieces. Thread-compatible.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Update(const void* data, size_t size);
  // 64 lower-case hexadecimal digits. Call once.
  std::string Hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string Sha256Hex(std::string_view bytes);
// Streams the file. NotFound or Unavailable names the file by `label`.
Result<std::string> Sha256File(const std::filesystem::path& path, std::string_view label);

// A read-only memory map of a whole file; an empty file maps to no bytes. Immutable, shareable.
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> Open(const std::filesystem::path& path,
                                                        std::string_view label);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  // Takes what has been read out of the process's memory; the next read brings it back.
  void ReleasePages() const;

 private:
  MappedFile() = default;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// `label` names the file in errors (a name relative to its root: errors reach clients). At most `limit`
// bytes.
Result<std::string> ReadFile(const std::filesystem::path& path, std::string_view label,
                             uint64_t limit = 1ull << 30);

// Writes to a temporary name beside the target, syncs, renames: readers see the old file or the new one. A
// full disk is ResourceExhausted and leaves nothing behind.
Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes, std::string_view label);

Status MakeFolders(const std::filesystem::path& path, std::string_view label);
// The bytes of `from` in the file `to`, replaced if it is there.
Status CopyFile(const std::filesystem::path& from, const std::filesystem::path& to, std::string_view label);

// Maps an errno of a file operation to a Status that names `label`.
Status FileError(int error, std::string_view action, std::string_view label);

// The real path of `folder`/`name`. A symbolic link may lead to another place in the folder; out of it is
// PermissionDenied.
Result<std::filesystem::path> RealPathInside(const std::filesystem::path& folder, const std::string& name,
                                             std::string_view label);

// The real path of `path` if it exists and lies inside one of `roots` (symlinks resolved), else
// PermissionDenied or NotFound. Errors name the path as the caller gave it.
Result<std::filesystem::path> ResolveUnder(const std::string& path,
                                           std::span<const std::filesystem::path> roots);

}  // namespace tempera
