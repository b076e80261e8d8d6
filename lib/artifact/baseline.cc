#include "artifact/baseline.h"

namespace tempera {

Result<std::vector<FeatureBaseline>> ParseBaseline(const Json& baseline) {
  if (!baseline.is_array()) return DataLoss("manifest.json: baseline is wrong, want a list");
  std::vector<FeatureBaseline> rows;
  for (const Json& item : baseline) {
    FeatureBaseline row;
    Fields f(item, "manifest.json: baseline");
    f.Need("timestep_bin", row.timestep_bin);
    f.Need("block_group", row.block_group);
    f.Need("ratio", row.ratio);
    f.Need("low", row.low);
    f.Need("high", row.high);
    if (row.timestep_bin < 0 || row.timestep_bin >= 20)
      f.Fail("timestep_bin", Cat("is wrong, got ", row.timestep_bin, ", want 0 to 19"));
    if (const Status read = f.Finish(); !read.ok()) return DataLoss(Message(read));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace tempera
