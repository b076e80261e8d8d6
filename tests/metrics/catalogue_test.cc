#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "metrics/metrics.h"

namespace tempera {
namespace {

const BuildInfo kBuild{"1.2.3", "abc", "2.15.0", "cpu"};

TEST(Catalogue, NamesFollowTheRules) {
  Metrics metrics(kBuild);
  std::set<std::string> seen;
  for (const MetricFamilyBase* family : metrics.registry.families()) {
    const FamilyInfo& info = family->info();
    SCOPED_TRACE(info.name);
    EXPECT_TRUE(seen.insert(info.name).second) << "declared twice";
    EXPECT_TRUE(std::regex_match(info.name, std::regex("tempera_[a-z0-9_]+")));
    EXPECT_EQ(info.name.ends_with("_total"), info.kind == MetricKind::kCounter);
    EXPECT_FALSE(info.help.empty());
    EXPECT_TRUE(info.help.ends_with("."));
    if (info.kind == MetricKind::kHistogram) {
      EXPECT_TRUE(info.name.ends_with("_seconds") || info.name.ends_with("_ratio"))
          << "a histogram needs a unit";
      ASSERT_FALSE(info.buckets.empty());
      EXPECT_TRUE(std::is_sorted(info.buckets.begin(), info.buckets.end(), std::less_equal<>()));
    } else {
      EXPECT_TRUE(info.buckets.empty());
    }
    for (const std::string& label : info.labels) {
      EXPECT_TRUE(std::regex_match(label, std::regex("[a-z][a-z_]*"))) << label;
      for (const char* banned : {"request_id", "seed", "prompt", "user", "timestep", "le"})
        EXPECT_NE(label, banned);
    }
    for (const char* unit : {"_ms", "_us", "_percent", "_mb", "_kb"}) EXPECT_FALSE(info.name.ends_with(unit));
  }
}

TEST(Catalogue, StartsWithItsZeroSeries) {
  Metrics metrics(kBuild);
  const std::string text = metrics.Text();
  for (const char* line :
       {"tempera_build_info{device=\"cpu\",revision=\"abc\",torch=\"2.15.0\",version=\"1.2.3\"} 1",
        "tempera_quantize_jobs{state=\"queued\"} 0", "tempera_worker_leases{kind=\"embedded\"} 0"})
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  // No step has run: no series of the temporal error.
  EXPECT_EQ(text.find("tempera_temporal_feature_error_ratio_count"), std::string::npos);
}

TEST(Catalogue, CountsItsOwnSeries) {
  Metrics metrics(kBuild);
  const std::string text = metrics.Text();
  int64_t lines = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines += !line.empty() && line[0] != '#';
  EXPECT_EQ(metrics.series.Value(), lines);
  EXPECT_LT(lines, 10'000);
}

TEST(Catalogue, ReadsTheProcess) {
  Metrics metrics(kBuild);
  metrics.Text();
  EXPECT_GT(metrics.process_resident_bytes.Value(), 1 << 20);
  EXPECT_GT(metrics.process_open_fds.Value(), 0);
  const double before = metrics.process_cpu_seconds.Value();
  for (int i = 0; i < 50; ++i) metrics.Text();
  EXPECT_GT(metrics.process_cpu_seconds.Value(), before);
}

TEST(Catalogue, UnloadingAnArtifactLeavesNoneOfItsSeries) {
  Metrics metrics(kBuild);
  for (const char* artifact : {"0123456789ab", "ba9876543210"}) {
    metrics.temporal_error.Observe(1e-3, "fashion", artifact, TimestepBinLabel(7), "down");
    metrics.temporal_error_baseline.Set(1e-3, "fashion", artifact, TimestepBinLabel(7), "down");
    metrics.temporal_error_low.Set(1e-3, "fashion", artifact, TimestepBinLabel(7), "down");
    metrics.temporal_error_high.Set(1e-3, "fashion", artifact, TimestepBinLabel(7), "down");
    metrics.step_seconds.Observe(.01, "fashion", artifact);
    metrics.generation_seconds.Observe(.1, "fashion", artifact);
    metrics.model_loaded.Set(1, "fashion", artifact);
    metrics.model_bytes.Set(1, "fashion", artifact);
    metrics.model_load_seconds.Observe(1, "fashion", artifact);
    metrics.cache_bytes.Set(1, "fashion", artifact);
    metrics.cache_entries.Set(1, "fashion", artifact);
  }
  ASSERT_NE(metrics.Text().find("0123456789ab"), std::string::npos);
  metrics.RemoveArtifact("fashion", "0123456789ab");
  const std::string text = metrics.Text();
  EXPECT_EQ(text.find("0123456789ab"), std::string::npos) << text;
  EXPECT_NE(text.find("ba9876543210"), std::string::npos);
}

// Every family with an `artifact` label must be among those that RemoveArtifact clears.
TEST(Catalogue, EveryArtifactLabelIsCleared) {
  Metrics metrics(kBuild);
  int64_t with_artifact = 0;
  for (const MetricFamilyBase* family : metrics.registry.families()) {
    const auto& labels = family->info().labels;
    with_artifact += std::count(labels.begin(), labels.end(), "artifact");
  }
  EXPECT_EQ(with_artifact, 11)
      << "a new family with an artifact label: add it to RemoveArtifact and to the test above";
}

TEST(Catalogue, HooksRunBeforeTheText) {
  Metrics metrics(kBuild);
  int64_t n = 0;
  metrics.OnCollect([&] { metrics.jobs.Set(static_cast<double>(++n), "queued"); });
  EXPECT_NE(metrics.Text().find("tempera_quantize_jobs{state=\"queued\"} 1"), std::string::npos);
  EXPECT_NE(metrics.Text().find("tempera_quantize_jobs{state=\"queued\"} 2"), std::string::npos);
}

TEST(Catalogue, BinLabelsSortAsTheyCount) {
  EXPECT_EQ(TimestepBinLabel(0), "00");
  EXPECT_EQ(TimestepBinLabel(7), "07");
  EXPECT_EQ(TimestepBinLabel(19), "19");
}

}  // namespace
}  // namespace tempera
