// Filters of job lists. Private to lib/jobs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tempera {

struct JobCondition {
  std::string field;   // "state", "model", "method", "name", "create_time", or "label"
  std::string op;      // "=", "!=", and for create_time "<", "<=", ">", ">="
  std::string label;   // key, for "label"
  std::string text;    // the value
  int64_t number = 0;  // JobState of "state", milliseconds of "create_time"
};

// The conjunction that JobQuery::filter describes. InvalidArgument names what was read and what was wanted.
Result<std::vector<JobCondition>> ParseJobFilter(std::string_view filter);

}  // namespace tempera
