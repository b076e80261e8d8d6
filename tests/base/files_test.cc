#include "base/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/executors.h"
#include "tests/base/temp_folder.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// FIPS 180-2, appendix B.
constexpr char kSha256OfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr char kSha256OfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(Sha256, MatchesPublishedDigests) {
  EXPECT_EQ(Sha256Hex("abc"), kSha256OfAbc);
  EXPECT_EQ(Sha256Hex(""), kSha256OfNothing);
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  Sha256 hash;
  hash.Update("a", 1);
  hash.Update("", 0);
  hash.Update("bc", 2);
  EXPECT_EQ(hash.Hex(), kSha256OfAbc);
}

TEST(Sha256, OfAFileLargerThanItsBuffer) {
  TempFolder folder;
  const std::string bytes(3'000'001, 'x');
  const Result<std::string> digest = Sha256File(folder.Write("f", bytes), "f");
  ASSERT_TRUE(digest.ok()) << digest.status();
  EXPECT_EQ(*digest, Sha256Hex(bytes));
}

TEST(Sha256, OfAMissingFileNamesTheLabelAlone) {
  TempFolder folder;
  const Status status = Sha256File(folder / "f", "unet/f").status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("unet/f"));
  EXPECT_THAT(Message(status), Not(HasSubstr(folder.path().string())));
}

TEST(MappedFile, HoldsTheBytesOfTheFile) {
  TempFolder folder;
  const std::string bytes = std::string("a\0b", 3) + std::string(10'000, 'c');
  const auto file = MappedFile::Open(folder.Write("f", bytes), "f");
  ASSERT_TRUE(file.ok()) << file.status();
  fs::remove(folder / "f");  // the map outlives the name
  const auto mapped = (*file)->bytes();
  EXPECT_EQ(std::string(mapped.begin(), mapped.end()), bytes);
}

// Pages of the mapping at `data` that the process holds, in KiB.
int64_t HeldKiB(const void* data) {
  char begin[32];
  std::snprintf(begin, sizeof begin, "%lx-", reinterpret_cast<unsigned long>(data));
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    here = here || line.starts_with(begin);
    if (here && line.starts_with("Rss:")) return std::stoll(line.substr(4));
  }
  return -1;
}

TEST(MappedFile, ReleasedPagesComeBackWhenTheyAreRead) {
  TempFolder folder;
  const std::string bytes(1 << 20, 'c');
  const auto file = MappedFile::Open(folder.Write("f", bytes), "f");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto mapped = (*file)->bytes();
  EXPECT_EQ(std::string(mapped.begin(), mapped.end()), bytes);
  EXPECT_EQ(HeldKiB(mapped.data()), 1024);
  (*file)->ReleasePages();
  EXPECT_EQ(HeldKiB(mapped.data()), 0);
  EXPECT_EQ(std::string(mapped.begin(), mapped.end()), bytes);
}

TEST(MappedFile, EmptyFileMapsToNoBytes) {
  TempFolder folder;
  const auto file = MappedFile::Open(folder.Write("f", ""), "f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->bytes().empty());
  (*file)->ReleasePages();
}

TEST(MappedFile, RefusesFoldersAndMissingFiles) {
  TempFolder folder;
  EXPECT_TRUE(absl::IsInvalidArgument(MappedFile::Open(folder.path(), "f").status()));
  EXPECT_TRUE(absl::IsNotFound(MappedFile::Open(folder / "none", "f").status()));
}

TEST(ReadFile, ReadsWhatIsThereUpToTheLimit) {
  TempFolder folder;
  const fs::path file = folder.Write("f", std::string("12\0"
                                                      "45",
                                                      5));
  EXPECT_EQ(*ReadFile(file, "f", 5), std::string("12\0"
                                                 "45",
                                                 5));
  const Status status = ReadFile(file, "f", 4).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(Message(status), "f: too large, got 5 bytes, want at most 4");
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFile(folder.path(), "f").status()));
  EXPECT_TRUE(absl::IsNotFound(ReadFile(folder / "none", "f").status()));
}

TEST(WriteFileAtomic, CreatesAndReplacesAndLeavesNothingElse) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "f", "old", "f").ok());
  EXPECT_EQ(Slurp(folder / "f"), "old");
  ASSERT_TRUE(WriteFileAtomic(folder / "f", std::string("new\0", 4), "f").ok());
  EXPECT_EQ(Slurp(folder / "f"), std::string("new\0", 4));
  EXPECT_THAT(folder.Names(), ElementsAre("f"));
}

TEST(WriteFileAtomic, IntoAMissingFolderIsNotFound) {
  TempFolder folder;
  const Status status = WriteFileAtomic(folder / "none/f", "x", "none/f");
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("none/f"));
  EXPECT_THAT(Message(status), Not(HasSubstr(folder.path().string())));
}

TEST(WriteFileAtomic, OverAFolderFailsAndLeavesNothingElse) {
  TempFolder folder;
  folder.Write("f/inside", "x");
  EXPECT_FALSE(WriteFileAtomic(folder / "f", "new", "f").ok());
  EXPECT_THAT(folder.Names(), ElementsAre("f"));
  EXPECT_EQ(Slurp(folder / "f/inside"), "x");
}

TEST(WriteFileAtomic, ReadersSeeOneWholeVersion) {
  TempFolder folder;
  const std::string a(300'000, 'a'), b(200'000, 'b');
  ASSERT_TRUE(WriteFileAtomic(folder / "f", a, "f").ok());
  std::atomic<bool> written = false;
  Lanes lanes(2, nullptr);
  const Status status = lanes.ParallelFor(2, [&](int64_t shard) -> Status {
    if (shard == 0) {
      Status failed;
      for (int i = 0; i < 50 && failed.ok(); ++i)
        failed = WriteFileAtomic(folder / "f", i % 2 == 0 ? b : a, "f");
      written = true;
      return failed;
    }
    do {
      TEMPERA_ASSIGN(const std::string seen, ReadFile(folder / "f", "f"));
      if (seen != a && seen != b) return DataLoss("half a file: ", seen.size(), " bytes");
    } while (!written);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// A child process with a file size limit: a write that fails half-way, on any machine and for any user.
TEST(WriteFileAtomic, FailedWriteKeepsTheOldFileAndLeavesNothingElse) {
  TempFolder folder;
  folder.Write("f", "old");
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 4096, .rlim_max = 4096};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    _exit(WriteFileAtomic(folder / "f", std::string(100'000, 'x'), "f").ok() ? 1 : 0);
  }
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  ASSERT_TRUE(WIFEXITED(state));
  EXPECT_EQ(WEXITSTATUS(state), 0) << "1: the write did not fail, 2: no limit could be set";
  EXPECT_EQ(Slurp(folder / "f"), "old");
  EXPECT_THAT(folder.Names(), ElementsAre("f"));
}

// What the kernel says of a full disk, from the device that is always full.
TEST(FileError, FullDiskIsResourceExhausted) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  ASSERT_LT(write(full, "x", 1), 0);
  const Status status = FileError(errno, "write", "weights.safetensors");
  close(full);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("weights.safetensors: cannot write"));
}

// Gives this process a tmpfs of 64 KiB on `where`, which no other process sees. False where the kernel
// forbids it.
bool MountSmallDisk(const fs::path& where) {
  const std::string map = "0 " + std::to_string(getuid()) + " 1";
  if (unshare(CLONE_NEWNS) != 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    const int file = open("/proc/self/uid_map", O_WRONLY);
    if (file < 0 || write(file, map.data(), map.size()) < 0) return false;
    close(file);
  }
  return mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mount("none", where.c_str(), "tmpfs", 0, "size=64k,mode=0777") == 0;
}

TEST(WriteFileAtomic, FullDiskIsResourceExhaustedAndLeavesNothingBehind) {
  TempFolder folder;
  const pid_t child = fork();
  if (child == 0) {
    if (!MountSmallDisk(folder.path())) _exit(77);
    if (!WriteFileAtomic(folder / "f", std::string(20'000, 'o'), "f").ok()) _exit(1);
    if (!absl::IsResourceExhausted(WriteFileAtomic(folder / "f", std::string(90'000, 'n'), "f"))) _exit(2);
    if (Slurp(folder / "f") != std::string(20'000, 'o')) _exit(3);
    if (folder.Names() != std::set<std::string>{"f"}) _exit(4);
    if (!WriteFileAtomic(folder / "f", std::string(30'000, 'n'), "f").ok()) _exit(5);
    _exit(0);
  }
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  ASSERT_TRUE(WIFEXITED(state));
  if (WEXITSTATUS(state) == 77)
    GTEST_SKIP() << "this kernel lets no test mount a tmpfs; FailedWrite... and FullDiskIs... above hold its "
                    "two halves";
  EXPECT_EQ(WEXITSTATUS(state), 0);
}

TEST(MakeFolders, MakesAllAndAcceptsThoseThere) {
  TempFolder folder;
  EXPECT_TRUE(MakeFolders(folder / "a/b/c", "a/b/c").ok());
  EXPECT_TRUE(MakeFolders(folder / "a/b/c", "a/b/c").ok());
  EXPECT_TRUE(fs::is_directory(folder / "a/b/c"));
  folder.Write("file", "x");
  EXPECT_FALSE(MakeFolders(folder / "file/below", "file/below").ok());
}

// root/{model/unet/config.json, inner -> model, leak -> ../outside, leak_file -> ../outside/secret, dangling
// -> none, loop -> loop} beside outside/secret and root2/x, whose name begins as root's does.
class ResolveUnderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.Write("root/model/unet/config.json", "{}");
    folder_.Write("outside/secret", "s");
    folder_.Write("root2/x", "x");
    fs::create_symlink("model", folder_ / "root/inner");
    fs::create_symlink("../outside", folder_ / "root/leak");
    fs::create_symlink("../outside/secret", folder_ / "root/leak_file");
    fs::create_symlink("none", folder_ / "root/dangling");
    fs::create_symlink("loop", folder_ / "root/loop");
  }
  std::string In(std::string_view name) const { return (folder_.path() / name).string(); }
  Result<fs::path> Resolve(const std::string& path) const { return ResolveUnder(path, roots_); }

  TempFolder folder_;
  std::vector<fs::path> roots_{folder_ / "root"};
};

TEST_F(ResolveUnderTest, GivesTheRealPathOfWhatLiesInside) {
  EXPECT_EQ(*Resolve(In("root/model")), folder_ / "root/model");
  EXPECT_EQ(*Resolve(In("root/model/../model/./unet")), folder_ / "root/model/unet");
  EXPECT_EQ(*Resolve(In("root/inner/unet")), folder_ / "root/model/unet");
  EXPECT_EQ(*Resolve(In("root")), folder_ / "root");
  EXPECT_EQ(*Resolve(In("outside/../root/model")), folder_ / "root/model");
}

TEST_F(ResolveUnderTest, TakesAnyOfSeveralRootsAndPassesOverMissingOnes) {
  roots_ = {folder_ / "none", folder_ / "root", folder_ / "root2"};
  EXPECT_EQ(*Resolve(In("root2/x")), folder_ / "root2/x");
  EXPECT_EQ(*Resolve(In("root/model")), folder_ / "root/model");
}

TEST_F(ResolveUnderTest, TakesARootThatIsALink) {
  fs::create_symlink("root", folder_ / "alias");
  roots_ = {folder_ / "alias"};
  EXPECT_EQ(*Resolve(In("alias/model")), folder_ / "root/model");
}

TEST_F(ResolveUnderTest, RefusesWhatLiesOutside) {
  for (const std::string& path :
       {In("outside/secret"), In("root2/x"), In("root/../outside/secret"), In("root/model/../../outside"),
        In("root/leak"), In("root/leak/secret"), In("root/leak_file"), In("root/leak/none"),
        In("root/none/../../outside"), std::string("/"), std::string("/etc/passwd"), std::string(""),
        std::string("model"), std::string("../root")}) {
    const Status status = Resolve(path).status();
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << path << ": " << status;
    EXPECT_THAT(Message(status), HasSubstr("\"" + path + "\""));
  }
}

TEST_F(ResolveUnderTest, SaysTheSameOfOutsideFilesThatExistAndThatDoNot) {
  const auto text = [&](const std::string& path) {
    std::string message = Message(Resolve(path).status());
    return message.replace(message.find(path), path.size(), "PATH");
  };
  EXPECT_EQ(text(In("outside/secret")), text(In("outside/nothing")));
  EXPECT_EQ(text(In("root/leak/secret")), text(In("root/leak/nothing")));
  EXPECT_EQ(text(In("root/leak/secret")), text(In("root/leak/nothing/deeper")));
}

TEST_F(ResolveUnderTest, DoesNotTellWhereALinkLeads) {
  EXPECT_THAT(Message(Resolve(In("root/leak_file")).status()), Not(HasSubstr("outside/secret")));
}

TEST_F(ResolveUnderTest, WhatIsMissingInsideIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(Resolve(In("root/none")).status()));
  EXPECT_TRUE(absl::IsNotFound(Resolve(In("root/dangling")).status()));
}

TEST_F(ResolveUnderTest, RefusesLoopsNulBytesAndNoRoots) {
  EXPECT_FALSE(Resolve(In("root/loop")).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Resolve(In("root/model") + std::string("\0x", 2)).status()));
  roots_.clear();
  EXPECT_TRUE(absl::IsPermissionDenied(Resolve(In("root/model")).status()));
}

}  // namespace
}  // namespace tempera
