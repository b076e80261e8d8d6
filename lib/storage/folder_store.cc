// Objects as files below a root. `.tmp/` holds what is being written: each file there is flocked by its
// writer, so that one without a lock is a dead writer's. `.lock` is flocked while names change (create in
// .tmp, rename, unlink, mkdir, rmdir), which makes a condition and its rename one step for all processes.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/files.h"
#include "storage/object_store.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;

// Closes on every way out; closing also gives up its flock.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

// A file that vanishes unless it was renamed away.
struct Temporary {
  fs::path path;
  Fd fd;
  Temporary(fs::path p, Fd f) : path(std::move(p)), fd(std::move(f)) {}
  Temporary(Temporary&& other) noexcept : path(std::exchange(other.path, {})), fd(std::move(other.fd)) {}
  ~Temporary() {
    if (!path.empty()) ::unlink(path.c_str());
  }
};

Status WriteAll(int fd, std::string_view bytes, std::string_view label) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "write", label);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

// Copies from the place of `in` to its end, and returns the SHA-256 of what passed.
Result<std::string> CopyAll(const CallScope& scope, int in, int out, std::string_view label) {
  constexpr size_t kPiece = 1 << 20;
  const std::unique_ptr<char[]> buffer(new char[kPiece]);
  Sha256 hash;
  for (;;) {
    TEMPERA_TRY(scope.Check());
    const ssize_t n = ::read(in, buffer.get(), kPiece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "read", label);
    if (n == 0) return hash.Hex();
    hash.Update(buffer.get(), static_cast<size_t>(n));
    TEMPERA_TRY(WriteAll(out, {buffer.get(), static_cast<size_t>(n)}, label));
  }
}

Status SyncFolder(const fs::path& folder, std::string_view label) {
  Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok() || ::fsync(fd.get()) != 0) return FileError(errno, "sync folder", label);
  return OkStatus();
}

struct Entry {
  std::string name;
  bool folder = false;
};

// Objects and folders right below `folder`, by name; none if it is not there (a delete may be at work).
Result<std::vector<Entry>> ReadFolder(const fs::path& folder, std::string_view label) {
  std::vector<Entry> entries;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), &::closedir);
  if (dir == nullptr) {
    if (errno == ENOENT || errno == ENOTDIR) return entries;
    return FileError(errno, "list", label);
  }
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) break;
    if (entry->d_name[0] == '.') continue;
    struct stat info;
    if (::fstatat(::dirfd(dir.get()), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))
      entries.push_back({entry->d_name, S_ISDIR(info.st_mode)});
  }
  if (errno != 0) return FileError(errno, "list", label);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return entries;
}

class FolderStore final : public ObjectStore {
 public:
  explicit FolderStore(fs::path root) : root_(std::move(root)), temporaries_(root_ / ".tmp") {}

  Status Prepare() {
    TEMPERA_TRY(MakeFolders(temporaries_, "object store"));
    TEMPERA_ASSIGN(const Fd lock, Lock());
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(temporaries_.c_str()), &::closedir);
    if (dir == nullptr) return FileError(errno, "list", "object store");
    while (const dirent* entry = ::readdir(dir.get())) {
      const int folder = ::dirfd(dir.get());
      Fd file(::openat(folder, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
      struct stat info;
      if (!file.ok() || ::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
      if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(folder, entry->d_name, 0);
    }
    return OkStatus();
  }

  Result<std::string> Put(const CallScope& scope, const std::string& key, std::string_view bytes,
                          const PutCondition& condition) override {
    TEMPERA_TRY(CheckObjectKey(key));
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(Temporary temporary, NewTemporary(key));
    TEMPERA_TRY(WriteAll(temporary.fd.get(), bytes, key));
    TEMPERA_TRY(Publish(temporary, key, condition));
    return Sha256Hex(bytes);
  }

  Status PutFile(const CallScope& scope, const std::string& key, const fs::path& file,
                 const std::string& sha256) override {
    TEMPERA_TRY(CheckObjectKey(key));
    Fd source(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!source.ok()) return FileError(errno, "open the file to put", key);
    TEMPERA_ASSIGN(Temporary temporary, NewTemporary(key));
    TEMPERA_ASSIGN(const std::string got, CopyAll(scope, source.get(), temporary.fd.get(), key));
    if (!sha256.empty() && got != sha256)
      return DataLoss(key, ": wrong SHA-256, got ", got, ", want ", sha256);
    return Publish(temporary, key, {});
  }

  Result<StoredObject> Get(const CallScope& scope, const std::string& key, int64_t limit) override {
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const Opened object, Open(key));
    if (object.bytes > limit)
      return InvalidArgument(key, ": too large, got ", object.bytes, " bytes, want at most ", limit);
    TEMPERA_ASSIGN(std::string bytes, ReadAt(object, key, 0, object.bytes));
    std::string etag = Sha256Hex(bytes);
    return StoredObject{std::move(bytes), std::move(etag)};
  }

  Result<std::string> GetRange(const CallScope& scope, const std::string& key, int64_t offset,
                               int64_t length) override {
    TEMPERA_CHECK(offset >= 0 && length >= 0, Cat("range ", offset, " + ", length));
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const Opened object, Open(key));
    const int64_t rest = std::max<int64_t>(0, object.bytes - offset);
    return ReadAt(object, key, offset, std::min(length, rest));
  }

  Status GetFile(const CallScope& scope, const std::string& key, const fs::path& file) override {
    TEMPERA_ASSIGN(const Opened object, Open(key));
    const fs::path path = file.parent_path() / Cat(".", file.filename().string(), ".", Unique());
    Temporary temporary(path, Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)));
    if (!temporary.fd.ok()) return FileError(errno, "create the copy of", key);
    TEMPERA_TRY(CopyAll(scope, object.fd.get(), temporary.fd.get(), key).status());
    if (::fsync(temporary.fd.get()) != 0) return FileError(errno, "sync the copy of", key);
    if (::rename(temporary.path.c_str(), file.c_str()) != 0)
      return FileError(errno, "rename the copy of", key);
    temporary.path.clear();
    return SyncFolder(file.parent_path(), key);
  }

  Result<ObjectInfo> Head(const CallScope& scope, const std::string& key) override {
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const Opened object, Open(key));
    return ObjectInfo{key, object.bytes};
  }

  Result<ObjectPage> List(const CallScope& scope, const ObjectQuery& query) override {
    if (query.limit < 1 || query.limit > 1000)
      return InvalidArgument("object list: limit, got ", query.limit, ", want 1 to 1000");
    if (!query.page_token.empty() && !query.page_token.starts_with(query.prefix))
      return InvalidArgument("object list: the page token is of another prefix");
    // Only keys below `base` can begin with the prefix.
    const size_t slash = query.prefix.rfind('/');
    const std::string base = slash == std::string::npos ? "" : query.prefix.substr(0, slash + 1);
    std::vector<std::string> names;  // a folder ends with '/'
    if (base.empty() || CheckObjectKey(base.substr(0, slash)).ok())
      TEMPERA_TRY(Collect(scope, base, query.prefix, query.fold, names));
    std::sort(names.begin(), names.end());
    ObjectPage page;
    int64_t count = 0;
    for (auto it = std::upper_bound(names.begin(), names.end(), query.page_token); it != names.end(); ++it) {
      if (count == query.limit) {
        page.next_page_token = *std::prev(it);
        break;
      }
      ++count;
      if (it->back() == '/') {
        page.folders.push_back(*it);
        continue;
      }
      struct stat info;
      if (::stat((root_ / *it).c_str(), &info) == 0) page.objects.push_back({*it, info.st_size});
    }
    return page;
  }

  Status Delete(const CallScope& scope, const std::string& key) override {
    TEMPERA_TRY(CheckObjectKey(key));
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const Fd lock, Lock());
    const fs::path path = root_ / key;
    struct stat info;
    if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return OkStatus();
    if (::unlink(path.c_str()) != 0) return FileError(errno, "delete", key);
    TEMPERA_TRY(SyncFolder(path.parent_path(), key));
    Prune(path.parent_path());
    return OkStatus();
  }

  std::optional<fs::path> LocalPath(const std::string& key) const override {
    if (!CheckObjectKey(key).ok()) return std::nullopt;
    return root_ / key;
  }

 private:
  struct Opened {
    Fd fd;
    int64_t bytes = 0;
  };

  // Held until the result is destroyed. Held for a few system calls only, never while bytes are copied.
  Result<Fd> Lock() const {
    Fd fd(::open((root_ / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd.ok()) return FileError(errno, "open the lock", "object store");
    while (::flock(fd.get(), LOCK_EX) != 0)
      if (errno != EINTR) return FileError(errno, "lock", "object store");
    return fd;
  }

  static std::string Unique() {
    static std::atomic<uint64_t> counter{0};
    return Cat(::getpid(), ".", counter++, ".tmp");
  }

  Result<Temporary> NewTemporary(const std::string& key) const {
    TEMPERA_ASSIGN(const Fd lock, Lock());
    for (;;) {
      // A name may be a dead writer's with our number: then the next one.
      const fs::path path = temporaries_ / Unique();
      Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
      if (!fd.ok() && errno == EEXIST) continue;
      if (!fd.ok()) return FileError(errno, "create", key);
      Temporary temporary(path, std::move(fd));
      if (::flock(temporary.fd.get(), LOCK_EX | LOCK_NB) != 0) return FileError(errno, "lock", key);
      return temporary;
    }
  }

  Status Publish(Temporary& temporary, const std::string& key, const PutCondition& condition) {
    if (::fsync(temporary.fd.get()) != 0) return FileError(errno, "sync", key);
    TEMPERA_ASSIGN(const Fd lock, Lock());
    const fs::path target = root_ / key;
    TEMPERA_TRY(CheckCondition(key, condition));
    Status status = MakeParents(target, key);
    if (status.ok() && ::rename(temporary.path.c_str(), target.c_str()) != 0)
      status = errno == EISDIR || errno == ENOTDIR ? FailedPrecondition(key, ": is a folder of other objects")
                                                   : FileError(errno, "rename", key);
    if (!status.ok()) {
      Prune(target.parent_path());
      return status;
    }
    temporary.path.clear();
    return SyncFolder(target.parent_path(), key);
  }

  Status CheckCondition(const std::string& key, const PutCondition& condition) const {
    if (!condition.if_absent && !condition.if_etag) return OkStatus();
    const Result<Opened> object = Open(key);
    if (!object.ok() && !absl::IsNotFound(object.status())) return object.status();
    if (condition.if_absent && object.ok()) return AlreadyExists(key, ": is there already");
    if (!condition.if_etag) return OkStatus();
    if (!object.ok()) return absl::AbortedError(Cat(key, ": got no object, want etag ", *condition.if_etag));
    TEMPERA_ASSIGN(const std::string bytes, ReadAt(*object, key, 0, object->bytes));
    const std::string etag = Sha256Hex(bytes);
    if (etag != *condition.if_etag)
      return absl::AbortedError(
          Cat(key, ": changed meanwhile, got etag ", etag, ", want ", *condition.if_etag));
    return OkStatus();
  }

  Status MakeParents(const fs::path& target, const std::string& key) const {
    fs::path folder = root_;
    for (const fs::path& part : target.parent_path().lexically_relative(root_)) {
      if (part == ".") continue;
      const fs::path child = folder / part;
      if (::mkdir(child.c_str(), 0755) == 0) {
        TEMPERA_TRY(SyncFolder(folder, key));
      } else if (errno != EEXIST) {
        return errno == ENOTDIR ? FailedPrecondition(key, ": lies in an object, want a folder")
                                : FileError(errno, "create the folder of", key);
      }
      folder = child;
    }
    return OkStatus();
  }

  // Removes folders that hold nothing, from `folder` up to the root.
  void Prune(fs::path folder) const {
    while (folder != root_ && ::rmdir(folder.c_str()) == 0) folder = folder.parent_path();
  }

  Result<Opened> Open(const std::string& key) const {
    TEMPERA_TRY(CheckObjectKey(key));
    Opened object{Fd(::open((root_ / key).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW))};
    if (!object.fd.ok() && (errno == ENOENT || errno == ENOTDIR)) return NotFound(key, ": no such object");
    if (!object.fd.ok()) return FileError(errno, "open", key);
    struct stat info;
    if (::fstat(object.fd.get(), &info) != 0) return FileError(errno, "stat", key);
    if (!S_ISREG(info.st_mode)) return NotFound(key, ": no such object");
    object.bytes = info.st_size;
    return object;
  }

  static Result<std::string> ReadAt(const Opened& object, std::string_view key, int64_t offset,
                                    int64_t length) {
    std::string bytes(static_cast<size_t>(length), '\0');
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::pread(object.fd.get(), bytes.data() + done, bytes.size() - done,
                                offset + static_cast<int64_t>(done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return FileError(errno, "read", key);
      if (n == 0) return DataLoss(key, ": ends early, got ", done, " bytes, want ", length);
      done += static_cast<size_t>(n);
    }
    return bytes;
  }

  // Appends the keys below `base` that begin with `prefix`.
  Status Collect(const CallScope& scope, const std::string& base, const std::string& prefix, bool fold,
                 std::vector<std::string>& names) const {
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const std::vector<Entry> entries, ReadFolder(root_ / base, "object list"));
    for (const Entry& entry : entries) {
      const std::string name = base + entry.name;
      // Within a folder that the prefix names, every key fits.
      if (!name.starts_with(prefix)) continue;
      if (!entry.folder) {
        names.push_back(name);
      } else if (!fold) {
        TEMPERA_TRY(Collect(scope, name + "/", prefix, fold, names));
      } else {
        TEMPERA_ASSIGN(const bool holds, HoldsObject(name + "/"));  // an empty folder is no entry
        if (holds) names.push_back(name + "/");
      }
    }
    return OkStatus();
  }

  Result<bool> HoldsObject(const std::string& base) const {
    TEMPERA_ASSIGN(const std::vector<Entry> entries, ReadFolder(root_ / base, "object list"));
    for (const Entry& entry : entries) {
      if (!entry.folder) return true;
      TEMPERA_ASSIGN(const bool holds, HoldsObject(base + entry.name + "/"));
      if (holds) return true;
    }
    return false;
  }

  const fs::path root_;
  const fs::path temporaries_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> OpenFolderStore(const fs::path& root) {
  TEMPERA_TRY(MakeFolders(root, "object store"));
  std::error_code error;
  const fs::path real = fs::canonical(root, error);
  if (error) return FileError(error.value(), "resolve", "object store");
  auto store = std::make_unique<FolderStore>(real);
  TEMPERA_TRY(store->Prepare());
  return store;
}

}  // namespace tempera
