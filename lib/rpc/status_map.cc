#include "rpc/status_map.h"

#include <absl/strings/cord.h>
#include <google/rpc/error_details.pb.h>

#include <algorithm>
#include <array>
#include <set>

namespace tempera::rpc {
namespace {

// Keys of the facts inside a Status.
constexpr char kReasonKey[] = "tempera/reason";
constexpr char kFieldKey[] = "tempera/field";
constexpr char kResourceTypeKey[] = "tempera/resource_type";
constexpr char kResourceNameKey[] = "tempera/resource_name";
constexpr char kRetryKey[] = "tempera/retry_ms";

constexpr size_t kMaxText = 2048;

static_assert(static_cast<int>(absl::StatusCode::kUnauthenticated) == grpc::StatusCode::UNAUTHENTICATED &&
                  static_cast<int>(absl::StatusCode::kInvalidArgument) ==
                      grpc::StatusCode::INVALID_ARGUMENT &&
                  static_cast<int>(absl::StatusCode::kDataLoss) == grpc::StatusCode::DATA_LOSS,
              "canonical codes are gRPC's numbers");

constexpr std::array<std::string_view, 17> kCodes{
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

Status Put(Status status, const char* key, std::string_view value) {
  if (!status.ok()) status.SetPayload(key, absl::Cord(absl::string_view(value.data(), value.size())));
  return status;
}

std::optional<std::string> Take(const Status& status, const char* key) {
  const auto value = status.GetPayload(key);
  if (!value) return std::nullopt;
  return std::string(*value);
}

// Length of the UTF-8 sequence at the front of `text`, 0 if it is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto tail = [&](size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!tail(1) || !tail(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!tail(1) || !tail(2) || !tail(3)) return 0;
    if (lead == 0xF0 && byte(1) < 0x90) return 0;
    if (lead == 0xF4 && byte(1) >= 0x90) return 0;
    return 4;
  }
  return 0;
}

// Valid UTF-8 of at most kMaxText bytes; what is not valid becomes "?".
std::string CleanText(std::string_view text) {
  std::string clean;
  while (!text.empty()) {
    const size_t n = Utf8Length(text);
    if (clean.size() + std::max<size_t>(n, 1) > kMaxText - 3) return clean + "...";
    if (n == 0) {
      clean.push_back('?');
      text.remove_prefix(1);
    } else {
      clean.append(text.substr(0, n));
      text.remove_prefix(n);
    }
  }
  return clean;
}

// Every path below `message` whose last part is `name`. A message type is entered once on each way down.
void Search(const google::protobuf::Descriptor& message, std::string_view name, const std::string& prefix,
            std::set<const google::protobuf::Descriptor*>& above, std::vector<std::string>& found) {
  if (!above.insert(&message).second) return;
  for (int i = 0; i < message.field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = message.field(i);
    if (field->name() == name) found.push_back(prefix + field->name());
    if (field->message_type() != nullptr && !field->is_map())
      Search(*field->message_type(), name, prefix + field->name() + ".", above, found);
  }
  above.erase(&message);
}

// The part before the first ':' if it can be a field path, indices removed: "overrides[2].slot" ->
// "overrides.slot".
std::string LeadingPath(std::string_view text) {
  std::string path;
  bool index = false;
  for (const char c : text) {
    if (c == ':') return index ? "" : path;
    if (c == '[') {
      index = true;
    } else if (c == ']') {
      index = false;
    } else if (index) {
      if (c < '0' || c > '9') return "";
    } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.') {
      path.push_back(c);
    } else {
      return "";
    }
  }
  return "";
}

const google::protobuf::FieldDescriptor* Descend(const google::protobuf::Descriptor& message,
                                                 std::string_view path) {
  const google::protobuf::Descriptor* at = &message;
  const google::protobuf::FieldDescriptor* field = nullptr;
  while (!path.empty()) {
    if (at == nullptr) return nullptr;
    const size_t dot = path.find('.');
    field = at->FindFieldByName(std::string(path.substr(0, dot)));
    if (field == nullptr) return nullptr;
    at = field->message_type();
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return field;
}

template <typename Detail>
void AddDetail(google::rpc::Status& status, const Detail& detail) {
  status.add_details()->PackFrom(detail);
}

}  // namespace

Status WithReason(Status status, std::string_view reason) {
  return Put(std::move(status), kReasonKey, reason);
}
Status WithField(Status status, std::string_view path) { return Put(std::move(status), kFieldKey, path); }
Status WithResource(Status status, std::string_view type, std::string_view name) {
  return Put(Put(std::move(status), kResourceTypeKey, type), kResourceNameKey, name);
}
Status WithRetry(Status status, std::chrono::milliseconds delay) {
  return Put(std::move(status), kRetryKey, std::to_string(delay.count()));
}

std::optional<std::string> Reason(const Status& status) { return Take(status, kReasonKey); }
std::optional<std::string> Field(const Status& status) { return Take(status, kFieldKey); }
std::optional<std::chrono::milliseconds> RetryDelay(const Status& status) {
  const auto text = Take(status, kRetryKey);
  if (!text) return std::nullopt;
  return std::chrono::milliseconds(std::atoll(text->c_str()));
}

std::string_view CodeName(int code) {
  return code >= 0 && code < static_cast<int>(kCodes.size()) ? kCodes[static_cast<size_t>(code)] : kCodes[2];
}

std::string FindField(const google::protobuf::Descriptor& message, std::string_view name) {
  if (name.empty()) return "";
  if (Descend(message, name) != nullptr) return std::string(name);
  const size_t dot = name.find('.');
  std::set<const google::protobuf::Descriptor*> above;
  std::vector<std::string> found;
  Search(message, name.substr(0, dot), "", above, found);
  const auto depth = [](const std::string& path) { return std::count(path.begin(), path.end(), '.'); };
  std::stable_sort(found.begin(), found.end(),
                   [&](const std::string& a, const std::string& b) { return depth(a) < depth(b); });
  if (found.empty() || (found.size() > 1 && depth(found[0]) == depth(found[1]))) return "";
  const std::string path = dot == std::string_view::npos ? found[0] : Cat(found[0], name.substr(dot));
  return Descend(message, path) != nullptr ? path : "";
}

std::string FieldOf(const Status& status, const google::protobuf::Descriptor& request) {
  const std::optional<std::string> marked = Field(status);
  if (marked || !absl::IsInvalidArgument(status)) return marked.value_or("");
  return FindField(request, LeadingPath(Message(status)));
}

google::rpc::Status ToProto(const Status& status, const google::protobuf::Descriptor* request,
                            std::string_view request_id) {
  google::rpc::Status proto;
  const int code = status.raw_code();
  const std::string text = CleanText(Message(status));
  proto.set_code(code);
  proto.set_message(text);

  const std::string field = request != nullptr ? FieldOf(status, *request) : Field(status).value_or("");

  google::rpc::ErrorInfo info;
  info.set_reason(Reason(status).value_or(field.empty() ? std::string(CodeName(code)) : kInvalidField));
  info.set_domain(kErrorDomain);
  if (!field.empty()) (*info.mutable_metadata())["field"] = field;
  const auto resource_type = Take(status, kResourceTypeKey);
  const std::string resource_name = CleanText(Take(status, kResourceNameKey).value_or(""));
  if (resource_type) {
    (*info.mutable_metadata())["resourceType"] = *resource_type;
    (*info.mutable_metadata())["resourceName"] = resource_name;
  }
  AddDetail(proto, info);

  if (!field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(text);
    AddDetail(proto, bad);
  }
  if (resource_type) {
    google::rpc::ResourceInfo resource;
    resource.set_resource_type(*resource_type);
    resource.set_resource_name(resource_name);
    resource.set_description(text);
    AddDetail(proto, resource);
  }
  // A full disk or too small a budget does not pass by itself: of RESOURCE_EXHAUSTED only who says so is
  // asked again.
  if (status.code() == absl::StatusCode::kUnavailable || RetryDelay(status)) {
    const auto delay = RetryDelay(status).value_or(std::chrono::seconds(1));
    google::rpc::RetryInfo info_retry;
    info_retry.mutable_retry_delay()->set_seconds(delay.count() / 1000);
    info_retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(delay.count() % 1000 * 1'000'000));
    AddDetail(proto, info_retry);
  }
  if (!request_id.empty()) {
    google::rpc::RequestInfo about;
    about.set_request_id(CleanText(request_id));
    AddDetail(proto, about);
  }
  return proto;
}

grpc::Status ToGrpc(const Status& status, const google::protobuf::Descriptor* request,
                    std::string_view request_id) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status proto = ToProto(status, request, request_id);
  return grpc::Status(static_cast<grpc::StatusCode>(proto.code()), proto.message(),
                      proto.SerializeAsString());
}

Status FromProto(const google::rpc::Status& proto) {
  if (proto.code() == 0) return OkStatus();
  Status status(static_cast<absl::StatusCode>(proto.code()), absl::string_view(proto.message()));
  for (const google::protobuf::Any& detail : proto.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    google::rpc::ResourceInfo resource;
    if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info)) {
      status = WithReason(std::move(status), info.reason());
    } else if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&bad) &&
               bad.field_violations_size() > 0) {
      status = WithField(std::move(status), bad.field_violations(0).field());
    } else if (detail.Is<google::rpc::RetryInfo>() && detail.UnpackTo(&retry)) {
      const auto& delay = retry.retry_delay();
      status = WithRetry(std::move(status),
                         std::chrono::milliseconds(delay.seconds() * 1000 + delay.nanos() / 1'000'000));
    } else if (detail.Is<google::rpc::ResourceInfo>() && detail.UnpackTo(&resource)) {
      status = WithResource(std::move(status), resource.resource_type(), resource.resource_name());
    }
  }
  return status;
}

Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return OkStatus();
  google::rpc::Status proto;
  if (!status.error_details().empty() && proto.ParseFromString(status.error_details()) &&
      proto.code() == static_cast<int>(status.error_code())) {
    return FromProto(proto);
  }
  return Status(static_cast<absl::StatusCode>(status.error_code()),
                absl::string_view(status.error_message()));
}

}  // namespace tempera::rpc
