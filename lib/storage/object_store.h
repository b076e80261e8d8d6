// Objects named by keys: what survives a machine. Whole objects only: a reader sees the old one, the new one
// or none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/call.h"
#include "base/status.h"

namespace tempera {

// A key is 1 to 1000 bytes: segments of 1 to 200 letters, digits, '.', '_', '-', joined by '/'. A segment
// does not begin with '.'. No key is another's folder ("a" beside "a/b").
Status CheckObjectKey(std::string_view key);

struct ObjectInfo {
  std::string key;
  int64_t bytes = 0;
};

struct StoredObject {
  std::string bytes;
  std::string etag;  // opaque; equal bytes may have equal etags
};

// When a Put may happen. Both unset: always.
struct PutCondition {
  bool if_absent = false;  // else AlreadyExists
  std::optional<std::string> if_etag =
      {};  // the object's etag now, else Aborted (an absent object: Aborted too)
};

struct ObjectQuery {
  std::string prefix = {};  // of the key, byte by byte: "artifacts/12ab"; empty: all
  bool fold = false;  // keys that agree up to the next '/' after the prefix become one entry in `folders`
  std::string page_token = {};  // from the page before; empty: the first
  int64_t limit = 1000;         // 1 to 1000 entries, objects and folders together
};

struct ObjectPage {
  std::vector<ObjectInfo> objects;   // in the order of their bytes
  std::vector<std::string> folders;  // with their '/' at the end
  std::string next_page_token;       // empty: this was the last page
};

// Errors of every call: InvalidArgument (bad key), NotFound (no such object), ResourceExhausted (disk full or
// quota), PermissionDenied, Unavailable (try again), Cancelled and DeadlineExceeded (from the scope). They
// name the key, never a path of this machine. A call that fails leaves the store as it was. Thread-safe;
// several processes may share a store.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // A small object from memory; the new etag. Durable on return.
  virtual Result<std::string> Put(const CallScope& scope, const std::string& key, std::string_view bytes,
                                  const PutCondition& condition = {}) = 0;
  // Any size, from a file. `sha256`, when not empty, is what the bytes must have: DataLoss if they do not.
  virtual Status PutFile(const CallScope& scope, const std::string& key, const std::filesystem::path& file,
                         const std::string& sha256 = {}) = 0;

  // At most `limit` bytes, else InvalidArgument.
  virtual Result<StoredObject> Get(const CallScope& scope, const std::string& key,
                                   int64_t limit = 64 << 20) = 0;
  // Bytes [offset, offset + length), cut at the end of the object. REQUIRES: offset >= 0, length >= 0.
  virtual Result<std::string> GetRange(const CallScope& scope, const std::string& key, int64_t offset,
                                       int64_t length) = 0;
  // Writes `file` anew or not at all. REQUIRES: its folder exists.
  virtual Status GetFile(const CallScope& scope, const std::string& key,
                         const std::filesystem::path& file) = 0;
  virtual Result<ObjectInfo> Head(const CallScope& scope, const std::string& key) = 0;
  virtual Result<ObjectPage> List(const CallScope& scope, const ObjectQuery& query) = 0;
  // An absent object is no error.
  virtual Status Delete(const CallScope& scope, const std::string& key) = 0;

  // The file or folder that holds `key`'s bytes on this machine, where the store is made of files; else
  // nothing.
  virtual std::optional<std::filesystem::path> LocalPath(const std::string& key) const = 0;
};

// A store in a folder, made if absent. Objects are files, renamed into place after a sync; what writers that
// died left unfinished is removed here.
Result<std::unique_ptr<ObjectStore>> OpenFolderStore(const std::filesystem::path& root);

}  // namespace tempera
