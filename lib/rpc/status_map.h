// Status <-> gRPC status with google.rpc details; the only such place.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tempera::rpc {

// ErrorInfo.domain of every error.
inline constexpr char kErrorDomain[] = "tempera";

// Every ErrorInfo.reason. An error without one of its own carries its code's name ("NOT_FOUND").
inline constexpr char kInvalidField[] = "INVALID_FIELD";         // see BadRequest
inline constexpr char kRequestIdReused[] = "REQUEST_ID_REUSED";  // same request id, other body
inline constexpr char kModelNotFound[] = "MODEL_NOT_FOUND";
inline constexpr char kArtifactNotFound[] = "ARTIFACT_NOT_FOUND";
inline constexpr char kAliasNotFound[] = "ALIAS_NOT_FOUND";
inline constexpr char kJobNotFound[] = "JOB_NOT_FOUND";
inline constexpr char kOperationNotFound[] = "OPERATION_NOT_FOUND";
inline constexpr char kFileNotFound[] = "FILE_NOT_FOUND";
inline constexpr char kLayerNotFound[] = "LAYER_NOT_FOUND";
inline constexpr char kModelNotLoaded[] = "MODEL_NOT_LOADED";
inline constexpr char kPathOutsideRoots[] = "PATH_OUTSIDE_ROOTS";
inline constexpr char kArtifactDamaged[] = "ARTIFACT_DAMAGED";
inline constexpr char kArtifactInUse[] = "ARTIFACT_IN_USE";  // by a generation or an alias
inline constexpr char kBadModel[] = "BAD_MODEL";             // the folder is no model that can be loaded
inline constexpr char kQueueFull[] = "QUEUE_FULL";
inline constexpr char kMemoryBudget[] = "MEMORY_BUDGET";
inline constexpr char kSlowReader[] = "SLOW_READER";
inline constexpr char kDraining[] = "DRAINING";
inline constexpr char kJobNotFinished[] = "JOB_NOT_FINISHED";
inline constexpr char kEtagMismatch[] = "ETAG_MISMATCH";
inline constexpr char kAliasMoved[] = "ALIAS_MOVED";
inline constexpr char kNumericFailure[] = "NUMERIC_FAILURE";

// Attach facts to an error; they travel in the Status and become details on the wire. A later call wins; on
// OK they do nothing.
Status WithReason(Status status, std::string_view reason);
// The request's field that is wrong, as a path: "spec.weight_bits".
Status WithField(Status status, std::string_view path);
Status WithResource(Status status, std::string_view type, std::string_view name);
Status WithRetry(Status status, std::chrono::milliseconds delay);

std::optional<std::string> Reason(const Status& status);
std::optional<std::string> Field(const Status& status);
std::optional<std::chrono::milliseconds> RetryDelay(const Status& status);

// "INVALID_ARGUMENT"; "UNKNOWN" for numbers outside of the list.
std::string_view CodeName(int code);

// The wire form: exactly one ErrorInfo; BadRequest for INVALID_ARGUMENT whose text begins with a field of
// `request`
// ("steps: ..." finds `spec.steps`) or that WithField marked; RetryInfo for UNAVAILABLE (1 s)
// and where WithRetry marked; ResourceInfo where WithResource marked; RequestInfo where there is an id. Texts
// are cut to 2 KiB of valid UTF-8. REQUIRES: !status.ok().
google::rpc::Status ToProto(const Status& status, const google::protobuf::Descriptor* request = nullptr,
                            std::string_view request_id = {});
// OK stays OK.
grpc::Status ToGrpc(const Status& status, const google::protobuf::Descriptor* request = nullptr,
                    std::string_view request_id = {});

// Back: code, text, reason, field, resource and retry delay.
Status FromGrpc(const grpc::Status& status);
Status FromProto(const google::rpc::Status& status);

// The path of `name` in `message`: `name` itself, or the least nested field called so if it is the only one
// at its depth; else empty.
std::string FindField(const google::protobuf::Descriptor& message, std::string_view name);

// The path of the request's field that the error is about: what WithField marked, or for InvalidArgument the
// field whose name the text begins with; else empty.
std::string FieldOf(const Status& status, const google::protobuf::Descriptor& request);

}  // namespace tempera::rpc
