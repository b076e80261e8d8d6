#include "stages/guidance.h"

#include <ATen/Functions.h>

#include <cmath>

namespace tempera {

at::Tensor Guide(const at::Tensor& output, double scale, double rescale) {
  const at::Tensor pairs = output.unflatten(0, {-1, 2});
  const at::Tensor against = pairs.select(1, 0), towards = pairs.select(1, 1);
  const at::Tensor guided = against + scale * (towards - against);
  if (rescale == 0) return guided;
  std::vector<int64_t> rest;
  for (int64_t d = 1; d < guided.dim(); ++d) rest.push_back(d);
  const auto spread = [&](const at::Tensor& t) { return t.std(rest, /*unbiased=*/true, /*keepdim=*/true); };
  return rescale * (guided * (spread(towards) / spread(guided))) + (1 - rescale) * guided;
}

at::Tensor GuidanceEmbedding(double scale, int64_t width) {
  const int64_t half = width / 2;
  const at::Tensor w = at::scalar_tensor(scale - 1, at::kFloat) * 1000.0;
  const at::Tensor frequencies =
      at::exp(at::arange(half, at::kFloat) * (-std::log(10000.0) / static_cast<double>(half - 1)));
  const at::Tensor angle = (w * frequencies).unsqueeze(0);
  const at::Tensor out = at::cat({at::sin(angle), at::cos(angle)}, 1);
  return width % 2 == 1 ? at::constant_pad_nd(out, {0, 1}) : out;
}

}  // namespace tempera
