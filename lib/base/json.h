// JSON with errors that name the file and the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tempera {

using Json = nlohmann::json;

// Parses strictly: no comments, no repeated key in an object, no NaN or infinity, at most 64 levels deep.
// `label` names the text in errors (InvalidArgument).
Result<Json> ParseJson(std::string_view text, std::string_view label);

// As ParseJson, for files that Python wrote: where JSON has no word for a number, its json module writes
// Infinity or -Infinity. They are read as strings of that text.
Result<Json> ParsePythonJson(std::string_view text, std::string_view label);

// Keys sorted, no white space, doubles in shortest round-trip form: the same value gives the same bytes.
std::string CanonicalJson(const Json& value);

// Reads the fields of one JSON object, keeping the first error. A missing key or a null leaves the target as
// it is, unless the target must be there.
//
//   Fields f(config, "unet/config.json");
//   f.Get("in_channels", c.in_channels);
//   TEMPERA_TRY(f.Finish());            // unknown keys are errors that name the key
//
// Thread-compatible. The object must outlive it.
class Fields {
 public:
  Fields(const Json& object, std::string label);

  // Targets: bool, int64_t, int, double, std::string, std::vector of int64_t, double, bool or std::string,
  // and std::optional of these. True if the key was there with a value.
  bool Get(const char* key, bool& out);
  bool Get(const char* key, int64_t& out);
  bool Get(const char* key, int& out);
  bool Get(const char* key, double& out);
  bool Get(const char* key, std::string& out);
  bool Get(const char* key, std::vector<int64_t>& out);
  bool Get(const char* key, std::vector<double>& out);
  bool Get(const char* key, std::vector<std::string>& out);
  template <typename T>
  bool Get(const char* key, std::optional<T>& out) {
    T value{};
    if (!Get(key, value)) return false;
    out = std::move(value);
    return true;
  }
  // The raw value, or null.
  const Json* Raw(const char* key);
  // As Get, and a missing or null key is an error.
  template <typename T>
  void Need(const char* key, T& out) {
    if (!Get(key, out)) Fail(key, "is missing");
  }
  // Marks keys that are known and have no meaning here.
  void Ignore(std::initializer_list<const char*> keys);
  // A value that was read: an error unless it is from low to high, or one of the words.
  void Within(const char* key, int64_t value, int64_t low, int64_t high);
  void OneOf(const char* key, const std::string& value, std::initializer_list<const char*> words);
  // Records "<label>: <key> <what>" unless an error is there already.
  void Fail(std::string_view key, std::string_view what);

  const Status& status() const { return status_; }
  // The first error; then, for a key that nobody asked for, an error that names it.
  Status Finish();

 private:
  const Json* Find(const char* key, const char* want, bool (*is)(const Json&));

  const Json& object_;
  std::string label_;
  std::set<std::string> known_;
  Status status_;
};

}  // namespace tempera
