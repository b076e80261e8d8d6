// What the embedded worker does, as metrics.
#pragma once

#include <chrono>
#include <string>

#include "metrics/metrics.h"
#include "worker/agent.h"

namespace tempera {

class WorkerMetrics final : public AgentObserver {
 public:
  explicit WorkerMetrics(Metrics& metrics) : metrics_(metrics) {}

 private:
  static constexpr char kKind[] = "embedded";

  // A claim is the first heartbeat: the stamp stands before the lease shows.
  void OnLeaseHeld(bool held) override {
    if (held) OnHeartbeat();
    metrics_.worker_leases.Set(held ? 1 : 0, kKind);
  }
  void OnLeasesExpired(int64_t count) override {
    metrics_.worker_lease_expired.Add(static_cast<double>(count), kKind);
  }
  void OnHeartbeat() override {
    metrics_.worker_heartbeat.Set(
        std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(), kKind);
  }
  void OnProgress(const std::string& job_id, double fraction) override {
    metrics_.job_progress.Set(fraction, job_id);
  }
  void OnStage(const std::string& stage, double seconds) override {
    metrics_.job_stage_seconds.Observe(seconds, stage);
  }
  void OnLeft(const std::string& job_id, const std::string& method, JobState state, double seconds) override {
    metrics_.job_progress.RemoveWhere("job", job_id);
    if (!IsTerminal(state)) return;
    const std::string result = StateLabel(state);
    metrics_.jobs_finished.Add(1, result, method);
    metrics_.job_seconds.Observe(seconds, method, result);
  }

 public:
  // "succeeded" ...
  static std::string StateLabel(JobState state) {
    std::string label(JobStateName(state));
    for (char& c : label) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    return label;
  }

 private:
  Metrics& metrics_;
};

}  // namespace tempera
