// One server on one data folder.
#pragma once

#include <filesystem>

#include "base/status.h"

namespace tempera {

// Held by this process until it is destroyed or the process ends, however it ends. Workers don't take it.
class DataLock {
 public:
  // FailedPrecondition names the process that holds it.
  static Result<DataLock> Take(const std::filesystem::path& data);
  DataLock(DataLock&& other) noexcept;
  DataLock& operator=(DataLock&&) = delete;
  ~DataLock();

 private:
  explicit DataLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace tempera
