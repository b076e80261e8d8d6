// Every case of golden/schedulers: timesteps, tables, whole trajectories and draws as diffusers gives them.
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/sin.h>
#include <gmock/gmock.h>

#include <set>

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

// One trajectory of golden.json.
struct Trajectory {
  const Json& c;
  int64_t steps;

  std::string key() const { return std::to_string(steps); }
  at::Tensor Get(const char* tensor) const {
    return Golden().Get(Cat(c["id"].get<std::string>(), ".", steps, ".", tensor));
  }
  bool Has(const char* tensor) const {
    return Golden().Has(Cat(c["id"].get<std::string>(), ".", steps, ".", tensor));
  }
  // c[name][steps], or `otherwise` where it is not there.
  template <typename T>
  T Value(const char* name, T otherwise) const {
    const auto it = c.find(name);
    return it == c.end() || !it->contains(key()) ? otherwise : (*it)[key()].get<T>();
  }
  std::vector<double> tolerance() const { return c["tolerance"][key()].get<std::vector<double>>(); }
};

SchedulerRequest RequestOf(const Json& c, int64_t steps) {
  SchedulerRequest request;
  request.config = c["options"];
  request.config["_class_name"] = c.value("from", c["class"].get<std::string>());
  request.name = RowOf(c["class"]);
  request.steps = steps;
  const Json& run = c["run"];
  if (run.contains("eta")) request.eta = run["eta"].get<double>();
  if (run.contains("mu")) request.mu = run["mu"].get<double>();
  if (run.contains("sigmas")) request.sigmas = Linspace(1, 1.0 / static_cast<double>(steps), steps);
  return request;
}

Result<std::shared_ptr<const Scheduler>> Create(const Json& c, int64_t steps) {
  return CreateScheduler(RequestOf(c, steps));
}

// Calls body(run, scheduler) for every trajectory.
template <typename Body>
void ForEachRun(Body body) {
  for (const Json& c : Golden().json["cases"])
    for (const int64_t steps : Sizes(c["steps"])) {
      SCOPED_TRACE(Cat(c["id"], " ", steps));
      const auto scheduler = Create(c, steps);
      ASSERT_TRUE(scheduler.ok()) << scheduler.status();
      body(Trajectory{c, steps}, **scheduler);
    }
}

constexpr double kEps = std::numeric_limits<float>::epsilon();

TEST(SchedulerGolden, HasEveryCase) {
  std::set<std::string> rows;
  for (const Json& c : Golden().json["cases"]) rows.insert(RowOf(c["class"]));
  EXPECT_EQ(rows.size(), Schedulers().size());
  EXPECT_EQ(Golden().json["cases"].size(), 283u);
}

// How far a cumulative alpha may lie from diffusers'. Up to timestep t every factor may be one rounding off.
// Rescaling subtracts two roots near each other, so a few roundings of a root stay as they are while the
// difference shrinks.
double AlphaSlack(const Json& c, double alpha, int64_t t) {
  const double cancelled =
      c["options"].value("rescale_betas_zero_snr", false) ? 4 * kEps * std::sqrt(alpha) : 0;
  return static_cast<double>(t + 1) * kEps * alpha + cancelled;
}

// The methods in noise levels put 2^-24 for the last alpha of a rescaled schedule.
bool LastAlphaIsReplaced(const Json& c) {
  return c["options"].value("rescale_betas_zero_snr", false) && c.contains("alphas_cumprod") &&
         Golden().Get(c["alphas_cumprod"])[-1].item<float>() == 0x1p-24f;
}

TEST(SchedulerGolden, AlphasAgree) {
  constexpr std::array<std::string_view, 6> kAll{"linear",  "scaled_linear", "squaredcos_cap_v2",
                                                 "laplace", "sigmoid",       "exp"};
  for (const Json& c : Golden().json["cases"]) {
    if (!c.contains("alphas_cumprod")) continue;
    SCOPED_TRACE(c["id"]);
    const auto scheduler = Create(c, Sizes(c["steps"])[0]);
    ASSERT_TRUE(scheduler.ok()) << scheduler.status();
    const SchedulerRequest request{.config = (*scheduler)->config()};
    Options options(Schedulers()[0], request);
    DiscreteOptions o;
    ReadDiscrete(options, {.beta_schedules = kAll, .rescales = true}, o);
    const auto got = AlphasCumprod(o, "config");
    ASSERT_TRUE(got.ok()) << got.status();
    const at::Tensor want = Golden().Get(c["alphas_cumprod"]);
    ASSERT_EQ(static_cast<int64_t>(got->size()), want.numel());
    for (int64_t t = 0; t < want.numel() - (LastAlphaIsReplaced(c) ? 1 : 0); ++t) {
      const double w = want[t].item<float>();
      EXPECT_NEAR((*got)[t], w, AlphaSlack(c, w, t)) << t;
    }
  }
}

// How far the timestep of a spaced level may lie from diffusers': it lies between the logarithms of two
// levels, and those of numpy are up to two roundings off, those of the levels themselves one.
double TimestepSlack(const Json& c, double t) {
  if (t == std::floor(t) || !c.contains("alphas_cumprod")) return 0;
  const at::Tensor alphas = Golden().Get(c["alphas_cumprod"]);
  const auto log = [&](int64_t i) {
    const double alpha = alphas[i].item<float>();
    return 0.5 * std::log((1 - alpha) / alpha);
  };
  const auto low = static_cast<int64_t>(t);
  const double error = kEps * (2 * std::fabs(log(low)) + 1);
  return 2 * error / (log(low + 1) - log(low)) + kEps * t;
}

TEST(SchedulerGolden, TimestepsEqual) {
  ForEachRun([](const Trajectory& run, const Scheduler& s) {
    const at::Tensor want = run.Get("timesteps").to(at::kDouble);
    ASSERT_EQ(static_cast<int64_t>(s.timesteps().size()), want.numel());
    for (int64_t k = 0; k < want.numel(); ++k) {
      const double w = want[k].item<double>();
      // A negative one is the logarithm of a level.
      EXPECT_NEAR(s.timesteps()[k], w, w < 0 ? -2 * kEps * w : TimestepSlack(run.c, w)) << k;
    }
  });
}

// Two roundings, of the table's level and of the result; those of a rescaled schedule follow their alpha:
// d sigma / sigma = d alpha / (2 alpha (1 - alpha)).
TEST(SchedulerGolden, SigmasEqual) {
  ForEachRun([](const Trajectory& run, const Scheduler& s) {
    EXPECT_EQ(s.sigmas().empty(), !run.Has("sigmas"));
    if (s.sigmas().empty()) return;
    const at::Tensor want = run.Get("sigmas");
    ASSERT_EQ(static_cast<int64_t>(s.sigmas().size()), want.numel());
    for (int64_t k = 0; k < want.numel(); ++k) {
      const double w = want[k].item<float>(), alpha = 1 / (1 + w * w);
      double relative = 2 * kEps;
      if (run.c["options"].value("rescale_betas_zero_snr", false) && w > 0)
        relative += AlphaSlack(run.c, alpha, s.train_timesteps()) / (2 * alpha * (1 - alpha));
      EXPECT_NEAR(s.sigmas()[k], w, relative * w) << k;
    }
  });
}

TEST(SchedulerGolden, InitialNoiseEqual) {
  ForEachRun([](const Trajectory& run, const Scheduler& s) {
    const double want = run.Value("init_noise_sigma", 1.0);
    EXPECT_NEAR(s.init_noise_sigma(), want, 2 * kEps * want);  // of the level and of a root
  });
}

// The tables of rescaled betas differ by a rounding of a value near 1 from one processor to another
// (LibTorch's roots do), which the hints of golden.json leave out: both of their runs share one table. A
// coefficient sqrt(1 - alpha) sees it as eps / (2 sqrt(1 - alpha)); there are two on draws of up to 4.
double TableSlack(const Json& c, const Scheduler& s, size_t k) {
  if (!c["options"].value("rescale_betas_zero_snr", false) || !s.sigmas().empty()) return 0;
  const at::Tensor alphas = Golden().Get(c["alphas_cumprod"]);
  const int64_t gap = s.train_timesteps() / static_cast<int64_t>(s.timesteps().size());
  const int64_t next = std::max<int64_t>(0, static_cast<int64_t>(s.timesteps()[k]) - gap);
  return 4 * kEps / std::sqrt(1 - alphas[next].item<double>());
}

// What a run begins with: noise, or a sample with the noise of evaluation `first`.
at::Tensor Start(const Trajectory& run, const Scheduler& s, NoiseSource& noise, int64_t first) {
  const std::vector<int64_t> shape = Sizes(run.c["shape"]);
  const at::Tensor x = noise.Randn(shape);
  if (!run.c["run"].contains("strength")) return x * s.init_noise_sigma();
  return s.AddNoise(x, noise.Randn(shape), first);
}

// Walks through every case. `free`: from step to step; else each step begins at the recorded latent, so that
// an error does not hide in those of earlier steps.
void Walk(bool free) {
  ForEachRun([&](const Trajectory& run, const Scheduler& s) {
    const at::Tensor want = run.Get("latents");
    const std::vector<double> tolerance = run.tolerance();
    const std::string variance_type = run.c["options"].value("variance_type", "");
    const auto first = s.FirstStep(run.c["run"].value("strength", 1.0));
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(*first, run.Value<int64_t>("first", 0));
    ASSERT_EQ(want.size(0), static_cast<int64_t>(s.timesteps().size()) - *first + 1);

    NoiseSource noise(run.c["seed"].get<uint64_t>());
    SamplerState state;
    at::Tensor x = Start(run, s, noise, *first);
    EXPECT_LE(golden::Difference(x, want[0]), tolerance[0]);
    for (int64_t i = 0; i + 1 < want.size(0); ++i) {
      const int64_t k = *first + i;
      if (!free) x = want[i];
      const at::Tensor output = Network(s.ScaleInput(x, k), s.timesteps()[k], variance_type);
      ASSERT_TRUE(s.CheckOutput(x.size(1), output.size(1)).ok());
      x = s.Step(output, k, x, noise, state);
      EXPECT_LE(golden::Difference(x, want[i + 1]), tolerance[i + 1] + TableSlack(run.c, s, k))
          << "latent " << i + 1;
    }
    // As many draws as diffusers makes: what comes next is the same.
    NoiseSource fresh(run.c["seed"].get<uint64_t>());
    for (int64_t n = run.Value<int64_t>("draws", 0); n > 0; --n) fresh.Randn(x.sizes());
    EXPECT_TRUE(noise.Randn(x.sizes()).equal(fresh.Randn(x.sizes())));
  });
}

TEST(SchedulerGolden, TrajectoriesAgree) { Walk(/*free=*/true); }
TEST(SchedulerGolden, SingleStepsAgree) { Walk(/*free=*/false); }

// Two generations of one scheduler, step by step in turn, give what each gives alone.
TEST(SchedulerGolden, GenerationsShareNothing) {
  struct Generation {
    NoiseSource noise;
    SamplerState state;
    at::Tensor x;

    Generation(uint64_t seed, const Trajectory& run, const Scheduler& s, int64_t first)
        : noise(seed), x(Start(run, s, noise, first)) {}
    void Step(const Scheduler& s, int64_t k) {
      // Whatever the variance, it is one.
      const at::Tensor output = Network(s.ScaleInput(x, k), s.timesteps()[k], "learned");
      x = s.Step(output, k, x, noise, state);
    }
  };
  ForEachRun([](const Trajectory& run, const Scheduler& s) {
    if (run.steps > 8) return;
    const int64_t first = run.Value<int64_t>("first", 0), last = static_cast<int64_t>(s.timesteps().size());
    Generation a(1, run, s, first), b(2, run, s, first), alone(1, run, s, first);
    for (int64_t k = first; k < last; ++k) {
      a.Step(s, k);
      b.Step(s, k);
    }
    for (int64_t k = first; k < last; ++k) alone.Step(s, k);
    EXPECT_TRUE(a.x.equal(alone.x));
    EXPECT_FALSE(a.x.equal(b.x));
  });
}

TEST(SchedulerGolden, ConfigMakesTheSameScheduler) {
  ForEachRun([](const Trajectory& run, const Scheduler& s) {
    SchedulerRequest request = RequestOf(run.c, s.steps());
    request.config = s.config();
    request.name.reset();
    const auto again = CreateScheduler(request);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ((*again)->name(), s.name());
    EXPECT_EQ((*again)->config(), s.config());
    EXPECT_EQ((*again)->timesteps(), s.timesteps());
    EXPECT_EQ((*again)->sigmas(), s.sigmas());
    if (run.c.contains("from")) return;  // some words of another class stand for this one's own
    for (const auto& [key, value] : run.c["options"].items())
      EXPECT_TRUE(!s.config().contains(key) || s.config()[key] == value) << key;
  });
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
