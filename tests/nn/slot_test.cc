// State simulate and state integer compute the same numbers: integer sums are exact, so they differ by the
// rounding of float sums alone.
#include "nn/slot.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <random>

#include "nn/context.h"

namespace tempera::nn {
namespace {

struct Case {
  bool linear;
  int64_t batch, in, out, side, kernel, stride, split;
  std::array<int64_t, 4> pad;
};

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Int(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  at::Tensor Codes(at::IntArrayRef shape, int levels, bool extreme) {
    at::Tensor t = at::empty(shape, at::kByte);
    uint8_t* data = t.mutable_data_ptr<uint8_t>();
    for (int64_t i = 0; i < t.numel(); ++i)
      data[i] = static_cast<uint8_t>(extreme ? (Int(0, 1) * (levels - 1)) : Int(0, levels - 1));
    return t;
  }

 private:
  std::mt19937_64 engine_;
};

constexpr int64_t kSteps = 3;

// A slot with random codes, zero points (edges of the range too) and a range for each step.
Slot MakeSlot(const Case& c, int weight_bits, int activation_bits, Random& random, bool extreme) {
  Slot slot;
  slot.name = "layer";
  slot.linear = c.linear;
  slot.in_channels = c.in;
  slot.out_channels = c.out;
  slot.kh = slot.kw = c.kernel;
  slot.stride = c.stride;
  slot.pad = c.pad;
  slot.weight_bits = weight_bits;
  slot.activation_bits = activation_bits;
  slot.bias = at::randn({c.out});
  if (random.Int(0, 1) == 0) slot.gain = at::rand({c.in}) * 4 + 0.25;
  slot.dynamic = random.Int(0, 1) == 0;
  slot.parts.resize(c.split > 0 ? 2 : 1);
  slot.parts[0].channels = c.split > 0 ? c.split : c.in;
  if (c.split > 0) {
    slot.parts[1].begin = c.split;
    slot.parts[1].channels = c.in - c.split;
  }
  for (SlotPart& part : slot.parts) {
    std::vector<int64_t> shape{c.out, part.channels};
    if (!c.linear) shape.insert(shape.end(), {c.kernel, c.kernel});
    const int levels = 1 << weight_bits, top = (1 << activation_bits) - 1;
    part.codes = random.Codes(shape, levels, extreme);
    part.zero = random.Codes({c.out}, levels, extreme).to(at::kInt);
    part.scale = at::rand({c.out}) * 0.1 + 0.001;
    for (int64_t k = 0; k < kSteps; ++k)
      part.ranges.push_back({static_cast<float>(random.Int(1, 100)) * 0.001f,
                             static_cast<int32_t>(extreme ? random.Int(0, 1) * top : random.Int(0, top))});
  }
  return slot;
}

void ExpectSame(const Case& c, int weight_bits, int activation_bits, uint64_t seed, bool extreme) {
  SCOPED_TRACE(testing::Message() << "W" << weight_bits << "A" << activation_bits << " in " << c.in << " out "
                                  << c.out << " side " << c.side << " kernel " << c.kernel << " split "
                                  << c.split << " seed " << seed);
  at::manual_seed(seed);
  Random random(seed);
  Slot slot = MakeSlot(c, weight_bits, activation_bits, random, extreme);
  const at::Tensor x =
      c.linear ? at::randn({c.batch, c.side, c.in}) * 3 : at::randn({c.batch, c.in, c.side, c.side}) * 3;
  ForwardContext ctx;
  for (int64_t b = 0; b < c.batch; ++b) ctx.step.push_back(b % kSteps);  // a batch may mix steps
  slot.simulated = Dequantize(slot);
  slot.state = State::kSimulate;
  const at::Tensor simulated = Run(slot, ctx, x);
  // The bound: K products are summed in float, each sum rounding once, |error| <= K * eps * sum |x^ w^|; the
  // epilogue rounds a few times more, which the constant covers.
  Slot magnitude = slot;
  magnitude.simulated = slot.simulated.abs();
  magnitude.bias = slot.bias.abs();
  magnitude.dynamic = false;
  magnitude.gain = at::Tensor();  // in what is already quantized
  std::vector<at::Tensor> absolute;
  const at::Tensor seen = Equalized(slot, x);
  for (const SlotPart& part : slot.parts)
    absolute.push_back(FakeQuantize(c.linear ? seen.narrow(-1, part.begin, part.channels)
                                             : seen.narrow(1, part.begin, part.channels),
                                    slot, part, ctx)
                           .abs());
  magnitude.activations_on = false;
  const at::Tensor bound = Run(magnitude, ctx, at::cat(absolute, c.linear ? -1 : 1)) *
                           (static_cast<double>(slot.k() + 8) * std::numeric_limits<float>::epsilon());
  Pack(slot);
  EXPECT_FALSE(slot.weight.defined());
  const at::Tensor integer = Run(slot, ctx, x);
  ASSERT_EQ(integer.sizes(), simulated.sizes());
  EXPECT_TRUE(((integer - simulated).abs() <= bound).all().item<bool>())
      << "largest difference " << (integer - simulated).abs().max().item<float>() << ", bound there at least "
      << bound.min().item<float>();
}

constexpr Case kCases[] = {
    {false, 2, 3, 5, 7, 3, 1, 0, {1, 1, 1, 1}},  {false, 1, 16, 8, 8, 3, 2, 0, {0, 0, 1, 1}},
    {false, 3, 33, 17, 5, 1, 1, 0, {}},          {false, 2, 24, 9, 6, 1, 1, 10, {}},
    {false, 1, 12, 7, 9, 3, 1, 5, {1, 1, 1, 1}}, {false, 1, 1, 1, 1, 1, 1, 0, {}},
    {true, 4, 31, 13, 3, 1, 1, 0, {}},           {true, 1, 128, 96, 1, 1, 1, 0, {}},
    {true, 3, 64, 32, 6, 1, 1, 0, {}},           {true, 2, 24, 16, 5, 1, 1, 9, {}},
};

TEST(Slot, SimulateAndIntegerAgree) {
  uint64_t seed = 1;
  for (const Case& c : kCases)
    for (const int weight_bits : {4, 5, 6, 8})
      for (const int activation_bits : {4, 5, 6, 8})
        ExpectSame(c, weight_bits, activation_bits, seed++, false);
}

// Largest codes against largest codes: where kernels that add pairs in 16 bits saturate.
TEST(Slot, SimulateAndIntegerAgreeAtTheEdgesOfTheRanges) {
  uint64_t seed = 1000;
  for (const Case& c : kCases)
    for (const int weight_bits : {4, 8}) ExpectSame(c, weight_bits, 8, seed++, true);
}

TEST(Slot, RandomShapesAgree) {
  Random random(7);
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const int64_t in = random.Int(2, 70), kernel = random.Int(0, 1) == 0 ? 1 : 3, pad = kernel / 2;
    const Case c{.linear = random.Int(0, 3) == 0,
                 .batch = random.Int(1, 3),
                 .in = in,
                 .out = random.Int(1, 70),
                 .side = random.Int(2, 12),
                 .kernel = kernel,
                 .stride = random.Int(1, 2),
                 .split = random.Int(0, 1) == 0 ? 0 : random.Int(1, in - 1),
                 .pad = {pad, pad, pad, pad}};
    Case fixed = c;
    if (c.linear) fixed.kernel = fixed.stride = 1, fixed.split = 0, fixed.pad = {};
    const int bits[] = {4, 5, 6, 8};
    ExpectSame(fixed, bits[random.Int(0, 3)], bits[random.Int(0, 3)], 5000 + seed, false);
  }
}

TEST(Slot, AttentionProductsAgree) {
  for (const int bits : {4, 8}) {
    at::manual_seed(3);
    Slot slot;
    slot.name = "scores";
    slot.role = Role::kMatmul;
    slot.activation_bits = bits;
    slot.parts.resize(2);
    const int top = (1 << bits) - 1;
    slot.parts[0].ranges = {{0.05f, top / 2}, {0.02f, 0}};
    slot.parts[1].ranges = {{0.03f, top / 3}, {0.07f, top}};
    const at::Tensor a = at::randn({2, 3, 10, 8}), b = at::randn({2, 3, 7, 8});
    ForwardContext ctx;
    ctx.step = {0, 1};
    for (const bool dynamic : {false, true}) {
      slot.dynamic = dynamic;
      slot.state = State::kSimulate;
      const at::Tensor simulated = RunMatmul(slot, ctx, a, b);
      const at::Tensor bound = at::matmul(FakeQuantize(a, slot, slot.parts[0], ctx).abs(),
                                          FakeQuantize(b, slot, slot.parts[1], ctx).abs().transpose(-1, -2)) *
                               (16 * std::numeric_limits<float>::epsilon());
      slot.state = State::kInteger;
      EXPECT_TRUE(((RunMatmul(slot, ctx, a, b) - simulated).abs() <= bound).all().item<bool>())
          << bits << (dynamic ? " with each row's own range" : "");
    }
  }
}

TEST(FakeQuantize, FixesGridPointsAndZeroAndIsMonotone) {
  Slot slot;
  slot.name = "layer";
  slot.activation_bits = 6;
  slot.parts.resize(1);
  slot.parts[0].ranges = {{0.25f, 20}};
  ForwardContext ctx;
  const at::Tensor grid = (at::arange(64, at::kFloat) - 20) * 0.25;
  EXPECT_TRUE(FakeQuantize(grid, slot, slot.parts[0], ctx).equal(grid));
  EXPECT_EQ(FakeQuantize(at::zeros({1}), slot, slot.parts[0], ctx).item<float>(), 0.0f);
  const at::Tensor x = at::linspace(-20, 20, 1001);
  const at::Tensor y = FakeQuantize(x, slot, slot.parts[0], ctx);
  EXPECT_TRUE((y.slice(0, 1) >= y.slice(0, 0, 1000)).all().item<bool>());
}

TEST(FakeQuantize, PassesGradientsInsideOfTheRangeOnly) {
  Slot slot;
  slot.name = "layer";
  slot.activation_bits = 4;
  slot.parts.resize(1);
  slot.parts[0].ranges = {{1.0f, 4}};  // represents -4 .. 11
  ForwardContext ctx;
  at::Tensor x = at::tensor({-9.0f, 0.3f, 5.2f, 40.0f}).set_requires_grad(true);
  FakeQuantize(x, slot, slot.parts[0], ctx).sum().backward();
  EXPECT_TRUE(x.grad().equal(at::tensor({0.0f, 1.0f, 1.0f, 0.0f})));
}

TEST(SlotDeathTest, AStepWithoutARangeIsNeverServed) {
  Slot slot;
  slot.name = "layer";
  slot.parts.resize(1);
  slot.parts[0].ranges = {{1, 0}, {1, 0}};
  EXPECT_DEATH((void)slot.RangeAt(slot.parts[0], 2), "no activation range for step 2");
}

// Between two calibrated steps a row takes a range that holds both of theirs, to half a code of the new scale
// at either end (the zero point is rounded).
TEST(Ranges, OfTwoStepsHoldBoth) {
  for (const int bits : {4, 6, 8}) {
    const float top = static_cast<float>((1 << bits) - 1);
    for (const auto& [lo, hi, lo2, hi2] :
         {std::array{-1.0f, 3.0f, -2.0f, 1.0f}, std::array{0.0f, 1.0f, -5.0f, 0.0f},
          std::array{-1.0f, 1.0f, -0.1f, 0.2f}}) {
      const Range a = RangeOf(lo, hi, bits), b = RangeOf(lo2, hi2, bits), both = Union(a, b, bits);
      for (const Range& r : {a, b}) {
        EXPECT_LE(both.scale * static_cast<float>(-both.zero),
                  r.scale * static_cast<float>(-r.zero) + both.scale / 2);
        EXPECT_GE(both.scale * (top - static_cast<float>(both.zero)),
                  r.scale * (top - static_cast<float>(r.zero)) - both.scale / 2);
      }
    }
  }
}

}  // namespace
}  // namespace tempera::nn
