// The table of quantization methods. A method is a row: which choices it makes, in which order, at which
// granularity.
#pragma once

#include <string_view>
#include <vector>

namespace tempera {

struct QuantMethod {
  const char* name;
  const char* summary;
  bool search_scales;    // weight scales by search (else min-max)
  bool reconstruct;      // learned rounding, unit by unit (else nearest)
  bool temporal_apart;   // the temporal information block is reconstructed alone and kept out of its blocks
  bool refine_inputs;    // equalized input channels; ranges of each row where no norm comes before the layer
  bool ranges_per_step;  // finite-set calibration: activation ranges of each step (else one static range)
};

// Sources: minmax is plain post-training quantization; brecq is arXiv 2102.05426 as diffusion baselines apply
// it; tfmq is arXiv 2311.16503 with the cache and selection of its journal version.
const std::vector<QuantMethod>& QuantMethods();
const QuantMethod* FindMethod(std::string_view name);  // null if there is none

}  // namespace tempera
