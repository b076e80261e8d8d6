// The parts of a tokenizer.json that say how it works: whether they say what CLIP does.
#pragma once

#include <string>

#include "base/json.h"

namespace tempera {

struct SpecialContents {
  std::string bos;
  std::string eos;
  std::string unknown;
};

// An error names the part that works in another way; a model of another type is named by its type. On success
// root["model"] is an object with "vocab" and "merges". `where` names the file.
Status CheckTokenizerJson(const Json& root, const std::string& where, const SpecialContents& special);

}  // namespace tempera
