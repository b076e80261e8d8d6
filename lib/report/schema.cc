#include "report/schema.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tempera::schema {

void Read(ReadState& state, const Json& json, const std::string& path, bool& out) {
  if (!json.is_boolean()) return state.Wrong(path, json, "true or false");
  out = json.get<bool>();
}

void Read(ReadState& state, const Json& json, const std::string& path, int64_t& out) {
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!json.is_number_integer() || (json.is_number_unsigned() && json.get<uint64_t>() > kMost))
    return state.Wrong(path, json, "an integer");
  out = json.get<int64_t>();
}

void Read(ReadState& state, const Json& json, const std::string& path, int& out) {
  int64_t wide = 0;
  Read(state, json, path, wide);
  if (!state.status.ok()) return;
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max())
    return state.Wrong(path, json, "a 32-bit integer");
  out = static_cast<int>(wide);
}

void Read(ReadState& state, const Json& json, const std::string& path, uint64_t& out) {
  if (!json.is_number_integer() || (!json.is_number_unsigned() && json.get<int64_t>() < 0))
    return state.Wrong(path, json, "an integer >= 0");
  out = json.get<uint64_t>();
}

void Read(ReadState& state, const Json& json, const std::string& path, double& out) {
  if (!json.is_number()) return state.Wrong(path, json, "a number");
  out = json.get<double>();
}

void Read(ReadState& state, const Json& json, const std::string& path, std::string& out) {
  if (!json.is_string()) return state.Wrong(path, json, "a text");
  out = json.get<std::string>();
}

void Read(ReadState& state, const Json& json, const std::string& path,
          std::map<std::string, std::string>& out) {
  if (!json.is_object()) return state.Wrong(path, json, "an object of texts");
  out.clear();
  for (const auto& [key, value] : json.items()) Read(state, value, Cat(path, ".", key), out[key]);
}

void RefuseUnknown(ReadState& state, const Json& json, const std::string& path,
                   const std::vector<std::string>& known) {
  for (const auto& [key, value] : json.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      return state.Fail(path.empty() ? key : Cat(path, ".", key), "is not known");
}

Status CheckVersion(const Json& json, const std::string& label, int want) {
  if (!json.is_object() || !json.contains("version") || !json["version"].is_number_integer())
    return OkStatus();
  if (json["version"] == want) return OkStatus();
  return FailedPrecondition(label, ": version is not supported, got ", CanonicalJson(json["version"]),
                            ", want ", want);
}

std::string FindNonFinite(const Json& json, const std::string& path) {
  if (json.is_number_float() && !std::isfinite(json.get<double>())) return path;
  if (json.is_array())
    for (size_t i = 0; i < json.size(); ++i)
      if (std::string found = FindNonFinite(json[i], Cat(path, "[", i, "]")); !found.empty()) return found;
  if (json.is_object())
    for (const auto& [key, value] : json.items())
      if (std::string found = FindNonFinite(value, path.empty() ? key : Cat(path, ".", key)); !found.empty())
        return found;
  return "";
}

}  // namespace tempera::schema
