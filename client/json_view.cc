#include "client/json_view.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "client/errors.h"

namespace tempera {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;

Json Number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// A float's own shortest digits, not those of the double beside it.
Json Number(float value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return std::strtod(text, nullptr);
}

std::string TimeText(int64_t seconds, int32_t nanos) {
  const std::time_t t = static_cast<std::time_t>(seconds);
  std::tm tm{};
  gmtime_r(&t, &tm);
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, nanos / 1000000);
  return text;
}

Json Value(const google::protobuf::Message& m, const Reflection& r, const FieldDescriptor* f, int index) {
  const bool list = index >= 0;
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return list ? r.GetRepeatedInt32(m, f, index) : r.GetInt32(m, f);
    case FieldDescriptor::CPPTYPE_INT64:
      return list ? r.GetRepeatedInt64(m, f, index) : r.GetInt64(m, f);
    case FieldDescriptor::CPPTYPE_UINT32:
      return list ? r.GetRepeatedUInt32(m, f, index) : r.GetUInt32(m, f);
    case FieldDescriptor::CPPTYPE_UINT64:
      return list ? r.GetRepeatedUInt64(m, f, index) : r.GetUInt64(m, f);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number(list ? r.GetRepeatedDouble(m, f, index) : r.GetDouble(m, f));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Number(list ? r.GetRepeatedFloat(m, f, index) : r.GetFloat(m, f));
    case FieldDescriptor::CPPTYPE_BOOL:
      return list ? r.GetRepeatedBool(m, f, index) : r.GetBool(m, f);
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number = list ? r.GetRepeatedEnumValue(m, f, index) : r.GetEnumValue(m, f);
      const auto* value = f->enum_type()->FindValueByNumber(number);
      return value != nullptr ? Json(value->name()) : Json(number);
    }
    case FieldDescriptor::CPPTYPE_STRING:
      return list ? r.GetRepeatedString(m, f, index) : r.GetString(m, f);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(list ? r.GetRepeatedMessage(m, f, index) : r.GetMessage(m, f));
  }
  return nullptr;
}

Json MapValue(const google::protobuf::Message& m, const Reflection& r, const FieldDescriptor* f) {
  Json out = Json::object();
  for (int i = 0; i < r.FieldSize(m, f); ++i) {
    const google::protobuf::Message& entry = r.GetRepeatedMessage(m, f, i);
    const auto& type = *f->message_type();
    const Json key = Value(entry, *entry.GetReflection(), type.map_key(), -1);
    out[key.is_string() ? key.get<std::string>() : key.dump()] =
        Value(entry, *entry.GetReflection(), type.map_value(), -1);
  }
  return out;
}

}  // namespace

Json ToJson(const google::protobuf::Message& m) {
  if (const auto* t = dynamic_cast<const google::protobuf::Timestamp*>(&m))
    return TimeText(t->seconds(), t->nanos());
  if (const auto* s = dynamic_cast<const google::protobuf::Struct*>(&m)) {
    std::string text;
    if (!google::protobuf::util::MessageToJsonString(*s, &text).ok()) return nullptr;
    return Json::parse(text, nullptr, false);
  }
  if (const auto* d = dynamic_cast<const google::protobuf::Duration*>(&m))
    return static_cast<double>(d->seconds()) + d->nanos() * 1e-9;
  if (const auto* e = dynamic_cast<const google::rpc::Status*>(&m)) return ErrorJson(FromRpcStatus(*e));
  const Reflection& r = *m.GetReflection();
  Json out = Json::object();
  for (int i = 0; i < m.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* f = m.GetDescriptor()->field(i);
    Json& slot = out[f->name()];
    if (f->is_map()) {
      slot = MapValue(m, r, f);
    } else if (f->is_repeated()) {
      slot = Json::array();
      for (int k = 0; k < r.FieldSize(m, f); ++k) slot.push_back(Value(m, r, f, k));
    } else if (!f->has_presence() || r.HasField(m, f)) {
      slot = Value(m, r, f, -1);
    } else {
      slot = nullptr;
    }
  }
  return out;
}

std::string OneLine(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace tempera
