#include "nn/params.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/temp_folder.h"

namespace tempera::nn {
namespace {

// What Take says of a tensor of `count` numbers, 0x3c00 and the like, one of them replaced.
Status TakeWith(Dtype dtype, int64_t count, int64_t at, uint32_t bits) {
  const TempFolder folder;
  const auto each = static_cast<size_t>(DtypeBytes(dtype));
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * each, 0x7b);  // large, and finite in all three
  std::memcpy(bytes.data() + static_cast<size_t>(at) * each, &bits, each);
  std::vector<TensorOut> tensors{{.name = "t", .dtype = dtype, .shape = {count}, .bytes = bytes}};
  folder.Write("w.safetensors", SafetensorsBytes(std::move(tensors)));
  const auto source = WeightSource::OpenFile(folder / "w.safetensors", "w.safetensors");
  if (!source.ok()) return source.status();
  Params params(*source, at::kCPU);
  (void)params.Take("t", {count});
  return params.Finish();
}

TEST(Params, EveryNumberMustBeFinite) {
  struct Case {
    Dtype dtype;
    uint32_t greatest, infinity;
  };
  for (const Case& c : {Case{Dtype::kF32, 0x7f7fffff, 0x7f800000},
                        {Dtype::kF16, 0x7bff, 0x7c00},
                        {Dtype::kBF16, 0x7f7f, 0x7f80}}) {
    const uint32_t sign = c.dtype == Dtype::kF32 ? 0x80000000 : 0x8000;
    for (const int64_t count : {1, 2, 3, 4, 5, 8, 13}) {
      for (int64_t at = 0; at < count; ++at) {
        for (const uint32_t s : {0u, sign}) {
          for (const uint32_t finite : {0u, 1u, c.greatest})
            EXPECT_TRUE(TakeWith(c.dtype, count, at, finite | s).ok()) << DtypeName(c.dtype) << " " << finite;
          for (const uint32_t not_finite : {c.infinity, c.infinity + 1, c.infinity | c.greatest}) {
            const Status status = TakeWith(c.dtype, count, at, not_finite | s);
            EXPECT_NE(Message(status).find("tensor t: holds a NaN or an infinity"), std::string::npos)
                << DtypeName(c.dtype) << ", " << at << " of " << count << ": " << status;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace tempera::nn
