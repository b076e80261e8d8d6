#include "nn/slot_io.h"

#include <ATen/Functions.h>

#include <cmath>

#include "nn/params.h"

namespace tempera::nn {
namespace {

std::string PartName(const Slot& slot, const char* side, size_t part) {
  return slot.parts.size() == 1 ? Cat(slot.name, ".", side, ".") : Cat(slot.name, ".", side, ".", part, ".");
}

Result<at::Tensor> Find(const TensorFinder& find, const std::string& name, at::ScalarType type,
                        at::IntArrayRef shape) {
  TEMPERA_ASSIGN(at::Tensor tensor, find(name));
  if (tensor.scalar_type() != type || tensor.sizes() != shape)
    return DataLoss("tensor ", name, ": wrong type or shape, got ", tensor.sizes(), ", want ", shape);
  return tensor.contiguous();
}

std::vector<int64_t> WeightShape(const Slot& slot, const SlotPart& part) {
  if (slot.linear) return {slot.out_channels, part.channels};
  return {slot.out_channels, part.channels, slot.kh, slot.kw};
}

// A part's scales and zero points, checked; gives its codes as they are stored.
Result<at::Tensor> ImportStored(Slot& slot, size_t p, const TensorFinder& find) {
  SlotPart& part = slot.parts[p];
  const std::string name = PartName(slot, "weight", p);
  std::vector<int64_t> shape = WeightShape(slot, part);
  if (FormatOf(slot) == kernels::Format::kInt4)
    shape = {slot.out_channels, (part.channels * slot.kh * slot.kw + 1) / 2};
  TEMPERA_ASSIGN(const at::Tensor stored, Find(find, name + "codes", at::kByte, shape));
  TEMPERA_ASSIGN(part.scale, Find(find, name + "scale", at::kFloat, {slot.out_channels}));
  TEMPERA_ASSIGN(const at::Tensor zero, Find(find, name + "zero", at::kByte, {slot.out_channels}));
  part.zero = zero.to(at::kInt);
  const int64_t levels = int64_t{1} << slot.weight_bits;
  // Of 4 bits, and of 8, every value is a code.
  const bool any = slot.weight_bits == 4 || slot.weight_bits == 8;
  if ((!any && stored.max().item<int64_t>() >= levels) || part.zero.max().item<int64_t>() >= levels)
    return DataLoss("tensor ", name, "codes: a code or zero point is out of range, want less than ", levels);
  if (!at::isfinite(part.scale).all().item<bool>()) return DataLoss("tensor ", name, "scale: not finite");
  return stored;
}

}  // namespace

TensorFinder FinderOf(std::shared_ptr<const WeightSource> source) {
  return [source = std::move(source)](const std::string& name) -> Result<at::Tensor> {
    TEMPERA_ASSIGN(const TensorView view, source->Find(name));
    return ToTensor(view);
  };
}

void ExportWeights(const Slot& slot, TensorMap& out) {
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    const SlotPart& part = slot.parts[p];
    const std::string name = PartName(slot, "weight", p);
    at::Tensor codes = part.codes.contiguous();
    if (FormatOf(slot) == kernels::Format::kInt4) {
      const int64_t k = codes.numel() / slot.out_channels;
      at::Tensor packed = at::empty({slot.out_channels, (k + 1) / 2}, at::kByte);
      kernels::PackCodes(kernels::Format::kInt4, slot.out_channels, k, codes.const_data_ptr<uint8_t>(),
                         packed.mutable_data_ptr<uint8_t>());
      codes = packed;
    }
    out[name + "codes"] = codes;
    out[name + "scale"] = part.scale.contiguous();
    out[name + "zero"] = part.zero.to(at::kByte).contiguous();
  }
}

void ExportRanges(const Slot& slot, TensorMap& out) {
  if (slot.gain.defined()) out[slot.name + ".input.gain"] = slot.gain.contiguous();
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    std::vector<float> scale;
    at::Tensor zero = at::empty({static_cast<int64_t>(slot.parts[p].ranges.size())}, at::kByte);
    for (const Range& range : slot.parts[p].ranges) {
      zero.mutable_data_ptr<uint8_t>()[scale.size()] = static_cast<uint8_t>(range.zero);
      scale.push_back(range.scale);
    }
    if (scale.empty()) continue;
    const std::string name = PartName(slot, "input", p);
    out[name + "scale"] = at::tensor(scale);
    out[name + "zero"] = zero;
  }
}

Status ImportWeights(Slot& slot, const TensorFinder& find) {
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    SlotPart& part = slot.parts[p];
    TEMPERA_ASSIGN(const at::Tensor stored, ImportStored(slot, p, find));
    part.codes = stored;
    if (FormatOf(slot) == kernels::Format::kInt8) continue;
    part.codes = at::empty(WeightShape(slot, part), at::kByte);
    kernels::UnpackCodes(FormatOf(slot), slot.out_channels, part.channels * slot.kh * slot.kw,
                         stored.const_data_ptr<uint8_t>(), part.codes.mutable_data_ptr<uint8_t>());
  }
  return OkStatus();
}

Status ImportPacked(Slot& slot, const TensorFinder& find) {
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    SlotPart& part = slot.parts[p];
    TEMPERA_ASSIGN(const at::Tensor stored, ImportStored(slot, p, find));
    part.packed = kernels::PackStored(FormatOf(slot), slot.weight_bits, slot.out_channels, part.channels,
                                      slot.kh * slot.kw, stored.const_data_ptr<uint8_t>(),
                                      part.zero.const_data_ptr<int32_t>());
  }
  BeginInteger(slot);
  return OkStatus();
}

Status ImportRanges(Slot& slot, const TensorFinder& find, int64_t steps) {
  if (slot.gain.defined()) {
    const std::string name = slot.name + ".input.gain";
    TEMPERA_ASSIGN(slot.gain, Find(find, name, at::kFloat, {slot.in_channels}));
    if (!(at::isfinite(slot.gain).all().item<bool>() && slot.gain.min().item<float>() > 0))
      return DataLoss("tensor ", name, ": not finite or not above 0");
  }
  for (size_t p = 0; p < slot.parts.size(); ++p) {
    const std::string name = PartName(slot, "input", p);
    TEMPERA_ASSIGN(const at::Tensor found, find(name + "scale"));
    const int64_t count = found.numel();
    if (count != 1 && count != steps)
      return DataLoss("tensor ", name, "scale: got ", count, " ranges, want 1 or ", steps);
    TEMPERA_ASSIGN(const at::Tensor scale, Find(find, name + "scale", at::kFloat, {count}));
    TEMPERA_ASSIGN(const at::Tensor zero, Find(find, name + "zero", at::kByte, {count}));
    slot.parts[p].ranges.clear();
    for (int64_t i = 0; i < count; ++i) {
      const Range range{scale.const_data_ptr<float>()[i], zero.const_data_ptr<uint8_t>()[i]};
      if (!(range.scale > 0) || !std::isfinite(range.scale) || range.zero >= 1 << slot.activation_bits)
        return DataLoss("tensor ", name, "scale: range ", i, " is not usable, got scale ", range.scale,
                        " and zero ", range.zero);
      slot.parts[p].ranges.push_back(range);
    }
  }
  return OkStatus();
}

}  // namespace tempera::nn
