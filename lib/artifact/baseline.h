// The manifest's table of temporal-feature errors, as those who load or show an artifact read it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// What the manifest says the errors of a timestep bin and block group are, over its steps and classes.
struct FeatureBaseline {
  int timestep_bin = 0;  // 0..19
  std::string block_group;
  double ratio = 0;          // mean
  double low = 0, high = 0;  // least and greatest: the mean of any traffic lies between them
};

// DataLoss names the field that is wrong.
Result<std::vector<FeatureBaseline>> ParseBaseline(const Json& baseline);

}  // namespace tempera
