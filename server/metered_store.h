// An object store that counts what passes through it.
#pragma once

#include <memory>

#include "metrics/metrics.h"
#include "storage/object_store.h"

namespace tempera {

// The same store; each call is counted by kind (get, put, list, delete), result and time.
std::unique_ptr<ObjectStore> MeterStore(std::unique_ptr<ObjectStore> store, Metrics& metrics);

}  // namespace tempera
