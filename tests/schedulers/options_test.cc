// What requests and configurations may say, and what they are told otherwise.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/item.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "schedulers/scheduler.h"

namespace tempera {
namespace {

using ::testing::HasSubstr;

Json Ddim(Json more = Json::object()) {
  more["_class_name"] = "DDIMScheduler";
  return more;
}
Json Ddpm(Json more = Json::object()) {
  more["_class_name"] = "DDPMScheduler";
  return more;
}

struct Refusal {
  const char* name;
  SchedulerRequest request;
  std::vector<const char*> says;
};

const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInf = std::numeric_limits<double>::infinity();

std::vector<Refusal> Refusals() {
  const auto with = [](Json config, std::optional<std::string> name, std::optional<int64_t> steps,
                       std::optional<double> eta, std::optional<std::string> spacing = {}) {
    return SchedulerRequest{
        .config = std::move(config), .name = name, .steps = steps, .eta = eta, .spacing = spacing};
  };
  const auto option = [&](Json config) { return with(std::move(config), {}, 10, {}); };
  return {
      {"StepsZero", with(Ddim(), {}, 0, {}), {"steps", "0"}},
      {"StepsNegative", with(Ddpm(), {}, -3, {}), {"steps", "-3"}},
      {"StepsBeyondTraining", with(Ddim(), {}, 1001, {}), {"steps", "1001", "1000"}},
      {"StepsBeyondFewTraining",
       with(Ddpm({{"num_train_timesteps", 10}}), {}, 11, {}),
       {"steps", "11", "10"}},
      {"EtaNan", with(Ddim(), {}, 10, kNan), {"eta", "nan"}},
      {"EtaNanOfDdpm", with(Ddpm(), {}, 10, kNan), {"eta", "nan"}},
      {"EtaInfinite", with(Ddim(), {}, 10, kInf), {"eta", "inf"}},
      {"EtaNegative", with(Ddim(), {}, 10, -0.1), {"eta", "-0.1"}},
      {"EtaTooLarge", with(Ddim(), {}, 10, 50.0), {"eta", "50", "1"}},
      {"EtaOfDdpm", with(Ddpm(), {}, 10, 0.5), {"eta", "0.5", "ddpm"}},
      {"UnknownName", with(Ddim(), "dimm", 10, {}), {"scheduler", "dimm", "ddim, ddpm"}},
      {"UnknownSpacing",
       with(Ddim(), {}, 10, {}, "even"),
       {"spacing", "even", "leading, trailing, linspace"}},
      {"ConfigIsNull", with(Json(), {}, 10, {}), {"scheduler/scheduler_config.json", "JSON object"}},
      {"ConfigIsList", with(Json::array(), "ddim", 10, {}), {"JSON object"}},
      {"NoClass", with(Json::object(), {}, 10, {}), {"_class_name", "missing"}},
      {"ClassIsNumber", with({{"_class_name", 3}}, {}, 10, {}), {"_class_name", "3"}},
      {"UnknownClass",
       with({{"_class_name", "LMSDiscreteScheduler"}}, {}, 10, {}),
       {"LMSDiscreteScheduler", "DDIMScheduler"}},
      {"UnknownOption", option(Ddim({{"beta_begin", 0.1}})), {"beta_begin", "0.1"}},
      {"PredictsSampleTheOldWay",
       option(Ddpm({{"predict_epsilon", false}})),
       {"predict_epsilon", "prediction_type"}},
      {"Spacing", option(Ddim({{"timestep_spacing", "evenly"}})), {"timestep_spacing", "evenly", "linspace"}},
      {"Prediction",
       option(Ddim({{"prediction_type", "flow_prediction"}})),
       {"prediction_type", "flow_prediction"}},
      {"BetaSchedule",
       option(Ddim({{"beta_schedule", "cosine"}})),
       {"beta_schedule", "cosine", "squaredcos_cap_v2"}},
      {"BetaScheduleOfDdpmAlone", with(Ddpm({{"beta_schedule", "sigmoid"}}), "ddim", 10, {}), {"sigmoid"}},
      {"BetaScheduleType", option(Ddim({{"beta_schedule", 7}})), {"beta_schedule", "7", "string"}},
      {"BetaStartNegative", option(Ddim({{"beta_start", -0.1}})), {"beta_start", "-0.1"}},
      {"BetaEndLarge", option(Ddim({{"beta_end", 1e300}})), {"beta_end", "1e+300"}},
      {"NoNoise", option(Ddim({{"beta_start", 0.0}, {"beta_end", 0.0}})), {"betas", "finite"}},
      {"TrainedBetasShort", option(Ddim({{"trained_betas", {0.1, 0.2}}})), {"trained_betas", "2", "1000"}},
      {"TrainedBetasRange",
       with(Ddpm({{"trained_betas", {0.1, 1.5}}, {"num_train_timesteps", 2}}), {}, 2, {}),
       {"trained_betas", "1.5"}},
      {"TrainedBetasType", option(Ddpm({{"trained_betas", "none"}})), {"trained_betas", "none"}},
      {"TrainTimestepsZero", option(Ddim({{"num_train_timesteps", 0}})), {"num_train_timesteps", "0"}},
      {"TrainTimestepsHuge",
       option(Ddim({{"num_train_timesteps", int64_t{1} << 60}})),
       {"num_train_timesteps"}},
      {"TrainTimestepsFraction",
       option(Ddim({{"num_train_timesteps", 10.5}})),
       {"num_train_timesteps", "10.5"}},
      {"OffsetNegative", option(Ddim({{"steps_offset", -1}})), {"steps_offset", "-1"}},
      {"OffsetTooLarge",
       with(Ddim({{"steps_offset", 1}}), {}, 1000, {}),
       {"steps_offset", "got 1", "at most 0"}},
      {"OffsetHuge", option(Ddim({{"steps_offset", INT64_MAX}})), {"steps_offset"}},
      {"ClipRange", option(Ddim({{"clip_sample_range", 0}})), {"clip_sample_range", "0"}},
      {"ClipRangeHuge", option(Ddim({{"clip_sample_range", 1e300}})), {"clip_sample_range", "1e+300"}},
      {"Ratio", option(Ddim({{"dynamic_thresholding_ratio", 1.5}})), {"dynamic_thresholding_ratio", "1.5"}},
      {"MaxValue", option(Ddpm({{"sample_max_value", -1}})), {"sample_max_value", "-1"}},
      {"Variance", option(Ddpm({{"variance_type", "small"}})), {"variance_type", "small", "fixed_small_log"}},
      {"ZeroSnrOneTimestep",
       with(Ddim({{"rescale_betas_zero_snr", true}, {"num_train_timesteps", 1}}), {}, 1, {}),
       {"betas", "nan"}},
      {"ZeroSnrEpsilonUnclipped",
       option(Ddim(
           {{"rescale_betas_zero_snr", true}, {"timestep_spacing", "trailing"}, {"clip_sample", false}})),
       {"finite", "999", "epsilon"}},
  };
}

TEST(SchedulerOptions, BadOnesAreNamed) {
  for (const Refusal& refusal : Refusals()) {
    SCOPED_TRACE(refusal.name);
    const auto scheduler = CreateScheduler(refusal.request);
    ASSERT_FALSE(scheduler.ok());
    EXPECT_EQ(scheduler.status().code(), absl::StatusCode::kInvalidArgument);
    for (const char* word : refusal.says) EXPECT_THAT(Message(scheduler.status()), HasSubstr(word));
  }
}

TEST(SchedulerOptions, OwnClassServesUnlessAnotherIsNamed) {
  const auto own = CreateScheduler({.config = Ddpm()});
  ASSERT_TRUE(own.ok()) << own.status();
  EXPECT_EQ((*own)->name(), "ddpm");
  EXPECT_EQ((*own)->timesteps().size(), 1000u);
  const auto named = CreateScheduler({.config = Ddpm(), .name = "ddim", .eta = 0.5});
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ((*named)->name(), "ddim");
  EXPECT_EQ((*named)->eta(), 0.5);
  EXPECT_EQ((*named)->timesteps().size(), 50u);
}

TEST(SchedulerOptions, DefaultStepsFitFewTrainingTimesteps) {
  const auto s = CreateScheduler({.config = Ddim({{"num_train_timesteps", 12}})});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ((*s)->timesteps().size(), 12u);
  EXPECT_EQ((*s)->train_timesteps(), 12);
}

// Published configurations carry options of other classes, private keys and nulls.
TEST(SchedulerOptions, OptionsOfOtherClassesAreLeftAside) {
  const Json more = {{"skip_prk_steps", true},   {"variance_type", "fixed_small"},
                     {"tensor_format", "pt"},    {"predict_epsilon", true},
                     {"trained_betas", nullptr}, {"_diffusers_version", "0.8.0"}};
  const auto s = CreateScheduler({.config = Ddim(more), .steps = 5});
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_FALSE((*s)->config().contains("skip_prk_steps"));
  // A configuration of another class may say anything beside what is shared.
  const auto other =
      CreateScheduler({.config = {{"_class_name", "XyzScheduler"}, {"xyz", 1}}, .name = "ddim"});
  EXPECT_TRUE(other.ok()) << other.status();
}

TEST(SchedulerOptions, ConfigMakesTheSameScheduler) {
  for (const Json& config :
       {Ddim({{"steps_offset", 1}, {"set_alpha_to_one", false}, {"clip_sample_range", 1.5}}),
        Ddpm({{"variance_type", "fixed_large"},
              {"trained_betas", {0.1, 0.2, 0.3}},
              {"num_train_timesteps", 3},
              {"thresholding", true}})}) {
    const auto first = CreateScheduler({.config = config, .steps = 2, .spacing = "trailing"});
    ASSERT_TRUE(first.ok()) << first.status();
    for (const auto& [key, value] : config.items()) EXPECT_EQ((*first)->config()[key], value) << key;
    EXPECT_EQ((*first)->config()["timestep_spacing"], "trailing");
    const auto second = CreateScheduler({.config = (*first)->config(), .steps = 2});
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ((*second)->config(), (*first)->config());
    EXPECT_EQ((*second)->timesteps(), (*first)->timesteps());
  }
}

TEST(SchedulerOptions, LearnedVarianceWantsTwiceTheChannels) {
  for (const char* type : {"learned", "learned_range"}) {
    const auto s = CreateScheduler({.config = Ddpm({{"variance_type", type}}), .steps = 5});
    ASSERT_TRUE(s.ok()) << s.status();
    EXPECT_TRUE((*s)->CheckOutput(3, 6).ok());
    const Status refused = (*s)->CheckOutput(3, 3);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Message(refused), HasSubstr(type));
  }
  const auto s = CreateScheduler({.config = Ddim(), .steps = 5});
  EXPECT_TRUE((*s)->CheckOutput(3, 3).ok());
  EXPECT_TRUE((*s)->CheckOutput(3, 6).ok());
  EXPECT_FALSE((*s)->CheckOutput(3, 4).ok());
}

TEST(SchedulerStep, VarianceHalfIsLeftAsideByOthers) {
  for (const Json& config : {Ddim(), Ddpm()}) {
    const auto s = CreateScheduler({.config = config, .steps = 4});
    ASSERT_TRUE(s.ok()) << s.status();
    NoiseSource a(1), b(1);
    SamplerState state;
    const at::Tensor x = a.Randn({1, 2, 3, 3});
    b = a;
    const at::Tensor output = NoiseSource(2).Randn({1, 4, 3, 3});
    EXPECT_TRUE((*s)->Step(output, 0, x, a, state).equal((*s)->Step(output.narrow(1, 0, 2), 0, x, b, state)));
  }
}

// fixed_large_log says the same variance as fixed_large, through its logarithm: two roundings apart.
TEST(SchedulerStep, LargeLogVarianceIsTheLargeVariance) {
  const auto large = CreateScheduler({.config = Ddpm({{"variance_type", "fixed_large"}}), .steps = 5});
  const auto log = CreateScheduler({.config = Ddpm({{"variance_type", "fixed_large_log"}}), .steps = 5});
  ASSERT_TRUE(large.ok() && log.ok());
  const at::Tensor zero = at::zeros({1, 1, 2, 2});
  for (int64_t k = 0; k < 4; ++k) {
    NoiseSource a(1), b(1);
    SamplerState state;
    const at::Tensor want = (*large)->Step(zero, k, zero, a, state),
                     got = (*log)->Step(zero, k, zero, b, state);
    EXPECT_GT(want.abs().max().item<float>(), 0);
    EXPECT_LE(((got - want) / want).abs().max().item<float>(), 8 * std::numeric_limits<float>::epsilon());
  }
}

// With eta 1 and the last alpha at 0 the room for the predicted noise is 0 but for rounding; never the root
// of a negative number.
TEST(SchedulerStep, FullEtaIsFiniteAtZeroSnr) {
  for (const char* schedule : {"linear", "scaled_linear", "squaredcos_cap_v2"})
    for (int64_t steps = 1; steps <= 60; ++steps) {
      const Json config = Ddim({{"rescale_betas_zero_snr", true},
                                {"beta_schedule", schedule},
                                {"prediction_type", "v_prediction"},
                                {"timestep_spacing", "trailing"}});
      const auto s = CreateScheduler({.config = config, .steps = steps, .eta = 1.0});
      ASSERT_TRUE(s.ok()) << s.status();
      NoiseSource noise(1);
      SamplerState state;
      const at::Tensor x = at::full({1, 1, 2, 2}, 0.5f);
      for (int64_t k = 0; k < steps; ++k)
        ASSERT_TRUE((*s)->Step(x, k, x, noise, state).isfinite().all().item<bool>())
            << schedule << steps << " " << k;
    }
}

TEST(SchedulerStep, NoiseIsDrawnOnlyWhereTheMethodDoes) {
  const at::Tensor x = at::full({1, 1, 4, 4}, 0.25f);
  SamplerState state;
  const auto drew = [&](const Scheduler& s, int64_t k) {
    NoiseSource noise(9), untouched(9);
    s.Step(x, k, x, noise, state);
    return !noise.Randn({16}).equal(untouched.Randn({16}));
  };
  const auto still = CreateScheduler({.config = Ddim(), .steps = 3});
  const auto noisy = CreateScheduler({.config = Ddim(), .steps = 3, .eta = 0.5});
  const auto ddpm = CreateScheduler({.config = Ddpm(), .steps = 3});
  ASSERT_TRUE(still.ok() && noisy.ok() && ddpm.ok());
  EXPECT_FALSE(drew(**still, 0));
  EXPECT_TRUE(drew(**noisy, 0));
  EXPECT_TRUE(drew(**noisy, 2));
  EXPECT_TRUE(drew(**ddpm, 0));
  EXPECT_FALSE(drew(**ddpm, 2));  // timestep 0
}

}  // namespace
}  // namespace tempera
