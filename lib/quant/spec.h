// What a quantize job is asked to do, with every default decided. No LibTorch here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera {

// Bits for one slot, overriding the role's default. 0 keeps the side in float.
struct SlotOverride {
  std::string slot;  // state-dict path of the layer, as in the manifest's table
  std::optional<int> weight_bits, activation_bits;
};

struct QuantSpec {
  std::string method = "tfmq";      // a row of the method table
  int weight_bits = 4;              // 4, 5, 6, 8
  int activation_bits = 8;          // 4, 5, 6, 8; 32 keeps activations in float
  int boundary_bits = 0;            // conv_in, conv_out, first time linear: 0 float, 8
  bool quantize_attention = false;  // attention operands (QK^T and PV) at activation_bits
  // Layers of text encoders and first stage: 8 by min-max, each row of an input on its own range; 32 leaves
  // them as they are.
  int stage_bits = 32;
  std::vector<SlotOverride> overrides;

  std::string scheduler;  // a row of the scheduler table
  int steps = 0;
  double eta = 0;
  std::string spacing;                      // "leading", "trailing", "linspace"; empty: it has none
  Json scheduler_options = Json::object();  // that differ from the model's configuration, by its names

  int samples_per_step = 0;
  uint64_t seed = 0;             // calibration noise and minibatches
  std::vector<int64_t> classes;  // classes to calibrate on; empty: takes none
  // Prompts to calibrate and to evaluate on, in turn; empty: the model takes none.
  std::vector<std::string> prompts;
  double guidance = 1;            // scale of calibration and evaluation
  int64_t height = 0, width = 0;  // of a picture, pixels

  int max_iterations = 0;         // reconstruction cap a unit
  int batch = 0;                  // rows an iteration
  std::string temporal_strategy;  // "reconstruct", "cache", "select"
  bool keep_time_layers = false;  // the full-precision ones in f16, to make features of other timesteps

  int evaluation_pictures = 0;       // paired pictures in the evaluation; 0: none
  std::vector<std::string> compare;  // other methods to run beside, for the report

  // scheduler_options with the spacing among them: SchedulerRequest.options.
  Json SchedulerOptions() const;
  Json ToJson() const;
  // The inverse; every key must be known.
  static Result<QuantSpec> FromJson(const Json& json, const std::string& label);
};

// A request as the client wrote it: unset fields take defaults that suit the model. Field names as in
// QuantSpec; errors begin with the field's name.
struct QuantRequest {
  std::optional<std::string> method, scheduler, spacing, temporal_strategy;
  std::optional<int> weight_bits, activation_bits, boundary_bits, stage_bits, steps, samples_per_step,
      max_iterations, batch, evaluation_pictures;
  std::optional<bool> quantize_attention, keep_time_layers;
  Json scheduler_options;
  std::optional<double> eta, guidance;
  std::optional<uint64_t> seed;
  std::optional<int64_t> height, width;
  std::vector<std::string> prompts;
  std::vector<int64_t> classes;
  std::vector<SlotOverride> overrides;
  std::vector<std::string> compare;
};

// Opens the model's folder (configs and headers, no weights are read), applies defaults and checks every
// field.
Result<QuantSpec> ResolveSpec(const QuantRequest& request, const std::filesystem::path& model_folder);

// Names of the method table, in its order.
std::vector<std::string> QuantMethodNames();

}  // namespace tempera
