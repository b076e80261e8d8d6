#include "metrics/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "base/status.h"

namespace tempera {
namespace {

double OpenFiles() {
  DIR* folder = ::opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  double count = -1;  // the folder's own descriptor
  while (const dirent* entry = ::readdir(folder))
    if (entry->d_name[0] != '.') ++count;
  ::closedir(folder);
  return count;
}

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double CpuSeconds() {
  rusage use{};
  ::getrusage(RUSAGE_SELF, &use);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(use.ru_utime) + seconds(use.ru_stime);
}

}  // namespace

std::string TimestepBinLabel(int bin) {
  TEMPERA_CHECK(bin >= 0 && bin < 20, Cat("timestep bin ", bin));
  return Cat(bin / 10, bin % 10);
}

Metrics::Metrics(const BuildInfo& build) {
  build_info.Set(1, build.version, build.revision, build.torch, build.device);
  process_start_time.Set(
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  memory_budget_bytes.Set(0);
  memory_used_bytes.Set(0);
  for (const char* state :
       {"queued", "running", "cancelling", "succeeded", "failed", "cancelled", "rejected"})
    jobs.Touch(state);
  worker_leases.Touch("embedded");
  worker_lease_expired.Touch("embedded");
  for (const char* op : {"get", "put", "list", "delete"}) {
    for (const char* result : {"ok", "error"}) store_requests.Touch(op, result);
    store_seconds.Touch(op);
    store_bytes.Touch(op);
  }
  ReadProcess();
}

void Metrics::ReadProcess() {
  std::lock_guard lock(process_mutex_);
  const double now = CpuSeconds();
  process_cpu_seconds.Add(std::max(0.0, now - cpu_seconds_));
  cpu_seconds_ = std::max(cpu_seconds_, now);
  process_resident_bytes.Set(ResidentBytes());
  process_open_fds.Set(OpenFiles());
}

std::string Metrics::Text() {
  for (const auto& hook : hooks_) hook();
  ReadProcess();
  series.Touch();  // before it counts itself
  series.Set(static_cast<double>(registry.SeriesCount()));
  return registry.Text();
}

void Metrics::RemoveArtifact(std::string_view model, std::string_view artifact) {
  for (MetricFamilyBase* family : std::initializer_list<MetricFamilyBase*>{
           &generation_seconds, &step_seconds, &temporal_error, &temporal_error_baseline, &temporal_error_low,
           &temporal_error_high, &cache_bytes, &cache_entries, &model_loaded, &model_bytes,
           &model_load_seconds})
    family->RemoveWhere("model", model, "artifact", artifact);
}

}  // namespace tempera
