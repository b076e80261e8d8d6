// What every long piece of work must respect: its caller may leave, and its time may run out.
#pragma once

#include <chrono>
#include <stop_token>

#include "base/status.h"

namespace tempera {

// Passed by const reference, first parameter. Copies share the stop state.
struct CallScope {
  using Clock = std::chrono::steady_clock;

  std::stop_token stop;
  Clock::time_point deadline = Clock::time_point::max();

  // Call before each denoising step, reconstruction iteration and file: the longest gap between two calls is
  // the longest that a cancel can take (docs/architecture.md lists the gaps).
  Status Check() const {
    if (stop.stop_requested()) return absl::CancelledError("cancelled by the caller");
    if (Clock::now() >= deadline) return absl::DeadlineExceededError("deadline passed");
    return OkStatus();
  }
};

}  // namespace tempera
