#include "pipeline/engine.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <thread>

#include "base/files.h"
#include "kernels/kernels.h"
#include "nn/large_blocks.h"
#include "pipeline/network_engine.h"
#include "stages/guidance.h"

namespace tempera {
namespace {

// InitCompute's.
int row_threads = 1;
int64_t large_network = std::numeric_limits<int64_t>::max();

double Milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

// [C, H, W] in [-1, 1] to 8 bits: round half to even of 255 * clamp(x / 2 + 0.5, 0, 1).
Picture ToPicture(const at::Tensor& x) {
  const at::Tensor bytes =
      at::round((x / 2 + 0.5).clamp(0, 1) * 255).to(at::kByte).permute({1, 2, 0}).contiguous().cpu();
  Picture picture{.width = bytes.size(1), .height = bytes.size(0), .channels = bytes.size(2), .pixels = {}};
  const uint8_t* data = bytes.const_data_ptr<uint8_t>();
  picture.pixels.assign(data, data + bytes.numel());
  return picture;
}

// The other way, [1, channels, H, W]; one channel becomes as many.
at::Tensor FromPicture(const Picture& p, int64_t channels) {
  const at::Tensor bytes =
      at::from_blob(const_cast<uint8_t*>(p.pixels.data()), {p.height, p.width, p.channels}, at::kByte);
  const at::Tensor x = bytes.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat) / 255.0f;
  return (2.0f * x - 1.0f).expand({1, channels, -1, -1}).contiguous();
}

// A mask, [1, 1, H, W]: 1 where it is white, 0 where it is black. Colours by their luma (ITU-R BT.601).
at::Tensor FromMask(const Picture& p) {
  at::Tensor x =
      at::from_blob(const_cast<uint8_t*>(p.pixels.data()), {p.height, p.width, p.channels}, at::kByte)
          .to(at::kFloat);
  x = p.channels == 1 ? x.select(2, 0) : at::matmul(x.narrow(2, 0, 3), at::tensor({0.299f, 0.587f, 0.114f}));
  return (x / 255.0f >= 0.5f).to(at::kFloat).view({1, 1, p.height, p.width});
}

}  // namespace

std::vector<FeatureError> NetworkEngine::StepErrors(const ServingSource& source, double timestep,
                                                    int64_t train, double* total) const {
  std::map<std::string, std::pair<double, double>> by_group;
  std::pair<double, double> all;
  for (size_t i = 0; i < group_of_feature_.size(); ++i) {
    auto& [difference, norm] = by_group[group_of_feature_[i]];
    difference += source.difference2[i];
    norm += source.norm2[i];
    all.first += source.difference2[i];
    all.second += source.norm2[i];
  }
  const auto ratio = [](const std::pair<double, double>& sums) {
    return std::sqrt(sums.first / std::max(sums.second, 1e-30));
  };
  *total = ratio(all);
  std::vector<FeatureError> errors;
  for (const auto& [group, sums] : by_group)
    errors.push_back(
        {.timestep_bin = TimestepBin(timestep, train), .block_group = group, .ratio = ratio(sums)});
  return errors;
}

Result<NetworkEngine::Features> NetworkEngine::FeaturesFor(const CallScope& scope,
                                                           const ResolvedGeneration& request,
                                                           const Conditions& conditions) const {
  Features f{.cache = &cache_, .reference = reference_ ? &*reference_ : nullptr};
  const std::vector<double>& timesteps = request.schedule->timesteps();
  if (!info_.is_artifact) return f;
  if (timesteps != info_.timesteps) f.places = PlaceSteps(info_.timesteps, timesteps);
  std::vector<int64_t> own;  // columns of the artifact's tables
  if (conditions.on.label.defined()) own = {*request.wish.class_label};
  const bool fresh =
      features_of_request_ || (features_guidance_ != 0 && request.wish.guidance != features_guidance_);
  if (!fresh && f.places.empty()) {
    f.condition = own;
    return f;
  }
  for (int64_t row = 0; row < conditions.rows; ++row) f.condition.push_back(row);
  own.resize(f.condition.size(), 0);
  at::Tensor of_tau = of_tau_;
  if (of_tau.defined() && !f.places.empty()) {
    of_tau = TauPart(*reference_layers_, timesteps);
    for (size_t k = 0; k < f.places.size(); ++k)
      if (f.places[k].own >= 0) of_tau[static_cast<int64_t>(k)].copy_(of_tau_[f.places[k].own]);
  }
  // All steps in one product for each layer.
  const auto computed = [&](const Denoiser& layers, const at::Tensor& tau = {}) {
    return ComputeFeatures(scope, layers, timesteps, conditions.on, nullptr, f.places, tau);
  };
  f.reference = nullptr;
  if (reference_layers_) {
    TEMPERA_ASSIGN(f.own_reference, computed(*reference_layers_));
  }
  if (temporal_bits_ == 0) {
    f.own_cache = FeatureCache::None(*network_, static_cast<int64_t>(timesteps.size()), conditions.rows);
  } else {
    // As for the steps of calibration, entries are made of exact features, if their layers are there.
    FeatureTable features;
    if (f.own_reference && !features_of_request_) {
      features = *f.own_reference;
    } else {
      TEMPERA_ASSIGN(features, computed(*network_, of_tau));
    }
    temporal_macs_ += features.multiplications;
    f.own_cache = fresh ? BuildCache(features, temporal_bits_, CacheRounding::kMinMax)
                        : CacheFor(cache_, features, f.places, own);
  }
  if (!metric_) f.own_reference.reset();
  return f;
}

NetworkEngine::Begin NetworkEngine::BeginWith(const ResolvedGeneration& request, NoiseSource& noise) const {
  const int64_t factor = stages_->factor();
  const std::vector<int64_t> shape{1, stages_->latent_channels(), request.wish.size[0] / factor,
                                   request.wish.size[1] / factor};
  Begin begin;
  at::Tensor image, mask;
  if (request.init_image != nullptr) image = FromPicture(*request.init_image, info_.channels);
  if (request.mask != nullptr) mask = FromMask(*request.mask);
  // Draws come in the order of diffusers' pipelines.
  const bool anew = mask.defined() && request.strength == 1;
  if (image.defined() && !(anew && stages_->beside_channels() > 0))
    begin.image = stages_->EncodeImage(image, noise.Randn(shape));
  begin.noise = noise.Randn(shape);
  begin.x = image.defined() && !anew ? request.schedule->AddNoise(begin.image, begin.noise, request.first)
                                     : begin.noise * request.schedule->init_noise_sigma();
  if (mask.defined()) begin.mask = mask.slice(2, 0, {}, factor).slice(3, 0, {}, factor).contiguous();
  if (stages_->beside_channels() > 0) {
    begin.beside = stages_->Beside(image, mask, noise.Randn(shape));
    begin.mask = at::Tensor();
  } else if (mask.defined()) {
    (void)noise.Randn(shape);  // diffusers encodes what the mask leaves here too, and makes nothing of it
  }
  for (at::Tensor* t : {&begin.x, &begin.image, &begin.noise, &begin.mask, &begin.beside})
    if (t->defined()) *t = t->to(network_->device());
  return begin;
}

namespace {

// Both rows, side by side where there is a thread for each.
Result<at::Tensor> TwoRows(const std::function<at::Tensor()>& first,
                           const std::function<at::Tensor()>& second) {
  at::Tensor rows[2];
  if (row_threads < 2) {
    rows[0] = first();
    rows[1] = second();
  } else {
    Status of_second;
    std::thread beside([&] {
      InitComputeThread();
      of_second = nn::TorchEdge("generation", [&]() -> Status {
        const at::NoGradGuard guard;
        rows[1] = second();
        return OkStatus();
      });
    });
    const Status of_first = nn::TorchEdge("generation", [&]() -> Status {
      rows[0] = first();
      return OkStatus();
    });
    beside.join();
    TEMPERA_TRY(of_first);
    TEMPERA_TRY(of_second);
  }
  return at::cat({rows[0], rows[1]});
}

}  // namespace

Result<GenerationResult> NetworkEngine::Generate(const CallScope& scope, const ResolvedGeneration& request,
                                                 const GenerationEvents& events) const {
  return nn::TorchEdge("generation", [&]() -> Result<GenerationResult> {
    const at::NoGradGuard guard;
    const nn::KeptBlocks kept_blocks(int64_t{128} << 20);  // from one layer to the next
    const auto begin = std::chrono::steady_clock::now();
    const Scheduler& scheduler = *request.schedule;
    const auto& timesteps = scheduler.timesteps();
    GenerationResult result;
    TEMPERA_ASSIGN(const Conditions conditions, stages_->Encode(request.wish));
    TEMPERA_ASSIGN(const Features features, FeaturesFor(scope, request, conditions));
    const FeatureCache& cache = features.own_cache ? *features.own_cache : *features.cache;
    const FeatureTable* reference = features.own_reference ? &*features.own_reference : features.reference;
    result.prompt_ms = Milliseconds(begin);

    const auto denoise_begin = std::chrono::steady_clock::now();
    NoiseSource noise(request.seed);
    SamplerState state;
    const Begin start = BeginWith(request, noise);
    at::Tensor x = start.x;
    for (auto k = static_cast<size_t>(request.first); k < timesteps.size(); ++k) {
      TEMPERA_TRY(scope.Check());
      const auto step_begin = std::chrono::steady_clock::now();
      const auto step = static_cast<int64_t>(k);
      at::Tensor seen = scheduler.ScaleInput(x, step);
      if (start.beside.defined()) seen = at::cat({seen, start.beside}, 1);
      // One pass over some of the rows.
      const auto pass = [&](int64_t first, int64_t count, ServingSource& source) {
        const auto rows = static_cast<size_t>(count);
        nn::ForwardContext ctx;
        ctx.step.assign(rows, step);
        if (!features.places.empty()) ctx.ranges.assign(rows, features.places[k].ranges);
        ctx.timestep = at::full({count}, timesteps[k], at::kFloat).to(network_->device());
        ctx.on = count == conditions.rows ? conditions.on
                                          : conditions.on.Rows(at::arange(first, first + count, at::kLong));
        if (!features.condition.empty())
          ctx.condition.assign(features.condition.begin() + first,
                               features.condition.begin() + first + count);
        if (info_.is_artifact) ctx.features = &source;
        const at::Tensor y = network_->Forward(ctx, count == 1 ? seen : seen.expand({count, -1, -1, -1}));
        temporal_macs_ += ctx.temporal_macs;
        return y;
      };
      ServingSource source(cache, reference);
      at::Tensor output;
      if (conditions.rows == 2 && network_->resident_bytes() > large_network) {
        ServingSource other(cache, reference);
        TEMPERA_ASSIGN(output,
                       TwoRows([&] { return pass(0, 1, source); }, [&] { return pass(1, 1, other); }));
        source.Add(other);
      } else {
        output = pass(0, conditions.rows, source);
      }
      if (conditions.rows == 2) output = Guide(output, request.wish.guidance, request.guidance_rescale);
      x = scheduler.Step(output, step, x, noise, state);
      if (start.mask.defined()) {
        const at::Tensor kept =
            k + 1 < timesteps.size() ? scheduler.AddNoise(start.image, start.noise, step + 1) : start.image;
        x = (1 - start.mask) * kept + start.mask * x;
      }
      if (!at::isfinite(x).all().item<bool>())
        return Internal("generation: step ", k, " gave numbers that are not finite");
      StepEvent event{.step = static_cast<int>(k),
                      .steps = static_cast<int>(timesteps.size()),
                      .timestep = timesteps[k],
                      .milliseconds = 0,
                      .temporal_feature_error = {},
                      .errors = {}};
      if (info_.is_artifact && reference != nullptr) {
        double total = 0;
        event.errors = StepErrors(source, timesteps[k], scheduler.train_timesteps(), &total);
        event.temporal_feature_error = total;
      }
      event.milliseconds = Milliseconds(step_begin);
      if (events.on_step) events.on_step(event);
      if (events.on_preview && request.preview_interval > 0 &&
          (k + 1) % static_cast<size_t>(request.preview_interval) == 0 && k + 1 < timesteps.size())
        events.on_preview(event,
                          ToPicture((request.preview_kind == PreviewKind::kDecode ? stages_->Decode(x)
                                                                                  : stages_->Project(x))[0]));
      result.steps.push_back(std::move(event));
    }
    result.denoise_ms = Milliseconds(denoise_begin);
    const auto decode_begin = std::chrono::steady_clock::now();
    const at::Tensor latent = x[0].cpu().contiguous();
    result.latent.assign(latent.const_data_ptr<float>(), latent.const_data_ptr<float>() + latent.numel());
    result.latent_sha256 = Sha256Hex({static_cast<const char*>(latent.const_data_ptr()), latent.nbytes()});
    result.picture = ToPicture(stages_->Decode(latent.unsqueeze(0))[0]);
    result.decode_ms = Milliseconds(decode_begin);
    return result;
  });
}

bool NetworkEngine::CorruptCacheForTest(int64_t entry) const {
  for (const FeatureCache::Column& column : cache_.columns) {
    if (!column.codes.defined() || column.codes.numel() == 0) continue;
    const int64_t bytes = static_cast<int64_t>(column.codes.nbytes());
    if (entry >= bytes) {
      entry -= bytes;
      continue;
    }
    static_cast<uint8_t*>(column.codes.mutable_data_ptr())[entry] ^= 0x40;
    return true;
  }
  return false;
}

void InitCompute(int threads, int64_t large) {
  row_threads = threads;
  large_network = large;
  kernels::InitCpu();
  at::set_num_threads(1);
#ifdef __GLIBC__
  // What a step frees, the next one takes: given back to the system in between, its pages would be cleared
  // anew at every step (a twelfth of a small network's time).
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}
void InitComputeThread() { at::set_num_threads(1); }

}  // namespace tempera
