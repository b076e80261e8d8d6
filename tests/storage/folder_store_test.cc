#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "base/files.h"
#include "base/temp_folder.h"
#include "storage/child.h"
#include "storage/object_store.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<ObjectStore> OpenStore(const fs::path& root) {
  auto store = OpenFolderStore(root);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

// All files below `root`, unfinished ones and the lock left out.
std::set<std::string> FilesBelow(const fs::path& root) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.path().filename() != ".lock" && entry.path().filename() != ".tmp")
      names.insert(entry.path().lexically_relative(root).string());
  return names;
}

class FolderStoreTest : public ::testing::Test {
 protected:
  TempFolder folder_;
  std::unique_ptr<ObjectStore> store_ = OpenStore(folder_ / "store");
  CallScope scope_;
};

TEST(ObjectKey, TakesSegmentsOfKnownCharacters) {
  for (const char* key : {"a", "artifacts/00ff/manifest.json", "A-b_c.9/x", "a..b"})
    EXPECT_TRUE(CheckObjectKey(key).ok()) << key;
  EXPECT_TRUE(CheckObjectKey(std::string(200, 'a')).ok());
}

TEST(ObjectKey, RefusesWhatCouldLeaveTheStoreOrHide) {
  for (const std::string& key :
       {std::string(), std::string("/a"), std::string("a/"), std::string("a//b"), std::string(".."),
        std::string("a/../b"), std::string(".lock"), std::string("a/.b"), std::string("a b"),
        std::string("a\\b"), std::string("a\0b", 3), std::string("ä"), std::string(201, 'a'),
        std::string("a/") + std::string(999, 'b')})
    EXPECT_TRUE(absl::IsInvalidArgument(CheckObjectKey(key))) << key;
}

TEST_F(FolderStoreTest, GivesBackWhatWasPut) {
  const std::string bytes("\0\1text", 6);
  const auto etag = store_->Put(scope_, "a/b/c", bytes);
  ASSERT_TRUE(etag.ok()) << etag.status();
  const auto object = store_->Get(scope_, "a/b/c");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_EQ(object->bytes, bytes);
  EXPECT_EQ(object->etag, *etag);
  EXPECT_EQ(store_->Head(scope_, "a/b/c")->bytes, 6);
  EXPECT_EQ(Slurp(*store_->LocalPath("a/b/c")), bytes);
  ASSERT_TRUE(store_->Put(scope_, "a/b/c", "").ok());
  EXPECT_EQ(store_->Get(scope_, "a/b/c")->bytes, "");
}

TEST_F(FolderStoreTest, SaysThatAnObjectIsNotThere) {
  ASSERT_TRUE(store_->Put(scope_, "a/b", "x").ok());
  for (const char* key : {"none", "a", "a/b/c", "a/c"}) {
    EXPECT_TRUE(absl::IsNotFound(store_->Get(scope_, key).status())) << key;
    EXPECT_TRUE(absl::IsNotFound(store_->GetRange(scope_, key, 0, 1).status())) << key;
    EXPECT_TRUE(absl::IsNotFound(store_->Head(scope_, key).status())) << key;
    EXPECT_TRUE(absl::IsNotFound(store_->GetFile(scope_, key, folder_ / "copy"))) << key;
    EXPECT_TRUE(store_->Delete(scope_, key).ok()) << key;
  }
  EXPECT_FALSE(fs::exists(folder_ / "copy"));
  EXPECT_EQ(store_->Get(scope_, "a/b")->bytes, "x");
}

TEST_F(FolderStoreTest, CutsRangesAtTheEnd) {
  ASSERT_TRUE(store_->Put(scope_, "k", "0123456789").ok());
  EXPECT_EQ(*store_->GetRange(scope_, "k", 0, 10), "0123456789");
  EXPECT_EQ(*store_->GetRange(scope_, "k", 3, 4), "3456");
  EXPECT_EQ(*store_->GetRange(scope_, "k", 8, 100), "89");
  EXPECT_EQ(*store_->GetRange(scope_, "k", 10, 1), "");
  EXPECT_EQ(*store_->GetRange(scope_, "k", 1000, 1), "");
}

TEST_F(FolderStoreTest, RefusesToReadMoreThanTheLimit) {
  ASSERT_TRUE(store_->Put(scope_, "k", "0123456789").ok());
  EXPECT_TRUE(store_->Get(scope_, "k", 10).ok());
  EXPECT_THAT(Message(store_->Get(scope_, "k", 9).status()),
              HasSubstr("k: too large, got 10 bytes, want at most 9"));
}

TEST_F(FolderStoreTest, CopiesFilesBothWays) {
  const std::string bytes(3'000'000, 'q');
  const fs::path file = folder_.Write("in", bytes);
  ASSERT_TRUE(store_->PutFile(scope_, "big", file, Sha256Hex(bytes)).ok());
  ASSERT_TRUE(store_->GetFile(scope_, "big", folder_ / "out").ok());
  EXPECT_EQ(Slurp(folder_ / "out"), bytes);
  EXPECT_THAT(folder_.Names(), ElementsAre("in", "out", "store"));
}

TEST_F(FolderStoreTest, RefusesAFileWithAnotherDigest) {
  const Status status = store_->PutFile(scope_, "k", folder_.Write("in", "damaged"), Sha256Hex("whole"));
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(FilesBelow(folder_ / "store"), IsEmpty());
}

TEST_F(FolderStoreTest, StopsACopyThatIsCancelled) {
  std::stop_source stop;
  stop.request_stop();
  const CallScope stopped{stop.get_token()};
  EXPECT_TRUE(absl::IsCancelled(store_->PutFile(stopped, "k", folder_.Write("in", "x"))));
  EXPECT_THAT(FilesBelow(folder_ / "store"), IsEmpty());
}

TEST_F(FolderStoreTest, PutIfAbsentKeepsWhatIsThere) {
  EXPECT_TRUE(store_->Put(scope_, "k", "first", {.if_absent = true}).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(store_->Put(scope_, "k", "second", {.if_absent = true}).status()));
  EXPECT_EQ(store_->Get(scope_, "k")->bytes, "first");
}

TEST_F(FolderStoreTest, PutIfEtagRefusesAChangedObject) {
  const std::string old = *store_->Put(scope_, "k", "1");
  const std::string now = *store_->Put(scope_, "k", "2", {.if_etag = old});
  EXPECT_TRUE(absl::IsAborted(store_->Put(scope_, "k", "3", {.if_etag = old}).status()));
  EXPECT_EQ(store_->Get(scope_, "k")->bytes, "2");
  EXPECT_TRUE(absl::IsAborted(store_->Put(scope_, "none", "3", {.if_etag = now}).status()));
  EXPECT_THAT(FilesBelow(folder_ / "store"), ElementsAre("k"));
}

TEST_F(FolderStoreTest, AConditionAndItsPutAreOneStep) {
  ASSERT_TRUE(store_->Put(scope_, "count", "0").ok());
  constexpr int kThreads = 4, kRounds = 25;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      const auto own = OpenStore(folder_ / "store");  // as another process would
      for (int done = 0; done < kRounds;) {
        const auto object = own->Get(scope_, "count");
        const std::string next = std::to_string(std::stoi(object->bytes) + 1);
        if (own->Put(scope_, "count", next, {.if_etag = object->etag}).ok()) ++done;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(store_->Get(scope_, "count")->bytes, std::to_string(kThreads * kRounds));
}

TEST_F(FolderStoreTest, OneOfManyCreatorsWins) {
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> won{0}, lost{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        const auto put = store_->Put(scope_, Cat("k", round), Cat(t), {.if_absent = true});
        ++(put.ok() ? won : lost);
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(won, 1);
    EXPECT_EQ(lost, 3);
  }
}

TEST_F(FolderStoreTest, NoObjectIsAnothersFolder) {
  ASSERT_TRUE(store_->Put(scope_, "a/b", "x").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Put(scope_, "a", "y").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Put(scope_, "a/b/c", "y").status()));
  EXPECT_THAT(FilesBelow(folder_ / "store"), ElementsAre("a", "a/b"));
}

TEST_F(FolderStoreTest, DeleteRemovesEmptyFolders) {
  ASSERT_TRUE(store_->Put(scope_, "a/b/c", "x").ok());
  ASSERT_TRUE(store_->Put(scope_, "a/d", "x").ok());
  ASSERT_TRUE(store_->Delete(scope_, "a/b/c").ok());
  EXPECT_THAT(FilesBelow(folder_ / "store"), ElementsAre("a", "a/d"));
  ASSERT_TRUE(store_->Delete(scope_, "a/d").ok());
  EXPECT_THAT(FilesBelow(folder_ / "store"), IsEmpty());
}

// The law of List, on a sorted set.
std::vector<std::string> Expected(const std::set<std::string>& keys, const std::string& prefix, bool fold) {
  std::set<std::string> names;
  for (const std::string& key : keys) {
    if (!key.starts_with(prefix)) continue;
    const size_t slash = fold ? key.find('/', prefix.size()) : std::string::npos;
    names.insert(slash == std::string::npos ? key : key.substr(0, slash + 1));
  }
  return {names.begin(), names.end()};
}

TEST_F(FolderStoreTest, ListsByPrefixInPages) {
  std::mt19937 random(17);
  std::set<std::string> keys;
  const std::vector<std::string> parts{"a", "ab", "a-b", "a.b", "b", "c0"};
  for (int i = 0; i < 60; ++i) {
    std::string key;
    for (unsigned depth = random() % 3; depth > 0; --depth) key += parts[random() % parts.size()] + "/";
    key += Cat("x", random() % 10);  // no folder begins with x: no key is another's folder
    keys.insert(key);
    ASSERT_TRUE(store_->Put(scope_, key, key).ok());
  }
  fs::create_directories(folder_ / "store/a/empty");  // what a writer left that died between folder and file
  for (const std::string prefix :
       {"", "a", "a/", "a/a", "a-b/", "b/c0/x", "none", "none/x", "x", "c0/ab/x1"}) {
    for (const bool fold : {false, true}) {
      for (const int64_t limit : {1, 3, 1000}) {
        std::vector<std::string> got;
        ObjectQuery query{.prefix = prefix, .fold = fold, .limit = limit};
        do {
          const auto page = store_->List(scope_, query);
          ASSERT_TRUE(page.ok()) << page.status();
          std::set<std::string> names(page->folders.begin(), page->folders.end());
          for (const ObjectInfo& object : page->objects) {
            EXPECT_EQ(object.bytes, static_cast<int64_t>(object.key.size()));
            names.insert(object.key);
          }
          EXPECT_LE(static_cast<int64_t>(names.size()), limit);
          got.insert(got.end(), names.begin(), names.end());
          query.page_token = page->next_page_token;
        } while (!query.page_token.empty());
        EXPECT_EQ(got, Expected(keys, prefix, fold))
            << "prefix \"" << prefix << "\" fold " << fold << " limit " << limit;
      }
    }
  }
}

TEST_F(FolderStoreTest, RefusesBadListQueries) {
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List(scope_, {.limit = 0}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List(scope_, {.limit = 1001}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store_->List(scope_, {.prefix = "b", .page_token = "a"}).status()));
  const auto outside = store_->List(scope_, {.prefix = "../"});
  ASSERT_TRUE(outside.ok());
  EXPECT_THAT(outside->objects, IsEmpty());
}

TEST_F(FolderStoreTest, OpenRemovesWhatTheDeadLeftAndNothingElse) {
  folder_.Write("store/.tmp/dead", "half");
  const fs::path alive = folder_.Write("store/.tmp/alive", "half");
  const int fd = open(alive.c_str(), O_RDONLY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  OpenStore(folder_ / "store");
  EXPECT_FALSE(fs::exists(folder_ / "store/.tmp/dead"));
  EXPECT_TRUE(fs::exists(alive));
  close(fd);
}

// 24 writers killed at random moments: every object is whole, old or new, and nothing half written stays.
TEST(FolderStoreCrash, KilledWritersLeaveWholeObjects) {
  TempFolder folder;
  std::mt19937 random(5);
  const auto content = [](int version) {
    return Cat(version, ":", std::string(20'000 + version % 7 * 10'000, 'v'));
  };
  for (int kill = 0; kill < 24; ++kill) {
    const int done = KillAtRandom(random, 12, [&](const std::function<void()>& did) {
      const auto store = OpenFolderStore(folder.path());
      for (int version = kill * 1'000'000; store.ok(); ++version) {
        if (version % 5 == 4) {
          if (!(*store)->Delete({}, "a/b/k0").ok()) return;
        } else if (!(*store)->Put({}, Cat("a/b/k", version % 5), content(version)).ok()) {
          return;
        }
        did();
      }
    });
    ASSERT_GE(done, 0);
    const auto store = OpenStore(folder.path());
    EXPECT_TRUE(fs::is_empty(folder.path() / ".tmp"));
    const auto page = store->List({}, {.prefix = "a/"});
    ASSERT_TRUE(page.ok());
    for (const ObjectInfo& object : page->objects) {
      const std::string bytes = store->Get({}, object.key)->bytes;
      EXPECT_EQ(bytes, content(std::stoi(bytes))) << object.key;
    }
    // What the child was told to be there is there: the last of keys 1 to 3 that it put.
    for (int version = kill * 1'000'000 + done - 1;
         version >= kill * 1'000'000 && version > kill * 1'000'000 + done - 5; --version) {
      if (version % 5 == 0 || version % 5 == 4) continue;
      const auto object = store->Get({}, Cat("a/b/k", version % 5));
      ASSERT_TRUE(object.ok()) << object.status();
      EXPECT_GE(std::stoi(object->bytes), version);
    }
  }
}

TEST(FolderStoreFullDisk, LeavesTheStoreAsItWas) {
  TempFolder folder;
  const std::string file = folder.Write("file", std::string(90'000, 'f')).string();
  fs::create_directories(folder / "disk");
  const std::string said = RunOnSmallDisk(folder / "disk", "64k", [&]() -> std::string {
    const fs::path root = folder / "disk/store";
    const auto store = OpenFolderStore(root);
    if (!store.ok()) return Message(store.status());
    if (!(*store)->Put({}, "k", std::string(20'000, 'o')).ok()) return "the first put failed";
    const auto before = FilesBelow(root);
    const Status put = (*store)->Put({}, "k", std::string(90'000, 'n')).status();
    if (!absl::IsResourceExhausted(put)) return "put: " + put.ToString();
    const Status put_file = (*store)->PutFile({}, "new/folder/k", file);
    if (!absl::IsResourceExhausted(put_file)) return "put file: " + put_file.ToString();
    if (FilesBelow(root) != before) return "files were left";
    if (!fs::is_empty(root / ".tmp")) return "a temporary was left";
    if ((*store)->Get({}, "k")->bytes != std::string(20'000, 'o')) return "the old object is damaged";
    if (!(*store)->Put({}, "k", std::string(30'000, 'n')).ok()) return "no put after the full disk";
    return "";
  });
  if (said == kNoMount) GTEST_SKIP() << "this kernel lets no test mount a tmpfs";
  EXPECT_EQ(said, "");
}

}  // namespace
}  // namespace tempera
