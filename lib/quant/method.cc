#include "quant/method.h"

namespace tempera {

const std::vector<QuantMethod>& QuantMethods() {
  static const std::vector<QuantMethod> methods{
      {.name = "minmax",
       .summary = "nearest rounding, min-max scales, one static activation range",
       .search_scales = false,
       .reconstruct = false,
       .temporal_apart = false,
       .refine_inputs = false,
       .ranges_per_step = false},
      {.name = "brecq",
       .summary = "block reconstruction with the temporal layers inside their blocks, one static range",
       .search_scales = true,
       .reconstruct = true,
       .temporal_apart = false,
       .refine_inputs = false,
       .ranges_per_step = false},
      {.name = "tfmq",
       .summary = "temporal information reconstructed alone, cached and selected; blocks reconstructed on "
                  "it; ranges per step on equalized inputs",
       .search_scales = true,
       .reconstruct = true,
       .temporal_apart = true,
       .refine_inputs = true,
       .ranges_per_step = true},
      {.name = "tfmq-paper",
       .summary = "tfmq as published: no equalized inputs, static ranges everywhere",
       .search_scales = true,
       .reconstruct = true,
       .temporal_apart = true,
       .refine_inputs = false,
       .ranges_per_step = true},
  };
  return methods;
}

const QuantMethod* FindMethod(std::string_view name) {
  for (const QuantMethod& m : QuantMethods())
    if (name == m.name) return &m;
  return nullptr;
}

}  // namespace tempera
