#include "client/errors.h"

#include <absl/strings/cord.h>

#include <array>

#include "google/rpc/error_details.pb.h"

namespace tempera {
namespace {

constexpr char kPayload[] = "type.googleapis.com/google.rpc.Status";

Status Make(int code, const std::string& message, const std::string& details) {
  if (code == 0) return OkStatus();
  // A code that this client does not know is an error all the same.
  if (code < 0 || code > 16) code = static_cast<int>(absl::StatusCode::kUnknown);
  Status status(static_cast<absl::StatusCode>(code), message);
  if (!details.empty()) status.SetPayload(kPayload, absl::Cord(details));
  return status;
}

}  // namespace

Status FromGrpc(const grpc::Status& status) {
  return Make(status.error_code(), status.error_message(), status.error_details());
}

Status FromRpcStatus(const google::rpc::Status& status) {
  return Make(status.code(), status.message(), status.SerializeAsString());
}

ErrorDetails DetailsOf(const Status& status) {
  ErrorDetails d;
  const auto payload = status.GetPayload(kPayload);
  google::rpc::Status rich;
  if (!payload.has_value() || !rich.ParseFromString(std::string(*payload))) return d;
  for (const auto& any : rich.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    google::rpc::PreconditionFailure precondition;
    google::rpc::QuotaFailure quota;
    google::rpc::ResourceInfo resource;
    google::rpc::RequestInfo request;
    if (any.UnpackTo(&info)) {
      d.reason = info.reason();
      d.domain = info.domain();
      d.metadata.insert(info.metadata().begin(), info.metadata().end());
    } else if (any.UnpackTo(&bad)) {
      for (const auto& v : bad.field_violations()) d.fields.push_back({v.field(), v.description()});
    } else if (any.UnpackTo(&retry)) {
      d.retry_delay = std::chrono::milliseconds(retry.retry_delay().seconds() * 1000 +
                                                retry.retry_delay().nanos() / 1000000);
    } else if (any.UnpackTo(&precondition)) {
      for (const auto& v : precondition.violations())
        d.conditions.push_back(Cat(v.type(), " ", v.subject(), ": ", v.description()));
    } else if (any.UnpackTo(&quota)) {
      for (const auto& v : quota.violations())
        d.conditions.push_back(Cat(v.subject(), ": ", v.description()));
    } else if (any.UnpackTo(&resource)) {
      d.resource_type = resource.resource_type();
      d.resource_name = resource.resource_name();
    } else if (any.UnpackTo(&request)) {
      d.request_id = request.request_id();
    }
  }
  return d;
}

std::string_view CodeName(const Status& status) {
  static constexpr std::array<std::string_view, 17> kNames{
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return kNames[static_cast<size_t>(status.raw_code()) % kNames.size()];
}

Json ErrorJson(const Status& status) {
  const ErrorDetails d = DetailsOf(status);
  Json out = {{"code", CodeName(status)}, {"message", Message(status)}};
  if (!d.reason.empty()) out["reason"] = d.reason;
  if (!d.metadata.empty()) out["metadata"] = d.metadata;
  for (const auto& f : d.fields) out["fields"].push_back({{"field", f.path}, {"description", f.description}});
  if (!d.conditions.empty()) out["conditions"] = d.conditions;
  if (!d.resource_name.empty()) out["resource"] = {{"type", d.resource_type}, {"name", d.resource_name}};
  if (!d.request_id.empty()) out["request_id"] = d.request_id;
  if (d.retry_delay) out["retry_after_ms"] = d.retry_delay->count();
  return out;
}

std::string ErrorText(const Status& status) {
  const ErrorDetails d = DetailsOf(status);
  std::string text = Message(status);
  if (text.empty()) text = CodeName(status);
  const std::string head = text;
  auto told = [&](const std::string& s) { return head.find(s) != std::string::npos; };
  for (const auto& f : d.fields)
    if (!told(f.description)) text += Cat("\n  ", f.path, ": ", f.description);
  for (const auto& c : d.conditions)
    if (!told(c)) text += Cat("\n  ", c);
  if (d.retry_delay && d.retry_delay->count() > 0)
    text += Cat("\n  try again in ", (d.retry_delay->count() + 999) / 1000, " s");
  if (!d.reason.empty()) text += Cat("\n  (", CodeName(status), ", ", d.reason, ")");
  return text;
}

}  // namespace tempera
