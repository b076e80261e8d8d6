#include "storage/artifacts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/files.h"
#include "base/json.h"
#include "base/temp_folder.h"
#include "storage/child.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A store on another's objects that fails from the n-th change on, once or for good, and gives no local
// paths.
class FaultyStore final : public ObjectStore {
 public:
  enum Mode { kNever, kOnce, kForGood };
  FaultyStore(ObjectStore& base, Mode mode, int good) : base_(base), mode_(mode), good_(good) {}

  Result<std::string> Put(const CallScope& scope, const std::string& key, std::string_view bytes,
                          const PutCondition& condition) override {
    TEMPERA_TRY(Change());
    return base_.Put(scope, key, bytes, condition);
  }
  Status PutFile(const CallScope& scope, const std::string& key, const fs::path& file,
                 const std::string& sha256) override {
    TEMPERA_TRY(Change());
    return base_.PutFile(scope, key, file, sha256);
  }
  Result<StoredObject> Get(const CallScope& scope, const std::string& key, int64_t limit) override {
    TEMPERA_TRY(Read());
    return base_.Get(scope, key, limit);
  }
  Result<std::string> GetRange(const CallScope& scope, const std::string& key, int64_t offset,
                               int64_t length) override {
    TEMPERA_TRY(Read());
    return base_.GetRange(scope, key, offset, length);
  }
  Status GetFile(const CallScope& scope, const std::string& key, const fs::path& file) override {
    TEMPERA_TRY(Change());
    return base_.GetFile(scope, key, file);
  }
  Result<ObjectInfo> Head(const CallScope& scope, const std::string& key) override {
    TEMPERA_TRY(Read());
    return base_.Head(scope, key);
  }
  Result<ObjectPage> List(const CallScope& scope, const ObjectQuery& query) override {
    TEMPERA_TRY(Read());
    return base_.List(scope, query);
  }
  Status Delete(const CallScope& scope, const std::string& key) override {
    TEMPERA_TRY(Change());
    return base_.Delete(scope, key);
  }
  std::optional<fs::path> LocalPath(const std::string&) const override { return std::nullopt; }

 private:
  Status Read() const {
    return mode_ == kForGood && good_ <= 0 ? Unavailable("store: injected") : OkStatus();
  }
  Status Change() {
    if (mode_ == kNever) return OkStatus();
    --good_;
    if (mode_ == kForGood ? good_ < 0 : good_ == -1) return Unavailable("store: injected");
    return OkStatus();
  }
  ObjectStore& base_;
  const Mode mode_;
  int good_;
};

const std::map<std::string, std::string> kHashed{
    {"weights.safetensors", std::string(5000, 'w')}, {"evaluation.json", "{}"}, {"pictures/0.png", "png"}};

class ArtifactsTest : public ::testing::Test {
 protected:
  ArtifactsTest() {
    auto store = OpenFolderStore(folder_ / "store");
    EXPECT_TRUE(store.ok());
    store_ = *std::move(store);
    id_ = Make("made", "1");
  }

  // An artifact's folder; the id depends on `salt`.
  std::string Make(const std::string& name, const std::string& salt) {
    Json files = Json::object();
    for (const auto& [file, bytes] : kHashed) {
      folder_.Write(name + "/" + file, bytes);
      files[file] = {{"sha256", Sha256Hex(bytes)}, {"bytes", bytes.size()}};
    }
    WriteReport(name, "report of " + salt);
    folder_.Write(name + "/.report.html.1.tmp", "a dead writer's");
    const std::string manifest = CanonicalJson({{"version", 1}, {"salt", salt}, {"files", files}});
    folder_.Write(name + "/manifest.json", manifest);
    return Sha256Hex(manifest);
  }

  void WriteReport(const std::string& name, const std::string& text) {
    folder_.Write(name + "/report.html", text);
    folder_.Write(name + "/digests.json",
                  CanonicalJson({{"report.html", {{"sha256", Sha256Hex(text)}, {"bytes", text.size()}}}}));
  }

  std::vector<std::string> Keys() {
    std::vector<std::string> keys;
    const auto page = store_->List({}, {});
    for (const ObjectInfo& object : page->objects)
      keys.push_back(object.key.substr(object.key.find('/', 10) + 1));
    return keys;
  }

  // The law: if the manifest is there, all that it names is there and whole.
  void ExpectWholeOrAbsent() {
    if (!*ArtifactExists({}, *store_, id_)) return;
    for (const auto& [file, bytes] : kHashed) {
      const auto object = store_->Get({}, Cat("artifacts/", id_, "/", file));
      ASSERT_TRUE(object.ok()) << object.status();
      EXPECT_EQ(object->bytes, bytes) << file;
    }
  }

  TempFolder folder_;
  std::unique_ptr<ObjectStore> store_;
  std::string id_;
};

TEST_F(ArtifactsTest, PublishesEveryFileAndOpensThemInPlace) {
  EXPECT_FALSE(*ArtifactExists({}, *store_, id_));
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  EXPECT_THAT(Keys(), ElementsAre("digests.json", "evaluation.json", "manifest.json", "pictures/0.png",
                                  "report.html", "weights.safetensors"));
  const auto opened = OpenArtifact({}, *store_, id_, folder_ / "cache");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(*opened, folder_ / "store/artifacts" / id_);
  EXPECT_EQ(Slurp(*opened / "pictures/0.png"), "png");
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
}

TEST_F(ArtifactsTest, RefusesAFolderThatIsNotWhatItsManifestSays) {
  EXPECT_TRUE(absl::IsDataLoss(PublishArtifact({}, *store_, folder_ / "made", std::string(64, '0'))));
  EXPECT_TRUE(absl::IsInvalidArgument(PublishArtifact({}, *store_, folder_ / "made", "../../x")));
  folder_.Write("made/weights.safetensors", std::string(5000, 'x'));
  const Status damaged = PublishArtifact({}, *store_, folder_ / "made", id_);
  EXPECT_TRUE(absl::IsDataLoss(damaged)) << damaged;
  EXPECT_THAT(Message(damaged), HasSubstr("weights.safetensors"));
  fs::remove(folder_ / "made/weights.safetensors");
  const Status missing = PublishArtifact({}, *store_, folder_ / "made", id_);
  EXPECT_TRUE(absl::IsDataLoss(missing)) << missing;
  folder_.Write("made/weights.safetensors", kHashed.at("weights.safetensors"));
  fs::create_symlink("/etc/passwd", folder_ / "made/link");
  EXPECT_TRUE(absl::IsInvalidArgument(PublishArtifact({}, *store_, folder_ / "made", id_)));
  EXPECT_THAT(Keys(), IsEmpty());
}

TEST_F(ArtifactsTest, PublishingAgainKeepsTheFirstReportAndMendsWhatIsMissing) {
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  const std::string base = Cat("artifacts/", id_, "/");
  WriteReport("made", "of a second run");
  ASSERT_TRUE(store_->Delete({}, base + "evaluation.json").ok());
  ASSERT_TRUE(store_->Put({}, base + "pictures/0.png", "cut").ok());
  ASSERT_TRUE(store_->Put({}, base + "weights.safetensors", "cut").ok());
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  EXPECT_EQ(store_->Get({}, base + "report.html")->bytes, "report of 1");
  ExpectWholeOrAbsent();
  // A damaged report gives way to the new one, with its digests.
  ASSERT_TRUE(store_->Put({}, base + "report.html", "report of 2").ok());
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  EXPECT_EQ(store_->Get({}, base + "report.html")->bytes, "of a second run");
  EXPECT_THAT(store_->Get({}, base + "digests.json")->bytes, HasSubstr(Sha256Hex("of a second run")));
}

TEST_F(ArtifactsTest, ACrashBetweenAnyTwoStepsOfPublishingLeavesNoHalfArtifact) {
  for (int good = 0;; ++good) {
    FaultyStore dying(*store_, FaultyStore::kForGood, good);
    const bool done = PublishArtifact({}, dying, folder_ / "made", id_).ok();
    ExpectWholeOrAbsent();
    EXPECT_EQ(*ArtifactExists({}, *store_, id_), done);
    ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok()) << "taken up again after " << good;
    ExpectWholeOrAbsent();
    EXPECT_EQ(Keys().size(), 6u);
    ASSERT_TRUE(DeleteArtifact({}, *store_, id_).ok());
    EXPECT_THAT(Keys(), IsEmpty());
    if (done) {
      EXPECT_EQ(good, 6) << "one step a file";
      break;
    }
  }
}

TEST_F(ArtifactsTest, AFailedPublishTakesItsFilesBack) {
  for (int good = 0; good < 6; ++good) {
    FaultyStore faulty(*store_, FaultyStore::kOnce, good);
    EXPECT_TRUE(absl::IsUnavailable(PublishArtifact({}, faulty, folder_ / "made", id_)));
    EXPECT_THAT(Keys(), IsEmpty()) << good;
  }
}

TEST_F(ArtifactsTest, ACrashBetweenAnyTwoStepsOfDeletingLeavesNoHalfArtifact) {
  for (int good = 0; good < 6; ++good) {
    ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
    FaultyStore dying(*store_, FaultyStore::kForGood, good);
    EXPECT_FALSE(DeleteArtifact({}, dying, id_).ok());
    ExpectWholeOrAbsent();
    EXPECT_EQ(*ArtifactExists({}, *store_, id_), good == 0);
    ASSERT_TRUE(DeleteArtifact({}, *store_, id_).ok());
    EXPECT_THAT(Keys(), IsEmpty());
  }
}

TEST_F(ArtifactsTest, DownloadsOnceWhereTheStoreIsNoFolder) {
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  for (int good = 0; good < 5; ++good) {
    FaultyStore dying(*store_, FaultyStore::kForGood, good);
    EXPECT_FALSE(OpenArtifact({}, dying, id_, folder_ / "cache").ok());
    EXPECT_FALSE(fs::exists(folder_ / "cache" / id_ / "manifest.json")) << good;
  }
  FaultyStore remote(*store_, FaultyStore::kNever, 0);
  const auto opened = OpenArtifact({}, remote, id_, folder_ / "cache");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(*opened, folder_ / "cache" / id_);
  for (const auto& [file, bytes] : kHashed) EXPECT_EQ(Slurp(*opened / file), bytes);
  FaultyStore no_more_reads(*store_, FaultyStore::kOnce, 0);
  EXPECT_TRUE(OpenArtifact({}, no_more_reads, id_, folder_ / "cache").ok()) << "was downloaded again";
}

TEST_F(ArtifactsTest, FindsByUniquePrefix) {
  ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / "made", id_).ok());
  EXPECT_EQ(*FindArtifact({}, *store_, id_.substr(0, 12)), id_);
  EXPECT_EQ(*FindArtifact({}, *store_, id_), id_);
  EXPECT_TRUE(absl::IsNotFound(FindArtifact({}, *store_, std::string(12, '0')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(FindArtifact({}, *store_, id_.substr(0, 11)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(FindArtifact({}, *store_, "../" + id_.substr(0, 20)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(FindArtifact({}, *store_, id_ + "0").status()));
  // Another that agrees in 20 digits.
  const std::string twin = id_.substr(0, 20) + (id_[20] == '0' ? "1" : "0") + id_.substr(21);
  ASSERT_TRUE(store_->Put({}, Cat("artifacts/", twin, "/weights.safetensors"), "w").ok());
  EXPECT_EQ(*FindArtifact({}, *store_, id_.substr(0, 12)), id_) << "the twin is not published";
  ASSERT_TRUE(store_->Put({}, Cat("artifacts/", twin, "/manifest.json"), "{}").ok());
  EXPECT_THAT(Message(FindArtifact({}, *store_, id_.substr(0, 12)).status()), HasSubstr("ambiguous"));
  EXPECT_EQ(*FindArtifact({}, *store_, id_.substr(0, 21)), id_);
}

TEST_F(ArtifactsTest, ListsThePublishedInPages) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    ids.push_back(Make(Cat("m", i), Cat("salt", i)));
    ASSERT_TRUE(PublishArtifact({}, *store_, folder_ / Cat("m", i), ids.back()).ok());
  }
  std::sort(ids.begin(), ids.end());
  ASSERT_TRUE(store_->Put({}, Cat("artifacts/", std::string(64, '5'), "/weights.safetensors"), "w").ok());
  ASSERT_TRUE(store_->Put({}, "artifacts/stray/manifest.json", "{}").ok());
  std::vector<std::string> got;
  std::string token;
  do {
    const auto page = ListArtifacts({}, *store_, token, 2);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->ids.size(), 2u);
    got.insert(got.end(), page->ids.begin(), page->ids.end());
    token = page->next_page_token;
  } while (!token.empty());
  EXPECT_EQ(got, ids);
}

TEST_F(ArtifactsTest, SaysThatAnArtifactIsNotThere) {
  EXPECT_TRUE(absl::IsNotFound(OpenArtifact({}, *store_, id_, folder_ / "cache").status()));
  EXPECT_TRUE(DeleteArtifact({}, *store_, id_).ok());
}

TEST_F(ArtifactsTest, AFullDiskLeavesNothingBehind) {
  fs::create_directories(folder_ / "disk");
  folder_.Write("made/measurements.json", std::string(90'000, 'm'));
  const std::string said = RunOnSmallDisk(folder_ / "disk", "64k", [&]() -> std::string {
    const auto store = OpenFolderStore(folder_ / "disk/store");
    if (!store.ok()) return store.status().ToString();
    const Status status = PublishArtifact({}, **store, folder_ / "made", id_);
    if (!absl::IsResourceExhausted(status)) return status.ToString();
    if (!(*store)->List({}, {})->objects.empty()) return "objects were left";
    if (fs::exists(folder_ / "disk/store/artifacts")) return "a folder was left";
    return "";
  });
  if (said == kNoMount) GTEST_SKIP() << "this kernel lets no test mount a tmpfs";
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace tempera
