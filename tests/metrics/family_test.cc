#include "metrics/family.h"

#include <gtest/gtest.h>

#include <thread>

namespace tempera {
namespace {

TEST(Family, TouchedSeriesStandAtZero) {
  MetricRegistry registry;
  CounterFamily<1> calls(registry, "t_calls_total", "Calls.", {"method"});
  calls.Touch("Get");
  EXPECT_NE(registry.Text().find("t_calls_total{method=\"Get\"} 0"), std::string::npos) << registry.Text();
}

TEST(Family, CountsSetsAndObserves) {
  MetricRegistry registry;
  CounterFamily<1> calls(registry, "t_calls_total", "Calls.", {"method"});
  GaugeFamily<0> depth(registry, "t_depth", "Depth.");
  HistogramFamily<2> seconds(registry, "t_seconds", "Time.", {"a", "b"}, {1, 10});
  calls.Add(2, "Get");
  calls.Add(0.5, "Get");
  depth.Set(7);
  depth.Add(-3);
  seconds.Observe(5, "x", "y");
  seconds.Observe(50, "x", "y");
  EXPECT_EQ(calls.Value("Get"), 2.5);
  EXPECT_EQ(depth.Value(), 4);
  EXPECT_EQ(seconds.Count("x", "y"), 2);
  EXPECT_EQ(seconds.Count("x", "z"), 0);
  const std::string text = registry.Text();
  EXPECT_NE(text.find("t_seconds_bucket{a=\"x\",b=\"y\",le=\"1\"} 0"), std::string::npos) << text;
  EXPECT_NE(text.find("t_seconds_bucket{a=\"x\",b=\"y\",le=\"10\"} 1"), std::string::npos) << text;
  EXPECT_NE(text.find("t_seconds_bucket{a=\"x\",b=\"y\",le=\"+Inf\"} 2"), std::string::npos) << text;
  EXPECT_NE(text.find("t_seconds_sum{a=\"x\",b=\"y\"} 55"), std::string::npos) << text;
}

TEST(Family, RemovesByOneLabelOrTwo) {
  MetricRegistry registry;
  GaugeFamily<2> bytes(registry, "t_bytes", "Bytes.", {"model", "artifact"});
  bytes.Set(1, "m", "a");
  bytes.Set(2, "m", "b");
  bytes.Set(3, "n", "a");
  bytes.RemoveWhere("model", "m", "artifact", "a");
  EXPECT_EQ(bytes.series(), 2);
  bytes.RemoveWhere("artifact", "a");
  EXPECT_EQ(bytes.series(), 1);
  EXPECT_EQ(bytes.Value("m", "b"), 2);
  // A removed series comes back from zero.
  bytes.Add(1, "m", "a");
  EXPECT_EQ(bytes.Value("m", "a"), 1);
}

TEST(Family, SeriesCountIsWhatAScrapeSees) {
  MetricRegistry registry;
  GaugeFamily<1> depth(registry, "t_depth", "Depth.", {"model"});
  HistogramFamily<1> seconds(registry, "t_seconds", "Time.", {"model"}, {1, 2, 3});
  depth.Set(1, "a");
  depth.Set(1, "b");
  seconds.Observe(1, "a");
  int64_t lines = 0;
  std::istringstream text(registry.Text());
  for (std::string line; std::getline(text, line);) lines += !line.empty() && line[0] != '#';
  EXPECT_EQ(registry.SeriesCount(), lines);
  EXPECT_EQ(lines, 2 + 4 + 2);
}

TEST(Family, LabelValuesAreEscaped) {
  MetricRegistry registry;
  GaugeFamily<1> depth(registry, "t_depth", "Depth.", {"model"});
  depth.Set(1, "a\"b\\c\nd");
  EXPECT_NE(registry.Text().find("t_depth{model=\"a\\\"b\\\\c\\nd\"} 1"), std::string::npos)
      << registry.Text();
}

// Writers, a remover and a reader at once: what TSan and ASan watch.
TEST(Family, SeriesMayGoWhileOthersWrite) {
  MetricRegistry registry;
  HistogramFamily<1> seconds(registry, "t_seconds", "Time.", {"artifact"}, {1, 2});
  seconds.Observe(0, "a");  // a family without series has no text
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&seconds, t] {
      for (int i = 0; i < 2000; ++i) seconds.Observe(i, std::string(1, static_cast<char>('a' + (i + t) % 3)));
    });
  threads.emplace_back([&seconds] {
    for (int i = 0; i < 500; ++i) seconds.RemoveWhere("artifact", "b");
  });
  threads.emplace_back([&registry] {
    for (int i = 0; i < 20; ++i) EXPECT_FALSE(registry.Text().empty());
  });
  threads.clear();
  EXPECT_EQ(seconds.Count("a"), 2001);
  EXPECT_EQ(seconds.Count("c"), 2000);
}

}  // namespace
}  // namespace tempera
