#include "base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

namespace tempera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct BadText {
  std::string name;
  std::string text;
  std::string says;
};

std::string Nested(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

class ParseJsonRefuses : public ::testing::TestWithParam<BadText> {};

TEST_P(ParseJsonRefuses, WithAnErrorThatNamesTheFile) {
  const Status status = ParseJson(GetParam().text, "unet/config.json").status();
  ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(Message(status), StartsWith("unet/config.json: "));
  EXPECT_THAT(Message(status), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, ParseJsonRefuses,
    ::testing::Values(
        BadText{"nothing", "", "not valid JSON"}, BadText{"blank", "  \n", "not valid JSON"},
        BadText{"repeated_key", R"({"a":1,"b":2,"a":3})", "\"a\" stands there twice"},
        BadText{"repeated_key_inside", R"([{"x":{"a":1,"a":1}}])", "\"a\" stands there twice"},
        BadText{"repeated_key_escaped", R"({"a":1,"\u0061":3})", "\"a\" stands there twice"},
        BadText{"nan", "[NaN]", "not valid JSON"}, BadText{"infinity", "[-Infinity]", "not valid JSON"},
        BadText{"too_large", "[1e999]", "not valid JSON"}, BadText{"comment", "[1] // x", "not valid JSON"},
        BadText{"comment_inside", "[/* x */ 1]", "not valid JSON"},
        BadText{"trailing_comma", "[1,]", "not valid JSON"}, BadText{"two_values", "{} {}", "not valid JSON"},
        BadText{"cut", R"({"a": [1, 2)", "not valid JSON"},
        BadText{"single_quotes", "{'a': 1}", "not valid JSON"},
        BadText{"leading_zero", "[01]", "not valid JSON"}, BadText{"plus", "[+1]", "not valid JSON"},
        BadText{"not_utf8", "[\"\xff\"]", "not valid JSON"},
        BadText{"overlong_utf8", "[\"\xc0\xaf\"]", "not valid JSON"},
        BadText{"lone_surrogate", R"(["\ud800"])", "not valid JSON"},
        BadText{"raw_newline_in_string", "[\"a\nb\"]", "not valid JSON"},
        BadText{"too_deep", Nested(65), "64 levels"},
        BadText{"far_too_deep", std::string(1'000'000, '['), "64 levels"}),
    [](const auto& param) { return param.param.name; });

TEST(ParsePythonJson, ReadsInfinitiesAsText) {
  const Result<Json> json = ParsePythonJson(
      "{\"least\": -Infinity, \"list\": [Infinity,-Infinity], \"text\": \"-Infinity \\\" Infinity\", \"x\": "
      "-1}",
      "t");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(CanonicalJson(*json),
            "{\"least\":\"-Infinity\",\"list\":[\"Infinity\",\"-Infinity\"],"
            "\"text\":\"-Infinity \\\" Infinity\",\"x\":-1}");
  for (const char* bad : {"NaN", "-Infinit", "--Infinity", "Infinity Infinity", "{\"a\": -Infinity", "\"\\"})
    EXPECT_TRUE(absl::IsInvalidArgument(ParsePythonJson(bad, "t").status())) << bad;
}

TEST(ParseJson, TakesEveryKindOfValue) {
  const Result<Json> json =
      ParseJson("  {\"a\": [1, -2, 2.5e1, true, null, \"\\u00e9\\n\"], \"b\": {}}\n", "t");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(CanonicalJson(*json), "{\"a\":[1,-2,25.0,true,null,\"\u00e9\\n\"],\"b\":{}}");
}

TEST(ParseJson, TakesTheSameKeyInTwoObjectsAnd64Levels) {
  EXPECT_TRUE(ParseJson(R"([{"a":1},{"a":{"a":2}}])", "t").ok());
  EXPECT_TRUE(ParseJson(Nested(64), "t").ok());
}

TEST(ParseJson, EveryPrefixOfAnObjectIsRefused) {
  const std::string text =
      R"({"version":1,"files":{"a.bin":{"bytes":12,"sha256":"00ff"}},"list":[1.5,false]})";
  ASSERT_TRUE(ParseJson(text, "t").ok());
  for (size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(ParseJson(text.substr(0, n), "t").ok()) << n;
}

TEST(CanonicalJson, SortsKeysAndLeavesNoSpace) {
  EXPECT_EQ(CanonicalJson(Json{{"b", 1}, {"a", Json::array({1, 2})}}), R"({"a":[1,2],"b":1})");
}

TEST(CanonicalJson, GivesBackEveryDoubleBitForBit) {
  std::mt19937_64 random(3);
  int tried = 0;
  while (tried < 20'000) {
    const double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    ++tried;
    const std::string text = CanonicalJson(Json(value));
    const Result<Json> back = ParseJson(text, "t");
    ASSERT_TRUE(back.ok()) << text;
    ASSERT_EQ(std::bit_cast<uint64_t>(back->get<double>()), std::bit_cast<uint64_t>(value)) << text;
    ASSERT_EQ(CanonicalJson(*back), text);
  }
}

struct Config {
  bool flag = true;
  int64_t channels = 3;
  int small = 4;
  double eta = 0.5;
  std::string name = "n";
  std::vector<int64_t> widths{1};
  std::vector<double> scales{2};
  std::vector<std::string> types{"t"};
  std::optional<int64_t> maybe;
};

Status Read(std::string_view text, Config& c) {
  TEMPERA_ASSIGN(const Json json, ParseJson(text, "c.json"));
  Fields f(json, "c.json");
  f.Get("flag", c.flag);
  f.Get("channels", c.channels);
  f.Get("small", c.small);
  f.Get("eta", c.eta);
  f.Get("name", c.name);
  f.Get("widths", c.widths);
  f.Get("scales", c.scales);
  f.Get("types", c.types);
  f.Get("maybe", c.maybe);
  f.Ignore({"_version"});
  return f.Finish();
}

TEST(Fields, ReadsEveryType) {
  Config c;
  const Status status =
      Read(R"({"flag":false,"channels":9007199254740993,"small":-5,"eta":2,"name":"x","widths":[3,4],
                                 "scales":[1,0.5],"types":["a","b"],"maybe":7,"_version":"any"})",
           c);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(c.flag);
  EXPECT_EQ(c.channels, 9007199254740993);
  EXPECT_EQ(c.small, -5);
  EXPECT_EQ(c.eta, 2.0);
  EXPECT_EQ(c.name, "x");
  EXPECT_THAT(c.widths, ElementsAre(3, 4));
  EXPECT_THAT(c.scales, ElementsAre(1.0, 0.5));
  EXPECT_THAT(c.types, ElementsAre("a", "b"));
  EXPECT_EQ(c.maybe, 7);
}

TEST(Fields, MissingAndNullLeaveTheTarget) {
  Config c;
  ASSERT_TRUE(Read(R"({"flag":null,"channels":null,"name":null,"widths":null,"maybe":null})", c).ok());
  EXPECT_TRUE(c.flag);
  EXPECT_EQ(c.channels, 3);
  EXPECT_EQ(c.name, "n");
  EXPECT_THAT(c.widths, ElementsAre(1));
  EXPECT_EQ(c.maybe, std::nullopt);
}

struct BadField {
  std::string name;
  std::string text;
  std::string says;
};

class FieldsRefuse : public ::testing::TestWithParam<BadField> {};

TEST_P(FieldsRefuse, WithAnErrorThatNamesFileKeyAndWant) {
  Config c;
  const Status status = Read(GetParam().text, c);
  ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(Message(status), GetParam().says);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, FieldsRefuse,
    ::testing::Values(
        BadField{"bool", R"({"flag":1})", "c.json: flag is wrong, got 1, want true or false"},
        BadField{"int_text", R"({"channels":"4"})", R"(c.json: channels is wrong, got "4", want an integer)"},
        BadField{"int_float", R"({"channels":4.0})", "c.json: channels is wrong, got 4.0, want an integer"},
        BadField{"int_too_large", R"({"channels":9223372036854775808})",
                 "c.json: channels is wrong, got 9223372036854775808, want an integer"},
        BadField{"int32_too_large", R"({"small":2147483648})",
                 "c.json: small is wrong, got 2147483648, want a 32-bit integer"},
        BadField{"double", R"({"eta":[1]})", "c.json: eta is wrong, got [1], want a number"},
        BadField{"string", R"({"name":{}})", "c.json: name is wrong, got {}, want a string"},
        BadField{"ints", R"({"widths":[1,2.5]})",
                 "c.json: widths is wrong, got [1,2.5], want a list of integers"},
        BadField{"ints_scalar", R"({"widths":1})", "c.json: widths is wrong, got 1, want a list of integers"},
        BadField{"doubles", R"({"scales":[null]})",
                 "c.json: scales is wrong, got [null], want a list of numbers"},
        BadField{"strings", R"({"types":["a",1]})",
                 R"(c.json: types is wrong, got ["a",1], want a list of strings)"},
        BadField{"optional", R"({"maybe":true})", "c.json: maybe is wrong, got true, want an integer"},
        BadField{"unknown_key", R"({"extra":1})", "c.json: extra is not supported, got 1"},
        BadField{"first_error_wins", R"({"name":1,"flag":2})",
                 "c.json: flag is wrong, got 2, want true or false"},
        BadField{"not_an_object", "[1]", "c.json: got [1], want a JSON object"}),
    [](const auto& param) { return param.param.name; });

TEST(Fields, NeedFailsOnMissingAndNull) {
  for (const char* text : {"{}", R"({"n":null})"}) {
    const Json json = *ParseJson(text, "t");
    Fields f(json, "t");
    int64_t n = 0;
    f.Need("n", n);
    EXPECT_EQ(Message(f.Finish()), "t: n is missing");
  }
}

TEST(Fields, LongValuesAreShownInPart) {
  const Json json{{"n", std::string(1000, 'x')}};
  Fields f(json, "t");
  int64_t n = 0;
  f.Get("n", n);
  EXPECT_LT(Message(f.Finish()).size(), 120u);
}

}  // namespace
}  // namespace tempera
