#include "rpc/call.h"

#include <algorithm>
#include <random>

#include "rpc/status_map.h"

namespace tempera::rpc {
namespace {

bool Printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

std::string_view Find(const grpc::CallbackServerContext& context, const char* key) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(key);
  if (it == metadata.end()) return {};
  return {it->second.data(), it->second.size()};
}

bool LowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// The trace id of a W3C traceparent "00-<32>-<16>-<2>", or empty.
std::string_view TraceId(std::string_view parent) {
  if (parent.size() < 55 || parent[2] != '-' || parent[35] != '-' || parent[52] != '-') return {};
  const std::string_view id = parent.substr(3, 32);
  if (!LowerHex(parent.substr(0, 2)) || parent.substr(0, 2) == "ff" || !LowerHex(id) ||
      !LowerHex(parent.substr(36, 16)) || !LowerHex(parent.substr(53, 2)))
    return {};
  if (id.find_first_not_of('0') == std::string_view::npos) return {};
  return id;
}

CallScope::Clock::time_point Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return CallScope::Clock::time_point::max();
  const auto left = deadline - std::chrono::system_clock::now();
  // Beyond a year the sum could leave the clock's range.
  if (left > std::chrono::hours(24 * 365)) return CallScope::Clock::time_point::max();
  return CallScope::Clock::now() + std::chrono::duration_cast<CallScope::Clock::duration>(left);
}

}  // namespace

Status CheckRequestId(std::string_view id) {
  if (id.size() > 36) return InvalidArgument("request_id: got ", id.size(), " characters, want at most 36");
  if (!Printable(id)) return InvalidArgument("request_id: want printable ASCII characters without spaces");
  return OkStatus();
}

std::string RandomId() {
  thread_local std::mt19937_64 generator([] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }());
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string id(32, '0');
  for (size_t i = 0; i < id.size(); i += 16) {
    uint64_t bits = generator();
    for (size_t j = 0; j < 16; ++j, bits >>= 4) id[i + j] = kDigits[bits & 15];
  }
  return id;
}

CallInfo ReadCall(grpc::CallbackServerContext& context, std::string_view message_request_id,
                  std::stop_token stop) {
  CallInfo info;
  const std::string_view header = Find(context, "x-request-id");
  if (!message_request_id.empty() && CheckRequestId(message_request_id).ok()) {
    info.request_id = message_request_id;
  } else if (!header.empty() && header.size() <= 128 && Printable(header)) {
    info.request_id = header;
  } else {
    info.request_id = RandomId();
  }
  context.AddInitialMetadata("x-request-id", info.request_id);
  const std::string_view parent = Find(context, "traceparent");
  info.trace_id = TraceId(parent);
  if (!info.trace_id.empty()) context.AddInitialMetadata("traceparent", std::string(parent));
  info.scope.stop = std::move(stop);
  info.scope.deadline = Deadline(context);
  return info;
}

Status CancelReason(const CallScope& scope, const Status& status) {
  constexpr auto kTravel = std::chrono::milliseconds(250);
  if (status.code() == absl::StatusCode::kCancelled && CallScope::Clock::now() >= scope.deadline - kTravel)
    return absl::DeadlineExceededError("deadline passed");
  return status;
}

UnaryCall::UnaryCall(grpc::CallbackServerContext& context, const google::protobuf::Message& request,
                     std::string_view message_request_id)
    : request_(request.GetDescriptor()), info_(ReadCall(context, message_request_id, stop_.get_token())) {}

void UnaryCall::FinishWith(const Status& status) {
  Finish(ToGrpc(CancelReason(info_.scope, status), request_, info_.request_id));
}

}  // namespace tempera::rpc
