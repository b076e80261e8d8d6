// DDIM. Source: arXiv 2010.02502, equations (12) and (16).
#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>
#include <utility>

#include "schedulers/discrete.h"

namespace tempera {
namespace {

constexpr std::array<std::string_view, 3> kBetaSchedules{"linear", "scaled_linear", "squaredcos_cap_v2"};

// All in float, as diffusers computes them on float tensors.
struct Coefficients {
  float alpha;      // cumulative, at the step
  float mean;       // of x_0: sqrt(alpha') with alpha' at the step that comes next
  float direction;  // of the predicted noise: sqrt(1 - alpha' - sigma^2)
  float sigma;      // of the noise that is drawn
};

class Ddim final : public Scheduler {
 public:
  Ddim(const SchedulerRow& row, DiscreteOptions options, Json config, double eta,
       const std::vector<int64_t>& timesteps, std::vector<Coefficients> coefficients)
      : options_(std::move(options)), coefficients_(std::move(coefficients)) {
    name_ = row.name;
    timesteps_.assign(timesteps.begin(), timesteps.end());
    train_timesteps_ = options_.num_train_timesteps;
    eta_ = eta;
    config_ = std::move(config);
  }

  at::Tensor Step(const at::Tensor& model_output, int64_t k, const at::Tensor& x, NoiseSource& noise,
                  SamplerState&) const override {
    TEMPERA_CHECK(k >= 0 && k < static_cast<int64_t>(coefficients_.size()), "no such step");
    const Coefficients& c = coefficients_[k];
    const at::Tensor output = MeanChannels(model_output, x);
    const at::Tensor sample = PredictSample(options_, c.alpha, x, output);
    const at::Tensor mean = sample * c.mean;
    const at::Tensor next = mean + Noise(c, x, output) * c.direction;
    if (eta_ == 0) return next;
    return next + noise.Randn(x.sizes()).to(x.device()) * c.sigma;
  }

 private:
  // The noise that the network sees in x. It follows from the output as it came, before x_0 is clamped,
  // except where the output is x_0 itself.
  at::Tensor Noise(const Coefficients& c, const at::Tensor& x, const at::Tensor& output) const {
    const float root = std::sqrt(c.alpha), noise_root = std::sqrt(1 - c.alpha);
    switch (options_.prediction()) {
      case Prediction::kEpsilon:
        return output;
      case Prediction::kSample:
        return (x - output * root) / noise_root;
      case Prediction::kV:
        return output * root + x * noise_root;
    }
    return output;
  }

  const DiscreteOptions options_;
  const std::vector<Coefficients> coefficients_;
};

Result<std::shared_ptr<const Scheduler>> Create(const SchedulerRow& row, const SchedulerRequest& request) {
  Fields fields(request.config, request.label);
  TEMPERA_ASSIGN(const DiscreteOptions options, ReadDiscrete(fields, request, kBetaSchedules));
  bool set_alpha_to_one = true;
  fields.Get("set_alpha_to_one", set_alpha_to_one);
  TEMPERA_TRY(FinishOptions(fields, row, request));
  TEMPERA_ASSIGN(const std::vector<int64_t> timesteps, DiscreteTimesteps(options, row, request));
  TEMPERA_ASSIGN(const std::vector<float> alphas, AlphasCumprod(options, request.label));

  const double eta = request.eta.value_or(0);
  const int64_t gap = options.num_train_timesteps / static_cast<int64_t>(timesteps.size());
  std::vector<Coefficients> coefficients;
  for (const int64_t t : timesteps) {
    // The next timestep by the even gap, even where the spacing is uneven: so diffusers computes it.
    const float alpha = alphas[t];
    const float next = t >= gap ? alphas[t - gap] : set_alpha_to_one ? 1.0f : alphas[0];
    const float variance = ((1 - next) / (1 - alpha)) * (1 - alpha / next);
    const float sigma = static_cast<float>(eta) * std::sqrt(variance);
    float rest = 1 - next - sigma * sigma;
    if (rest < 0) {
      // Up to eta 1 it is not negative but for rounding.
      if (eta > 1)
        return InvalidArgument("eta: more noise than timestep ", t, " has room for, got ", eta,
                               ", want at most 1");
      rest = 0;
    }
    const Coefficients c{alpha, std::sqrt(next), std::sqrt(rest), sigma};
    TEMPERA_TRY(CheckFiniteStep(options, request.label, t, alpha, std::array{c.mean, c.direction, c.sigma}));
    coefficients.push_back(c);
  }
  Json config = options.ToJson(row.class_name);
  config["set_alpha_to_one"] = set_alpha_to_one;
  return std::make_shared<const Ddim>(row, options, std::move(config), eta, timesteps,
                                      std::move(coefficients));
}

}  // namespace

extern const SchedulerRow kDdim{
    .name = "ddim",
    .class_name = "DDIMScheduler",
    .summary = "Denoising diffusion implicit models: few steps, deterministic at eta 0.",
    .default_steps = 50,
    .create = &Create,
};

}  // namespace tempera
