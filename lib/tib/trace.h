// Finds the temporal information block: what depends on tau and on nothing of x.
// Source: the reachability rule of TFMQ-DM's "temporal information block" (arXiv 2311.16503), applied to the
// graph of a recorded pass instead of to names.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "models/family.h"

namespace tempera {

// What temporal features depend on beside tau.
enum class TemporalClass : char {
  kA = 'A',  // nothing: one value a step
  kB = 'B',  // a class label: one value a (step, class)
  kC = 'C',  // the prompt: values of each request's own
};

struct TibTrace {
  TemporalClass temporal_class = TemporalClass::kA;
  std::vector<nn::Slot*> features;      // layers whose output meets x-dependent data, in execution order
  std::vector<nn::Slot*> trunk;         // the other layers that see tau (or the class) and never x
  std::vector<std::string> parameters;  // names of all parameters that the features depend on, sorted
};

// Runs one recorded pass on a small input and walks its gradient graph: a layer is temporal if tau or what
// time depends on beside it reaches its output, x and the context do not; it makes a feature if no other
// temporal layer reads it. Sets temporal_index of the features' slots. Internal if the family's own list of
// temporal layers is another one. REQUIRES: every slot in State::kFloat.
Result<TibTrace> TraceTib(Denoiser& network);

}  // namespace tempera
