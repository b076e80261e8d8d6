#include "weights/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/json.h"

namespace tempera {
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

// Names come from the file: an error shows no more of one than a person reads.
std::string Quoted(std::string_view name) {
  if (name.size() <= 200) return Json(name).dump(-1, ' ', true, Json::error_handler_t::replace);
  return Json(name.substr(0, 200)).dump(-1, ' ', true, Json::error_handler_t::replace) + "...";
}

struct Entry {
  Dtype dtype = Dtype::kF32;
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the first byte after the header
};

// Takes the header event by event, so that text which is no header is never built up in memory.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(std::string_view label) : label_(label) {}

  Status status = OkStatus();
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a truth value"); }
  bool number_integer(number_integer_t v) override { return Unexpected(Cat(v)); }
  bool number_float(number_float_t, const string_t& s) override { return Unexpected(s.substr(0, 40)); }
  bool binary(binary_t&) override { return Unexpected("binary"); }

  bool number_unsigned(number_unsigned_t v) override {
    if (at_ == At::kShape) {
      if (entry_.shape.size() == kMaxTensorDims)
        return Fail("shape is wrong, got more than ", kMaxTensorDims, " dimensions");
      if (v > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return Fail("shape is wrong, got a dimension of ", v, ", want at most 2^63 - 1");
      entry_.shape.push_back(static_cast<int64_t>(v));
      return true;
    }
    if (at_ == At::kOffsets) {
      if (offsets_ == 2) return Fail("data_offsets is wrong, got more than 2 numbers, want 2");
      (offsets_++ == 0 ? entry_.begin : entry_.end) = v;
      return true;
    }
    return Unexpected(Cat(v));
  }

  bool string(string_t& v) override {
    if (at_ == At::kMetadata) {
      if (metadata.size() == kMaxTensors) return Fail("got more than ", kMaxTensors, " entries");
      if (!metadata.emplace(key_, std::move(v)).second)
        return Fail("the key ", Quoted(key_), " stands there twice");
      return true;
    }
    if (at_ == At::kTensor && key_ == "dtype") {
      const std::optional<Dtype> dtype = ParseDtype(v);
      if (!dtype)
        return Fail("dtype is unknown, got ", Quoted(v),
                    ", want BOOL, U8, I8, I16, I32, I64, F16, BF16, F32 or F64");
      entry_.dtype = *dtype;
      return true;
    }
    return Unexpected("a string");
  }

  bool key(string_t& k) override {
    if (at_ == At::kTop) {
      name_.clear();
      if (k.size() > kMaxTensorNameBytes)
        return Fail("got a tensor name of ", k.size(), " bytes, want at most ", kMaxTensorNameBytes);
      name_ = std::move(k);
      const bool twice = name_ == kMetadataKey ? std::exchange(saw_metadata_, true) : entries.contains(name_);
      if (twice) return Fail("the name stands there twice");
      if (entries.size() == kMaxTensors) return Fail("got more than ", kMaxTensors, " tensors");
      return true;
    }
    key_ = std::move(k);
    if (at_ != At::kTensor) return true;
    const unsigned bit = key_ == "dtype" ? 1 : key_ == "shape" ? 2 : key_ == "data_offsets" ? 4 : 0;
    if (bit == 0) return Fail("unknown field ", Quoted(key_), ", want dtype, shape and data_offsets");
    if ((seen_ & bit) != 0) return Fail("the field ", key_, " stands there twice");
    seen_ |= bit;
    return true;
  }

  bool start_object(size_t) override {
    if (at_ == At::kStart) {
      at_ = At::kTop;
      return true;
    }
    if (at_ != At::kTop) return Unexpected("an object");
    at_ = name_ == kMetadataKey ? At::kMetadata : At::kTensor;
    entry_ = Entry{};
    seen_ = 0;
    offsets_ = 0;
    return true;
  }

  bool end_object() override {
    if (at_ == At::kTensor) {
      if (seen_ != 7)
        return Fail((seen_ & 1) == 0 ? "dtype" : (seen_ & 2) == 0 ? "shape" : "data_offsets", " is missing");
      entries.emplace(name_, std::move(entry_));
    }
    at_ = at_ == At::kTop ? At::kEnd : At::kTop;
    return true;
  }

  bool start_array(size_t) override {
    if (at_ != At::kTensor || key_ == "dtype") return Unexpected("a list");
    at_ = key_ == "shape" ? At::kShape : At::kOffsets;
    return true;
  }

  bool end_array() override {
    if (at_ == At::kOffsets && offsets_ != 2)
      return Fail("data_offsets is wrong, got ", offsets_, " numbers, want 2");
    at_ = At::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    if (status.ok()) status = InvalidArgument(label_, ": header is not valid JSON at its byte ", position);
    return false;
  }

 private:
  enum class At { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  template <typename... P>
  bool Fail(const P&... what) {
    if (!status.ok()) return false;
    std::string place = label_;
    if (at_ == At::kMetadata || name_ == kMetadataKey) {
      place += ": __metadata__";
    } else if (at_ != At::kStart && !name_.empty()) {
      place += ": tensor " + Quoted(name_);
    }
    status = InvalidArgument(place, ": ", what...);
    return false;
  }

  bool Unexpected(const std::string& got) {
    switch (at_) {
      case At::kMetadata:
        return Fail("the value of ", Quoted(key_), " is wrong, got ", got, ", want a string");
      case At::kTensor:
        return Fail(key_, " is wrong, got ", got, ", want ",
                    key_ == "dtype" ? "a string" : "a list of integers that are not negative");
      case At::kShape:
      case At::kOffsets:
        return Fail(key_, " is wrong, got ", got, ", want integers that are not negative");
      case At::kTop:
        return Fail("got ", got, ", want an object");
      default:
        return Fail("header is wrong, got ", got, ", want a JSON object");
    }
  }

  std::string label_;
  At at_ = At::kStart;
  std::string name_;  // of the tensor in work
  std::string key_;   // in that tensor, or in the metadata
  Entry entry_;
  unsigned seen_ = 0;  // fields of the tensor: 1 dtype, 2 shape, 4 data_offsets
  int offsets_ = 0;
  bool saw_metadata_ = false;
};

Status CheckSize(const std::string& name, const Entry& e, uint64_t data_bytes, std::string_view label) {
  const auto fail = [&](const auto&... what) {
    return InvalidArgument(label, ": tensor ", Quoted(name), ": ", what...);
  };
  if (e.end < e.begin) return fail("data_offsets end before they begin, got [", e.begin, ", ", e.end, "]");
  if (e.end > data_bytes)
    return fail("data_offsets lie beyond the end of the file, got [", e.begin, ", ", e.end,
                "], want at most ", data_bytes);
  const std::optional<int64_t> elements = ElementsOf(e.shape);
  int64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements, DtypeBytes(e.dtype), &bytes))
    return fail("the size of shape ", ShapeText(e.shape), " overflows 63 bits");
  if (static_cast<uint64_t>(bytes) != e.end - e.begin)
    return fail("size does not fit, got ", e.end - e.begin, " bytes, want ", bytes, " for ",
                DtypeName(e.dtype), " ", ShapeText(e.shape));
  return OkStatus();
}

// The tensors, laid end to end, must fill the data exactly.
Status CheckLayout(const std::map<std::string, Entry>& entries, uint64_t data_bytes, std::string_view label) {
  std::vector<const std::pair<const std::string, Entry>*> order;
  order.reserve(entries.size());
  for (const auto& item : entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t at = 0;
  for (const auto* item : order) {
    const Entry& e = item->second;
    if (e.begin != at)
      return InvalidArgument(label, ": tensor ", Quoted(item->first), ": data_offsets ",
                             e.begin < at ? "overlap the tensor before" : "leave a hole before it",
                             ", got begin ", e.begin, ", want ", at);
    at = e.end;
  }
  if (at != data_bytes)
    return InvalidArgument(label, ": got ", data_bytes, " bytes of data, want ", at,
                           ", the end of the last tensor");
  return OkStatus();
}

}  // namespace

std::optional<int64_t> ElementsOf(std::span<const int64_t> shape) {
  int64_t product = 1;
  bool empty = false;
  for (const int64_t d : shape) {
    if (d < 0) return std::nullopt;
    if (d == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(product, d, &product)) {
      return std::nullopt;
    }
  }
  return empty ? 0 : product;
}

Result<SafetensorsFile> ParseSafetensors(std::span<const uint8_t> file, std::shared_ptr<const void> owner,
                                         std::string_view label) {
  if (file.size() < 8)
    return InvalidArgument(label, ": too short for a safetensors file, got ", file.size(),
                           " bytes, want at least 8");
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | file[static_cast<size_t>(i)];
  if (header_bytes > kMaxSafetensorsHeaderBytes)
    return InvalidArgument(label, ": not a safetensors file: header length, got ", header_bytes,
                           " bytes, want at most ", kMaxSafetensorsHeaderBytes);
  if (header_bytes > file.size() - 8)
    return InvalidArgument(label, ": header does not fit in the file, got ", file.size() - 8, " bytes, want ",
                           header_bytes);
  const char* text = reinterpret_cast<const char*>(file.data()) + 8;
  if (header_bytes == 0 || text[0] != '{') return InvalidArgument(label, ": header does not begin with {");
  // The JSON parser takes a NUL for the end of its text.
  if (std::memchr(text, 0, header_bytes) != nullptr)
    return InvalidArgument(label, ": header holds a NUL byte");

  HeaderReader reader(label);
  const bool ok = Json::sax_parse(text, text + header_bytes, &reader);
  TEMPERA_TRY(reader.status);
  if (!ok) return InvalidArgument(label, ": header is not valid JSON");

  const std::span<const uint8_t> data = file.subspan(8 + header_bytes);
  for (const auto& [name, entry] : reader.entries) TEMPERA_TRY(CheckSize(name, entry, data.size(), label));
  TEMPERA_TRY(CheckLayout(reader.entries, data.size(), label));

  SafetensorsFile result;
  result.metadata = std::move(reader.metadata);
  while (!reader.entries.empty()) {
    auto node = reader.entries.extract(reader.entries.begin());
    Entry& e = node.mapped();
    result.tensors.emplace_hint(
        result.tensors.end(), std::move(node.key()),
        TensorView{e.dtype, std::move(e.shape), data.subspan(e.begin, e.end - e.begin), owner});
  }
  return result;
}

}  // namespace tempera
