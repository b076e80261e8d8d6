// A loaded model or artifact that paints: the one interface between serving and computing. No LibTorch here.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "artifact/baseline.h"
#include "base/call.h"
#include "base/executors.h"
#include "base/json.h"
#include "base/status.h"
#include "stages/wish.h"

namespace tempera {

class Scheduler;

// Temporal-feature error of one step in one group of blocks: |emb^ - emb| / |emb| over the group's features.
struct FeatureError {
  int timestep_bin = 0;     // 0..19, tau / training timesteps in twentieths
  std::string block_group;  // "down", "mid", "up" ...: a closed set that the family names
  double ratio = 0;
};

// What a loaded thing is and what it accepts. Fixed at load.
struct EngineInfo {
  bool is_artifact = false;
  std::string id;    // artifact id, or empty
  std::string name;  // last component of the model's folder (for an artifact: of its source)
  std::string source_sha256;
  std::string pipeline;           // "DDPMPipeline" ...
  std::string family;             // "unet"
  int64_t channels = 0;           // of a picture
  int64_t height = 0, width = 0;  // pixels, where a request names no size
  int64_t size_step =
      1;  // sides are multiples of it; the only size is height x width where `any_size` is false
  bool any_size = false;
  bool takes_prompt = false;
  double guidance = 1;                   // scale where a request names none
  bool takes_image = false;              // a generation may begin from a picture
  int64_t classes = 0;                   // 0: unconditional
  std::vector<std::string> class_names;  // empty, or one per class
  // The schedule used when the request names none. An artifact that keeps no time layers serves the
  // timesteps of this one only.
  std::string scheduler;
  int steps = 0;
  double eta = 0;
  std::vector<std::string> schedulers;  // names that a request may give
  std::vector<double> timesteps;        // of an artifact: those that it was calibrated on
  bool any_timestep = false;            // serves others too
  int64_t weight_bytes = 0;             // resident weights, packed as they are
  int64_t stage_bytes = 0;              // of text encoders and first stage
  int64_t cache_bytes = 0;              // resident temporal feature cache
  int64_t cache_entries = 0;            // features in it: (step, class, module)
  int64_t reference_bytes = 0;          // full-precision features for the error metric
  int64_t memory_bytes() const { return weight_bytes + stage_bytes + cache_bytes + reference_bytes; }
  // Expected temporal-feature error per step bin and block group (from the manifest); empty for a model.
  std::vector<FeatureBaseline> baseline;
};

// Limits of a picture that is read or painted: of a side, and of all its pixels, what a network of Stable
// Diffusion's size still paints in a few GiB.
inline constexpr int64_t kMaxSide = 16384;
inline constexpr int64_t kMaxPixels = 2048 * 2048;

// 8-bit picture, rows of interleaved channels (1 gray, 3 RGB, 4 RGBA).
struct Picture {
  int64_t width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;
};

// How a preview is made of a latent.
enum class PreviewKind : uint8_t {
  kProjection,  // a linear map to colours, as small as the latent: costs nothing
  kDecode,      // by the first stage, as the picture itself
};

// A generation as asked for; unset fields take the engine's defaults.
struct GenerationRequest {
  std::optional<int64_t> class_label;
  std::optional<std::string> prompt, prompt_2, negative_prompt, negative_prompt_2;
  std::optional<double> guidance;
  double guidance_rescale = 0;
  std::optional<int64_t> height, width;  // pixels
  int64_t clip_skip = 0;
  bool long_prompt = false;
  std::optional<std::array<int64_t, 2>> original_size, crop,
      target_size;                            // height or top before width or left
  std::shared_ptr<const Picture> init_image;  // to begin from, instead of noise alone
  std::shared_ptr<const Picture> mask;        // white where it is painted anew, black where it is kept
  std::optional<double> strength;             // how much of the schedule is run on it, above 0 to 1
  uint64_t seed = 0;
  std::optional<std::string> scheduler;
  std::optional<int> steps;
  std::optional<double> eta;
  Json scheduler_options;    // an object, as SchedulerRequest.options
  int preview_interval = 0;  // every so many steps; 0: none
  PreviewKind preview_kind = PreviewKind::kProjection;
};

// The same with every field decided and checked.
struct ResolvedGeneration {
  Wish wish;
  std::vector<std::string> warnings;  // "prompt: ..." for the caller to read
  double guidance_rescale = 0;
  std::shared_ptr<const Picture> init_image, mask;
  double strength = 1;
  int64_t first = 0;  // network evaluation that it begins with
  uint64_t seed = 0;
  std::shared_ptr<const Scheduler> schedule;
  std::string scheduler;
  int steps = 0;  // network evaluations may differ from the request's count where the schedule says so
  double eta = 0;
  int preview_interval = 0;
  PreviewKind preview_kind = PreviewKind::kProjection;
  int64_t memory_bytes =
      0;  // that painting takes beside the loaded engine at its peak: a prediction from above
};

struct StepEvent {
  int step = 0;  // ordinal k, 0 = the noisiest
  int steps = 0;
  double timestep = 0;  // tau
  double milliseconds = 0;
  // Over all features of the step; unset for a full-precision model and where the metric is off.
  std::optional<double> temporal_feature_error;
  std::vector<FeatureError> errors;
};

struct GenerationResult {
  Picture picture;
  std::vector<float> latent;  // the final one, [C, H, W]
  std::string latent_sha256;  // over it, f32 little-endian
  double prompt_ms = 0, denoise_ms = 0, decode_ms = 0;
  std::vector<StepEvent> steps;
};

struct GenerationEvents {
  std::function<void(const StepEvent&)> on_step;                     // after each step
  std::function<void(const StepEvent&, const Picture&)> on_preview;  // when asked for
};

struct EngineOptions {
  bool metric = true;  // load the full-precision features and compute the temporal-feature error
};

// Immutable after load, shared by every lane. Thread-safe: each Generate call runs wholly on the calling
// thread, which must have called InitComputeThread.
class Engine {
 public:
  // A diffusers folder in full precision. Errors name files relative to the folder.
  static Result<std::shared_ptr<const Engine>> LoadModel(const CallScope& scope,
                                                         const std::filesystem::path& folder);
  // An artifact's folder whose files were verified (VerifyArtifact).
  static Result<std::shared_ptr<const Engine>> LoadArtifact(const CallScope& scope,
                                                            const std::filesystem::path& folder,
                                                            const std::string& id,
                                                            const EngineOptions& options);
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  // Applies defaults and checks every field. InvalidArgument names field, value and what is accepted. At a
  // timestep that an artifact was not calibrated on, temporal features come from its time layers and
  // activation ranges are those of both neighbours together; one that keeps none refuses it and
  // says which timesteps it serves.
  virtual Result<ResolvedGeneration> Resolve(const GenerationRequest& request) const = 0;
  // Paints one picture. The same resolved request gives the same bytes on every thread. Cancel and deadline
  // are checked before each step.
  virtual Result<GenerationResult> Generate(const CallScope& scope, const ResolvedGeneration& request,
                                            const GenerationEvents& events) const = 0;
  // For the test of the integrity alarm: flips one bit of the resident feature cache; false if there is no
  // cache.
  virtual bool CorruptCacheForTest(int64_t entry) const = 0;
  // Multiplications that time layers ran since load.
  virtual int64_t TemporalMultiplications() const = 0;
};

// Call at program start, before any thread: probes the processor and caps what libraries may use of it, and
// has freed memory kept for the next step. A
// network of more than `large` bytes makes each of the two rows under guidance in a pass of its own, side by
// side where `threads` is 2 or more: its bytes do not depend on that.
void InitCompute(int threads = 1, int64_t large = int64_t{256} << 20);
// Call first on every thread that computes: one intra-op thread, so that results do not depend on the thread
// count.
void InitComputeThread();

}  // namespace tempera
