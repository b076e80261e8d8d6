// Every case of golden/schedulers: timesteps, tables, whole trajectories and draws as diffusers gives them.
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sin.h>
#include <gmock/gmock.h>

#include "golden/reader.h"
#include "schedulers/discrete.h"
#include "schedulers/scheduler.h"

namespace tempera {
namespace {

const golden::Case& Golden() {
  static const golden::Case g("golden/schedulers");
  return g;
}

std::string RowOf(const std::string& class_name) {
  for (const SchedulerRow& row : Schedulers())
    if (class_name == row.class_name) return row.name;
  return "";
}

// The network of make.py.
at::Tensor Network(const at::Tensor& x, double t, const std::string& variance_type) {
  const at::Tensor mean =
      0.3 * at::sin(3 * x) + 0.1 * at::cos(at::scalar_tensor(t, at::kFloat) / 1000 * 6.28);
  if (variance_type == "learned_range") return at::cat({mean, 0.5 * at::sin(2 * x)}, 1);
  if (variance_type == "learned") return at::cat({mean, 0.02 + 0.01 * at::sin(2 * x)}, 1);
  return mean;
}

std::vector<int64_t> Sizes(const Json& shape) { return shape.get<std::vector<int64_t>>(); }

Result<std::shared_ptr<const Scheduler>> Create(const Json& c, int64_t steps) {
  SchedulerRequest request;
  request.config = c["options"];
  request.config["_class_name"] = c.value("from", c["class"].get<std::string>());
  request.name = RowOf(c["class"]);
  request.steps = steps;
  if (c["run"].contains("eta")) request.eta = c["run"]["eta"].get<double>();
  return CreateScheduler(request);
}

TEST(SchedulerGolden, TimestepsEqual) {
  ASSERT_GE(Golden().json["cases"].size(), 70u);
  for (const Json& c : Golden().json["cases"])
    for (const int64_t steps : Sizes(c["steps"])) {
      SCOPED_TRACE(Cat(c["id"], " ", steps));
      const auto scheduler = Create(c, steps);
      ASSERT_TRUE(scheduler.ok()) << scheduler.status();
      const at::Tensor want = Golden().Get(Cat(c["id"].get<std::string>(), ".", steps, ".timesteps"));
      const std::vector<double> got = (*scheduler)->timesteps();
      ASSERT_EQ(static_cast<int64_t>(got.size()), want.numel());
      for (int64_t k = 0; k < want.numel(); ++k)
        EXPECT_EQ(got[k], static_cast<double>(want[k].item<int64_t>()));
    }
}

// The tables of rescaled betas differ by a rounding of a value near 1 from one processor to another
// (LibTorch's roots do), which the hints of golden.json leave out: both of their runs share one table. A
// coefficient sqrt(1 - alpha) sees it as eps / (2 sqrt(1 - alpha)); there are two on draws of up to 4.
double TableSlack(const Json& c, const Scheduler& s, size_t k) {
  if (!c["options"].value("rescale_betas_zero_snr", false)) return 0;
  const at::Tensor alphas = Golden().Get(c["alphas_cumprod"]);
  const int64_t gap = s.train_timesteps() / static_cast<int64_t>(s.timesteps().size());
  const int64_t next = std::max<int64_t>(0, static_cast<int64_t>(s.timesteps()[k]) - gap);
  return 4 * std::numeric_limits<float>::epsilon() / std::sqrt(1 - alphas[next].item<double>());
}

// Walks through every case. `free`: from step to step; else each step begins at the recorded latent, so that
// an error does not hide in those of earlier steps.
void Walk(bool free) {
  for (const Json& c : Golden().json["cases"])
    for (const int64_t steps : Sizes(c["steps"])) {
      SCOPED_TRACE(Cat(c["id"], " ", steps));
      const auto scheduler = Create(c, steps);
      ASSERT_TRUE(scheduler.ok()) << scheduler.status();
      const Scheduler& s = **scheduler;
      const at::Tensor want = Golden().Get(Cat(c["id"].get<std::string>(), ".", steps, ".latents"));
      const auto tolerance = c["tolerance"][std::to_string(steps)].get<std::vector<double>>();
      const std::string variance_type = s.config().value("variance_type", "");

      NoiseSource noise(c["seed"].get<uint64_t>());
      SamplerState state;
      at::Tensor x = noise.Randn(want[0].sizes()) * s.init_noise_sigma();
      EXPECT_LE(golden::Difference(x, want[0]), tolerance[0]);
      for (size_t k = 0; k < s.timesteps().size(); ++k) {
        if (!free) x = want[k];
        const at::Tensor output = Network(s.ScaleInput(x, k), s.timesteps()[k], variance_type);
        ASSERT_TRUE(s.CheckOutput(x.size(1), output.size(1)).ok());
        x = s.Step(output, k, x, noise, state);
        EXPECT_LE(golden::Difference(x, want[k + 1]), tolerance[k + 1] + TableSlack(c, s, k))
            << "latent " << k + 1;
      }
    }
}

TEST(SchedulerGolden, TrajectoriesAgree) { Walk(/*free=*/true); }
TEST(SchedulerGolden, SingleStepsAgree) { Walk(/*free=*/false); }

TEST(SchedulerGolden, AlphasAgree) {
  for (const Json& c : Golden().json["cases"]) {
    SCOPED_TRACE(c["id"]);
    SchedulerRequest request;
    request.config = c["options"];
    Fields fields(request.config, "config");
    constexpr std::array<std::string_view, 5> kAll{"linear", "scaled_linear", "squaredcos_cap_v2", "laplace",
                                                   "sigmoid"};
    const auto options = ReadDiscrete(fields, request, kAll);
    ASSERT_TRUE(options.ok()) << options.status();
    const auto got = AlphasCumprod(*options, "config");
    ASSERT_TRUE(got.ok()) << got.status();
    const at::Tensor want = Golden().Get(c["alphas_cumprod"]);
    ASSERT_EQ(static_cast<int64_t>(got->size()), want.numel());
    // Up to timestep t every factor may be one rounding off. Rescaling subtracts two roots near each other,
    // so a few roundings of a root stay as they are while the difference shrinks.
    constexpr double kEps = std::numeric_limits<float>::epsilon();
    for (int64_t t = 0; t < want.numel(); ++t) {
      const double w = want[t].item<float>();
      const double cancelled = options->rescale_betas_zero_snr ? 4 * kEps * std::sqrt(w) : 0;
      EXPECT_NEAR((*got)[t], w, static_cast<double>(t + 1) * kEps * w + cancelled) << t;
    }
  }
}

// sum over k of (k + 1) * timesteps[k], for every number of steps.
TEST(SchedulerGolden, TimestepsEqualForEveryCount) {
  for (const Json& train : Golden().json["train_timesteps"])
    for (const std::string spacing : {"leading", "trailing", "linspace"}) {
      const at::Tensor want = Golden().Get(Cat("timestep_sums.", spacing, ".", train));
      for (int64_t steps = 1; steps <= want.numel(); ++steps) {
        SchedulerRequest request;
        request.config = {{"_class_name", "DDIMScheduler"}, {"num_train_timesteps", train}};
        request.spacing = spacing;
        request.steps = steps;
        const auto scheduler = CreateScheduler(request);
        ASSERT_TRUE(scheduler.ok()) << scheduler.status();
        int64_t sum = 0, k = 0;
        for (const double t : (*scheduler)->timesteps()) sum += ++k * static_cast<int64_t>(t);
        ASSERT_EQ(k, steps);
        ASSERT_EQ(sum, want[steps - 1].item<int64_t>()) << spacing << " " << train << " " << steps;
      }
    }
}

TEST(NoiseGolden, DrawsAgree) {
  const double tolerance = Golden().json["rng_tolerance"];
  ASSERT_GE(Golden().json["rng"].size(), 41u);
  for (const Json& entry : Golden().json["rng"]) {
    NoiseSource noise(entry["seed"].get<uint64_t>());
    int draw = 0;
    for (const Json& shape : entry["shapes"]) {
      const std::string name = Cat(entry["name"].get<std::string>(), ".", draw++);
      EXPECT_LE(golden::Difference(noise.Randn(Sizes(shape)), Golden().Get(name)), tolerance) << name;
    }
  }
}

TEST(Noise, CopyHasItsOwnState) {
  NoiseSource a(3);
  a.Randn({5});  // odd: a second value of the pair waits inside
  NoiseSource b = a;
  NoiseSource c(0);
  c = a;
  const at::Tensor first = a.Randn({7});
  EXPECT_TRUE(b.Randn({7}).equal(first));
  EXPECT_TRUE(c.Randn({7}).equal(first));
  EXPECT_FALSE(a.Randn({7}).equal(first));
}

}  // namespace
}  // namespace tempera
