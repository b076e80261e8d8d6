// Pictures side by side.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "pipeline/engine.h"

namespace tempera::zoo {

// Rows are filled from left to right, every pixel becomes scale x scale, grey lies between. InvalidArgument:
// a picture that is not as large as the first, columns not 1 to 1000, scale not 1 to 64.
Result<Picture> JoinPictures(const std::vector<Picture>& pictures, int64_t columns, int64_t scale);

}  // namespace tempera::zoo
