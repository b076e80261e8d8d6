#include "weights/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/base/temp_folder.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kStem[] = "diffusion_pytorch_model";
constexpr char kFile[] = "diffusion_pytorch_model.safetensors";
constexpr char kIndex[] = "diffusion_pytorch_model.safetensors.index.json";

std::string OneTensor(std::string_view name, std::string_view bytes) {
  return SafetensorsBytes({{.name = std::string(name),
                            .dtype = Dtype::kU8,
                            .shape = {static_cast<int64_t>(bytes.size())},
                            .bytes = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}}},
                          {{"from", std::string(name)}});
}

Result<std::shared_ptr<const WeightSource>> Open(const fs::path& folder) {
  return WeightSource::Open(folder, kStem, "unet");
}

TEST(WeightSource, ReadsHalfPrecisionModels) {
  for (const auto& [folder, dtype] :
       {std::pair("golden/unet/fp16/unet", Dtype::kF16), std::pair("golden/unet/bf16/unet", Dtype::kBF16)}) {
    const auto source = Open(folder);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ((*source)->tensors().size(), 145u);
    for (const auto& [name, view] : (*source)->tensors()) EXPECT_EQ(view.dtype, dtype) << name;
    EXPECT_EQ((*source)->tensors().at("class_embedding.weight").shape, (Shape{10, 64}));
    EXPECT_EQ((*source)->metadata().at("format"), "pt");
    EXPECT_EQ((*source)->FileOf("conv_in.bias"), Cat("unet/", kFile));
  }
}

TEST(WeightSource, ReadsShardsAsOneModel) {
  const auto source = Open("golden/unet/sharded/unet");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->tensors().size(), 145u);
  size_t bytes = 0;
  for (const auto& [name, view] : (*source)->tensors()) bytes += view.bytes.size();
  EXPECT_EQ(bytes, 712268u);  // total_size of the index
  EXPECT_EQ((*source)->FileOf("conv_in.bias"), "unet/diffusion_pytorch_model-00001-of-00003.safetensors");
  EXPECT_EQ((*source)->FileOf("conv_norm_out.bias"),
            "unet/diffusion_pytorch_model-00003-of-00003.safetensors");
  EXPECT_TRUE((*source)->metadata().empty());
}

TEST(WeightSource, ViewsOutliveTheSource) {
  TempFolder folder;
  folder.Write(kFile, OneTensor("t", "hello"));
  auto source = Open(folder.path());
  ASSERT_TRUE(source.ok()) << source.status();
  const TensorView view = *(*source)->Find("t");
  source->reset();
  EXPECT_EQ(std::string(view.bytes.begin(), view.bytes.end()), "hello");
}

TEST(WeightSource, FindNamesFileAndTensor) {
  TempFolder folder;
  folder.Write(kFile, OneTensor("t", "hello"));
  const auto source = Open(folder.path());
  ASSERT_TRUE(source.ok()) << source.status();
  const Status status = (*source)->Find("u").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(Message(status), "unet/diffusion_pytorch_model.safetensors: tensor \"u\" is missing");
  EXPECT_EQ((*source)->FileOf("u"), Cat("unet/", kFile));
}

TEST(WeightSource, OpenFileReadsOneFile) {
  TempFolder folder;
  const auto source =
      WeightSource::OpenFile(folder.Write("tables.safetensors", OneTensor("t", "x")), "tables.safetensors");
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->FileOf("t"), "tables.safetensors");
  EXPECT_EQ((*source)->metadata().at("from"), "t");
  const Status missing = WeightSource::OpenFile(folder / "none.safetensors", "none.safetensors").status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_THAT(Message(missing), StartsWith("none.safetensors: "));
}

TEST(WeightSource, DigestFollowsTheBytes) {
  TempFolder folder;
  const std::string good = OneTensor("t", "hello");
  folder.Write(kFile, good);
  const std::string digest = *(*Open(folder.path()))->Digest();
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(*(*Open(folder.path()))->Digest(), digest);
  std::string other = good;
  other.back() ^= 1;
  fs::remove(folder / kFile);
  folder.Write(kFile, other);
  EXPECT_NE(*(*Open(folder.path()))->Digest(), digest);
}

TEST(WeightSource, TheWholeFileIsTakenBeforeTheIndex) {
  TempFolder folder;
  folder.Write(kFile, OneTensor("whole", "x"));
  folder.Write(kIndex, R"({"weight_map":{"t":"a.safetensors"}})");
  EXPECT_TRUE((*Open(folder.path()))->tensors().contains("whole"));
}

TEST(WeightSource, NoWeightsIsNotFound) {
  TempFolder folder;
  folder.Write("config.json", "{}");
  const Status status = Open(folder.path()).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(Message(status), StartsWith("unet/diffusion_pytorch_model.safetensors: "));
  EXPECT_FALSE(Open(folder / "none").ok());
}

TEST(WeightSource, PicklesAreRefusedByName) {
  for (const char* pickle :
       {"diffusion_pytorch_model.bin", "diffusion_pytorch_model.pt", "model.ckpt", "any.pth"}) {
    TempFolder folder;
    folder.Write(pickle, "\x80\x02");
    const Status status = Open(folder.path()).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(Message(status), StartsWith(Cat("unet/", pickle, ": a pickle")));
  }
}

TEST(WeightSource, APickleOfTheStemIsNamedBeforeOthers) {
  TempFolder folder;
  folder.Write("a.bin", "");
  folder.Write("diffusion_pytorch_model.pt", "");
  EXPECT_THAT(Message(Open(folder.path()).status()), StartsWith("unet/diffusion_pytorch_model.pt: "));
}

TEST(WeightSource, FoldersAndPipesAreNoWeights) {
  TempFolder folder;
  fs::create_directory(folder / kFile);
  EXPECT_THAT(Message(Open(folder.path()).status()), HasSubstr("not a regular file"));
  fs::remove(folder / kFile);
  ASSERT_EQ(mkfifo((folder / kFile).c_str(), 0600), 0);
  EXPECT_THAT(Message(Open(folder.path()).status()), HasSubstr("not a regular file"));
}

TEST(WeightSource, LinksMayStayInTheFolderAndNotLeaveIt) {
  TempFolder folder;
  folder.Write("model/blobs/b", OneTensor("t", "x"));
  folder.Write("secret", OneTensor("t", "x"));
  fs::create_symlink("blobs/b", folder / "model" / kFile);
  EXPECT_TRUE(Open(folder / "model").ok());
  for (const fs::path& target : {fs::path("../secret"), folder / "secret"}) {
    fs::remove(folder / "model" / kFile);
    fs::create_symlink(target, folder / "model" / kFile);
    const Status status = Open(folder / "model").status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
    EXPECT_THAT(Message(status), StartsWith("unet/diffusion_pytorch_model.safetensors: a symbolic link"));
    EXPECT_THAT(Message(status), Not(HasSubstr("secret")));
  }
}

TEST(WeightSource, ADanglingLinkIsNotFound) {
  TempFolder folder;
  fs::create_symlink("none", folder / kFile);
  EXPECT_TRUE(absl::IsNotFound(Open(folder.path()).status()));
}

// Two sound shards; tests bend the index or the files.
class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("model/a.safetensors", OneTensor("t", "x"));
    folder_.Write("model/b.safetensors", OneTensor("u", "yz"));
    folder_.Write("outside.safetensors", OneTensor("u", "yz"));
  }
  Status OpenWith(std::string_view index) const {
    folder_.Write(Cat("model/", kIndex), index);
    return Open(folder_ / "model").status();
  }
  TempFolder folder_;
};

TEST_F(Shards, OpenTogether) {
  EXPECT_TRUE(
      OpenWith(R"({"metadata":{"total_size":3},"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})")
          .ok());
  const auto source = Open(folder_ / "model");
  EXPECT_EQ((*source)->FileOf("u"), "unet/b.safetensors");
  EXPECT_THAT(Message((*source)->Find("v").status()), StartsWith(Cat("unet/", kIndex, ": tensor \"v\"")));
}

TEST_F(Shards, MustLieInTheirFolder) {
  fs::create_directories(folder_ / "model/sub");
  fs::copy(folder_ / "model/b.safetensors", folder_ / "model/sub/b.safetensors");
  for (const std::string& shard :
       {std::string("../outside.safetensors"), (folder_ / "outside.safetensors").string(),
        std::string("sub/b.safetensors"), std::string(".."), std::string(""), std::string("."),
        std::string("b.bin"), std::string("..\\\\b.safetensors"),
        std::string("b.safetensors\\u0000.safetensors")}) {
    const Status status = OpenWith(Cat(R"({"weight_map":{"t":"a.safetensors","u":")", shard, "\"}}"));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << shard << ": " << status;
    EXPECT_THAT(Message(status), HasSubstr(R"(weight_map: tensor "u": got file)")) << shard;
  }
}

TEST_F(Shards, MustNotBeLinksThatLeaveTheirFolder) {
  fs::create_symlink("../outside.safetensors", folder_ / "model/c.safetensors");
  const Status status = OpenWith(R"({"weight_map":{"t":"a.safetensors","u":"c.safetensors"}})");
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(Message(status), StartsWith("unet/c.safetensors: a symbolic link"));
}

struct BadIndex {
  std::string name;
  std::string index;
  std::string says;
};

class BadIndexTest : public Shards, public ::testing::WithParamInterface<BadIndex> {};

TEST_P(BadIndexTest, IsRefusedByName) {
  const Status status = OpenWith(GetParam().index);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(Message(status), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Indices, BadIndexTest,
    ::testing::Values(
        BadIndex{"empty", "", Cat("unet/", kIndex, ": not valid JSON")},
        BadIndex{"list", "[]", Cat("unet/", kIndex, ": got [], want a JSON object")},
        BadIndex{"no_map", "{}", "weight_map is missing"},
        BadIndex{"map_null", R"({"weight_map":null})", "weight_map is missing"},
        BadIndex{"map_list", R"({"weight_map":["a.safetensors"]})", "weight_map is wrong"},
        BadIndex{"map_empty", R"({"weight_map":{}})", "weight_map is wrong"},
        BadIndex{"unknown_key", R"({"weight_map":{"t":"a.safetensors"},"x":1})", "x is not supported"},
        BadIndex{"not_a_name", R"({"weight_map":{"t":1}})", R"(tensor "t": got number, want a file name)"},
        BadIndex{"name_twice", R"({"weight_map":{"t":"a.safetensors","t":"b.safetensors"}})",
                 "\"t\" stands there twice"},
        BadIndex{"not_in_index", R"({"weight_map":{"u":"b.safetensors","v":"a.safetensors"}})",
                 R"(unet/a.safetensors: tensor "t" is not in the index)"},
        BadIndex{"not_in_shard",
                 R"({"weight_map":{"t":"a.safetensors","u":"b.safetensors","v":"b.safetensors"}})",
                 R"(index.json: tensor "v" is not in "b.safetensors", where the index puts it)"},
        BadIndex{
            "swapped", R"({"weight_map":{"t":"b.safetensors","u":"a.safetensors"}})",
            R"(unet/a.safetensors: tensor "t" is in the wrong shard, got "a.safetensors", want "b.safetensors")"},
        BadIndex{"missing_shard", R"({"weight_map":{"t":"a.safetensors","u":"none.safetensors"}})",
                 "unet/none.safetensors: cannot open"}),
    [](const auto& param) { return param.param.name; });

TEST_F(Shards, ATensorMayNotStandInTwo) {
  folder_.Write("model/b.safetensors",
                SafetensorsBytes({{"t", Dtype::kU8, {0}, {}}, {"u", Dtype::kU8, {0}, {}}}));
  const Status status = OpenWith(R"({"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})");
  EXPECT_THAT(Message(status), StartsWith("unet/b.safetensors: tensor \"t\" is in the wrong shard"));
}

TEST_F(Shards, ADamagedOneIsNamed) {
  folder_.Write("model/b.safetensors", "123");
  EXPECT_THAT(Message(OpenWith(R"({"weight_map":{"t":"a.safetensors","u":"b.safetensors"}})")),
              StartsWith("unet/b.safetensors: too short"));
}

}  // namespace
}  // namespace tempera
