// A quantize job: its states, the moves between them, and what is known of it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// Persisted: the values are in the job store. Append, never renumber.
enum class JobState : uint8_t {
  kQueued = 1,      // waits for a worker, or for another after the last one died or drained
  kRunning = 2,     // a worker holds its lease
  kCancelling = 3,  // a cancel was asked for; the worker has not stopped yet
  kSucceeded = 4,   // artifact published
  kFailed = 5,
  kCancelled = 6,
  kRejected = 7,  // a worker refused it before computing: model out of its roots, unknown spec
};

struct JobMove {
  JobState from, to;
};

// Every legal move; terminal states have no way out.
std::span<const JobMove> JobMoves();
bool IsLegalMove(JobState from, JobState to);
bool IsTerminal(JobState state);
// "QUEUED" ...
std::string_view JobStateName(JobState state);
Result<JobState> ParseJobState(std::string_view name);

struct Progress {
  std::string stage;  // as in worker/quantize_job.h
  std::string unit;
  int64_t done = 0;
  int64_t total = 0;
  double fraction = 0;      // of the whole job, 0..1
  double eta_seconds = -1;  // -1: not known
};

// Times are milliseconds since 1970 UTC; 0: has not happened.
struct Job {
  std::string id;     // 16 hexadecimal digits
  std::string model;  // the folder as the client named it
  std::string name;   // alias that success sets, or empty
  std::map<std::string, std::string> labels;
  Json spec;               // the resolved QuantSpec
  std::string method;      // spec's, for filters and metrics
  std::string request_id;  // of the call that made it, or empty

  JobState state = JobState::kQueued;
  Progress progress;
  int64_t create_ms = 0;
  int64_t start_ms = 0;  // first claim
  int64_t update_ms = 0;
  int64_t end_ms = 0;     // terminal since
  int64_t attempts = 0;   // leases granted
  int64_t fruitless = 0;  // leases lost since the job last got further than ever before
  std::string worker;     // holder of the lease, or the last one
  int64_t lease_until_ms = 0;
  Status error;  // FAILED and REJECTED: why. QUEUED after a failed attempt: the last reason
  std::string artifact_id;
  int64_t revision = 0;  // of the store at the last change of this job; its etag

  std::string etag() const;
};

// A job to be made. REQUIRES of the caller: checked and resolved already.
struct NewJob {
  std::string model;
  std::string name;
  std::map<std::string, std::string> labels;
  Json spec;
  std::string method;
};

// The one function that changes a state; end_ms is set with a terminal one. FailedPrecondition for a move
// that is not in the table: the job stays as it was.
Status MoveJob(Job& job, JobState to, int64_t now_ms);

// An alias is 1 to 128 letters, digits, '.', '_', '-' beginning with a letter or digit, with at most one ':'
// inside that is not at an end ("emoji:stable"). What reads as an artifact id or a prefix of one (12 to 64
// lower-case hexadecimal digits) is refused.
Status CheckAliasName(std::string_view name);

// Labels: at most 64; keys 1 to 63 lower-case letters, digits, '_', '-', beginning with a letter; values at
// most 63 printable ASCII characters without '"' and '\'.
Status CheckLabels(const std::map<std::string, std::string>& labels);

}  // namespace tempera
