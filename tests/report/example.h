// A made-up evaluation that looks like a real one, for tests and for a look at the page. Every number follows
// from the seed, the sizes and the names given.
#pragma once

#include <filesystem>

#include "report/report.h"

namespace tempera::example {

struct Shape {
  int steps = 50;
  int features = 22;
  int layers = 64;
  int samples = 10;      // pictures shown
  int side = 32;         // of a picture
  int channels = 1;      // 1 or 3
  bool compared = true;  // minmax and brecq beside tfmq
  bool painted = true;   // false: no pictures at all
  bool parts = false;    // text encoder and first stage in 8 bits
};

Evaluation MakeEvaluation(const Shape& shape);
Measurements MakeMeasurements();
// Writes the pictures that the evaluation names below `folder`.
void WritePictures(const Evaluation& evaluation, const Shape& shape, const std::filesystem::path& folder);

}  // namespace tempera::example
