#include "client/paths.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/files.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;

class Paths : public testing::Test {
 protected:
  Paths()
      : cwd_(fs::path(testing::TempDir()) /
             Cat("paths-", testing::UnitTest::GetInstance()->random_seed(), "-", getpid())) {
    fs::create_directories(cwd_ / "models" / "fashion");
    fs::create_directories(cwd_ / "fashion-here");
    std::ofstream(cwd_ / "file") << "x";
  }
  ~Paths() override { fs::remove_all(cwd_); }
  std::string At(const std::string& path) const { return (cwd_ / path).string(); }
  fs::path cwd_;
};

TEST_F(Paths, LocalFoldersBecomeAbsolute) {
  EXPECT_EQ(RefToSend("models/fashion", cwd_), At("models/fashion"));
  EXPECT_EQ(RefToSend("./models/fashion/", cwd_), At("models/fashion"));
  EXPECT_EQ(RefToSend("models/../models/fashion", cwd_), At("models/fashion"));
  EXPECT_EQ(RefToSend("fashion-here", cwd_), At("fashion-here"));
  EXPECT_EQ(RefToSend("/srv/models/x", cwd_), "/srv/models/x");
  EXPECT_EQ(RefToSend("not/there", cwd_), At("not/there"));
}

TEST_F(Paths, NamesOfArtifactsStayAsTheyAre) {
  const std::string id(64, 'a');
  fs::create_directories(cwd_ / id);  // even where a folder has such a name
  EXPECT_EQ(RefToSend(id, cwd_), id);
  for (const std::string ref : {"fashion:w4a8", "stable", "0123456789ab", "file", "s3://bucket/prefix",
                                "file:///srv/models/x", "artifacts/0123456789ab", ""})
    EXPECT_EQ(RefToSend(ref, cwd_), ref);
}

TEST_F(Paths, OnePictureGoesToTheFileThatWasNamed) {
  const auto names = PlanPictures("out.png", "fashion:w4a8", 1, v1::PNG, cwd_);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_EQ(names->Picture(7), cwd_ / "out.png");
  EXPECT_EQ(names->Preview(7, 3), cwd_ / "out-step0003.png");
}

TEST_F(Paths, SeveralPicturesGetTheirSeeds) {
  EXPECT_EQ(PlanPictures("out.png", "x", 2, v1::PNG, cwd_)->Picture(7), cwd_ / "out-7.png");
  EXPECT_EQ(PlanPictures("out-<seed>.png", "x", 2, v1::PNG, cwd_)->Picture(7), cwd_ / "out-7.png");
  EXPECT_EQ(PlanPictures("out-<seed>.png", "x", 1, v1::PNG, cwd_)->Picture(7), cwd_ / "out-7.png");
  EXPECT_EQ(PlanPictures("models", "fashion:w4a8", 2, v1::WEBP, cwd_)->Picture(7),
            cwd_ / "models" / "fashion-w4a8-7.webp");
  EXPECT_EQ(PlanPictures("new", "x", 2, v1::PNG, cwd_)->Picture(7), cwd_ / "new" / "x-7.png");
  EXPECT_EQ(PlanPictures("new2/", "x", 1, v1::PNG, cwd_)->Picture(7), cwd_ / "new2" / "x-7.png");
  EXPECT_TRUE(fs::is_directory(cwd_ / "new") && fs::is_directory(cwd_ / "new2"));
}

TEST_F(Paths, WithoutOutTheNameComesFromTheRef) {
  EXPECT_EQ(PlanPictures("", "models/fashion/", 1, v1::PNG, cwd_)->Picture(7), cwd_ / "fashion-7.png");
  EXPECT_EQ(PlanPictures("", std::string(64, 'a'), 1, v1::JPEG, cwd_)->Picture(7),
            cwd_ / "aaaaaaaaaaaa-7.jpeg");
  EXPECT_EQ(PlanPictures("", "..", 1, v1::PNG, cwd_)->Picture(7), cwd_ / "picture-7.png");
}

TEST_F(Paths, AFolderThatIsNotThereIsRefused) {
  EXPECT_EQ(PlanPictures("no/such/out.png", "x", 1, v1::PNG, cwd_).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(PlanPictures("no/such/", "x", 2, v1::PNG, cwd_).ok());
  EXPECT_FALSE(PlanPictures("file/out.png", "x", 1, v1::PNG, cwd_).ok());
  EXPECT_FALSE(fs::exists(cwd_ / "no"));
}

TEST_F(Paths, AReportStaysInItsFolder) {
  for (const char* path : {"report.html", "pictures/0.png"}) EXPECT_TRUE(CheckInside(path).ok()) << path;
  for (const std::string path : {"", "/etc/passwd", "../x", "a/../../x", "a/..", ".", "a/", "./x"})
    EXPECT_EQ(CheckInside(path).code(), absl::StatusCode::kDataLoss) << path;
  EXPECT_FALSE(CheckInside(std::string("a\0b", 3)).ok());
}

}  // namespace
}  // namespace tempera
