#include <algorithm>
#include <tuple>

#include "base/json.h"
#include "weights/safetensors.h"

namespace tempera {
namespace {

std::string JsonString(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string SafetensorsBytes(std::vector<TensorOut> tensors,
                             const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorOut& a, const TensorOut& b) {
    return std::tuple(-DtypeBytes(a.dtype), std::string_view(a.name)) <
           std::tuple(-DtypeBytes(b.dtype), std::string_view(b.name));
  });
  std::vector<std::string_view> names;
  for (const TensorOut& t : tensors) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  TEMPERA_CHECK(twice == names.end(), Cat("tensor ", *twice, " is given twice"));

  std::string header = "{";
  const auto comma = [&header] {
    if (header.size() > 1) header += ',';
  };
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
      if (!std::exchange(first, false)) header += ',';
      header += JsonString(key) + ":" + JsonString(value);
    }
    header += '}';
  }
  uint64_t at = 0;
  for (const TensorOut& t : tensors) {
    TEMPERA_CHECK(t.name != "__metadata__" && t.name.size() <= kMaxTensorNameBytes, t.name);
    TEMPERA_CHECK(t.shape.size() <= kMaxTensorDims, t.name);
    const std::optional<int64_t> elements = ElementsOf(t.shape);
    TEMPERA_CHECK(elements && static_cast<uint64_t>(*elements) * DtypeBytes(t.dtype) == t.bytes.size(),
                  Cat("tensor ", t.name, ": got ", t.bytes.size(), " bytes for ", DtypeName(t.dtype), " ",
                      ShapeText(t.shape)));
    comma();
    header += Cat(JsonString(t.name), ":{\"dtype\":\"", DtypeName(t.dtype), "\",\"shape\":[");
    for (size_t i = 0; i < t.shape.size(); ++i) header += Cat(i == 0 ? "" : ",", t.shape[i]);
    header += Cat("],\"data_offsets\":[", at, ",", at + t.bytes.size(), "]}");
    at += t.bytes.size();
  }
  header += '}';
  header.append((64 - (8 + header.size()) % 64) % 64, ' ');
  TEMPERA_CHECK(header.size() <= kMaxSafetensorsHeaderBytes, "safetensors header");

  std::string bytes;
  bytes.reserve(8 + header.size() + at);
  for (int i = 0; i < 8; ++i)
    bytes.push_back(static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i)));
  bytes += header;
  for (const TensorOut& t : tensors)
    bytes.append(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
  return bytes;
}

}  // namespace tempera
