#include "base/json.h"

#include <cmath>

namespace tempera {
namespace {

// Builds the value while it refuses what nlohmann's own parser lets pass: repeated keys and deep nesting.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  StrictBuilder(Json& root, std::string_view label) : builder_(root, false), label_(label) {}
  Status status = OkStatus();

  bool null() override { return builder_.null(); }
  bool boolean(bool v) override { return builder_.boolean(v); }
  bool number_integer(number_integer_t v) override { return builder_.number_integer(v); }
  bool number_unsigned(number_unsigned_t v) override { return builder_.number_unsigned(v); }
  bool number_float(number_float_t v, const string_t& s) override {
    if (!std::isfinite(v)) return Fail(Cat("number ", s, " is out of range"));
    return builder_.number_float(v, s);
  }
  bool string(string_t& v) override { return builder_.string(v); }
  bool binary(binary_t& v) override { return builder_.binary(v); }
  bool start_object(size_t n) override {
    keys_.emplace_back();
    return Deeper() && builder_.start_object(n);
  }
  bool key(string_t& k) override {
    if (!keys_.back().insert(k).second) return Fail(Cat("the key \"", k, "\" stands there twice"));
    return builder_.key(k);
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return builder_.end_object();
  }
  bool start_array(size_t n) override { return Deeper() && builder_.start_array(n); }
  bool end_array() override {
    --depth_;
    return builder_.end_array();
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(Cat("not valid JSON at byte ", position));
  }

 private:
  bool Deeper() { return ++depth_ <= 64 || Fail("nested deeper than 64 levels"); }
  bool Fail(const std::string& what) {
    if (status.ok()) status = InvalidArgument(label_, ": ", what);
    return false;
  }
  nlohmann::detail::json_sax_dom_parser<Json> builder_;
  std::vector<std::set<std::string>> keys_;
  int depth_ = 0;
  std::string label_;
};

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view label) {
  Json value;
  StrictBuilder builder(value, label);
  const bool ok = Json::sax_parse(text.begin(), text.end(), &builder);
  if (!builder.status.ok()) return builder.status;
  if (!ok) return InvalidArgument(label, ": not valid JSON");
  return value;
}

Result<Json> ParsePythonJson(std::string_view text, std::string_view label) {
  std::string quoted;
  bool in_string = false;
  while (!text.empty()) {
    const size_t sign = text.starts_with('-') ? 1 : 0;
    const bool infinite = !in_string && text.substr(sign).starts_with("Infinity");
    const bool escape = in_string && text.starts_with('\\');
    const size_t length = infinite ? sign + 8 : escape ? 2 : 1;
    if (text.starts_with('"')) in_string = !in_string;
    const std::string_view piece = text.substr(0, length);
    quoted += infinite ? Cat('"', piece, '"') : std::string(piece);
    text.remove_prefix(piece.size());
  }
  return ParseJson(quoted, label);
}

std::string CanonicalJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Fields::Fields(const Json& object, std::string label) : object_(object), label_(std::move(label)) {
  if (!object_.is_object())
    status_ = InvalidArgument(label_, ": got ", Shown(object_), ", want a JSON object");
}

void Fields::Within(const char* key, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    Fail(key, Cat("is out of range, got ", value, ", want ", low, " to ", high));
}

void Fields::OneOf(const char* key, const std::string& value, std::initializer_list<const char*> words) {
  std::string known;
  for (const char* word : words) {
    if (value == word) return;
    known += Cat(known.empty() ? "" : ", ", word);
  }
  Fail(key, Cat("is not supported, got \"", value, "\", want ", known));
}

void Fields::Fail(std::string_view key, std::string_view what) {
  if (status_.ok()) status_ = InvalidArgument(label_, ": ", key, " ", what);
}

const Json* Fields::Raw(const char* key) {
  known_.insert(key);
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const Json* Fields::Find(const char* key, const char* want, bool (*is)(const Json&)) {
  const Json* value = Raw(key);
  if (value == nullptr) return nullptr;
  if (is(*value)) return value;
  Fail(key, Cat("is wrong, got ", Shown(*value), ", want ", want));
  return nullptr;
}

namespace {
bool IsInt(const Json& v) {
  if (v.is_number_unsigned()) return v.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
  return v.is_number_integer();
}
template <bool (*kIs)(const Json&)>
bool IsList(const Json& v) {
  if (!v.is_array()) return false;
  for (const Json& item : v)
    if (!kIs(item)) return false;
  return true;
}
bool IsNumber(const Json& v) { return v.is_number(); }
bool IsString(const Json& v) { return v.is_string(); }
}  // namespace

bool Fields::Get(const char* key, bool& out) {
  const Json* v = Find(key, "true or false", [](const Json& j) { return j.is_boolean(); });
  if (v != nullptr) out = v->get<bool>();
  return v != nullptr;
}
bool Fields::Get(const char* key, int64_t& out) {
  const Json* v = Find(key, "an integer", &IsInt);
  if (v != nullptr) out = v->get<int64_t>();
  return v != nullptr;
}
bool Fields::Get(const char* key, int& out) {
  const Json* v = Find(key, "a 32-bit integer", [](const Json& j) {
    return IsInt(j) && j.get<int64_t>() >= INT32_MIN && j.get<int64_t>() <= INT32_MAX;
  });
  if (v != nullptr) out = v->get<int>();
  return v != nullptr;
}
bool Fields::Get(const char* key, double& out) {
  const Json* v = Find(key, "a number", &IsNumber);
  if (v != nullptr) out = v->get<double>();
  return v != nullptr;
}
bool Fields::Get(const char* key, std::string& out) {
  const Json* v = Find(key, "a string", &IsString);
  if (v != nullptr) out = v->get<std::string>();
  return v != nullptr;
}
bool Fields::Get(const char* key, std::vector<int64_t>& out) {
  const Json* v = Find(key, "a list of integers", &IsList<IsInt>);
  if (v != nullptr) out = v->get<std::vector<int64_t>>();
  return v != nullptr;
}
bool Fields::Get(const char* key, std::vector<double>& out) {
  const Json* v = Find(key, "a list of numbers", &IsList<IsNumber>);
  if (v != nullptr) out = v->get<std::vector<double>>();
  return v != nullptr;
}
bool Fields::Get(const char* key, std::vector<std::string>& out) {
  const Json* v = Find(key, "a list of strings", &IsList<IsString>);
  if (v != nullptr) out = v->get<std::vector<std::string>>();
  return v != nullptr;
}

void Fields::Ignore(std::initializer_list<const char*> keys) { known_.insert(keys.begin(), keys.end()); }

Status Fields::Finish() {
  TEMPERA_TRY(status_);
  for (const auto& [key, value] : object_.items())
    if (!known_.contains(key))
      return InvalidArgument(label_, ": ", key, " is not supported, got ", Shown(value));
  return OkStatus();
}

}  // namespace tempera
