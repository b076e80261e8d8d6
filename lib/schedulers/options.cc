#include "schedulers/options.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tempera {
namespace {

// Options of the schedulers that diffusers takes for interchangeable, and of its early versions: meaningless
// to a class that has not asked for them.
constexpr std::initializer_list<const char*> kOptionsOfOthers{"algorithm_type",
                                                              "base_image_seq_len",
                                                              "base_shift",
                                                              "clip_sample",
                                                              "clip_sample_range",
                                                              "disable_corrector",
                                                              "dynamic_thresholding_ratio",
                                                              "euler_at_final",
                                                              "final_sigmas_type",
                                                              "flow_shift",
                                                              "interpolation_type",
                                                              "invert_sigmas",
                                                              "lambda_min_clipped",
                                                              "lower_order_final",
                                                              "max_image_seq_len",
                                                              "max_shift",
                                                              "original_inference_steps",
                                                              "predict_x0",
                                                              "prediction_type",
                                                              "rescale_betas_zero_snr",
                                                              "rho",
                                                              "sample_max_value",
                                                              "set_alpha_to_one",
                                                              "shift",
                                                              "shift_terminal",
                                                              "sigma_data",
                                                              "sigma_max",
                                                              "sigma_min",
                                                              "sigma_schedule",
                                                              "skip_prk_steps",
                                                              "solver_order",
                                                              "solver_p",
                                                              "solver_type",
                                                              "steps_offset",
                                                              "stochastic_sampling",
                                                              "tensor_format",
                                                              "thresholding",
                                                              "time_shift_type",
                                                              "timestep_scaling",
                                                              "timestep_spacing",
                                                              "timestep_type",
                                                              "timestep_values",
                                                              "use_beta_sigmas",
                                                              "use_dynamic_shifting",
                                                              "use_exponential_sigmas",
                                                              "use_flow_sigmas",
                                                              "use_karras_sigmas",
                                                              "use_lu_lambdas",
                                                              "variance_type"};

// The class that the configuration names; empty where it names none.
std::string ClassOf(const Json& config) {
  const auto it = config.find("_class_name");
  return it != config.end() && it->is_string() ? it->get<std::string>() : "";
}

bool IsOwnClass(const SchedulerRow& row, const SchedulerRequest& request) {
  const std::string name = ClassOf(request.config);
  return name.empty() || name == row.class_name;
}

std::string Quoted(const std::string& text) { return '"' + text + '"'; }

}  // namespace

std::string Joined(std::span<const std::string_view> words) {
  std::string all;
  for (std::string_view word : words) all += Cat(all.empty() ? "" : ", ", word);
  return all;
}

Options::Options(const SchedulerRow& row, const SchedulerRequest& request)
    : row_(row),
      request_(request),
      fields_(request.config, request.label),
      config_({{"_class_name", row.class_name}}) {}

void Options::GetWord(const char* key, std::string& value, std::span<const std::string_view> words,
                      std::initializer_list<std::string_view> others) {
  std::string word = value;
  Get(key, word);
  if (std::find(others.begin(), others.end(), word) != others.end())
    config_[key] = value;
  else
    value = word;
  Check(std::find(words.begin(), words.end(), value) != words.end(), key, Quoted(value), "one of ",
        Joined(words));
}

void Options::GetPrediction(std::string& value, std::span<const std::string_view> words) {
  // Classes of flow matching have no such option: they know nothing else.
  const std::string model = ClassOf(request_.config);
  value = (model.empty() ? row_.class_name : model).starts_with("FlowMatch") ? "flow_prediction" : "epsilon";
  Get("prediction_type", value);
  if (std::find(words.begin(), words.end(), value) == words.end())
    fields_.Fail("prediction_type",
                 Cat("does not suit ", row_.name, ", got ", Quoted(value), ", want one of ", Joined(words)));
}

void Options::GetNothing(const char* key) {
  if (fields_.Raw(key) != nullptr) fields_.Fail(key, "is not supported, want null");
  config_[key] = nullptr;
}

void Options::GetUnboundedBelow(const char* key, double& value) {
  const Json* raw = fields_.Raw(key);
  if (raw == nullptr || *raw == "-Infinity") {
    value = -std::numeric_limits<double>::infinity();
    config_[key] = nullptr;
  } else {
    Get(key, value);
  }
}

Status Options::Finish() {
  TEMPERA_TRY(fields_.status());
  for (const auto& [key, value] : request_.options.items()) {
    if (config_.contains(key) && key != "_class_name") continue;
    std::string known;
    for (const auto& [name, unused] : config_.items())
      if (name != "_class_name") known += (known.empty() ? "" : ", ") + name;
    return InvalidArgument("scheduler options: unknown, got \"", key, "\", ", row_.name, " knows ", known);
  }
  if (!IsOwnClass(row_, request_)) return OkStatus();
  // Early versions could say here that the network predicts x_0; now prediction_type does.
  bool predict_epsilon = true;
  if (fields_.Get("predict_epsilon", predict_epsilon) && !predict_epsilon)
    fields_.Fail("predict_epsilon", "is not supported, got false, want prediction_type \"sample\" instead");
  fields_.Ignore(kOptionsOfOthers);
  for (const auto& [key, value] : request_.config.items())
    if (key.starts_with('_')) fields_.Ignore({key.c_str()});
  return fields_.Finish();
}

Result<int64_t> Options::Steps(int64_t most) const {
  const int64_t steps = request_.steps.value_or(std::min(row_.default_steps, most));
  if (steps < 1 || steps > most)
    return InvalidArgument("steps: got ", steps, ", want 1 to the model's ", most, " training timesteps");
  return steps;
}

SchedulerFacts Options::Facts(int64_t train_timesteps, int64_t steps) const {
  return {.name = row_.name, .config = config_, .train_timesteps = train_timesteps, .steps = steps};
}

}  // namespace tempera
