// The models and artifacts in memory: loaded on first use, within a budget, least recently used out first.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/executors.h"
#include "base/status.h"
#include "metrics/metrics.h"
#include "pipeline/engine.h"

namespace tempera {

// What can be loaded, resolved: an artifact by its id or a model by its folder.
struct ModelRef {
  bool is_artifact = false;
  std::string id;                // artifact: 64 hexadecimal digits
  std::filesystem::path folder;  // model: real path under a root
  std::string shown;             // for answers: the id, or the folder relative to its root
  std::string key() const { return is_artifact ? "artifact:" + id : "model:" + folder.string(); }
};

// First 12 digits of an artifact's id, empty for a model: the label of metrics.
std::string ArtifactLabel(const EngineInfo& info);

class ModelManager;

// The right to use a loaded engine, which stays in memory as long as the lease lives. Movable.
class ModelLease {
 public:
  ModelLease() = default;
  ModelLease(ModelLease&& other) noexcept = default;
  ModelLease& operator=(ModelLease&& other) noexcept;
  ~ModelLease() { Release(); }
  explicit operator bool() const { return entry_ != nullptr; }
  const Engine& engine() const;
  const ModelRef& ref() const;
  // How long this lease waited for the load; 0 if it was resident.
  std::chrono::milliseconds load_time{0};

 private:
  friend class ModelManager;
  struct Entry;
  explicit ModelLease(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
  void Release();
  std::shared_ptr<Entry> entry_;
};

struct LoadedModel {
  ModelRef ref;
  std::shared_ptr<const Engine> engine;
  int active = 0;  // leases
  std::chrono::system_clock::time_point load_time, last_use;
};

// Laws. Loads, evictions and destructions run one after the other on one thread; what is wanted twice is
// loaded once. A loaded entry is listed until it is unloaded or evicted, and counts in used_bytes() until its
// last lease has ended. Only entries without leases are evicted. A load that does not fit beside what is in
// use fails; it never waits for a lease to end.
//
// Thread-safe. Must outlive its leases.
class ModelManager {
 public:
  struct Options {
    int64_t memory_budget_bytes = 0;  // 0: no limit
  };
  // Loads what a ref names. Called on the lifecycle thread.
  using Load = std::function<Result<std::shared_ptr<const Engine>>(const CallScope&, const ModelRef&)>;
  // Least memory that a ref will take, from sizes on disk; 0 if not known. What is idle makes room before the
  // load.
  using Estimate = std::function<int64_t(const ModelRef&)>;
  using Done = std::function<void(Result<ModelLease>)>;

  // `changed` is told after each load and unload, on the lifecycle thread, without locks. `init_thread` runs
  // first there.
  ModelManager(Options options, Load load, Estimate estimate, Metrics& metrics, std::function<void()> changed,
               std::function<void()> init_thread);
  // Waits for the load in progress, which is told to stop. REQUIRES: no lease lives.
  ~ModelManager();

  // Calls `done` with a lease: on this thread at once if resident, else on the lifecycle thread. A waiter
  // whose scope has ended gets its error; the load is dropped when nobody waits any more and it has not
  // begun.
  void Acquire(const CallScope& scope, const ModelRef& ref, Done done);
  // Out of the list now; leases keep theirs. NotFound if it is not loaded.
  Status Unload(const ModelRef& ref);
  // Unload that refuses while leases live: FailedPrecondition. Not loaded is OK.
  Status UnloadIdle(const ModelRef& ref);

  std::vector<LoadedModel> List() const;  // most recently used first
  int64_t used_bytes() const;
  int64_t budget_bytes() const { return options_.memory_budget_bytes; }

 private:
  friend class ModelLease;
  using Entry = ModelLease::Entry;
  struct Waiter;
  struct Loading;
  struct State;

  void RunLoad(const std::shared_ptr<Loading>& loading);
  Result<std::shared_ptr<Entry>> LoadNow(const std::shared_ptr<Loading>& loading);
  void MakeRoom(int64_t bytes);
  void Retire(std::shared_ptr<Entry> entry, const char* reason);
  void EndLease(const std::shared_ptr<Entry>& entry);
  void Destroy(std::shared_ptr<Entry> entry);

  const Options options_;
  const Load load_;
  const Estimate estimate_;
  Metrics& metrics_;
  const std::function<void()> changed_;
  std::unique_ptr<State> state_;
  std::unique_ptr<Lanes> lifecycle_;  // last: it stops first
};

}  // namespace tempera
