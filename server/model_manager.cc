#include "server/model_manager.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/log.h"
#include "rpc/status_map.h"

namespace tempera {

using SystemClock = std::chrono::system_clock;

std::string ArtifactLabel(const EngineInfo& info) { return info.is_artifact ? info.id.substr(0, 12) : ""; }

struct ModelLease::Entry {
  ModelManager* manager;
  const ModelRef ref;
  std::shared_ptr<const Engine> engine;
  const int64_t bytes;
  const SystemClock::time_point load_time = SystemClock::now();
  // Guarded by the manager's mutex.
  int active = 0;
  bool listed = true;
  SystemClock::time_point last_use = load_time;
  uint64_t order = 0;  // of the last use: two within one tick of the clock still differ
};

struct ModelManager::Waiter {
  CallScope scope;
  Done done;
  CallScope::Clock::time_point since = CallScope::Clock::now();
};

struct ModelManager::Loading {
  ModelRef ref;
  std::vector<Waiter> waiters;  // guarded by the manager's mutex
};

struct ModelManager::State {
  mutable std::mutex mutex;
  std::map<std::string, std::shared_ptr<Entry>> listed;
  std::map<std::string, std::shared_ptr<Loading>> loading;
  // How many entries, listed or still leased, share the labels {model, artifact} of the metrics.
  std::map<std::pair<std::string, std::string>, int> labels;
  int64_t used = 0;
  uint64_t uses = 0;
  std::stop_source stop;
};

ModelLease& ModelLease::operator=(ModelLease&& other) noexcept {
  if (this != &other) {
    Release();
    entry_ = std::move(other.entry_);
    load_time = other.load_time;
  }
  return *this;
}
void ModelLease::Release() {
  if (entry_ == nullptr) return;
  ModelManager* manager = entry_->manager;
  manager->EndLease(std::exchange(entry_, nullptr));
}
const Engine& ModelLease::engine() const { return *entry_->engine; }
const ModelRef& ModelLease::ref() const { return entry_->ref; }

ModelManager::ModelManager(Options options, Load load, Estimate estimate, Metrics& metrics,
                           std::function<void()> changed, std::function<void()> init_thread)
    : options_(options),
      load_(std::move(load)),
      estimate_(std::move(estimate)),
      metrics_(metrics),
      changed_(std::move(changed)),
      state_(std::make_unique<State>()),
      lifecycle_(std::make_unique<Lanes>(1, std::move(init_thread))) {
  metrics_.memory_budget_bytes.Set(static_cast<double>(options_.memory_budget_bytes));
}

ModelManager::~ModelManager() {
  state_->stop.request_stop();
  lifecycle_.reset();
}

void ModelManager::Acquire(const CallScope& scope, const ModelRef& ref, Done done) {
  if (Status status = scope.Check(); !status.ok()) return done(status);
  std::shared_ptr<Entry> entry;
  std::shared_ptr<Loading> begun;
  {
    std::lock_guard lock(state_->mutex);
    if (const auto it = state_->listed.find(ref.key()); it != state_->listed.end()) {
      entry = it->second;
      ++entry->active;
      entry->last_use = SystemClock::now();
      entry->order = ++state_->uses;
    } else {
      std::shared_ptr<Loading>& loading = state_->loading[ref.key()];
      if (loading == nullptr) {
        loading = std::make_shared<Loading>(Loading{ref, {}});
        begun = loading;
      }
      loading->waiters.push_back({scope, std::move(done)});
    }
  }
  if (entry != nullptr) return done(ModelLease(std::move(entry)));
  if (begun != nullptr) lifecycle_->Post([this, begun] { RunLoad(begun); });
}

void ModelManager::RunLoad(const std::shared_ptr<Loading>& loading) {
  std::vector<Waiter> gone, waiting;
  const auto take_gone = [&] {  // REQUIRES: the lock is held
    auto& waiters = loading->waiters;
    const auto left = std::stable_partition(waiters.begin(), waiters.end(),
                                            [](const Waiter& w) { return w.scope.Check().ok(); });
    gone.insert(gone.end(), std::make_move_iterator(left), std::make_move_iterator(waiters.end()));
    waiters.erase(left, waiters.end());
  };
  bool wanted;
  {
    std::lock_guard lock(state_->mutex);
    take_gone();
    wanted = !loading->waiters.empty();
    if (!wanted) state_->loading.erase(loading->ref.key());
  }
  Result<std::shared_ptr<Entry>> entry = absl::CancelledError("nobody waits");
  if (wanted) {
    entry = LoadNow(loading);
    std::lock_guard lock(state_->mutex);
    take_gone();
    waiting = std::move(loading->waiters);
    state_->loading.erase(loading->ref.key());
    if (entry.ok()) {
      (*entry)->active = static_cast<int>(waiting.size());
      (*entry)->order = ++state_->uses;
      state_->listed[loading->ref.key()] = *entry;
      state_->used += (*entry)->bytes;
    }
  }
  if (entry.ok()) {
    metrics_.memory_used_bytes.Set(static_cast<double>(used_bytes()));
    changed_();
  }
  for (Waiter& w : gone) w.done(w.scope.Check());
  for (Waiter& w : waiting) {
    if (!entry.ok()) {
      w.done(entry.status());
      continue;
    }
    ModelLease lease(*entry);
    lease.load_time =
        std::chrono::duration_cast<std::chrono::milliseconds>(CallScope::Clock::now() - w.since);
    w.done(std::move(lease));
  }
}

Result<std::shared_ptr<ModelManager::Entry>> ModelManager::LoadNow(const std::shared_ptr<Loading>& loading) {
  const ModelRef& ref = loading->ref;
  const int64_t budget = options_.memory_budget_bytes;
  const auto too_large = [&](int64_t bytes) {
    const Status full = rpc::WithReason(
        ResourceExhausted("model ", ref.shown, ": needs ", bytes, " bytes, of the memory budget of ", budget,
                          " bytes ", used_bytes(), " are in use"),
        rpc::kMemoryBudget);
    return bytes <= budget ? rpc::WithRetry(full, std::chrono::seconds(1)) : full;
  };
  if (budget > 0) MakeRoom(std::min(estimate_(ref), budget));
  const auto begin = CallScope::Clock::now();
  TEMPERA_ASSIGN(std::shared_ptr<const Engine> engine, load_(CallScope{state_->stop.get_token()}, ref));
  const double seconds = std::chrono::duration<double>(CallScope::Clock::now() - begin).count();
  const EngineInfo& info = engine->info();
  const int64_t bytes = info.memory_bytes();
  if (budget > 0) {
    if (bytes > budget) return too_large(bytes);
    MakeRoom(bytes);
    if (used_bytes() + bytes > budget) return too_large(bytes);
  }
  const std::string artifact = ArtifactLabel(info);
  {
    std::lock_guard lock(state_->mutex);
    ++state_->labels[{info.name, artifact}];
  }
  metrics_.model_loaded.Set(1, info.name, artifact);
  metrics_.model_bytes.Set(static_cast<double>(bytes), info.name, artifact);
  metrics_.model_load_seconds.Observe(seconds, info.name, artifact);
  if (info.is_artifact) {
    metrics_.cache_bytes.Set(static_cast<double>(info.cache_bytes), info.name, artifact);
    metrics_.cache_entries.Set(static_cast<double>(info.cache_entries), info.name, artifact);
  }
  for (const FeatureBaseline& baseline : info.baseline) {
    const std::string bin = TimestepBinLabel(baseline.timestep_bin);
    metrics_.temporal_error_baseline.Set(baseline.ratio, info.name, artifact, bin, baseline.block_group);
    metrics_.temporal_error_low.Set(baseline.low, info.name, artifact, bin, baseline.block_group);
    metrics_.temporal_error_high.Set(baseline.high, info.name, artifact, bin, baseline.block_group);
    if (info.reference_bytes > 0)
      metrics_.temporal_error.Touch(info.name, artifact, bin, baseline.block_group);
  }
  Log(LogLevel::kInfo, "model_loaded",
      {{"model", info.name}, {"artifact", info.id}, {"bytes", bytes}, {"seconds", seconds}});
  return std::make_shared<Entry>(
      Entry{.manager = this, .ref = ref, .engine = std::move(engine), .bytes = bytes});
}

// REQUIRES: on the lifecycle thread.
void ModelManager::MakeRoom(int64_t bytes) {
  for (;;) {
    std::shared_ptr<Entry> oldest;
    {
      std::lock_guard lock(state_->mutex);
      if (state_->used + bytes <= options_.memory_budget_bytes) return;
      for (const auto& [key, entry] : state_->listed)
        if (entry->active == 0 && (oldest == nullptr || entry->order < oldest->order)) oldest = entry;
      if (oldest == nullptr) return;
      oldest->listed = false;
      state_->listed.erase(oldest->ref.key());
    }
    Retire(std::move(oldest), "budget");
  }
}

// REQUIRES: on the lifecycle thread; the entry is not listed and has no lease.
void ModelManager::Retire(std::shared_ptr<Entry> entry, const char* reason) {
  if (entry->engine->info().is_artifact) metrics_.cache_evictions.Add(1, entry->engine->info().name, reason);
  Destroy(std::move(entry));
  changed_();
}

// REQUIRES: on the lifecycle thread; the entry is not listed and has no lease.
void ModelManager::Destroy(std::shared_ptr<Entry> entry) {
  const std::string model = entry->engine->info().name, artifact = ArtifactLabel(entry->engine->info());
  const std::string id = entry->engine->info().id;
  entry->engine.reset();
  bool last;
  {
    std::lock_guard lock(state_->mutex);
    state_->used -= entry->bytes;
    const auto it = state_->labels.find({model, artifact});
    last = --it->second == 0;
    if (last) state_->labels.erase(it);
  }
  metrics_.memory_used_bytes.Set(static_cast<double>(used_bytes()));
  if (last) metrics_.RemoveArtifact(model, artifact);
  Log(LogLevel::kInfo, "model_unloaded", {{"model", model}, {"artifact", id}});
}

void ModelManager::EndLease(const std::shared_ptr<Entry>& entry) {
  bool retire;
  {
    std::lock_guard lock(state_->mutex);
    --entry->active;
    entry->last_use = SystemClock::now();
    entry->order = ++state_->uses;
    retire = !entry->listed && entry->active == 0;
  }
  if (retire) lifecycle_->Post([this, entry] { Retire(entry, "unload"); });
}

Status ModelManager::Unload(const ModelRef& ref) {
  std::shared_ptr<Entry> entry;
  bool idle;
  {
    std::lock_guard lock(state_->mutex);
    const auto it = state_->listed.find(ref.key());
    if (it == state_->listed.end())
      return rpc::WithReason(NotFound("ref: ", ref.shown, " is not loaded"), rpc::kModelNotLoaded);
    entry = it->second;
    entry->listed = false;
    state_->listed.erase(it);
    idle = entry->active == 0;
  }
  lifecycle_->Post([this, entry, idle] { idle ? Retire(entry, "unload") : changed_(); });
  return OkStatus();
}

Status ModelManager::UnloadIdle(const ModelRef& ref) {
  {
    std::lock_guard lock(state_->mutex);
    const auto it = state_->listed.find(ref.key());
    const bool loading = state_->loading.contains(ref.key());
    if (loading || (it != state_->listed.end() && it->second->active > 0))
      return rpc::WithReason(FailedPrecondition("artifact ", ref.shown, ": is in use by a generation"),
                             rpc::kArtifactInUse);
    if (it == state_->listed.end()) return OkStatus();
  }
  const Status status = Unload(ref);
  return absl::IsNotFound(status) ? OkStatus() : status;
}

std::vector<LoadedModel> ModelManager::List() const {
  std::vector<std::pair<uint64_t, LoadedModel>> sorted;
  {
    std::lock_guard lock(state_->mutex);
    for (const auto& [key, e] : state_->listed)
      sorted.emplace_back(e->order, LoadedModel{e->ref, e->engine, e->active, e->load_time, e->last_use});
  }
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<LoadedModel> models;
  for (auto& [order, model] : sorted) models.push_back(std::move(model));
  return models;
}

int64_t ModelManager::used_bytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->used;
}

}  // namespace tempera
