// Memory of large tensors, handed on from one to the next.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tempera::nn {

// While one lives, LibTorch's CPU tensors of 4 MiB and more keep their memory for the next one of about their
// size, up to `most_bytes` of it (several add up): malloc gives such memory back to the system, which then
// clears every page anew, half of the time that learning the rounding of a large block takes. Thread-safe.
class KeptBlocks {
 public:
  explicit KeptBlocks(int64_t most_bytes);
  ~KeptBlocks();
  KeptBlocks(const KeptBlocks&) = delete;
  KeptBlocks& operator=(const KeptBlocks&) = delete;

 private:
  size_t bytes_;
};

// Gives what is kept, and what malloc keeps of memory that was freed, back to the system: gibibytes after a
// large network, whose tensors lie between others. Milliseconds. Thread-safe.
void ReleaseFreedMemory();

// Does it when it goes: declared before what holds the memory.
struct FreedMemoryRelease {
  FreedMemoryRelease() = default;
  ~FreedMemoryRelease() { ReleaseFreedMemory(); }
  FreedMemoryRelease(const FreedMemoryRelease&) = delete;
  FreedMemoryRelease& operator=(const FreedMemoryRelease&) = delete;
};

// Bytes that are kept now.
int64_t KeptBlockBytes();

}  // namespace tempera::nn
