// What one call carries beside its message: ids for the logs, deadline, stop. And unary calls that finish on
// any thread.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/call.h"
#include "base/status.h"

namespace tempera::rpc {

// At most 36 printable ASCII characters without space; empty is legal: no id. InvalidArgument names the
// field.
Status CheckRequestId(std::string_view id);
// 32 random hexadecimal digits.
std::string RandomId();

// Fixed when the call arrives. Copyable; copies share the stop state.
struct CallInfo {
  std::string request_id;  // of the message if it has one, else of x-request-id, else drawn
  std::string trace_id;    // of traceparent, or empty
  CallScope scope;         // stops when the client leaves or the deadline passes
};

// Reads the metadata and answers `x-request-id` (and `traceparent` as it came) in the initial metadata.
CallInfo ReadCall(grpc::CallbackServerContext& context, std::string_view message_request_id,
                  std::stop_token stop);

// A cancelled call whose deadline has passed reports the deadline. So does one whose deadline is due: the
// client's clock started before the request travelled, so its cancellation comes before our deadline.
Status CancelReason(const CallScope& scope, const Status& status);

// A unary call: lives until gRPC is done with it. Finish() exactly once, from any thread; until then request,
// response and context are valid. Thread-compatible.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // `request` gives field paths for errors.
  UnaryCall(grpc::CallbackServerContext& context, const google::protobuf::Message& request,
            std::string_view message_request_id = {});

  const CallInfo& info() const { return info_; }
  const CallScope& scope() const { return info_.scope; }
  void FinishWith(const Status& status);

 private:
  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

  std::stop_source stop_;
  const google::protobuf::Descriptor* request_;
  CallInfo info_;
};

}  // namespace tempera::rpc
