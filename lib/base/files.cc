#include "base/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

namespace tempera {
namespace fs = std::filesystem;

struct Sha256::State {
  EVP_MD_CTX* ctx = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(ctx); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  TEMPERA_CHECK(state_->ctx != nullptr && EVP_DigestInit_ex(state_->ctx, EVP_sha256(), nullptr) == 1,
                "sha256");
}
Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t size) { EVP_DigestUpdate(state_->ctx, data, size); }

std::string Sha256::Hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(state_->ctx, digest, &size);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * size);
  for (unsigned int i = 0; i < size; ++i) {
    hex.push_back(kDigits[digest[i] >> 4]);
    hex.push_back(kDigits[digest[i] & 15]);
  }
  return hex;
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  return hash.Hex();
}

Status FileError(int error, std::string_view action, std::string_view label) {
  const std::string text = Cat(label, ": cannot ", action, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

namespace {

// Closes on every way out.
struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Result<std::string> Sha256File(const fs::path& path, std::string_view label) {
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return FileError(errno, "open", label);
  Sha256 hash;
  std::vector<char> buffer(128 << 10);  // stays in a core's cache
  for (;;) {
    const ssize_t n = ::read(file.fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "read", label);
    if (n == 0) return hash.Hex();
    hash.Update(buffer.data(), static_cast<size_t>(n));
  }
}

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const fs::path& path, std::string_view label) {
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return FileError(errno, "open", label);
  struct stat info;
  if (::fstat(file.fd, &info) != 0) return FileError(errno, "stat", label);
  if (!S_ISREG(info.st_mode)) return InvalidArgument(label, ": not a regular file");
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  if (info.st_size == 0) return mapped;
  void* data = ::mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) return FileError(errno, "map", label);
  mapped->data_ = static_cast<const uint8_t*>(data);
  mapped->size_ = static_cast<size_t>(info.st_size);
  return mapped;
}

void MappedFile::ReleasePages() const {
  if (data_ != nullptr) (void)::madvise(const_cast<uint8_t*>(data_), size_, MADV_DONTNEED);  // a hint
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

Result<std::string> ReadFile(const fs::path& path, std::string_view label, uint64_t limit) {
  // O_NONBLOCK: to open a pipe would wait for its writer.
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return FileError(errno, "open", label);
  struct stat info;
  if (::fstat(file.fd, &info) != 0) return FileError(errno, "stat", label);
  if (!S_ISREG(info.st_mode)) return InvalidArgument(label, ": not a regular file");
  if (static_cast<uint64_t>(info.st_size) > limit)
    return InvalidArgument(label, ": too large, got ", info.st_size, " bytes, want at most ", limit);
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::read(file.fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "read", label);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

Status WriteFileAtomic(const fs::path& path, std::string_view bytes, std::string_view label) {
  static std::atomic<uint64_t> counter{0};
  const fs::path temporary =
      path.parent_path() / Cat(".", path.filename().string(), ".", ::getpid(), ".", counter++, ".tmp");
  const auto fail = [&](int error, std::string_view action) {
    ::unlink(temporary.c_str());
    return FileError(error, action, label);
  };
  {
    Fd file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
    if (file.fd < 0) return FileError(errno, "create", label);
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::write(file.fd, bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail(errno, "write");
      done += static_cast<size_t>(n);
    }
    if (::fsync(file.fd) != 0) return fail(errno, "sync");
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail(errno, "rename");
  Fd folder{::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (folder.fd >= 0) ::fsync(folder.fd);
  return OkStatus();
}

Status CopyFile(const fs::path& from, const fs::path& to, std::string_view label) {
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  return error ? FileError(error.value(), "copy", label) : OkStatus();
}

Status MakeFolders(const fs::path& path, std::string_view label) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return FileError(error.value(), "create folder", label);
  return OkStatus();
}

Result<fs::path> RealPathInside(const fs::path& folder, const std::string& name, std::string_view label) {
  std::error_code error;
  const fs::path base = fs::canonical(folder, error);
  if (error) return FileError(error.value(), "open the folder of", label);
  const fs::path real = fs::canonical(folder / name, error);
  if (error) return FileError(error.value(), "open", label);
  if (std::mismatch(base.begin(), base.end(), real.begin(), real.end()).first != base.end())
    return PermissionDenied(label, ": a symbolic link that leaves its folder");
  return real;
}

Result<fs::path> ResolveUnder(const std::string& path, std::span<const fs::path> roots) {
  if (path.find('\0') != std::string::npos) return InvalidArgument("path: holds a NUL byte");
  std::error_code error;
  const auto inside = [&](const fs::path& real) {
    for (const fs::path& root : roots) {
      const fs::path base = fs::canonical(root, error);
      if (error) continue;
      const auto mismatch = std::mismatch(base.begin(), base.end(), real.begin(), real.end());
      if (mismatch.first == base.end()) return true;
    }
    return false;
  };
  // A path that lies outside is refused in the same words whether it exists or not: existence is not
  // disclosed.
  const fs::path weak = fs::weakly_canonical(path, error);
  if (error || !inside(weak))
    return PermissionDenied("path \"", path, "\": outside of the served roots (--model-root)");
  const fs::path real = fs::canonical(path, error);
  if (error) return NotFound("path \"", path, "\": does not exist");
  if (!inside(real))
    return PermissionDenied("path \"", path, "\": outside of the served roots (--model-root)");
  return real;
}

}  // namespace tempera
