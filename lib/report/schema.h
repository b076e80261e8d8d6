// One list of fields a struct, which writes it to JSON and reads it back: what is written can be read, and a
// key that the list lacks is an error.
//
//   template <typename V> void Visit(V& v, Like<Point> auto& p) { v("x", p.x); v("y", p.y); }
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace tempera::schema {

// T or const T.
template <typename A, typename T>
concept Like = std::same_as<std::remove_const_t<A>, T>;

template <typename T>
concept Plain = std::same_as<T, bool> || std::same_as<T, int> || std::same_as<T, int64_t> ||
    std::same_as<T, uint64_t> || std::same_as<T, double> || std::same_as<T, std::string>;

class Writer {
 public:
  template <typename T>
  void operator()(const char* key, const T& value) {
    object_[key] = Write(value);
  }

  template <typename T>
  static Json Write(const T& value) {
    if constexpr (Plain<T>) {
      return value;
    } else {
      Writer writer;
      Visit(writer, value);
      return std::move(writer.object_);
    }
  }
  template <typename T>
  static Json Write(const std::optional<T>& value) {
    return value.has_value() ? Write(*value) : Json();
  }
  template <typename T>
  static Json Write(const std::vector<T>& values) {
    Json list = Json::array();
    for (const auto& value : values) list.push_back(Write(static_cast<const T&>(value)));
    return list;
  }
  static Json Write(const std::map<std::string, std::string>& values) {
    Json object = Json::object();
    for (const auto& [key, value] : values) object[key] = value;
    return object;
  }

 private:
  Json object_ = Json::object();
};

// Keeps the first error.
struct ReadState {
  std::string label;
  Status status;
  void Fail(const std::string& path, std::string_view what) {
    if (status.ok()) status = InvalidArgument(label, ": ", path.empty() ? "the whole" : path, " ", what);
  }
  void Wrong(const std::string& path, const Json& got, std::string_view want) {
    if (!status.ok()) return;
    std::string shown = CanonicalJson(got);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    Fail(path, Cat("is wrong, got ", shown, ", want ", want));
  }
};

// Each sets `out` or records an error in `state`.
void Read(ReadState& state, const Json& json, const std::string& path, bool& out);
void Read(ReadState& state, const Json& json, const std::string& path, int& out);
void Read(ReadState& state, const Json& json, const std::string& path, int64_t& out);
void Read(ReadState& state, const Json& json, const std::string& path, uint64_t& out);
void Read(ReadState& state, const Json& json, const std::string& path, double& out);
void Read(ReadState& state, const Json& json, const std::string& path, std::string& out);
void Read(ReadState& state, const Json& json, const std::string& path,
          std::map<std::string, std::string>& out);
// Records an error for a key of `json` that is not among `known`.
void RefuseUnknown(ReadState& state, const Json& json, const std::string& path,
                   const std::vector<std::string>& known);

template <typename T>
void Read(ReadState& state, const Json& json, const std::string& path, std::optional<T>& out);
template <typename T>
void Read(ReadState& state, const Json& json, const std::string& path, std::vector<T>& out);
template <typename T>
requires(!Plain<T>) void Read(ReadState& state, const Json& json, const std::string& path, T& out);

class Reader {
 public:
  // REQUIRES: `object` is an object.
  Reader(ReadState& state, const Json& object, const std::string& path)
      : state_(state), object_(object), path_(path) {}
  template <typename T>
  void operator()(const char* key, T& out) {
    known_.emplace_back(key);
    if (!state_.status.ok()) return;
    const std::string path = path_.empty() ? key : Cat(path_, ".", key);
    const auto it = object_.find(key);
    if (it == object_.end()) return state_.Fail(path, "is missing");
    Read(state_, *it, path, out);
  }
  void Finish() { RefuseUnknown(state_, object_, path_, known_); }

 private:
  ReadState& state_;
  const Json& object_;
  const std::string& path_;
  std::vector<std::string> known_;
};

template <typename T>
void Read(ReadState& state, const Json& json, const std::string& path, std::optional<T>& out) {
  if (json.is_null()) {
    out.reset();
    return;
  }
  T value{};
  Read(state, json, path, value);
  out = std::move(value);
}

template <typename T>
void Read(ReadState& state, const Json& json, const std::string& path, std::vector<T>& out) {
  if (!json.is_array()) return state.Wrong(path, json, "a list");
  out.clear();
  for (size_t i = 0; i < json.size() && state.status.ok(); ++i) {
    T item{};
    Read(state, json[i], Cat(path, "[", i, "]"), item);
    out.push_back(std::move(item));
  }
}

template <typename T>
requires(!Plain<T>) void Read(ReadState& state, const Json& json, const std::string& path, T& out) {
  if (!json.is_object()) return state.Wrong(path, json, "an object");
  Reader reader(state, json, path);
  Visit(reader, out);
  reader.Finish();
}

// Compares "version" before anything else is read: another one is FailedPrecondition with both numbers.
Status CheckVersion(const Json& json, const std::string& label, int want);
// Path of the first number below `json` that is not finite, or empty.
std::string FindNonFinite(const Json& json, const std::string& path);

}  // namespace tempera::schema
