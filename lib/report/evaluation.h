// evaluation.json: what the evaluation of an artifact found, every figure that does not vary from run to run.
// docs/artifact_format.md, section "Evaluation", says the same about the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "report/picture_metrics.h"

namespace tempera {

inline constexpr int kEvaluationVersion = 1;

// K below is the number of steps that are really run, G the number of block groups, N of temporal features.
// "Ratio" is |quantized - full precision| / |full precision| with Euclidean norms; 0 is exact.

struct ModelFacts {
  std::string name;      // last component of the model's folder
  std::string sha256;    // identity of its configs and weights
  std::string family;    // "unet"
  std::string pipeline;  // "DDPMPipeline"
  int64_t channels = 0, height = 0, width = 0;
  std::vector<std::string> classes;  // by label, its number where it has no name; empty: unconditional
};

struct ScheduleFacts {
  std::string scheduler;  // "ddim"
  std::string spacing;    // "leading"
  double eta = 0;
  int64_t training_timesteps = 0;
  std::vector<double> timesteps;  // [K] tau, the noisiest first
};

struct CalibrationFacts {
  uint64_t seed = 0;
  int64_t samples_per_step = 0;
  std::vector<std::string> classes;  // calibrated on; empty: unconditional
  int64_t max_iterations = 0;        // reconstruction cap a unit
  int64_t batch = 0;                 // rows an iteration
  std::string temporal_strategy;     // "reconstruct", "cache", "select"
  int boundary_bits = 0;             // first and last layers: 0 float, 8
  bool quantize_attention = false;   // attention operands
  int stage_bits = 32;               // layers of text encoders and first stage: 32 float, 8
};

// One pair of pictures: the same seed and class painted in full precision and by each method.
struct PicturePair {
  uint64_t seed = 0;
  std::optional<int64_t> class_label;
  std::string prompt = {};  // empty: the model takes none
};

// A figure, or why there is none: exactly one of the two is set.
struct Score {
  std::optional<double> value;
  std::string reason;
};

// The network that gives features for the Frechet distance, and classes.
struct FeatureNetwork {
  std::string metric;  // what the distance is called: "FD-fashion"
  int64_t dimension = 0;
  int64_t pictures = 0;  // painted for the distance and the accuracy, by each
  std::string against;   // what the distance is to: "10000 real pictures of the test set"
};

struct PictureScores {
  Interval mean;                    // over the pairs
  std::vector<double> per_picture;  // in the order of the pairs
};

struct TemporalErrors {
  std::vector<double> ratio;   // [K] over all features of the step together
  std::vector<double> cosine;  // [K] mean over features (and classes)
  // [K] true if any feature of step k (for any class) is nearer, by cosine, to the full-precision feature of
  // another step than to that of its own.
  std::vector<bool> mismatch;
  std::vector<std::vector<double>> group_ratio;  // [K][G]
};

struct MethodResult {
  std::string name;  // row of the method table
  int weight_bits = 0;
  int activation_bits = 0;  // 32: float
  TemporalErrors temporal;
  std::optional<PictureScores> psnr, ssim;  // unset where no pictures were painted
  Score frechet_distance;
  Score class_accuracy;  // 0..1
};

// What full precision itself reaches: the measure for the methods' figures.
struct FullPrecisionResult {
  Score frechet_distance;
  Score class_accuracy;
};

// One slot of the artifact's own method. Bits 0: float.
struct LayerResult {
  std::string slot;  // state-dict path of the layer
  std::string role;  // "conv", "linear", "time" ...
  std::string unit;  // block that it was reconstructed with; empty: none
  int weight_bits = 0;
  int activation_bits = 0;
  std::string format;                    // "int4"; empty: float
  std::optional<double> output_error;    // ratio of the layer's output, for the same input
  std::optional<double> weight_error;    // ratio of the weights
  std::optional<double> clipping_ratio;  // part of the input's values outside the range, over all steps, 0..1
};

struct TemporalFeature {
  std::string name;      // module that consumes it
  std::string group;     // one of Evaluation::groups
  int64_t elements = 0;  // values a step (and class)
};

// Both ways to serve each temporal feature, and which was chosen.
struct FeatureMap {
  std::vector<TemporalFeature> features;  // [N]
  // [K][N] "reconstruct", "cache", or "mixed" where the choice differs between classes.
  std::vector<std::vector<std::string>> strategy;
  std::vector<std::vector<double>>
      reconstruct_error;  // [K][N] ratio of what the quantized layers give; empty: not measured
  std::vector<std::vector<double>> cache_error;  // [K][N] ratio of what the cache holds; empty: not measured
};

// Bytes as they lie in files. `full_precision` is the model's denoiser with 4 bytes a parameter; codes,
// scales, floats, tables and cache are what serves instead of it; the reference serves the error metric
// alone.
struct ByteFacts {
  int64_t full_precision = 0;
  int64_t codes = 0;      // packed weights
  int64_t scales = 0;     // weight scales and zero points
  int64_t floats = 0;     // what stays in float: norms, biases, first and last layers
  int64_t tables = 0;     // activation ranges by step
  int64_t cache = 0;      // temporal features, with their scales
  int64_t reference = 0;  // full-precision features
  int64_t served() const { return codes + scales + floats + tables + cache; }
};

// A text encoder or first stage whose layers are in 8 bits.
struct PartResult {
  std::string name;                  // its sub-folder: "text_encoder", "vae"
  int64_t full_precision_bytes = 0;  // of its tensors in the model's folder
  int64_t bytes = 0;                 // of its tensors in the artifact
  // Ratio of the hidden states of calibration's prompts, or of the pictures decoded from the latents of the
  // first pairs; unset: no pictures were painted.
  std::optional<double> output_error;
  std::optional<double> psnr;           // of those pictures, dB; unset for a text encoder
  std::optional<double> encoder_error;  // ratio of the latents that its encoder makes of those pictures
};

// Pictures that the report shows. Files are named from the artifact's folder: "pictures/...", PNG.
struct SampleOfMethod {
  std::string picture;
  std::string difference;  // |picture - full precision| * amplification, in the same channels
};
struct Sample {
  int64_t pair = 0;  // index into Evaluation::pairs
  std::string full_precision;
  std::vector<SampleOfMethod> methods;  // in the order of Evaluation::methods
};
struct SampleFacts {
  double amplification = 1;
  std::vector<Sample> rows;
};

struct Evaluation {
  int version = kEvaluationVersion;
  ModelFacts model;
  ScheduleFacts schedule;
  CalibrationFacts calibration;
  std::vector<PicturePair> pairs;
  std::vector<std::string> groups;    // [G] block groups: "down", "mid", "up"
  std::vector<MethodResult> methods;  // the artifact's own first, then those it was compared with
  FullPrecisionResult full_precision;
  std::optional<FeatureNetwork> feature_network;
  std::vector<LayerResult> layers;
  FeatureMap temporal_features;
  ByteFacts bytes;
  std::vector<PartResult> parts;  // in 8 bits; empty: they are as in the model's folder
  SampleFacts samples;
};

// Every field stands in the object; what is unset is null. CanonicalJson of it gives the file's bytes.
Json ToJson(const Evaluation& evaluation);
// The inverse. Errors name `label` and the field: missing, unknown, of a wrong kind, or at odds with the
// others (CheckEvaluation). Another version is FailedPrecondition.
Result<Evaluation> EvaluationFromJson(const Json& json, const std::string& label);
// Lengths agree, figures are finite and in their range, names of files are harmless. InvalidArgument names
// the field.
Status CheckEvaluation(const Evaluation& evaluation, const std::string& label);

// The name as the report writes it: "tfmq W4A8".
std::string MethodTitle(const MethodResult& method);
// Means over the steps, and the steps where time is mistaken.
double MeanTemporalError(const MethodResult& method);
int64_t TemporalMismatches(const MethodResult& method);

}  // namespace tempera
