#include "nn/large_blocks.h"

#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include <mutex>
#include <unordered_map>
#include <vector>

namespace tempera::nn {
namespace {

constexpr size_t kLarge = size_t{4} << 20, kHugePage = size_t{2} << 20;

struct Block {
  void* data = nullptr;
  size_t bytes = 0;
};

// Outlives every tensor: never destroyed.
class Pool final : public c10::Allocator {
 public:
  static Pool& Get() {
    static Pool* const pool = new Pool;
    return *pool;
  }

  void Allow(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (!installed_) c10::SetCPUAllocator(this, /*priority=*/1);
    installed_ = true;
    limit_ += bytes;
  }
  void Withdraw(size_t bytes) {
    std::vector<Block> out;
    {
      const std::lock_guard lock(mutex_);
      limit_ -= bytes;
      out = OverLimit(limit_);
    }
    Unmap(out);
  }
  void Release() {
    std::vector<Block> out;
    {
      const std::lock_guard lock(mutex_);
      out = OverLimit(0);
    }
    Unmap(out);
  }

  c10::DataPtr allocate(size_t n) override {
    if (n < kLarge) return base_->allocate(n);
    Block block = Take(n);
    if (block.data == nullptr) {
      block.bytes = (n + kHugePage - 1) / kHugePage * kHugePage;
      block.data = mmap(nullptr, block.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (block.data == MAP_FAILED) return base_->allocate(n);  // says what is wrong
      (void)madvise(block.data, block.bytes, MADV_HUGEPAGE);    // a hint
      const std::lock_guard lock(mutex_);
      bytes_of_[block.data] = block.bytes;
    }
    return {block.data, block.data, &Delete, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* dest, const void* src, size_t count) const override {
    default_copy_data(dest, src, count);
  }

  size_t kept_bytes() {
    const std::lock_guard lock(mutex_);
    return kept_bytes_;
  }

 private:
  Pool() : base_(c10::GetCPUAllocator()) {}

  // The kept block that fits best and wastes at most an eighth; none: data is null.
  Block Take(size_t n) {
    const std::lock_guard lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it)
      if (it->bytes >= n && it->bytes - kHugePage <= n + n / 8 &&
          (best == kept_.end() || it->bytes < best->bytes))
        best = it;
    if (best == kept_.end()) return {};
    const Block block = *best;
    kept_.erase(best);
    kept_bytes_ -= block.bytes;
    return block;
  }

  // Keeps the block; the oldest ones go where the limit is passed. False: it is none of the pool's.
  bool Keep(void* data) {
    std::vector<Block> out;
    {
      const std::lock_guard lock(mutex_);
      const auto it = bytes_of_.find(data);
      if (it == bytes_of_.end()) return false;
      kept_.push_back({data, it->second});
      kept_bytes_ += it->second;
      out = OverLimit(limit_);
    }
    Unmap(out);
    return true;
  }

  // Takes the oldest blocks out of those kept until the rest is within the limit. REQUIRES: mutex_.
  std::vector<Block> OverLimit(size_t limit) {
    auto end = kept_.begin();
    for (; kept_bytes_ > limit; ++end) {
      kept_bytes_ -= end->bytes;
      bytes_of_.erase(end->data);
    }
    std::vector<Block> out(kept_.begin(), end);
    kept_.erase(kept_.begin(), end);
    return out;
  }
  static void Unmap(const std::vector<Block>& blocks) {
    for (const Block& b : blocks) munmap(b.data, b.bytes);
  }

  static void Delete(void* data) {
    if (data != nullptr && !Get().Keep(data)) Get().base_->raw_deleter()(data);
  }

  c10::Allocator* const base_;
  std::mutex mutex_;  // guards what follows
  bool installed_ = false;
  size_t limit_ = 0, kept_bytes_ = 0;
  std::vector<Block> kept_;  // in the order in which they came
  std::unordered_map<void*, size_t> bytes_of_;
};

}  // namespace

KeptBlocks::KeptBlocks(int64_t most_bytes) : bytes_(static_cast<size_t>(most_bytes)) {
  Pool::Get().Allow(bytes_);
}
KeptBlocks::~KeptBlocks() { Pool::Get().Withdraw(bytes_); }

void ReleaseFreedMemory() {
  Pool::Get().Release();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

int64_t KeptBlockBytes() { return static_cast<int64_t>(Pool::Get().kept_bytes()); }

}  // namespace tempera::nn
