#include "artifact/artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <random>

#include "artifact/baseline.h"
#include "base/files.h"
#include "tests/base/temp_folder.h"
#include "tests/weights/mutate.h"
#include "weights/weights.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

Manifest Sample() {
  Manifest m;
  m.source_name = "fashion";
  m.source_sha256 = Sha256Hex("source");
  m.spec = {{"method", "tfmq"}, {"weight_bits", 4}, {"eta", 0.1}};
  m.schedule = {{"scheduler", "ddim"}, {"timesteps", {999, 500, 1}}};
  m.model = {{"class", "DDPMPipeline"}, {"note", "\u00e9 \"quoted\"\n"}};
  m.slots = Json::array({{{"name", "down_blocks.0.conv1"}, {"bits", 4}}});
  m.baseline = Json::array({0.25, 1e-7, 3.0});
  m.libraries = {{"tempera", "0.1.0"}};
  return m;
}

// A complete artifact in a folder.
class Artifact : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string codes = "0123456789abcdef";
    Add(kWeightsFile,
        SafetensorsBytes({{"w", Dtype::kU8, {16}, {reinterpret_cast<const uint8_t*>(codes.data()), 16}}}));
    Add(kTablesFile, std::string(300, 't'));
    Add(kEvaluationFile, R"({"psnr":31.5})");
    Add("pictures/0.png", "png");
    Add("empty", "");
    Publish();
    folder_.Write(kMeasurementsFile, "{}");
    folder_.Write(kReportHtmlFile, "<html>");
  }
  void Add(const std::string& name, const std::string& bytes) {
    folder_.Write(name, bytes);
    manifest_.files[name] = {Sha256Hex(bytes), static_cast<int64_t>(bytes.size())};
  }
  void Publish() {
    id_ = manifest_.Id();
    folder_.Write(kManifestFile, manifest_.Text());
  }
  Status Verify() const { return VerifyArtifact(CallScope{}, folder_.path(), id_).status(); }
  std::string Prefix() const { return Cat("artifact ", id_.substr(0, 12), ": "); }

  TempFolder folder_;
  Manifest manifest_ = Sample();
  std::string id_;
};

TEST(Manifest, ComesBackFromItsText) {
  Manifest m = Sample();
  m.files["weights.safetensors"] = {Sha256Hex("w"), 1};
  m.files["pictures/0.png"] = {Sha256Hex("p"), INT64_MAX};
  const Result<Manifest> back = Manifest::Parse(m.Text(), "manifest.json");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->Text(), m.Text());
  EXPECT_EQ(back->source_name, "fashion");
  EXPECT_EQ(back->spec, m.spec);
  EXPECT_EQ(back->slots, m.slots);
  EXPECT_EQ(back->files.at("pictures/0.png").bytes, INT64_MAX);
  EXPECT_EQ(back->Id(), Sha256Hex(m.Text()));
  EXPECT_TRUE(IsArtifactId(m.Id()));
}

TEST(Manifest, IdFollowsEveryField) {
  const std::string id = Sample().Id();
  EXPECT_EQ(Sample().Id(), id);
  const std::function<void(Manifest&)> changes[] = {[](Manifest& m) { m.source_name += "x"; },
                                                    [](Manifest& m) { m.source_sha256 = Sha256Hex("other"); },
                                                    [](Manifest& m) { m.spec["weight_bits"] = 8; },
                                                    [](Manifest& m) { m.schedule["eta"] = 1; },
                                                    [](Manifest& m) { m.model["classes"] = 10; },
                                                    [](Manifest& m) { m.slots.push_back(Json::object()); },
                                                    [](Manifest& m) { m.baseline[0] = 0.26; },
                                                    [](Manifest& m) { m.libraries["onednn"] = "2.6"; },
                                                    [](Manifest& m) {
                                                      m.files["f"] = {Sha256Hex(""), 0};
                                                    },
                                                    [](Manifest& m) { m.version = 2; }};
  for (const auto& change : changes) {
    Manifest m = Sample();
    change(m);
    EXPECT_NE(m.Id(), id) << m.Text();
  }
}

TEST(Manifest, AnotherVersionIsRefusedWithBothNumbers) {
  for (const int version : {0, 2, 77, -1}) {
    Manifest m = Sample();
    m.version = version;
    const Status status = Manifest::Parse(m.Text(), "manifest.json").status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(Cat("got version ", version, ", want version 1")));
  }
  // What else another version holds is not looked at.
  const Status status = Manifest::Parse(R"({"version":2,"new":[]})", "manifest.json").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

struct Bent {
  std::string name;
  std::function<void(Json&)> bend;
  std::string says;
};

class BentManifest : public ::testing::TestWithParam<Bent> {};

TEST_P(BentManifest, IsRefusedByField) {
  Json json = *ParseJson(Sample().Text(), "sample");
  GetParam().bend(json);
  const Status status = Manifest::Parse(CanonicalJson(json), "manifest.json").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(Message(status), StartsWith("manifest.json: "));
  EXPECT_THAT(Message(status), HasSubstr(GetParam().says));
}

Json Entry() { return {{"sha256", Sha256Hex("")}, {"bytes", 0}}; }

INSTANTIATE_TEST_SUITE_P(
    Fields, BentManifest,
    ::testing::Values(
        Bent{"extra_key", [](Json& j) { j["extra"] = 1; }, "extra is not supported"},
        Bent{"no_version", [](Json& j) { j.erase("version"); }, "version is missing"},
        Bent{"version_text", [](Json& j) { j["version"] = "1"; }, "version is wrong"},
        Bent{"version_float", [](Json& j) { j["version"] = 1.0; }, "version is wrong"},
        Bent{"no_source", [](Json& j) { j.erase("source_name"); }, "source_name is missing"},
        Bent{"source_digest", [](Json& j) { j["source_sha256"] = "abc"; }, "source_sha256 is wrong"},
        Bent{"source_digest_upper", [](Json& j) { j["source_sha256"] = std::string(64, 'A'); },
             "source_sha256 is wrong"},
        Bent{"no_spec", [](Json& j) { j.erase("spec"); }, "spec is missing"},
        Bent{"spec_null", [](Json& j) { j["spec"] = nullptr; }, "spec is missing"},
        Bent{"slots_number", [](Json& j) { j["slots"] = 3; }, "slots is wrong, got number"},
        Bent{"no_files", [](Json& j) { j.erase("files"); }, "files is missing"},
        Bent{"files_list", [](Json& j) { j["files"] = Json::array(); }, "files is wrong, got array"},
        Bent{"file_extra_key", [](Json& j) { (j["files"]["f"] = Entry())["mode"] = 1; },
             "\"f\": mode is not supported"},
        Bent{"file_no_digest", [](Json& j) { (j["files"]["f"] = Entry()).erase("sha256"); },
             "sha256 is missing"},
        Bent{"file_no_bytes", [](Json& j) { (j["files"]["f"] = Entry()).erase("bytes"); },
             "bytes is missing"},
        Bent{"file_digest_short", [](Json& j) { (j["files"]["f"] = Entry())["sha256"] = "00"; },
             "sha256 is wrong"},
        Bent{"file_bytes_negative", [](Json& j) { (j["files"]["f"] = Entry())["bytes"] = -1; },
             "bytes is wrong, got -1"},
        Bent{"file_bytes_float", [](Json& j) { (j["files"]["f"] = Entry())["bytes"] = 0.5; },
             "bytes is wrong"},
        Bent{"file_not_object", [](Json& j) { j["files"]["f"] = "x"; }, "want a JSON object"}),
    [](const auto& param) { return param.param.name; });

TEST(Manifest, FileNamesStayInTheFolder) {
  for (const std::string& name :
       {std::string(""), std::string("."), std::string(".."), std::string("../x"), std::string("a/../../x"),
        std::string("a/.."), std::string("/etc/passwd"), std::string("/"), std::string("a//b"),
        std::string("a/"), std::string("./a"), std::string("a\\b"), std::string("a\0b", 3),
        std::string("a\nb"), std::string(1025, 'a'), std::string(kManifestFile),
        std::string(kMeasurementsFile), std::string(kReportJsonFile), std::string(kReportHtmlFile)}) {
    Manifest m = Sample();
    m.files[name] = {Sha256Hex(""), 0};
    const Status status = Manifest::Parse(m.Text(), "manifest.json").status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name;
    EXPECT_THAT(Message(status), HasSubstr("manifest.json: files: got the name")) << name;
  }
  Manifest m = Sample();
  m.files["..a/b..c/...d"] = {Sha256Hex(""), 0};
  EXPECT_TRUE(Manifest::Parse(m.Text(), "manifest.json").ok());
}

TEST(Manifest, OnlyTheCanonicalTextIsTaken) {
  const std::string text = Sample().Text();
  ASSERT_TRUE(Manifest::Parse(text, "m").ok());
  for (const std::string& other : {text + "\n", " " + text, std::string(text).replace(0, 1, "{ ")}) {
    const Status status = Manifest::Parse(other, "m").status();
    EXPECT_THAT(Message(status), HasSubstr("not in canonical form")) << other;
  }
}

TEST(Manifest, EveryTruncationIsRefused) {
  const std::string text = Sample().Text();
  for (size_t n = 0; n < text.size(); ++n) EXPECT_FALSE(Manifest::Parse(text.substr(0, n), "m").ok()) << n;
}

TEST(Manifest, MutationsAreRefusedOrSound) {
  Manifest sample = Sample();
  for (const char* name : {"weights.safetensors", "tables.safetensors", "pictures/0.png"})
    sample.files[name] = {Sha256Hex(name), 1234};
  const std::string text = sample.Text();
  std::mt19937 random(11);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string mutated = Mutated(text, random);
    const Result<Manifest> parsed = Manifest::Parse(mutated, "manifest.json");
    if (!parsed.ok()) {
      ++refused;
      EXPECT_TRUE(absl::IsInvalidArgument(parsed.status()) || absl::IsFailedPrecondition(parsed.status()))
          << parsed.status();
      continue;
    }
    ASSERT_EQ(parsed->Text(), mutated) << "the id would not be that of the bytes";
    for (const auto& [name, entry] : parsed->files) {
      EXPECT_THAT(name, Not(HasSubstr("..")));
      EXPECT_THAT(name, Not(StartsWith("/")));
      EXPECT_GE(entry.bytes, 0);
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(IsArtifactId, Takes64LowerCaseDigits) {
  EXPECT_TRUE(IsArtifactId(Sha256Hex("")));
  EXPECT_TRUE(IsArtifactId(std::string(64, 'f')));
  EXPECT_FALSE(IsArtifactId(std::string(64, 'F')));
  EXPECT_FALSE(IsArtifactId(std::string(64, 'g')));
  EXPECT_FALSE(IsArtifactId(std::string(63, '0')));
  EXPECT_FALSE(IsArtifactId(std::string(65, '0')));
  EXPECT_FALSE(IsArtifactId(""));
}

TEST_F(Artifact, VerifiesWithAndWithoutItsId) {
  const auto manifest = VerifyArtifact(CallScope{}, folder_.path(), id_);
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->Id(), id_);
  EXPECT_EQ(manifest->files.size(), 5u);
  EXPECT_TRUE(VerifyArtifact(CallScope{}, folder_.path(), "").ok());
}

TEST_F(Artifact, OneFlippedBitInAnyHashedFileIsFound) {
  std::vector<std::string> names{kManifestFile};
  for (const auto& [name, entry] : manifest_.files)
    if (entry.bytes > 0) names.push_back(name);
  for (const std::string& name : names) {
    const std::string good = Slurp(folder_ / name);
    for (size_t at = 0; at < good.size(); at += 1 + good.size() / 40) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
      folder_.Write(name, bad);
      const Status status = Verify();
      ASSERT_TRUE(absl::IsDataLoss(status)) << name << " at " << at << ": " << status;
      ASSERT_THAT(Message(status), StartsWith(Prefix() + name + ": sha256 is wrong, got "));
    }
    folder_.Write(name, good);
    ASSERT_TRUE(Verify().ok());
  }
}

TEST_F(Artifact, OneFlippedBitBesideTheManifestIsFoundByTheDigests) {
  folder_.Write(kReportJsonFile, R"({"version":1})");
  std::map<std::string, FileEntry> beside;
  for (const char* name : {kMeasurementsFile, kReportJsonFile, kReportHtmlFile}) {
    const std::string bytes = *ReadFile(folder_.path() / name, name);
    beside[name] = {Sha256Hex(bytes), static_cast<int64_t>(bytes.size())};
  }
  folder_.Write(kDigestsFile, DigestsText(beside));
  EXPECT_TRUE(Verify().ok()) << Verify();
  for (const char* name : {kMeasurementsFile, kReportJsonFile, kReportHtmlFile, kDigestsFile}) {
    const std::string sound = *ReadFile(folder_.path() / name, name);
    for (size_t bit = 0; bit < 8 * sound.size(); ++bit) {
      std::string damaged = sound;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      folder_.Write(name, damaged);
      const Status status = Verify();
      ASSERT_TRUE(absl::IsDataLoss(status)) << name << " bit " << bit << ": " << status;
      if (name != std::string(kDigestsFile)) {
        EXPECT_THAT(Message(status), StartsWith(Prefix() + name));
      }
    }
    folder_.Write(name, sound);
  }
  folder_.Write(kDigestsFile, R"({"weights.safetensors":{"bytes":1,"sha256":""}})");
  EXPECT_TRUE(absl::IsDataLoss(Verify())) << Verify();
}

TEST_F(Artifact, FilesThatAreNotHashedMayChangeOrBeMissing) {
  folder_.Write(kMeasurementsFile, "{\"other\":1}");
  fs::remove(folder_ / kReportHtmlFile);
  EXPECT_TRUE(Verify().ok()) << Verify();
}

TEST_F(Artifact, AMissingFileIsNamed) {
  for (const auto& [name, entry] : manifest_.files) {
    const std::string good = Slurp(folder_ / name);
    fs::remove(folder_ / name);
    const Status status = Verify();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_EQ(Message(status), Prefix() + name + ": is missing");
    folder_.Write(name, good);
  }
}

TEST_F(Artifact, AnotherSizeIsNamedWithBothSizes) {
  folder_.Write(kTablesFile, std::string(299, 't'));
  EXPECT_EQ(Message(Verify()), Prefix() + "tables.safetensors: size is wrong, got 299 bytes, want 300");
  folder_.Write(kTablesFile, std::string(301, 't'));
  EXPECT_EQ(Message(Verify()), Prefix() + "tables.safetensors: size is wrong, got 301 bytes, want 300");
}

TEST_F(Artifact, WithoutAManifestThereIsNone) {
  fs::remove(folder_ / kManifestFile);
  EXPECT_TRUE(absl::IsNotFound(Verify())) << Verify();
  EXPECT_TRUE(absl::IsNotFound(VerifyArtifact(CallScope{}, folder_ / "none", id_).status()));
}

TEST_F(Artifact, AnotherIdIsRefused) {
  const Status status = VerifyArtifact(CallScope{}, folder_.path(), Sha256Hex("other")).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr(Cat("got ", id_, ", want ", Sha256Hex("other"))));
  EXPECT_TRUE(absl::IsInvalidArgument(VerifyArtifact(CallScope{}, folder_.path(), "emoji:stable").status()));
}

TEST_F(Artifact, LinksAreRefusedEvenIfTheBytesAreRight) {
  TempFolder elsewhere;
  for (const std::string name : {kTablesFile, kManifestFile}) {
    elsewhere.Write(name, Slurp(folder_ / name));
    fs::remove(folder_ / name);
    fs::create_symlink(elsewhere / name, folder_ / name);
    EXPECT_EQ(Message(Verify()), Prefix() + name + ": got a symbolic link, want a file");
    fs::remove(folder_ / name);
    fs::copy_file(elsewhere / name, folder_ / name);
  }
  fs::rename(folder_ / "pictures", elsewhere / "pictures");
  fs::create_directory_symlink(elsewhere / "pictures", folder_ / "pictures");
  EXPECT_EQ(Message(Verify()), Prefix() + "pictures/0.png: got a symbolic link, want a file");
}

TEST_F(Artifact, FoldersAndPipesAreNoFiles) {
  fs::remove(folder_ / kTablesFile);
  fs::create_directory(folder_ / kTablesFile);
  EXPECT_EQ(Message(Verify()), Prefix() + "tables.safetensors: not a regular file");
  fs::remove(folder_ / kTablesFile);
  ASSERT_EQ(mkfifo((folder_ / kTablesFile).c_str(), 0600), 0);
  EXPECT_EQ(Message(Verify()), Prefix() + "tables.safetensors: not a regular file");
}

TEST_F(Artifact, ASoundIdDoesNotMakeABadManifestGood) {
  manifest_.files["../escape"] = {Sha256Hex(""), 0};
  Publish();
  EXPECT_TRUE(absl::IsInvalidArgument(Verify())) << Verify();
}

TEST_F(Artifact, TooLargeAManifestIsRefused) {
  folder_.Write(kManifestFile, "");
  fs::resize_file(folder_ / kManifestFile, (64ull << 20) + 1);
  EXPECT_THAT(Message(Verify()),
              HasSubstr("manifest.json: too large, got 67108865 bytes, want at most 67108864"));
}

TEST_F(Artifact, StopsWhenTheCallerHasLeft) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_TRUE(
      absl::IsCancelled(VerifyArtifact(CallScope{.stop = stop.get_token()}, folder_.path(), id_).status()));
}

TEST_F(Artifact, ErrorsShowNoAbsolutePath) {
  fs::remove(folder_ / kTablesFile);
  EXPECT_THAT(Message(Verify()), Not(HasSubstr(folder_.path().string())));
}

TEST(Baseline, EveryFieldIsReadAndChecked) {
  const Json good{
      {"timestep_bin", 19}, {"block_group", "up"}, {"ratio", 2e-3}, {"low", 1e-3}, {"high", 3e-3}};
  const auto rows = ParseBaseline(Json::array({good}));
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].timestep_bin, 19);
  EXPECT_EQ((*rows)[0].block_group, "up");
  EXPECT_EQ((*rows)[0].ratio, 2e-3);
  EXPECT_EQ((*rows)[0].low, 1e-3);
  EXPECT_EQ((*rows)[0].high, 3e-3);
  for (const auto& [key, value] : {std::pair("timestep_bin", Json(20)),
                                   {"timestep_bin", Json(-1)},
                                   {"block_group", Json(1)},
                                   {"ratio", Json("x")},
                                   {"low", Json()},
                                   {"surplus", Json(1)}}) {
    Json bad = good;
    bad[key] = value;
    const Status status = ParseBaseline(Json::array({bad})).status();
    EXPECT_TRUE(absl::IsDataLoss(status) && Message(status).find(key) != std::string::npos) << status;
  }
  EXPECT_TRUE(absl::IsDataLoss(ParseBaseline(Json::object()).status()));
}

}  // namespace
}  // namespace tempera
