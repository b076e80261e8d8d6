// Time that stands still until a test moves it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "jobs/job_store.h"

namespace tempera {

class FakeClock {
 public:
  void Advance(int64_t ms) { *now_ += ms; }
  int64_t now() const { return *now_; }
  JobStoreOptions Options() const {
    JobStoreOptions options;
    options.now_ms = [now = now_] { return now->load(); };
    return options;
  }

 private:
  std::shared_ptr<std::atomic<int64_t>> now_ = std::make_shared<std::atomic<int64_t>>(1'700'000'000'000);
};

}  // namespace tempera
