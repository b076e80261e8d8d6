// Filters and orders of lists (AIP-160 subset).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "jobs/filter.h"
#include "server/artifact_index.h"

namespace tempera {

// The field `alias` of the API is `name` in the job store.
std::string AliasToName(std::string_view filter);

// model, method, alias, labels.KEY with = and !=; create_time with order. InvalidArgument begins with
// "filter".
Result<std::vector<JobCondition>> ParseArtifactFilter(const std::string& filter);
// `aliases` point to the artifact now.
bool Matches(const std::vector<JobCondition>& conditions, const ArtifactSummary& artifact,
             const std::vector<std::string>& aliases);

// "create_time" or "create_time desc" (also ""): true for descending.
Result<bool> Descending(const std::string& order_by);

}  // namespace tempera
