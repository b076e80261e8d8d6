#include "quant/spill.h"

#include <ATen/Functions.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"

namespace tempera {

Result<at::Tensor> SpillStore::Make(at::IntArrayRef shape) {
  int64_t bytes = sizeof(float);
  for (const int64_t side : shape) bytes *= side;
  if (*held_ + bytes <= budget_ || bytes == 0) {
    *held_ += bytes;
    // The tensor's own storage, let go of with the view.
    at::Tensor storage = at::empty(shape, at::kFloat);
    void* data = storage.mutable_data_ptr();
    return at::from_blob(
        data, shape,
        [storage = std::move(storage), held = held_, bytes](void*) mutable {
          *held -= bytes;
          storage = at::Tensor();
        },
        at::kFloat);
  }
  const int file = open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0) return FileError(errno, "create a file of values", "spill");
  // Taken now: a disk that is full later would kill the process at a write to the mapping.
  if (const int error = posix_fallocate(file, 0, bytes); error != 0) {
    close(file);
    return FileError(error, "write values", "spill");
  }
  void* mapped = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (mapped == MAP_FAILED) return FileError(error, "map values", "spill");
  return at::from_blob(
      mapped, shape, [bytes](void* p) { munmap(p, static_cast<size_t>(bytes)); }, at::kFloat);
}

void SpillStore::Release(const at::Tensor& tensor) {
  constexpr uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) / kPage * kPage;
  const auto end = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) + tensor.nbytes();
  // A hint that loses nothing, whatever memory it is.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_PAGEOUT);
}

}  // namespace tempera
