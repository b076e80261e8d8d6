#include "server/data_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/files.h"

namespace tempera {

Result<DataLock> DataLock::Take(const std::filesystem::path& data) {
  const std::filesystem::path path = data / "server.lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return FileError(errno, "open", "data folder: server.lock");
  DataLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError(errno, "lock", "data folder: server.lock");
    char text[32] = {};
    const ssize_t n = ::pread(fd, text, sizeof(text) - 1, 0);
    const std::string holder = n > 0 ? Cat(" (process ", std::string(text, static_cast<size_t>(n)), ")") : "";
    return FailedPrecondition("data folder: another server uses it", holder,
                              ", want a folder of its own or that server stopped");
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return FileError(errno, "write", "data folder: server.lock");
  return lock;
}

DataLock::DataLock(DataLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

DataLock::~DataLock() {
  if (fd_ >= 0) ::close(fd_);  // and with it the lock
}

}  // namespace tempera
