#include "jobs/sqlite.h"

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/temp_folder.h"

namespace tempera::sqlite {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

std::unique_ptr<Database> OpenAt(const std::filesystem::path& file) {
  auto db = Database::Open(file, milliseconds(5000));
  EXPECT_TRUE(db.ok()) << db.status();
  return db.ok() ? *std::move(db) : nullptr;
}

int64_t One(Database& db, const std::string& text) {
  Statement s = db.Prepare(text);
  EXPECT_TRUE(s.Row().ok()) << text << ": " << s.status();
  return s.Int(0);
}

TEST(Statement, BindsEveryKindAndReadsItBack) {
  TempFolder folder;
  const auto db = OpenAt(folder / "db");
  Statement s = db->Prepare("SELECT ?, ?, ?, ?").Bind(int64_t{1} << 40, 0.1, std::string("a\0b", 3), "");
  ASSERT_TRUE(s.Row().ok());
  EXPECT_EQ(s.Int(0), int64_t{1} << 40);
  EXPECT_EQ(s.Double(1), 0.1);
  EXPECT_EQ(s.Text(2), std::string("a\0b", 3));
  EXPECT_EQ(s.Text(3), "");
}

TEST(Statement, KeepsItsErrors) {
  TempFolder folder;
  const auto db = OpenAt(folder / "db");
  EXPECT_TRUE(absl::IsInternal(db->Prepare("SELEC 1").Run()));
  ASSERT_TRUE(db->Execute("CREATE TABLE t(x INTEGER PRIMARY KEY)").ok());
  EXPECT_TRUE(db->Prepare("INSERT INTO t VALUES(?)").Bind(1).Run().ok());
  EXPECT_FALSE(db->Prepare("INSERT INTO t VALUES(?)").Bind(1).Run().ok()) << "the same key twice";
  EXPECT_TRUE(db->Prepare("INSERT INTO t VALUES(?)").Bind(2).Run().ok()) << "the text is usable again";
  EXPECT_TRUE(absl::IsDataLoss(db->Prepare("SELECT x FROM t WHERE x = 9").Row()))
      << "a row that must be there";
}

TEST(Transaction, RollsBackUnlessCommitted) {
  TempFolder folder;
  const auto db = OpenAt(folder / "db");
  ASSERT_TRUE(db->Execute("CREATE TABLE t(x)").ok());
  {
    Transaction t(*db);
    ASSERT_TRUE(t.Begin().ok());
    ASSERT_TRUE(db->Execute("INSERT INTO t VALUES(1)").ok());
  }
  EXPECT_EQ(One(*db, "SELECT count(*) FROM t"), 0);
  {
    Transaction t(*db);
    ASSERT_TRUE(t.Begin().ok());
    ASSERT_TRUE(db->Execute("INSERT INTO t VALUES(1)").ok());
    ASSERT_TRUE(t.Commit().ok());
  }
  EXPECT_EQ(One(*db, "SELECT count(*) FROM t"), 1);
}

TEST(Transaction, WaitsNoLongerThanItWasTold) {
  TempFolder folder;
  const auto one = OpenAt(folder / "db");
  auto two = Database::Open(folder / "db", milliseconds(20));
  ASSERT_TRUE(two.ok());
  Transaction held(*one);
  ASSERT_TRUE(held.Begin().ok());
  Transaction other(**two);
  EXPECT_TRUE(absl::IsUnavailable(other.Begin()));
}

constexpr const char* kScripts[] = {"CREATE TABLE t(x INTEGER); INSERT INTO t VALUES(7);",
                                    "ALTER TABLE t ADD COLUMN y INTEGER NOT NULL DEFAULT 3;",
                                    "CREATE TABLE u(z); INSERT INTO u SELECT x + y FROM t;"};

TEST(Migrate, GoesForwardFromEveryVersionWithItsData) {
  for (size_t from = 0; from <= 3; ++from) {
    TempFolder folder;
    {
      const auto db = OpenAt(folder / "db");
      ASSERT_TRUE(Migrate(*db, std::span(kScripts, from)).ok());
      EXPECT_EQ(One(*db, "PRAGMA user_version"), static_cast<int64_t>(from));
    }
    const auto db = OpenAt(folder / "db");
    ASSERT_TRUE(Migrate(*db, kScripts).ok());
    EXPECT_EQ(One(*db, "PRAGMA user_version"), 3);
    EXPECT_EQ(One(*db, "SELECT z FROM u"), 10);
  }
}

TEST(Migrate, RefusesWhatANewerVersionMade) {
  TempFolder folder;
  const auto db = OpenAt(folder / "db");
  ASSERT_TRUE(Migrate(*db, kScripts).ok());
  const Status status = Migrate(*db, std::span(kScripts, 2));
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(Message(status), HasSubstr("got schema 3, want at most 2"));
}

TEST(Migrate, AScriptThatFailsChangesNothing) {
  TempFolder folder;
  const auto db = OpenAt(folder / "db");
  const char* const scripts[] = {kScripts[0], "CREATE TABLE v(x); INSERT INTO nowhere VALUES(1);"};
  EXPECT_FALSE(Migrate(*db, scripts).ok());
  EXPECT_EQ(One(*db, "PRAGMA user_version"), 1);
  EXPECT_EQ(One(*db, "SELECT count(*) FROM sqlite_master WHERE name = 'v'"), 0);
  ASSERT_TRUE(Migrate(*db, kScripts).ok());
}

TEST(ErrorOf, TellsTroublesApart) {
  EXPECT_TRUE(absl::IsResourceExhausted(ErrorOf(SQLITE_FULL, 0, "")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrorOf(SQLITE_IOERR_WRITE, ENOSPC, "")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrorOf(SQLITE_CANTOPEN, ENOSPC, "")));
  EXPECT_TRUE(absl::IsUnavailable(ErrorOf(SQLITE_IOERR_READ, EIO, "")));
  EXPECT_TRUE(absl::IsUnavailable(ErrorOf(SQLITE_BUSY_SNAPSHOT, 0, "")));
  EXPECT_TRUE(absl::IsDataLoss(ErrorOf(SQLITE_CORRUPT_INDEX, 0, "")));
  EXPECT_TRUE(absl::IsDataLoss(ErrorOf(SQLITE_NOTADB, 0, "")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrorOf(SQLITE_READONLY, 0, "")));
}

}  // namespace
}  // namespace tempera::sqlite
