#include "jobs/job.h"

#include <algorithm>
#include <array>

namespace tempera {
namespace {

using enum JobState;

constexpr std::array kMoves{
    JobMove{kQueued, kRunning},      // claimed
    JobMove{kQueued, kCancelled},    // nobody works on it: at once
    JobMove{kRunning, kQueued},      // lease ran out, or was given back
    JobMove{kRunning, kCancelling},  // the worker sees it at its next heartbeat
    JobMove{kRunning, kSucceeded},    JobMove{kRunning, kFailed},      JobMove{kRunning, kRejected},
    JobMove{kCancelling, kCancelled},  // stopped, given back, or its worker died
    JobMove{kCancelling, kSucceeded},  // the cancel came too late
    JobMove{kCancelling, kFailed},    JobMove{kCancelling, kRejected},
};

constexpr std::array<std::pair<JobState, std::string_view>, 7> kNames{{{kQueued, "QUEUED"},
                                                                       {kRunning, "RUNNING"},
                                                                       {kCancelling, "CANCELLING"},
                                                                       {kSucceeded, "SUCCEEDED"},
                                                                       {kFailed, "FAILED"},
                                                                       {kCancelled, "CANCELLED"},
                                                                       {kRejected, "REJECTED"}}};

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return IsLower(c) || (c >= 'A' && c <= 'Z'); }

}  // namespace

std::span<const JobMove> JobMoves() { return kMoves; }

bool IsLegalMove(JobState from, JobState to) {
  return std::any_of(kMoves.begin(), kMoves.end(),
                     [&](const JobMove& move) { return move.from == from && move.to == to; });
}

bool IsTerminal(JobState state) {
  return std::none_of(kMoves.begin(), kMoves.end(), [&](const JobMove& move) { return move.from == state; });
}

std::string_view JobStateName(JobState state) {
  for (const auto& [known, name] : kNames)
    if (known == state) return name;
  return "UNKNOWN";
}

Result<JobState> ParseJobState(std::string_view name) {
  for (const auto& [state, known] : kNames)
    if (known == name) return state;
  return InvalidArgument("job state: got \"", name.substr(0, 60),
                         "\", want QUEUED, RUNNING, CANCELLING, SUCCEEDED, FAILED, CANCELLED or REJECTED");
}

std::string Job::etag() const { return Cat(revision); }

Status MoveJob(Job& job, JobState to, int64_t now_ms) {
  if (!IsLegalMove(job.state, to))
    return FailedPrecondition("job \"", job.id, "\": no move from ", JobStateName(job.state), " to ",
                              JobStateName(to));
  job.state = to;
  if (IsTerminal(to)) job.end_ms = now_ms;
  return OkStatus();
}

Status CheckAliasName(std::string_view name) {
  const auto bad = [&](std::string_view what) {
    return InvalidArgument("alias \"", name.substr(0, 128), "\": ", what);
  };
  if (name.empty() || name.size() > 128) return bad(Cat("got ", name.size(), " characters, want 1 to 128"));
  if (!IsLetter(name.front()) && !IsDigit(name.front())) return bad("want a letter or digit at the front");
  for (const char c : name)
    if (!IsLetter(c) && !IsDigit(c) && c != '.' && c != '_' && c != '-' && c != ':')
      return bad("want letters, digits, '.', '_', '-' and one ':' only");
  if (std::count(name.begin(), name.end(), ':') > 1 || name.back() == ':')
    return bad("want at most one ':', inside");
  const bool hex =
      std::all_of(name.begin(), name.end(), [](char c) { return IsDigit(c) || (c >= 'a' && c <= 'f'); });
  if (hex && name.size() >= 12 && name.size() <= 64) return bad("reads as an artifact id");
  return OkStatus();
}

Status CheckLabels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > 64) return InvalidArgument("labels: got ", labels.size(), ", want at most 64");
  for (const auto& [key, value] : labels) {
    const bool key_ok = !key.empty() && key.size() <= 63 && IsLower(key.front()) &&
                        std::all_of(key.begin(), key.end(),
                                    [](char c) { return IsLower(c) || IsDigit(c) || c == '_' || c == '-'; });
    if (!key_ok)
      return InvalidArgument("labels: key \"", key.substr(0, 63),
                             "\", want 1 to 63 of a-z, 0-9, '_', '-', a letter at the front");
    const bool value_ok = value.size() <= 63 && std::all_of(value.begin(), value.end(), [](char c) {
                            return c >= ' ' && c <= '~' && c != '"' && c != '\\';
                          });
    if (!value_ok)
      return InvalidArgument("labels.", key,
                             ": want at most 63 printable ASCII characters without '\"' and '\\'");
  }
  return OkStatus();
}

}  // namespace tempera
