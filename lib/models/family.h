// Model families: one definition each, as a program of units over values.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "models/network.h"
#include "nn/context.h"
#include "nn/params.h"
#include "nn/slot.h"

namespace tempera {

// A unit of a network: what is reconstructed together, saved as one checkpoint, and run as one step of the
// program. Values are numbered; value 0 is the network's input, each unit writes one new value.
struct Unit {
  std::string name;              // "down_blocks.0.resnets.0"
  std::string group;             // block group of metrics: "in", "down", "mid", "up", "out"
  std::vector<int> inputs;       // values that it reads
  int output = 0;                // the value that it writes
  std::vector<nn::Slot*> slots;  // in execution order, those of the time path in it too
  std::function<at::Tensor(nn::ForwardContext&, const std::vector<at::Tensor>&)> run;
};

// What the network takes and gives.
struct DenoiserInfo {
  std::string family;  // "unet"
  int64_t in_channels = 0, out_channels = 0;
  int64_t base_channels = 0;      // of its blocks at the input's full size
  int64_t height = 0, width = 0;  // 0: the configuration does not say
  int64_t classes = 0;            // class labels 0 .. classes - 1; 0: unconditional
  int64_t context_width = 0;      // of a token that cross-attention reads; 0: there is none
  int64_t added_width = 0;  // of the pooled prompt and the embedded sizes in one; 0: time depends on neither
  int64_t size_width = 0;   // of one embedded size
  int64_t guidance_width = 0;  // of the embedded guidance scale; 0: the model was not distilled with it
  std::vector<std::string> block_groups;  // the closed set of metric labels
};

// A denoising network.
class Denoiser : public Network {
 public:
  const DenoiserInfo& info() const { return info_; }
  const std::vector<Unit>& units() const { return units_; }

  // The network's output for x: [B, C, H, W] f32 with ctx.timestep and ctx.on set for the B rows.
  at::Tensor Forward(nn::ForwardContext& ctx, const at::Tensor& x) const;
  // Runs the layers of the time path alone and returns every temporal feature, [B, N_i] each, in execution
  // order of the layers that make them; x plays no part. Names of those layers: temporal_slots().
  virtual std::vector<at::Tensor> TemporalFeatures(nn::ForwardContext& ctx) const = 0;
  // The layers whose outputs are TemporalFeatures.
  const std::vector<nn::Slot*>& temporal_slots() const { return temporal_slots_; }
  // The other layers of the time path, in execution order.
  const std::vector<nn::Slot*>& temporal_trunk() const { return temporal_trunk_; }
  // Where time depends on the prompt: what of it follows from tau alone, before the prompt joins, [B, E], and
  // the layers of the trunk that make it. Undefined and empty elsewhere.
  virtual at::Tensor OfTau(nn::ForwardContext&) const { return {}; }
  const std::vector<nn::Slot*>& tau_slots() const { return tau_slots_; }

 protected:
  // After the units are listed: when each value is last read.
  void FinishProgram();

  DenoiserInfo info_;
  std::vector<Unit> units_;
  std::vector<nn::Slot*> temporal_slots_, temporal_trunk_, tau_slots_;

 private:
  std::vector<int> last_use_;
};

// One row a family.
struct ModelFamily {
  const char* name;        // "unet"
  const char* class_name;  // "_class_name" in the network's config.json: "UNet2DModel"
  const char* folder;      // "unet", "transformer"
  Result<std::unique_ptr<Denoiser>> (*build)(const Json& config, const std::string& label,
                                             nn::Params& params);
};
const std::vector<ModelFamily>& Families();

// The network of `config` ("config.json" of its folder, `label` names it in errors) with parameters from
// `params`. Every parameter of the source must have its place (params.Finish is part of it). InvalidArgument
// names field or tensor.
Result<std::unique_ptr<Denoiser>> BuildDenoiser(const Json& config, const std::string& label,
                                                nn::Params& params);

}  // namespace tempera
