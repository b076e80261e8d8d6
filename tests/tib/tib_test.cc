#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"
#include "tib/features.h"
#include "tib/trace.h"

namespace tempera {
namespace {

std::unique_ptr<Denoiser> Load(const std::string& name) {
  const std::string folder = "golden/unet/" + name + "/unet";
  const Json config = *ParseJson(*ReadFile(folder + "/config.json", "config.json"), "config.json");
  nn::Params params(*WeightSource::Open(folder, "diffusion_pytorch_model", "unet"), at::kCPU);
  auto network = BuildDenoiser(config, "config.json", params);
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

const std::vector<double> kTimesteps{951, 701, 451, 201, 1};
const CallScope kScope;

TEST(TraceTib, FindsTheTimePathOfAnUnconditionalNetwork) {
  const auto network = Load("ddpm");
  const auto trace = TraceTib(*network);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->temporal_class, TemporalClass::kA);
  ASSERT_EQ(trace->trunk.size(), 2u);
  EXPECT_EQ(trace->trunk[0]->name, "time_embedding.linear_1");
  EXPECT_EQ(trace->trunk[1]->name, "time_embedding.linear_2");
  // Every residual block, and nothing else, has one.
  size_t expected = 0;
  for (const nn::Slot& slot : network->slots()) expected += slot.name.ends_with(".time_emb_proj");
  EXPECT_EQ(trace->features.size(), expected);
  for (size_t i = 0; i < trace->features.size(); ++i) {
    EXPECT_TRUE(trace->features[i]->name.ends_with(".time_emb_proj"));
    EXPECT_EQ(trace->features[i]->temporal_index, static_cast<int>(i));
  }
  // Weight and bias of each layer.
  EXPECT_EQ(trace->parameters.size(), 2 * (expected + 2));
}

TEST(TraceTib, CountsTheClassEmbeddingWhereThereIsOne) {
  const auto network = Load("class_cond");
  const auto trace = TraceTib(*network);
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->temporal_class, TemporalClass::kB);
  EXPECT_NE(std::find(trace->parameters.begin(), trace->parameters.end(), "class_embedding.weight"),
            trace->parameters.end());
  for (const auto& [name, p] : network->parameters()) EXPECT_FALSE(p.requires_grad()) << name;
}

TEST(PlaceSteps, NeverTakesAnotherStepForItsOwn) {
  const auto places = PlaceSteps(kTimesteps, {999, 951, 700.5, 201, 0});
  EXPECT_EQ(places[0].own, -1);
  EXPECT_EQ(places[0].ranges, (std::array<int64_t, 2>{0, 0}));  // beyond the noisiest
  EXPECT_EQ(places[1].own, 0);
  EXPECT_EQ(places[1].ranges, (std::array<int64_t, 2>{0, 0}));
  EXPECT_EQ(places[2].own, -1);
  EXPECT_EQ(places[2].ranges, (std::array<int64_t, 2>{1, 2}));
  EXPECT_EQ(places[3].own, 3);
  EXPECT_EQ(places[4].own, -1);
  EXPECT_EQ(places[4].ranges, (std::array<int64_t, 2>{4, 4}));
  // A timestep that runs twice keeps both of its steps.
  const std::vector<double> twice{951, 701, 701, 1};
  const auto same = PlaceSteps(twice, twice);
  for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(same[static_cast<size_t>(k)].own, k);
}

class Features : public testing::Test {
 protected:
  std::unique_ptr<Denoiser> network = Load("class_cond");
  FeatureTable exact;
  void SetUp() override {
    ASSERT_TRUE(TraceTib(*network).ok());
    exact = *ComputeFeatures(kScope, *network, kTimesteps, OwnConditions(*network), nullptr);
  }
};

TEST_F(Features, TableHoldsWhatTheLayersGiveForEveryStepAndClass) {
  ASSERT_EQ(exact.steps, 5);
  ASSERT_EQ(exact.classes, 10);
  nn::ForwardContext ctx =
      TableContext(*network, kTimesteps, OwnConditions(*network), {37});  // step 3, class 7
  const auto features = network->TemporalFeatures(ctx);
  for (size_t i = 0; i < features.size(); ++i) {
    // Ten rows at once may round differently from one: the last bits of a product of 64 terms.
    const double tolerance =
        64 * std::numeric_limits<float>::epsilon() * features[i].abs().max().item<double>();
    EXPECT_LE((exact.features[i][3][7] - features[i][0]).abs().max().item<double>(), tolerance);
  }
}

TEST_F(Features, CacheErrorIsAtMostThatOfTheMinMaxGrid) {
  for (const int bits : {4, 5, 6, 8}) {
    const FeatureTable cached = Dequantized(BuildCache(exact, bits, CacheRounding::kSearch));
    for (size_t i = 0; i < exact.features.size(); ++i)
      for (int64_t k = 0; k < exact.steps; ++k)
        for (int64_t c = 0; c < exact.classes; ++c) {
          const at::Tensor v = exact.features[i][k][c];
          // Min-max is one of the candidates, and its error is at most half a step for each value, plus half
          // a step for the rounded zero point at the ends.
          const double step =
              (v.max().clamp_min(0) - v.min().clamp_max(0)).item<double>() / ((1 << bits) - 1);
          EXPECT_LE((cached.features[i][k][c] - v).norm().item<double>(),
                    step * std::sqrt(static_cast<double>(v.numel())))
              << bits;
        }
  }
  const FeatureTable half = Dequantized(BuildCache(exact, 32, CacheRounding::kSearch));
  for (size_t i = 0; i < exact.features.size(); ++i)
    EXPECT_LE((half.features[i] - exact.features[i]).abs().max().item<double>(),
              exact.features[i].abs().max().item<double>() / 2048);
}

TEST_F(Features, SelectionTakesTheSmallerErrorAndPruningKeepsWhatItChose) {
  FeatureTable layers = exact, cached = exact;
  for (at::Tensor& f : layers.features) f = f.clone();
  for (at::Tensor& f : cached.features) f = f.clone();
  layers.features[0][2].add_(0.5);  // the layers are worse here: cache
  cached.features[1][3].add_(0.5);  // the cache is worse here: layers
  const Selection s = Select(exact, layers, cached, "select");
  EXPECT_EQ(s.choice[2][0], Strategy::kCache);
  EXPECT_EQ(s.choice[3][1], Strategy::kReconstruct);
  EXPECT_EQ(s.choice[0][0], Strategy::kCache) << "a tie goes to the cache";
  EXPECT_FALSE(s.all_cached());
  EXPECT_TRUE(Select(exact, layers, cached, "cache").all_cached());
  const FeatureCache full = BuildCache(exact, 8, CacheRounding::kSearch), pruned = Prune(full, s);
  EXPECT_FALSE(pruned.full());
  EXPECT_EQ(pruned.entries(), full.entries() - exact.classes);
  EXPECT_EQ(pruned.columns[1].row_of_step[3], -1);
  std::vector<float> a(static_cast<size_t>(full.columns[1].width)), b = a;
  full.Read(1, 4, 6, a.data());
  pruned.Read(1, 4, 6, b.data());
  EXPECT_EQ(a, b);
}

TEST_F(Features, ServingReadsTheCacheRunsNoLayerAndSeesAFlippedBit) {
  const FeatureCache cache = BuildCache(exact, 8, CacheRounding::kSearch);
  const auto serve = [&](int64_t step, int64_t label, double* error) {
    nn::ForwardContext ctx = TableContext(*network, kTimesteps, OwnConditions(*network), {step * 10 + label});
    ServingSource source(cache, &exact);
    ctx.features = &source;
    (void)network->TemporalFeatures(ctx);
    double d = 0, n = 0;
    for (size_t i = 0; i < source.difference2.size(); ++i) d += source.difference2[i], n += source.norm2[i];
    *error = std::sqrt(d / n);
    return ctx.temporal_macs;
  };
  double before = 0, after = 0, elsewhere_before = 0, elsewhere_after = 0;
  EXPECT_EQ(serve(1, 4, &before), 0);
  EXPECT_EQ(serve(2, 4, &elsewhere_before), 0);
  const FeatureCache::Column& column = cache.columns[2];
  column.codes.mutable_data_ptr<uint8_t>()[(1 * 10 + 4) * column.width + 3] ^= 0x80;
  EXPECT_EQ(serve(1, 4, &after), 0);
  EXPECT_EQ(serve(2, 4, &elsewhere_after), 0);
  EXPECT_GT(after, 2 * before);
  EXPECT_EQ(elsewhere_after, elsewhere_before);
}

TEST_F(Features, MismatchIsSeenWhereAStepLooksLikeAnother) {
  FeatureTable wrong = exact;
  for (at::Tensor& f : wrong.features) f = f.clone();
  EXPECT_EQ(CompareFeatures(exact, wrong).mismatches, std::vector<int64_t>(5, 0));
  wrong.features[0][1][2].copy_(exact.features[0][4][2]);
  const FeatureErrors e = CompareFeatures(exact, wrong);
  EXPECT_EQ(e.mismatches, (std::vector<int64_t>{0, 1, 0, 0, 0}));
  EXPECT_GT(e.ratio[1], 0);
  EXPECT_EQ(e.ratio[0], 0);
}

TEST(TimestepBin, CoversTheTrainingRangeInTwentieths) {
  EXPECT_EQ(TimestepBin(0, 1000), 0);
  EXPECT_EQ(TimestepBin(49.9, 1000), 0);
  EXPECT_EQ(TimestepBin(50, 1000), 1);
  EXPECT_EQ(TimestepBin(999, 1000), 19);
  EXPECT_EQ(TimestepBin(1000, 1000), 19);
}

}  // namespace
}  // namespace tempera
