#include "worker/measure_parts.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

#include "nn/params.h"
#include "report/picture_metrics.h"
#include "stages/stages.h"

namespace tempera {
namespace {

// Sums of squares over what one pass gave.
struct Sums {
  double difference = 0, exact = 0;
  int64_t count = 0;

  static Sums Of(const at::Tensor& got, const at::Tensor& want) {
    const at::Tensor exact = want.to(at::kDouble);
    return {(got.to(at::kDouble) - exact).square().sum().item<double>(), exact.square().sum().item<double>(),
            exact.numel()};
  }
  void Add(const Sums& more) {
    difference += more.difference;
    exact += more.exact;
    count += more.count;
  }
  double ratio() const { return std::sqrt(difference / std::max(exact, 1e-30)); }
};

// The first stage on one latent.
struct Decoded {
  Sums picture, shown;  // shown: clamped to the range of a picture
  Sums latent;          // of the encoder on the exact picture
};

Decoded Compare(const Stages& quantized, const Stages& exact, const at::Tensor& latent) {
  const at::Tensor want = exact.Decode(latent), got = quantized.Decode(latent);
  const at::Tensor picture = at::clamp(want, -1, 1);
  Decoded out{
      .picture = Sums::Of(got, want), .shown = Sums::Of(at::clamp(got, -1, 1), picture), .latent = {}};
  if (exact.reads_pictures()) {
    const at::Tensor noise = at::zeros_like(latent);
    out.latent = Sums::Of(quantized.EncodeImage(picture, noise), exact.EncodeImage(picture, noise));
  }
  return out;
}

// Pictures are 2 from black to white.
double PsnrOf(const Sums& shown) {
  const double mse = shown.difference / static_cast<double>(shown.count);
  return mse == 0 ? kPsnrCapDb : std::min(kPsnrCapDb, 10 * std::log10(4 / mse));
}

int64_t WeightBytes(const ModelPart& part) {
  int64_t bytes = 0;
  for (const auto& [name, view] : part.weights->tensors()) bytes += static_cast<int64_t>(view.bytes.size());
  return bytes;
}

}  // namespace

Result<std::vector<PartResult>> MeasureParts(const ModelFolder& model, const std::filesystem::path& folder,
                                             const DenoiserInfo& network, const QuantSpec& spec,
                                             const CalibrationPlan& plan,
                                             const std::vector<std::vector<float>>& latents, Lanes& lanes) {
  TEMPERA_ASSIGN(const ModelFolder packed, OpenStages(folder, model.index));
  TEMPERA_ASSIGN(const auto exact, Stages::Open(model, network));
  TEMPERA_ASSIGN(const auto quantized, Stages::Open(packed, network, spec.stage_bits));

  const auto prompts = std::min<int64_t>(spec.samples_per_step, static_cast<int64_t>(spec.prompts.size()));
  std::vector<std::map<std::string, Sums>> of_prompt(static_cast<size_t>(prompts));  // by text encoder
  const Status read = lanes.ParallelFor(prompts, [&](int64_t i) -> Status {
    const std::string& prompt = spec.prompts[static_cast<size_t>(i)];
    TEMPERA_ASSIGN(const auto want, exact->HiddenStates(prompt));
    TEMPERA_ASSIGN(const auto got, quantized->HiddenStates(prompt));
    for (const auto& [name, hidden] : want)
      of_prompt[static_cast<size_t>(i)][name] = Sums::Of(got.at(name), hidden);
    return OkStatus();
  });
  TEMPERA_TRY(read);
  std::vector<Decoded> of_latent(latents.size());
  const Status decoded = lanes.ParallelFor(static_cast<int64_t>(latents.size()), [&](int64_t i) -> Status {
    return nn::TorchEdge("first stage", [&]() -> Status {
      const at::NoGradGuard guard;
      const at::Tensor latent = at::tensor(latents[static_cast<size_t>(i)])
                                    .view({1, plan.latent[0], plan.latent[1], plan.latent[2]});
      of_latent[static_cast<size_t>(i)] = Compare(*quantized, *exact, latent);
      return OkStatus();
    });
  });
  TEMPERA_TRY(decoded);

  std::vector<PartResult> results;
  for (const ModelPart& part : model.stages) {
    if (!part.has_layers()) continue;
    PartResult result{.name = part.name,
                      .full_precision_bytes = WeightBytes(part),
                      .bytes = WeightBytes(*packed.Stage(part.name)),
                      .output_error = {},
                      .psnr = {},
                      .encoder_error = {}};
    Sums output, shown, latent;
    if (part.is_first_stage()) {
      for (const Decoded& d : of_latent) {
        output.Add(d.picture);
        shown.Add(d.shown);
        latent.Add(d.latent);
      }
      if (shown.count > 0) result.psnr = PsnrOf(shown);
      if (latent.count > 0) result.encoder_error = latent.ratio();
    } else {
      for (const auto& sums : of_prompt) output.Add(sums.at(part.name));
    }
    if (output.count > 0) result.output_error = output.ratio();
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace tempera
