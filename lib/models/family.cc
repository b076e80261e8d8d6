#include "models/family.h"

#include <ATen/Functions.h>

namespace tempera {

extern const ModelFamily kUnetFamily;           // unet.cc
extern const ModelFamily kUnetConditionFamily;  // unet_condition.cc

const std::vector<ModelFamily>& Families() {
  static const std::vector<ModelFamily> families{kUnetFamily, kUnetConditionFamily};
  return families;
}

void Denoiser::FinishProgram() {
  last_use_.assign(units_.size() + 1, -1);
  for (size_t u = 0; u < units_.size(); ++u) {
    TEMPERA_CHECK(units_[u].output == static_cast<int>(u) + 1, units_[u].name);
    for (const int value : units_[u].inputs) last_use_[static_cast<size_t>(value)] = static_cast<int>(u);
  }
}

at::Tensor Denoiser::Forward(nn::ForwardContext& ctx, const at::Tensor& x) const {
  std::vector<at::Tensor> values(units_.size() + 1);
  values[0] = x;
  std::vector<at::Tensor> inputs;
  for (size_t u = 0; u < units_.size(); ++u) {
    const Unit& unit = units_[u];
    inputs.clear();
    for (const int value : unit.inputs) inputs.push_back(values[static_cast<size_t>(value)]);
    values[static_cast<size_t>(unit.output)] = unit.run(ctx, inputs);
    for (const int value : unit.inputs)
      if (last_use_[static_cast<size_t>(value)] == static_cast<int>(u))
        values[static_cast<size_t>(value)] = at::Tensor();
  }
  return values.back();
}

Result<std::unique_ptr<Denoiser>> BuildDenoiser(const Json& config, const std::string& label,
                                                nn::Params& params) {
  if (!config.is_object()) return InvalidArgument(label, ": want a JSON object");
  const auto it = config.find("_class_name");
  const std::string class_name = it != config.end() && it->is_string() ? it->get<std::string>() : "";
  std::string known;
  for (const ModelFamily& family : Families()) {
    if (class_name == family.class_name)
      return nn::TorchEdge(label, [&] { return family.build(config, label, params); });
    known += Cat(known.empty() ? "" : ", ", family.class_name);
  }
  return InvalidArgument(label, ": _class_name is not supported, got \"", class_name, "\", want one of ",
                         known);
}

}  // namespace tempera
