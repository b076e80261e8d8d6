#include "server/explain.h"

#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "artifact/slots.h"
#include "base/files.h"
#include "report/evaluation.h"
#include "rpc/status_map.h"
#include "server/backend.h"
#include "weights/weights.h"

namespace tempera {
namespace {

// A tensor's values, element by element; empty where there is no such tensor.
template <typename T>
Result<std::vector<T>> Values(const WeightSource& source, const std::string& name, Dtype dtype) {
  const auto it = source.tensors().find(name);
  if (it == source.tensors().end()) return std::vector<T>();
  const TensorView& view = it->second;
  if (view.dtype != dtype || view.bytes.size() % sizeof(T) != 0)
    return DataLoss(source.label(), ": tensor ", name, ": got ", DtypeName(view.dtype), ", want ",
                    DtypeName(dtype));
  std::vector<T> values(view.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

std::string PartName(const SlotRow& row, const char* side, int64_t part) {
  return row.parts == 1 ? Cat(row.slot, ".", side, ".") : Cat(row.slot, ".", side, ".", part, ".");
}

struct Sources {
  std::shared_ptr<const WeightSource> weights, tables;
  std::optional<Evaluation> evaluation;
  std::vector<double> timesteps;
};

// Temporal feature that the slot makes, as the evaluation names it.
struct Feature {
  const FeatureMap* map = nullptr;
  size_t index = 0;

  std::optional<double> Error(size_t k, const std::string& strategy) const {
    if (map == nullptr) return std::nullopt;
    const auto& table = strategy == "cache" ? map->cache_error : map->reconstruct_error;
    if (k >= table.size() || index >= table[k].size()) return std::nullopt;
    return table[k][index];
  }
};

Status FillSteps(const SlotRow& row, const Sources& sources, std::optional<int> only,
                 v1::LayerExplanation& layer) {
  const size_t steps = sources.timesteps.size();
  TEMPERA_ASSIGN(const std::vector<uint8_t> chosen,
                 Values<uint8_t>(*sources.tables, "select." + row.slot, Dtype::kU8));
  Feature feature;
  if (sources.evaluation) {
    const FeatureMap& map = sources.evaluation->temporal_features;
    for (size_t i = 0; i < map.features.size(); ++i)
      if (map.features[i].name == row.slot) feature = {&map, i};
  }
  struct Part {
    std::vector<float> scale;
    std::vector<uint8_t> zero;
  };
  std::vector<Part> parts;
  bool ranges = false;
  for (int64_t p = 0; p < row.parts; ++p) {
    const std::string name = PartName(row, "input", p);
    Part part;
    TEMPERA_ASSIGN(part.scale, Values<float>(*sources.tables, name + "scale", Dtype::kF32));
    TEMPERA_ASSIGN(part.zero, Values<uint8_t>(*sources.tables, name + "zero", Dtype::kU8));
    if (part.scale.size() != part.zero.size() || (part.scale.size() > 1 && part.scale.size() != steps))
      return DataLoss(sources.tables->label(), ": tensor ", name, "scale: got ", part.scale.size(),
                      " ranges, want 1 or ", steps);
    ranges |= !part.scale.empty();
    parts.push_back(std::move(part));
  }
  if (chosen.empty() && !ranges) return OkStatus();
  const int64_t top = (int64_t{1} << row.activation_bits) - 1;
  for (size_t k = 0; k < steps; ++k) {
    if (only && static_cast<size_t>(*only) != k) continue;
    for (int64_t p = 0; p < row.parts; ++p) {
      const Part& part = parts[static_cast<size_t>(p)];
      if (part.scale.empty() && (p > 0 || chosen.empty())) continue;
      v1::StepExplanation& step = *layer.add_steps();
      step.set_step(static_cast<int32_t>(k));
      step.set_timestep(sources.timesteps[k]);
      step.set_part(static_cast<int32_t>(p));
      if (!part.scale.empty()) {
        const size_t at = part.scale.size() == 1 ? 0 : k;
        const double scale = part.scale[at];
        const int zero = part.zero[at];
        step.set_scale(scale);
        step.set_zero_point(zero);
        step.set_range_low(scale * (0 - zero));
        step.set_range_high(scale * static_cast<double>(top - zero));
      }
      if (k < chosen.size()) {
        step.set_strategy(chosen[k] != 0 ? "cache" : "reconstruct");
        if (const auto error = feature.Error(k, step.strategy()); error) step.set_error(*error);
      }
    }
  }
  return OkStatus();
}

Status FillLayer(const SlotRow& row, const Sources& sources, std::optional<int> only,
                 v1::LayerExplanation& layer) {
  layer.set_layer(row.slot);
  layer.set_role(row.role);
  layer.set_unit(row.unit);
  layer.set_weight_bits(row.weight_bits);
  layer.set_activation_bits(row.activation_bits);
  if (row.weight_bits > 0)
    layer.set_format(row.weight_bits <= 4 ? "int4 packed per channel" : "int8 per channel");
  for (int64_t p = 0; p < row.parts && row.weight_bits > 0; ++p) {
    const std::string name = PartName(row, "weight", p);
    TEMPERA_ASSIGN(const std::vector<float> scale,
                   Values<float>(*sources.weights, name + "scale", Dtype::kF32));
    TEMPERA_ASSIGN(const std::vector<uint8_t> zero,
                   Values<uint8_t>(*sources.weights, name + "zero", Dtype::kU8));
    for (const float s : scale) layer.add_weight_scales(s);
    for (const uint8_t z : zero) layer.add_weight_zero_points(z);
  }
  layer.set_dynamic_range(row.dynamic);
  if (row.equalized) {
    TEMPERA_ASSIGN(const std::vector<float> gains,
                   Values<float>(*sources.tables, row.slot + ".input.gain", Dtype::kF32));
    for (const float g : gains) layer.add_input_gains(g);
  }
  std::optional<double> clipping;
  if (sources.evaluation)
    for (const LayerResult& result : sources.evaluation->layers) {
      if (result.slot != row.slot) continue;
      if (result.output_error) layer.set_error(*result.output_error);
      clipping = result.clipping_ratio;
    }
  TEMPERA_TRY(FillSteps(row, sources, only, layer));
  for (v1::StepExplanation& step : *layer.mutable_steps())
    if (clipping && step.scale() > 0) step.set_clipping_ratio(*clipping);
  return OkStatus();
}

}  // namespace

Status Explain(const std::filesystem::path& folder, const Manifest& manifest,
               const v1::ExplainQuantizationRequest& request, v1::ExplainQuantizationResponse& response) {
  TEMPERA_ASSIGN(const int64_t limit, PageSize(request.page_size()));
  TEMPERA_ASSIGN(std::vector<SlotRow> rows, ParseSlots(manifest.slots));
  Sources sources;
  Fields schedule(manifest.schedule, "manifest.json: schedule");
  schedule.Need("timesteps", sources.timesteps);
  TEMPERA_TRY(schedule.status());
  std::optional<int> only;
  if (request.has_step()) {
    if (request.step() < 0 || static_cast<size_t>(request.step()) >= sources.timesteps.size())
      return InvalidArgument("step: got ", request.step(), ", want 0 to ", sources.timesteps.size() - 1);
    only = request.step();
  }
  if (!request.layer().empty()) {
    std::erase_if(rows, [&](const SlotRow& row) {
      return row.slot != request.layer() && !row.slot.starts_with(request.layer() + ".");
    });
    if (rows.empty())
      return rpc::WithField(
          rpc::WithReason(NotFound("layer: the artifact has none that begins with ", Quoted(request.layer())),
                          rpc::kLayerNotFound),
          "layer");
  }
  const std::string selection =
      Cat("explain\n", manifest.Id(), "\n", request.layer(), "\n", only.value_or(-1));
  TEMPERA_ASSIGN(const std::string after, ReadPageToken(selection, request.page_token()));
  size_t begin = 0;
  if (!after.empty()) {
    const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), begin);
    if (error != std::errc() || end != after.data() + after.size())
      return InvalidArgument("page_token: is damaged, want next_page_token of the same request");
  }
  for (const char* name : {kWeightsFile, kTablesFile, kEvaluationFile}) {
    const auto it = manifest.files.find(name);
    if (begin > 0 || it == manifest.files.end()) continue;  // a later page: the first one looked at them
    TEMPERA_ASSIGN(const std::string digest, Sha256File(folder / name, name));
    if (digest != it->second.sha256)
      return rpc::WithReason(DataLoss(name, ": sha256 is wrong, got ", digest, ", want ", it->second.sha256),
                             rpc::kArtifactDamaged);
  }
  TEMPERA_ASSIGN(sources.weights, WeightSource::OpenFile(folder / kWeightsFile, kWeightsFile));
  TEMPERA_ASSIGN(sources.tables, WeightSource::OpenFile(folder / kTablesFile, kTablesFile));
  if (manifest.files.contains(kEvaluationFile)) {
    TEMPERA_ASSIGN(const std::string text, ReadFile(folder / kEvaluationFile, kEvaluationFile));
    TEMPERA_ASSIGN(const Json json, ParseJson(text, kEvaluationFile));
    TEMPERA_ASSIGN(sources.evaluation, EvaluationFromJson(json, kEvaluationFile));
  }
  for (size_t i = begin; i < rows.size(); ++i) {
    if (response.layers_size() == limit) {
      response.set_next_page_token(PageToken(selection, std::to_string(i)));
      break;
    }
    TEMPERA_TRY(FillLayer(rows[i], sources, only, *response.add_layers()));
  }
  return OkStatus();
}

}  // namespace tempera
