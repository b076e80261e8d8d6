// What a server says about a failed call, as a Status that keeps the typed details.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "google/rpc/status.pb.h"

namespace tempera {

// The typed facts of an error (google.rpc.Status.details); what the server did not send is empty.
struct ErrorDetails {
  struct Field {
    std::string path;  // in the request, such as "spec.weight_bits"
    std::string description;
  };
  std::string reason;  // UPPER_SNAKE word, stable over releases
  std::string domain;
  std::map<std::string, std::string> metadata;
  std::vector<Field> fields;
  std::vector<std::string> conditions;  // preconditions and quotas that do not hold
  std::string resource_type, resource_name;
  std::string request_id;  // as the server's logs name the call
  std::optional<std::chrono::milliseconds> retry_delay;
};

// The call's status with the bytes of `grpc-status-details-bin` as payload.
Status FromGrpc(const grpc::Status& status);
// The same for a status that came inside a message (Operation.error, QuantizeJob.error).
Status FromRpcStatus(const google::rpc::Status& status);
// Unreadable details count as none.
ErrorDetails DetailsOf(const Status& status);

// "INVALID_ARGUMENT" ...
std::string_view CodeName(const Status& status);
// {"code", "message", "reason", "fields": [{"field", "description"}], ...}; what is empty is left out.
Json ErrorJson(const Status& status);
// The message, then one line for each detail that the message does not tell already.
std::string ErrorText(const Status& status);

}  // namespace tempera
