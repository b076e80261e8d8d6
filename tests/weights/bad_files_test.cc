// The broken model folders in golden/bad whose fault lies in the weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "weights/weights.h"

namespace tempera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct BadFolder {
  std::string folder;
  std::string file;  // that the error must name, after the stem
  std::string says;
};

class BadFolderTest : public ::testing::TestWithParam<BadFolder> {};

TEST_P(BadFolderTest, IsRefusedWithAnErrorThatNamesFileAndFault) {
  const auto source =
      WeightSource::Open("golden/bad/" + GetParam().folder, "diffusion_pytorch_model", "unet");
  ASSERT_FALSE(source.ok());
  EXPECT_THAT(
      Message(source.status()),
      AllOf(StartsWith("unet/diffusion_pytorch_model" + GetParam().file + ": "), HasSubstr(GetParam().says)));
}

constexpr char kOne[] = ".safetensors";
INSTANTIATE_TEST_SUITE_P(
    Golden, BadFolderTest,
    ::testing::Values(
        BadFolder{"truncated", kOne,
                  R"(tensor "time_embedding.linear_1.weight": data_offsets lie beyond the end)"},
        BadFolder{"truncated_header", kOne, "header does not fit in the file, got 2968 bytes, want 5936"},
        BadFolder{"truncated_length", kOne, "got 5 bytes, want at least 8"},
        BadFolder{"empty", kOne, "got 0 bytes, want at least 8"},
        BadFolder{"header_too_long", kOne, "header does not fit in the file, got 17372 bytes, want 278080"},
        BadFolder{"header_huge", kOne, "got 18446744073709551615 bytes, want at most 100000000"},
        BadFolder{"header_not_json", kOne, "not valid JSON"},
        BadFolder{"header_not_object", kOne, "does not begin with {"},
        BadFolder{"overlapping_offsets", kOne, R"(tensor "conv_out.bias": data_offsets overlap)"},
        BadFolder{"offset_beyond_end", kOne,
                  R"(tensor "up_blocks.0.resnets.1.time_emb_proj.weight": data_offsets lie beyond)"},
        BadFolder{"offset_reversed", kOne,
                  R"(tensor "conv_norm_out.bias": data_offsets end before they begin)"},
        BadFolder{"offset_negative", kOne, R"(tensor "conv_norm_out.bias": data_offsets is wrong, got -8)"},
        BadFolder{"unknown_dtype", kOne, R"(tensor "conv_norm_out.bias": dtype is unknown, got "F33")"},
        BadFolder{"size_mismatch_dtype", kOne,
                  R"(tensor "conv_norm_out.bias": size does not fit, got 16 bytes, want 32)"},
        BadFolder{"size_mismatch_shape", kOne,
                  R"(tensor "conv_in.weight": size does not fit, got 432 bytes, want 540)"},
        BadFolder{"shape_overflow", kOne, R"(tensor "conv_in.weight": the size of shape)"},
        BadFolder{"shape_negative", kOne, R"(tensor "conv_in.bias": shape is wrong, got -4)"},
        BadFolder{"duplicate_name", kOne, R"(tensor "conv_in.bias": the name stands there twice)"},
        BadFolder{"pickle_bin", ".bin", "a pickle"},
        BadFolder{"pickle_renamed", kOne, "not a safetensors file"},
        BadFolder{"shard_missing", "-00002-of-00002.safetensors", "cannot open"},
        BadFolder{"shard_outside", ".safetensors.index.json", "../good/diffusion_pytorch_model.safetensors"},
        BadFolder{"shard_wrong_file", "-00001-of-00002.safetensors",
                  R"(tensor "conv_in.bias" is in the wrong shard)"},
        BadFolder{"index_not_json", ".safetensors.index.json", "not valid JSON"}),
    [](const auto& param) { return param.param.folder; });

// Their fault lies in the config or in the tensors that a model asks for: another layer's to find.
class SoundFolderTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SoundFolderTest, Opens) {
  const auto source = WeightSource::Open(Cat("golden/bad/", GetParam()), "diffusion_pytorch_model", "unet");
  EXPECT_TRUE(source.ok()) << source.status();
}

INSTANTIATE_TEST_SUITE_P(Golden, SoundFolderTest,
                         ::testing::Values("good", "missing_tensor", "extra_tensor", "wrong_shape",
                                           "not_a_number", "config_not_json", "config_missing",
                                           "config_unknown_class"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace tempera
