#include "storage/object_store.h"

namespace tempera {

Status CheckObjectKey(std::string_view key) {
  const auto bad = [&](std::string_view what) {
    return InvalidArgument("object key \"", key.substr(0, 200), "\": ", what);
  };
  if (key.empty() || key.size() > 1000) return bad(Cat("got ", key.size(), " bytes, want 1 to 1000"));
  size_t begin = 0;
  while (begin <= key.size()) {
    const size_t slash = std::min(key.find('/', begin), key.size());
    const std::string_view segment = key.substr(begin, slash - begin);
    if (segment.empty() || segment.size() > 200)
      return bad(Cat("got a segment of ", segment.size(), " bytes, want 1 to 200"));
    if (segment.front() == '.') return bad("got a segment that begins with '.'");
    for (const char c : segment) {
      const bool known = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         c == '.' || c == '_' || c == '-';
      if (!known) return bad("want letters, digits, '.', '_', '-' and '/' only");
    }
    begin = slash + 1;
  }
  return OkStatus();
}

}  // namespace tempera
