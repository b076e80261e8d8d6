// Makes a vocabulary for CLIP's tokenizer from captions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tempera {

struct BpeVocabulary {
  std::vector<std::string> tokens;                          // by id
  std::vector<std::pair<std::string, std::string>> merges;  // strongest first
};

// Laid out as CLIP's own: the 256 bytes, the same at the end of a word, one token a merge, <|startoftext|>,
// <|endoftext|>. Joins again and again the two neighbouring tokens that occur together most often in
// `captions`, until the vocabulary has `size` tokens or no two occur together twice; of equally frequent
// pairs the one with the lower ids is taken, so the same captions in any order give the same vocabulary.
// InvalidArgument: a caption that is not UTF-8, or size < kMinBpeVocabulary.
Result<BpeVocabulary> TrainClipBpe(std::span<const std::string> captions, int64_t size);

inline constexpr int64_t kMinBpeVocabulary = 514;  // bytes, bytes at the end of a word, bos, eos

// Writes vocab.json, merges.txt and tokenizer_config.json into `folder`, which must be there: what
// ClipTokenizer and transformers' CLIPTokenizer open. `max_length` counts bos and eos. `label` names the
// folder in errors.
Status WriteClipVocabulary(const BpeVocabulary& vocabulary, int64_t max_length,
                           const std::filesystem::path& folder, const std::string& label);

}  // namespace tempera
