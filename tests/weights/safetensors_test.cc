#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <tuple>

#include "tests/base/temp_folder.h"
#include "tests/weights/mutate.h"

namespace tempera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Text(std::span<const uint8_t> bytes) { return std::string(bytes.begin(), bytes.end()); }

// A file of this header, with the length that fits, and this data.
std::string File(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file.append(header).append(data);
}

Result<SafetensorsFile> Parse(const std::string& file) {
  return ParseSafetensors(Bytes(file), nullptr, "w.safetensors");
}

// Whatever is accepted gives each byte of the data to one tensor, in the size that its dtype and shape ask
// for.
void ExpectSound(const SafetensorsFile& parsed, const std::string& file) {
  const char* end_of_file = file.data() + file.size();
  std::vector<std::span<const uint8_t>> pieces;
  for (const auto& [name, view] : parsed.tensors) {
    ASSERT_EQ(static_cast<int64_t>(view.bytes.size()), view.elements() * DtypeBytes(view.dtype)) << name;
    ASSERT_LE(view.shape.size(), kMaxTensorDims) << name;
    if (!view.bytes.empty()) pieces.push_back(view.bytes);
  }
  std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.data() < b.data(); });
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  const char* at = file.data() + 8 + header_bytes;
  for (const auto& piece : pieces) {
    ASSERT_EQ(reinterpret_cast<const char*>(piece.data()), at);
    at += piece.size();
  }
  ASSERT_EQ(at, end_of_file);
}

std::string GoodFile() { return Slurp("golden/bad/good/diffusion_pytorch_model.safetensors"); }

size_t HeaderEnd(const std::string& file) {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  return 8 + header_bytes;
}

TEST(ParseSafetensors, GivesEachTensorItsBytes) {
  // Named out of the order of their offsets; a scalar; a tensor without elements between two others.
  const std::string file = File(R"({"b":{"dtype":"I16","shape":[2,1],"data_offsets":[3,7]},)"
                                R"("__metadata__":{"format":"pt","note":"\u00e9"},)"
                                R"("none":{"data_offsets":[3,3],"shape":[4,0],"dtype":"F32"},)"
                                R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                                R"("scalar":{"dtype":"BOOL","shape":[],"data_offsets":[7,8]}}   )",
                                "abcdefgh");
  const auto owner = std::make_shared<int>(1);
  const Result<SafetensorsFile> parsed = ParseSafetensors(Bytes(file), owner, "w");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->tensors.size(), 4u);
  const TensorView& b = parsed->tensors.at("b");
  EXPECT_EQ(b.dtype, Dtype::kI16);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_EQ(Text(b.bytes), "defg");
  EXPECT_EQ(b.owner, owner);
  EXPECT_EQ(Text(parsed->tensors.at("a").bytes), "abc");
  EXPECT_EQ(Text(parsed->tensors.at("scalar").bytes), "h");
  EXPECT_TRUE(parsed->tensors.at("scalar").shape.empty());
  EXPECT_EQ(parsed->tensors.at("none").elements(), 0);
  EXPECT_EQ(parsed->metadata.at("format"), "pt");
  EXPECT_EQ(parsed->metadata.at("note"), "\u00e9");
  ExpectSound(*parsed, file);
}

TEST(ParseSafetensors, TakesAFileWithoutTensors) {
  const Result<SafetensorsFile> parsed = Parse(File("{}", ""));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->tensors.empty());
}

TEST(ParseSafetensors, KnowsEveryDtype) {
  for (const auto& [name, bytes] : std::map<std::string, int>{{"BOOL", 1},
                                                              {"U8", 1},
                                                              {"I8", 1},
                                                              {"I16", 2},
                                                              {"I32", 4},
                                                              {"I64", 8},
                                                              {"F16", 2},
                                                              {"BF16", 2},
                                                              {"F32", 4},
                                                              {"F64", 8}}) {
    const std::string file =
        File(Cat(R"({"t":{"dtype":")", name, R"(","shape":[3],"data_offsets":[0,)", 3 * bytes, "]}}"),
             std::string(static_cast<size_t>(3 * bytes), 'x'));
    const Result<SafetensorsFile> parsed = Parse(file);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(DtypeName(parsed->tensors.at("t").dtype), name);
    EXPECT_EQ(DtypeBytes(parsed->tensors.at("t").dtype), bytes);
  }
}

struct BadHeader {
  std::string name;
  std::string header;
  std::string says;
  std::string data = "12345678";
};

class ParseSafetensorsRefuses : public ::testing::TestWithParam<BadHeader> {};

TEST_P(ParseSafetensorsRefuses, WithAnErrorThatNamesFileAndTensor) {
  const Status status = Parse(File(GetParam().header, GetParam().data)).status();
  ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(Message(status), StartsWith("w.safetensors: "));
  EXPECT_THAT(Message(status), HasSubstr(GetParam().says));
  EXPECT_LT(Message(status).size(), 1000u);
}

// A header of tensor "t" with these fields.
std::string Tensor(std::string_view fields) { return Cat("{\"t\":{", fields, "}}"); }
std::string Tensor(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return Tensor(Cat("\"dtype\":", dtype, ",\"shape\":", shape, ",\"data_offsets\":", offsets));
}

INSTANTIATE_TEST_SUITE_P(
    Headers, ParseSafetensorsRefuses,
    ::testing::Values(
        BadHeader{"empty", "", "does not begin with {"}, BadHeader{"blank", "    ", "does not begin with {"},
        BadHeader{"space_first", R"( {"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
                  "does not begin with {"},
        BadHeader{"array", "[]", "does not begin with {"}, BadHeader{"cut", "{\"t\":", "not valid JSON"},
        BadHeader{"text_after", "{}x", "not valid JSON", ""},
        BadHeader{"nul_after", std::string("{}\0x", 4), "NUL", ""},
        BadHeader{"value_not_object", R"({"t":[1]})", R"(tensor "t": got a list, want an object)"},
        BadHeader{"value_null", R"({"t":null})", R"(tensor "t": got null)"},
        BadHeader{"no_dtype", Tensor(R"("shape":[8],"data_offsets":[0,8])"),
                  R"(tensor "t": dtype is missing)"},
        BadHeader{"no_shape", Tensor(R"("dtype":"U8","data_offsets":[0,8])"),
                  R"(tensor "t": shape is missing)"},
        BadHeader{"no_offsets", Tensor(R"("dtype":"U8","shape":[8])"),
                  R"(tensor "t": data_offsets is missing)"},
        BadHeader{"field_twice", Tensor(R"("dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8])"),
                  "the field dtype stands there twice"},
        BadHeader{"unknown_field", Tensor(R"("dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1)"),
                  R"(unknown field "x")"},
        BadHeader{
            "name_twice",
            R"({"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"\u0074":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})",
            R"(tensor "t": the name stands there twice)"},
        BadHeader{"dtype_unknown", Tensor(R"("F8_E4M3")", "[8]", "[0,8]"),
                  R"(dtype is unknown, got "F8_E4M3")"},
        BadHeader{"dtype_lower", Tensor(R"("u8")", "[8]", "[0,8]"), R"(dtype is unknown, got "u8")"},
        BadHeader{"dtype_number", Tensor("8", "[8]", "[0,8]"), "dtype is wrong, got 8, want a string"},
        BadHeader{"dtype_list", Tensor("[]", "[8]", "[0,8]"), "dtype is wrong, got a list"},
        BadHeader{"shape_number", Tensor(R"("U8")", "8", "[0,8]"), "shape is wrong, got 8"},
        BadHeader{"shape_text", Tensor(R"("U8")", R"(["8"])", "[0,8]"), "shape is wrong, got a string"},
        BadHeader{"shape_float", Tensor(R"("U8")", "[8.0]", "[0,8]"), "shape is wrong, got 8.0"},
        BadHeader{"shape_exponent", Tensor(R"("U8")", "[8e0]", "[0,8]"), "shape is wrong, got 8e0"},
        BadHeader{"shape_negative", Tensor(R"("U8")", "[-8]", "[0,8]"), "shape is wrong, got -8"},
        BadHeader{"shape_two_negatives", Tensor(R"("U8")", "[-8,-1]", "[0,8]"), "shape is wrong, got -8"},
        BadHeader{"shape_nested", Tensor(R"("U8")", "[[8]]", "[0,8]"), "shape is wrong, got a list"},
        BadHeader{"shape_object", Tensor(R"("U8")", "[{}]", "[0,8]"), "shape is wrong, got an object"},
        BadHeader{"shape_9_dims", Tensor(R"("U8")", "[8,1,1,1,1,1,1,1,1]", "[0,8]"),
                  "more than 8 dimensions"},
        BadHeader{"shape_too_large", Tensor(R"("U8")", "[9223372036854775808]", "[0,8]"),
                  "got a dimension of"},
        BadHeader{"shape_beyond_64_bits", Tensor(R"("U8")", "[99999999999999999999]", "[0,8]"),
                  "shape is wrong"},
        BadHeader{"product_overflows", Tensor(R"("U8")", "[4294967296,4294967296]", "[0,0]"), "overflows"},
        BadHeader{"product_overflows_beside_zero", Tensor(R"("U8")", "[0,4294967296,4294967296]", "[0,0]"),
                  "overflows"},
        BadHeader{"bytes_overflow", Tensor(R"("F64")", "[1152921504606846976]", "[0,0]"), "overflows"},
        BadHeader{"offsets_one", Tensor(R"("U8")", "[8]", "[8]"), "got 1 numbers, want 2"},
        BadHeader{"offsets_three", Tensor(R"("U8")", "[8]", "[0,8,8]"), "got more than 2 numbers"},
        BadHeader{"offsets_object", Tensor(R"("U8")", "[8]", "{}"), "data_offsets is wrong, got an object"},
        BadHeader{"offsets_negative", Tensor(R"("U8")", "[8]", "[-1,7]"), "data_offsets is wrong, got -1"},
        BadHeader{"offsets_reversed", Tensor(R"("U8")", "[8]", "[8,0]"), "end before they begin"},
        BadHeader{"offsets_beyond", Tensor(R"("U8")", "[9]", "[0,9]"), "beyond the end of the file"},
        BadHeader{"offsets_wrap", Tensor(R"("U8")", "[8]", "[18446744073709551615,7]"),
                  "end before they begin"},
        BadHeader{"size_small", Tensor(R"("U8")", "[7]", "[0,8]"),
                  "size does not fit, got 8 bytes, want 7 for U8 [7]"},
        BadHeader{"size_large", Tensor(R"("F32")", "[8]", "[0,8]"),
                  "size does not fit, got 8 bytes, want 32 for F32 [8]"},
        BadHeader{"hole_first", Tensor(R"("U8")", "[7]", "[1,8]"),
                  "leave a hole before it, got begin 1, want 0"},
        BadHeader{
            "hole",
            R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
            R"(tensor "b": data_offsets leave a hole before it, got begin 4, want 3)"},
        BadHeader{
            "overlap",
            R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
            R"(tensor "b": data_offsets overlap the tensor before, got begin 4, want 5)"},
        BadHeader{
            "shared",
            R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
            "overlap"},
        BadHeader{"bytes_after", Tensor(R"("U8")", "[7]", "[0,7]"), "got 8 bytes of data, want 7"},
        BadHeader{"no_tensor_for_data", "{}", "got 8 bytes of data, want 0"},
        BadHeader{"metadata_number", R"({"__metadata__":{"a":1}})",
                  R"(__metadata__: the value of "a" is wrong, got 1)"},
        BadHeader{"metadata_nested", R"({"__metadata__":{"a":{}}})", "got an object, want a string"},
        BadHeader{"metadata_list", R"({"__metadata__":[]})", "__metadata__: got a list, want an object"},
        BadHeader{"metadata_twice", R"({"__metadata__":{},"__metadata__":{}})",
                  "__metadata__: the name stands there twice"},
        BadHeader{"metadata_key_twice", R"({"__metadata__":{"a":"1","a":"2"}})",
                  R"(the key "a" stands there twice)"},
        BadHeader{"name_too_long", Cat("{\"", std::string(1025, 'n'), "\":{}}"),
                  "got a tensor name of 1025 bytes"},
        BadHeader{"name_not_utf8", "{\"\xff\":{}}", "not valid JSON"},
        BadHeader{"deep", "{\"t\":{\"shape\":" + std::string(100'000, '['), "shape is wrong, got a list"}),
    [](const auto& param) { return param.param.name; });

TEST(ParseSafetensors, RefusesLengthsThatCannotBe) {
  EXPECT_THAT(Message(Parse("").status()), HasSubstr("got 0 bytes, want at least 8"));
  EXPECT_THAT(Message(Parse("1234567").status()), HasSubstr("got 7 bytes, want at least 8"));
  EXPECT_THAT(Message(Parse(std::string(8, '\xff')).status()),
              HasSubstr("got 18446744073709551615 bytes, want at most"));
  std::string file = File("{}", "");
  file[0] = 3;
  EXPECT_THAT(Message(Parse(file).status()), HasSubstr("got 2 bytes, want 3"));
  const uint64_t above = kMaxSafetensorsHeaderBytes + 1;
  std::memcpy(file.data(), &above, 8);
  EXPECT_THAT(Message(Parse(file).status()), HasSubstr("got 100000001 bytes, want at most 100000000"));
}

TEST(ParseSafetensors, RefusesMoreThanAMillionTensors) {
  std::string header = "{";
  for (size_t i = 0; i <= kMaxTensors; ++i)
    header += Cat(i == 0 ? "" : ",", "\"", i, R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  const Status status = Parse(File(header + "}", "")).status();
  EXPECT_THAT(Message(status), HasSubstr("got more than 1000000 tensors"));
}

TEST(ParseSafetensors, EveryTruncationIsRefused) {
  const std::string file = GoodFile();
  ASSERT_TRUE(Parse(file).ok());
  const size_t header_end = HeaderEnd(file);
  for (size_t n = 0; n < file.size(); n += n < header_end + 64 ? 1 : 37) {
    const std::string cut = file.substr(0, n);  // its own allocation: a read beyond it is seen by ASan
    EXPECT_TRUE(absl::IsInvalidArgument(Parse(cut).status())) << n;
  }
  EXPECT_FALSE(Parse(file.substr(0, file.size() - 1)).ok());
  EXPECT_FALSE(Parse(file + "x").ok());
}

// What a model sees of a file, but for names.
std::vector<std::tuple<const uint8_t*, size_t, Dtype, Shape>> Structure(const SafetensorsFile& parsed) {
  std::vector<std::tuple<const uint8_t*, size_t, Dtype, Shape>> all;
  for (const auto& [name, view] : parsed.tensors)
    all.emplace_back(view.bytes.data(), view.bytes.size(), view.dtype, view.shape);
  std::sort(all.begin(), all.end());
  return all;
}

TEST(ParseSafetensors, AFlippedHeaderByteIsRefusedOrChangesOneName) {
  std::string file = GoodFile();
  const auto want = Structure(*Parse(file));
  const size_t header_end = HeaderEnd(file);
  int refused = 0, accepted = 0;
  for (size_t at = 0; at < header_end; ++at) {
    for (const int mask : {1, 32, 255}) {
      const char was = file[at];
      file[at] = static_cast<char>(was ^ mask);
      const Result<SafetensorsFile> parsed = Parse(file);
      (parsed.ok() ? accepted : refused)++;
      if (parsed.ok()) {
        ASSERT_EQ(Structure(*parsed), want) << at << " ^ " << mask;
      }
      file[at] = was;
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(accepted, 0);
}

TEST(ParseSafetensors, RandomMutationsAreRefusedOrSound) {
  const std::string good = GoodFile();
  const size_t header_end = HeaderEnd(good);
  const std::string header = good.substr(8, header_end - 8), data = good.substr(header_end);
  std::mt19937 random(2024);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    // Half of them with the length that fits the mutated header, half with whatever came out.
    const std::string file =
        i % 2 == 0 ? File(Mutated(header, random), data) : Mutated(good.substr(0, header_end), random) + data;
    const Result<SafetensorsFile> parsed = Parse(file);
    if (parsed.ok()) {
      ASSERT_NO_FATAL_FAILURE(ExpectSound(*parsed, file)) << i;
    } else {
      EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << i << ": " << parsed.status();
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(SafetensorsBytes, LaysOutTheBytesOfTheFormat) {
  const std::string floats("\0\0\x80?\0\0\0@", 8);
  const std::string file = SafetensorsBytes({{"b", Dtype::kU8, {3}, Bytes("xyz")},
                                             {"a\"", Dtype::kI8, {}, Bytes("q")},
                                             {"z", Dtype::kF32, {2, 1}, Bytes(floats)}},
                                            {{"k", "v"}, {"j", "\n"}});
  std::string header =
      R"({"__metadata__":{"j":"\n","k":"v"},"z":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("a\"":{"dtype":"I8","shape":[],"data_offsets":[8,9]},)"
      R"("b":{"dtype":"U8","shape":[3],"data_offsets":[9,12]}})";
  header.resize((header.size() + 8 + 63) / 64 * 64 - 8, ' ');
  EXPECT_EQ(file, File(header, floats + "qxyz"));
}

TEST(SafetensorsBytes, OrderOfInputDoesNotMatter) {
  std::vector<TensorOut> tensors{{"a", Dtype::kU8, {1}, Bytes("1")},
                                 {"c", Dtype::kF16, {1}, Bytes("22")},
                                 {"b", Dtype::kI64, {1}, Bytes("88888888")},
                                 {"d", Dtype::kU8, {0, 3}, {}}};
  const std::string file = SafetensorsBytes(tensors);
  std::reverse(tensors.begin(), tensors.end());
  EXPECT_EQ(SafetensorsBytes(tensors), file);
}

TEST(SafetensorsBytes, ComesBackThroughTheReaderAligned) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::string> store;
    std::vector<TensorOut> tensors;
    const int count = std::uniform_int_distribution<int>(0, 12)(random);
    store.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      const auto dtype = static_cast<Dtype>(random() % 10);
      Shape shape;
      for (size_t d = random() % 4; d > 0; --d) shape.push_back(static_cast<int64_t>(random() % 5));
      std::string& bytes =
          store.emplace_back(static_cast<size_t>(*ElementsOf(shape) * DtypeBytes(dtype)), '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      tensors.push_back({Cat("t", i), dtype, shape, Bytes(bytes)});
    }
    const std::string file = SafetensorsBytes(tensors, {{"round", Cat(round)}});
    const Result<SafetensorsFile> parsed = Parse(file);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    ASSERT_EQ(parsed->tensors.size(), tensors.size());
    EXPECT_EQ(parsed->metadata.at("round"), Cat(round));
    EXPECT_EQ(HeaderEnd(file) % 64, 0u);
    for (const TensorOut& t : tensors) {
      const TensorView& view = parsed->tensors.at(t.name);
      EXPECT_EQ(view.dtype, t.dtype);
      EXPECT_EQ(view.shape, t.shape);
      EXPECT_EQ(Text(view.bytes), Text(t.bytes));
      EXPECT_EQ((reinterpret_cast<const char*>(view.bytes.data()) - file.data()) % DtypeBytes(t.dtype), 0);
    }
  }
}

TEST(SafetensorsBytesDeathTest, BrokenPromisesStopTheProgram) {
  EXPECT_DEATH(SafetensorsBytes({{"a", Dtype::kU8, {1}, Bytes("1")}, {"a", Dtype::kU8, {1}, Bytes("1")}}),
               "given twice");
  EXPECT_DEATH(SafetensorsBytes({{"a", Dtype::kF32, {2}, Bytes("1234")}}), "got 4 bytes for F32");
}

TEST(ElementsOf, CountsAndSeesOverflow) {
  EXPECT_EQ(ElementsOf(Shape{}), 1);
  EXPECT_EQ(ElementsOf(Shape{2, 3, 4}), 24);
  EXPECT_EQ(ElementsOf(Shape{2, 0, 4}), 0);
  EXPECT_EQ(ElementsOf(Shape{INT64_MAX, 1}), INT64_MAX);
  EXPECT_EQ(ElementsOf(Shape{INT64_MAX, 2}), std::nullopt);
  EXPECT_EQ(ElementsOf(Shape{-1}), std::nullopt);
}

TEST(ShapeText, ReadsAsAList) {
  EXPECT_EQ(ShapeText(Shape{4, 3, 3}), "[4, 3, 3]");
  EXPECT_EQ(ShapeText(Shape{}), "[]");
}

}  // namespace
}  // namespace tempera
