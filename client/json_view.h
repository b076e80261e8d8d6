// Messages as JSON for scripts.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "base/json.h"

namespace tempera {

// Field names as in the .proto files. Unlike protobuf's own JSON, 64-bit integers are numbers, durations are
// seconds and every field without presence is there. Unset messages and optional fields are null; NaN and
// infinities too, since JSON has none. Timestamps are RFC 3339 in UTC with milliseconds; enumerators are
// their names; a google.rpc.Status is as in ErrorJson.
Json ToJson(const google::protobuf::Message& message);

// One line; bytes that are no UTF-8 are replaced.
std::string OneLine(const Json& json);

}  // namespace tempera
