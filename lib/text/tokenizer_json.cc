#include "text/tokenizer_json.h"

#include "text/words.h"

namespace tempera {
namespace {

const Json& Normalizer() {
  static const Json value = Json::parse(R"({"type": "Sequence", "normalizers": [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
    {"type": "Lowercase"}]})");
  return value;
}

// transformers 4 wrote it without the two markers, and 5 reads it as if they were there: so do we.
Json PreTokenizer(bool markers) {
  constexpr char kMarkers[] = R"(<\|startoftext\|>|<\|endoftext\|>|)";
  constexpr char kWords[] = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  Json value = Json::parse(R"({"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Removed", "invert": true},
    {"type": "ByteLevel", "add_prefix_space": false}]})");
  value["pretokenizers"][0]["pattern"]["Regex"] = Cat(markers ? kMarkers : "", kWords);
  return value;
}

// Without what stands there by default or moves no id.
Json Simplified(Json pre_tokenizer) {
  if (!pre_tokenizer.is_object() || !pre_tokenizer.contains("pretokenizers")) return pre_tokenizer;
  for (Json& part : pre_tokenizer["pretokenizers"]) {
    if (!part.is_object() || part.value("type", Json()) != "ByteLevel") continue;
    part.erase("trim_offsets");
    if (part.value("use_regex", Json()) == true) part.erase("use_regex");
  }
  return pre_tokenizer;
}

// bos, the text, eos; null is CLIP's own.
bool WrapsInBosAndEos(const Json& processor, const SpecialContents& special) {
  if (processor.is_null()) return true;
  if (!processor.is_object()) return false;
  const Json type = processor.value("type", Json());
  if (type == "RobertaProcessing") {
    const auto content = [&](const char* key) {
      const Json pair = processor.value(key, Json());
      return pair.is_array() && !pair.empty() ? pair[0] : Json();
    };
    return content("cls") == special.bos && content("sep") == special.eos;
  }
  const auto token = [](const std::string& id) {
    return Json{{"SpecialToken", {{"id", id}, {"type_id", 0}}}};
  };
  const Json want = Json::array(
      {token(special.bos), Json{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, token(special.eos)});
  return type == "TemplateProcessing" && processor.value("single", Json()) == want;
}

// null, or on the right.
bool IsRightSided(const Json& value) {
  return value.is_null() || (value.is_object() && value.value("direction", Json("Right")) == "Right");
}

Status CheckModel(const Json& model, const std::string& where, const SpecialContents& special) {
  Fields fields(model, where);
  std::string type = "BPE";  // not written by old versions
  fields.Get("type", type);
  TEMPERA_TRY(fields.status());
  if (type != "BPE")
    return InvalidArgument(where, ": type is not supported, got ", Json(type), ", want \"BPE\"");
  double dropout = 0;
  if (fields.Get("dropout", dropout) && dropout != 0)
    fields.Fail("dropout", Cat("is not supported, got ", dropout, ", want 0"));
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
    bool set = false;
    if (fields.Get(key, set) && set) fields.Fail(key, "is not supported, got true, want false");
  }
  const auto same = [&](const char* key, std::string got, std::string_view want) {
    fields.Get(key, got);
    if (got != want) fields.Fail(key, Cat("is not supported, got ", Json(got), ", want \"", want, "\""));
  };
  same("unk_token", special.unknown, special.unknown);
  same("continuing_subword_prefix", "", "");
  same("end_of_word_suffix", "", kEndOfWord);
  for (const char* key : {"vocab", "merges"})
    if (fields.Raw(key) == nullptr) fields.Fail(key, "is missing");
  return fields.Finish();
}

}  // namespace

Status CheckTokenizerJson(const Json& root, const std::string& where, const SpecialContents& special) {
  Fields fields(root, where);
  fields.Ignore({"version", "added_tokens", "decoder"});
  const Json* model = fields.Raw("model");
  if (model == nullptr) fields.Fail("model", "is missing");
  TEMPERA_TRY(fields.status());
  TEMPERA_TRY(CheckModel(*model, where + ": model", special));
  const auto part = [&](const char* key) {
    const Json* value = fields.Raw(key);
    return value == nullptr ? Json() : *value;
  };
  if (part("normalizer") != Normalizer())
    fields.Fail("normalizer", "is not CLIP's, want NFC, runs of white space to one space, lower case");
  const Json pre_tokenizer = Simplified(part("pre_tokenizer"));
  if (pre_tokenizer != PreTokenizer(true) && pre_tokenizer != PreTokenizer(false))
    fields.Fail("pre_tokenizer", "is not CLIP's, want its pattern, then bytes");
  if (!WrapsInBosAndEos(part("post_processor"), special))
    fields.Fail("post_processor", Cat("is not CLIP's, want ", Json(special.bos), " before and ",
                                      Json(special.eos), " behind the text"));
  for (const char* key : {"padding", "truncation"})
    if (!IsRightSided(part(key))) fields.Fail(key, "is not supported, want it on the right");
  return fields.Finish();
}

}  // namespace tempera
