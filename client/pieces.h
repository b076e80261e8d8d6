// A file that arrives in pieces and is not believed before its digest is right.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/files.h"
#include "base/status.h"

namespace tempera {

// Thread-compatible. Errors are DataLoss that names `label`.
class Pieces {
 public:
  Pieces(std::string label, int64_t total, uint64_t limit)
      : label_(std::move(label)), total_(total), limit_(limit) {}

  const std::string& label() const { return label_; }

  // Pieces come in order without gaps; `sha256` counts on the last one.
  Status Add(int64_t offset, int64_t total, const std::string& data, bool last, const std::string& sha256) {
    if (total < 0 || total != total_ || static_cast<uint64_t>(total) > limit_)
      return DataLoss(label_, ": size, got ", total, " bytes, want ",
                      total == total_ ? Cat("0 to ", limit_) : Cat(total_, " as before"));
    if (offset != static_cast<int64_t>(bytes_.size()))
      return DataLoss(label_, ": offset of a piece, got ", offset, ", want ", bytes_.size());
    if (data.size() > static_cast<uint64_t>(total) - bytes_.size())
      return DataLoss(label_, ": received bytes, got ", bytes_.size() + data.size(), ", want ", total);
    bytes_ += data;
    if (!last) return OkStatus();
    if (bytes_.size() != static_cast<uint64_t>(total))
      return DataLoss(label_, ": received bytes, got ", bytes_.size(), ", want ", total);
    const std::string got = Sha256Hex(bytes_);
    if (got != sha256)
      return DataLoss(label_, ": SHA-256 of the received bytes, got ", got, ", want ", sha256);
    return OkStatus();
  }

  // The whole file, after the last piece.
  std::string Take() { return std::move(bytes_); }

 private:
  std::string label_;
  int64_t total_;
  uint64_t limit_;
  std::string bytes_;
};

}  // namespace tempera
