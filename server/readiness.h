// Whether the server can be sent work: the stores answer, what was to be loaded is loaded, and it does not
// drain.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"

namespace tempera {

// Thread-safe.
class Readiness {
 public:
  explicit Readiness(const std::vector<std::string>& loads) {
    for (const std::string& ref : loads) loads_[ref] = Unavailable("is being loaded");
  }
  void SetStores(const Status& status) {
    std::lock_guard lock(mutex_);
    stores_ = status;
  }
  void SetLoad(const std::string& ref, const Status& status) {
    std::lock_guard lock(mutex_);
    loads_[ref] = status;
  }
  void SetDraining() {
    std::lock_guard lock(mutex_);
    draining_ = true;
  }
  // OK, or one line for each thing that is missing.
  Status Check() const {
    std::lock_guard lock(mutex_);
    std::string missing;
    if (draining_) missing += "server: is draining\n";
    if (!stores_.ok()) missing += Cat("stores: ", Message(stores_), "\n");
    for (const auto& [ref, status] : loads_)
      if (!status.ok()) missing += Cat("load ", ref, ": ", Message(status), "\n");
    return missing.empty() ? OkStatus() : Unavailable(missing);
  }

 private:
  mutable std::mutex mutex_;
  bool draining_ = false;
  Status stores_ = Unavailable("not asked yet");
  std::map<std::string, Status> loads_;
};

}  // namespace tempera
