#include "report/example.h"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

namespace tempera::example {
namespace {

double Draw(std::mt19937& random, double low, double high) {
  return low + (high - low) * static_cast<double>(random() >> 8) / static_cast<double>(1 << 24);
}

PictureScores Scores(std::mt19937& random, size_t count, double low, double high) {
  PictureScores out;
  for (size_t i = 0; i < count; ++i) out.per_picture.push_back(Draw(random, low, high));
  out.mean = MeanInterval(out.per_picture);
  return out;
}

MethodResult Method(std::mt19937& random, const Evaluation& e, const std::string& name, double temporal,
                    double psnr, double fd, double accuracy) {
  MethodResult m{.name = name,
                 .weight_bits = 4,
                 .activation_bits = 8,
                 .temporal = {},
                 .psnr = {},
                 .ssim = {},
                 .frechet_distance = {},
                 .class_accuracy = {}};
  const size_t steps = e.schedule.timesteps.size();
  for (size_t k = 0; k < steps; ++k) {
    const double late = static_cast<double>(k) / static_cast<double>(std::max<size_t>(1, steps - 1));
    const double ratio = temporal * (0.5 + 1.6 * late * late) * Draw(random, 0.85, 1.15);
    m.temporal.ratio.push_back(ratio);
    m.temporal.cosine.push_back(1 / std::sqrt(1 + ratio * ratio));
    m.temporal.mismatch.push_back(ratio > 0.12);
    std::vector<double> groups;
    for (size_t g = 0; g < e.groups.size(); ++g) groups.push_back(ratio * Draw(random, 0.6, 1.4));
    m.temporal.group_ratio.push_back(groups);
  }
  if (!e.pairs.empty()) {
    m.psnr = Scores(random, e.pairs.size(), psnr - 4, psnr + 4);
    m.ssim = Scores(random, e.pairs.size(), 1 - 2.2 / psnr, 1);
    m.frechet_distance.value = fd;
    m.class_accuracy.value = accuracy;
  } else {
    m.frechet_distance.reason = m.class_accuracy.reason = "the job asked for no pictures";
  }
  return m;
}

using Pixels = std::vector<uint8_t>;

// A soft blob with stripes on black: something in which a difference can be seen.
Pixels Paint(const Shape& s, uint64_t seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  const double cx = Draw(random, 0.4, 0.6), cy = Draw(random, 0.4, 0.6), rx = Draw(random, 0.2, 0.4),
               ry = Draw(random, 0.25, 0.45), stripes = Draw(random, 4, 22), tilt = Draw(random, -1, 1);
  Pixels out;
  for (int y = 0; y < s.side; ++y)
    for (int x = 0; x < s.side; ++x)
      for (int c = 0; c < s.channels; ++c) {
        const double u = (x + 0.5) / s.side, v = (y + 0.5) / s.side;
        const double d = std::pow((u - cx) / rx, 2) + std::pow((v - cy) / ry, 2);
        const double inside = 1 / (1 + std::exp(12 * (d - 1)));
        const double tone = 0.62 + 0.3 * std::sin(stripes * (u + tilt * v) + 0.9 * c);
        out.push_back(static_cast<uint8_t>(std::clamp(255 * inside * tone, 0.0, 255.0)));
      }
  return out;
}

void WritePng(const std::filesystem::path& path, const Shape& s, const Pixels& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = image.height = static_cast<png_uint_32>(s.side);
  image.format = s.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  TEMPERA_CHECK(png_image_write_to_file(&image, path.c_str(), 0, pixels.data(), 0, nullptr) != 0,
                image.message);
}

}  // namespace

Evaluation MakeEvaluation(const Shape& shape) {
  std::mt19937 random(20);
  Evaluation e;
  e.model = {.name = "fashion",
             .sha256 = "4f0c7c2b5ad1e98b37e2f0a4d6c1b3958e7d2046af13bc5590de8827a6614c0f",
             .family = "unet",
             .pipeline = "DDPMPipeline",
             .channels = shape.channels,
             .height = shape.side,
             .width = shape.side,
             .classes = {"T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
                         "Bag", "Ankle boot"}};
  e.schedule = {
      .scheduler = "ddim", .spacing = "leading", .eta = 0, .training_timesteps = 1000, .timesteps = {}};
  for (int k = 0; k < shape.steps; ++k)
    e.schedule.timesteps.push_back((shape.steps - 1 - k) * (1000 / shape.steps) + 1);
  e.calibration = {.seed = 40,
                   .samples_per_step = 40,
                   .classes = e.model.classes,
                   .max_iterations = 800,
                   .batch = 32,
                   .temporal_strategy = "select",
                   .boundary_bits = 0,
                   .quantize_attention = false,
                   .stage_bits = shape.parts ? 8 : 32};
  const int pairs = shape.painted ? std::max(64, shape.samples) : 0;
  for (int i = 0; i < pairs; ++i) e.pairs.push_back({static_cast<uint64_t>(1000 + i), i % 10});
  e.groups = {"down", "mid", "up"};
  e.methods.push_back(Method(random, e, "tfmq", 0.004, 32.4, 4.21, 0.9219));
  if (shape.compared) {
    e.methods.push_back(Method(random, e, "minmax", 0.09, 26.1, 9.87, 0.8594));
    e.methods.push_back(Method(random, e, "brecq", 0.032, 31.6, 4.66, 0.9063));
  }
  if (shape.painted) {
    e.full_precision.frechet_distance.value = 3.94;
    e.full_precision.class_accuracy.value = 0.9375;
    e.feature_network = {"FD-fashion", 64, 64, "10,000 real pictures of the test set"};
  } else {
    e.full_precision.frechet_distance.reason = e.full_precision.class_accuracy.reason =
        "the job asked for no pictures";
  }

  const char* const kPlaces[] = {"down_blocks.0", "down_blocks.1", "down_blocks.2", "mid_block",
                                 "up_blocks.0",   "up_blocks.1",   "up_blocks.2"};
  const auto place = [&](int i, int of) { return 7 * i / std::max(1, of); };
  for (int i = 0; i < shape.layers; ++i) {
    const int p = place(i, shape.layers);
    const bool edge = i == 0 || i == shape.layers - 1, time = i % 8 == 7;
    const char* const kLayers[] = {"conv1", "conv2", "conv_shortcut", "time_emb_proj"};
    e.layers.push_back(
        {.slot = edge ? (i == 0 ? "conv_in" : "conv_out")
                      : Cat(kPlaces[p], ".resnets.", i / 4, ".", kLayers[time ? 3 : i % 3]),
         .role = edge         ? "boundary"
                 : time       ? "time"
                 : i % 3 == 2 ? "skip"
                              : "conv",
         .unit = edge   ? ""
                 : time ? "temporal"
                        : Cat(kPlaces[p], ".resnets.", i / 4),
         .weight_bits = edge ? 0 : 4,
         .activation_bits = edge ? 0 : 8,
         .format = edge ? "" : "int4",
         .output_error = edge ? std::nullopt : std::optional(Draw(random, 0.008, 0.09)),
         .weight_error = edge ? std::nullopt : std::optional(Draw(random, 0.06, 0.11)),
         .clipping_ratio = edge ? std::nullopt : std::optional(i % 5 == 0 ? 0.0 : Draw(random, 0, 0.004))});
  }
  for (int i = 0; i < shape.features; ++i) {
    const int p = place(i, shape.features);
    e.temporal_features.features.push_back({Cat(kPlaces[p], ".resnets.", i, ".time_emb_proj"),
                                            p < 3    ? "down"
                                            : p == 3 ? "mid"
                                                     : "up",
                                            128});
  }
  for (int k = 0; k < shape.steps; ++k) {
    std::vector<std::string> strategy;
    std::vector<double> rebuilt, cached;
    for (int i = 0; i < shape.features; ++i) {
      rebuilt.push_back(0.02 * (0.4 + std::pow(static_cast<double>(k) / shape.steps, 2)) *
                        Draw(random, 0.3, 1.9) * (1 + 0.1 * (i % 4)));
      cached.push_back(0.004 * Draw(random, 0.6, 1.4) * (1 + 0.25 * (i % 5)));
      strategy.emplace_back(k == 3 && i == 5                  ? "mixed"
                            : cached.back() <= rebuilt.back() ? "cache"
                                                              : "reconstruct");
    }
    e.temporal_features.strategy.push_back(strategy);
    e.temporal_features.reconstruct_error.push_back(rebuilt);
    e.temporal_features.cache_error.push_back(cached);
  }
  e.bytes = {.full_precision = 7'934'468,
             .codes = 930'816,
             .scales = 41'280,
             .floats = 61'444,
             .tables = 26'400,
             .cache = 92'160,
             .reference = 184'320};
  if (shape.parts)
    e.parts = {{"text_encoder", 492'265'472, 237'453'312, 0.0123, {}, {}},
               {"vae", 334'614'380, 84'401'232, 0.0087, 44.31, 0.0102}};
  e.samples.amplification = 8;
  for (int i = 0; i < (shape.painted ? shape.samples : 0); ++i) {
    Sample row{.pair = i, .full_precision = Cat("pictures/", i, "-original.png"), .methods = {}};
    for (const MethodResult& m : e.methods)
      row.methods.push_back(
          {Cat("pictures/", i, "-", m.name, ".png"), Cat("pictures/", i, "-", m.name, "-difference.png")});
    e.samples.rows.push_back(row);
  }
  return e;
}

Measurements MakeMeasurements() {
  Measurements m;
  m.job = {"01J9Z7Q4V8",
           "fashion nightly",
           {{"team", "imaging"}, {"ticket", "42"}},
           "2025-03-04T10:11:12.000Z",
           "2025-03-04T10:15:20.500Z"};
  m.machine = {"Example CPU @ 2.60GHz", "avx2 avx512 vnni", "Debian GNU/Linux 12", 2, 8'200'000'000, 2};
  m.software = {{"tempera", "0.1.0"}, {"LibTorch", "2.15.0"}, {"compiler", "g++ 12.2.0"}};
  m.stages = {{"calibrate", 38.2}, {"scales", 3.1}, {"temporal", 9.4}, {"blocks", 141.0}, {"ranges", 11.2},
              {"cache", 1.3},      {"select", 0.2}, {"pack", 0.4},     {"evaluate", 43.5}};
  m.steps = {{"full_precision", 1, 2, 100, 21.4},
             {"quantized", 1, 2, 100, 14.9},
             {"full_precision", 8, 2, 50, 139.2},
             {"quantized", 8, 2, 50, 96.0}};
  m.full_precision_resident_bytes = 12'300'000;
  m.quantized_resident_bytes = 2'900'000;
  return m;
}

void WritePictures(const Evaluation& e, const Shape& shape, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder / "pictures");
  for (const Sample& row : e.samples.rows) {
    const Pixels original = Paint(shape, e.pairs[static_cast<size_t>(row.pair)].seed);
    WritePng(folder / row.full_precision, shape, original);
    for (size_t i = 0; i < row.methods.size(); ++i) {
      const double psnr = e.methods[i].psnr->per_picture[static_cast<size_t>(row.pair)];
      const double spread =
          255 / std::pow(10, psnr / 20) * std::sqrt(3.0);  // of uniform noise with that PSNR
      std::mt19937 random(static_cast<uint32_t>(row.pair * 100) + static_cast<uint32_t>(i));
      Pixels picture = original, difference = original;
      for (size_t p = 0; p < picture.size(); ++p) {
        const double v = original[p] + Draw(random, -spread, spread) * (original[p] > 8 ? 1.6 : 0.3);
        picture[p] = static_cast<uint8_t>(std::clamp(v, 0.0, 255.0));
        difference[p] = static_cast<uint8_t>(
            std::min(255.0, e.samples.amplification * std::abs(picture[p] - original[p])));
      }
      WritePng(folder / row.methods[i].picture, shape, picture);
      WritePng(folder / row.methods[i].difference, shape, difference);
    }
  }
}

}  // namespace tempera::example
