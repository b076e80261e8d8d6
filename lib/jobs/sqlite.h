// SQLite as values and Status. Private to lib/jobs.
#pragma once

#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace tempera::sqlite {

// One row being read, or a command. Reset when it goes away; its text stays prepared in the database. A
// failed Bind or Step is kept: see status().
class Statement {
 public:
  // `once`: finalized at the end instead of reset.
  Statement(sqlite3* db, sqlite3_stmt* stmt, bool once, Status status)
      : db_(db), stmt_(stmt), once_(once), status_(std::move(status)) {}
  Statement(Statement&& other) noexcept;
  ~Statement();

  // Parameters in their order; the first is 1.
  template <typename... T>
  Statement&& Bind(const T&... values) && {
    int i = 0;
    (BindOne(++i, values), ...);
    return std::move(*this);
  }
  // True: a row is there. False: the end, or an error.
  bool Step();
  // Steps to a row that must be there.
  Status Row();
  // Runs a command that gives no rows.
  Status Run();
  const Status& status() const { return status_; }

  int64_t Int(int column) const { return sqlite3_column_int64(stmt_, column); }
  double Double(int column) const { return sqlite3_column_double(stmt_, column); }
  std::string Text(int column) const;

  void BindOne(int i, int64_t value);
  void BindOne(int i, int value) { BindOne(i, int64_t{value}); }
  void BindOne(int i, double value);
  void BindOne(int i, std::string_view value);
  void BindOne(int i, const std::string& value) { BindOne(i, std::string_view(value)); }
  void BindOne(int i, const char* value) { BindOne(i, std::string_view(value)); }

 private:
  sqlite3* db_;
  sqlite3_stmt* stmt_;
  bool once_;
  Status status_;
};

// One connection. Thread-compatible.
class Database {
 public:
  // Opens or makes `file`. WAL, every commit synced.
  static Result<std::unique_ptr<Database>> Open(const std::filesystem::path& file,
                                                std::chrono::milliseconds busy_timeout);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // REQUIRES: one Statement of a text at a time.
  Statement Prepare(const std::string& text);
  // Not kept for the next time.
  Statement PrepareOnce(const std::string& text);
  // Any number of commands, without parameters.
  Status Execute(const std::string& text);
  // Rows changed by the last command.
  int64_t changes() const { return sqlite3_changes64(db_); }
  // Unavailable, ResourceExhausted, DataLoss, FailedPrecondition or Internal from the last error.
  Status LastError() const;

 private:
  Database() = default;
  Status Compile(const std::string& text, unsigned flags, sqlite3_stmt** stmt);
  sqlite3* db_ = nullptr;
  std::map<std::string, sqlite3_stmt*> prepared_;
};

// A write transaction. Takes the write lock at once, so that what it read cannot change before it writes.
// Rolls back unless Commit() succeeded.
class Transaction {
 public:
  explicit Transaction(Database& db) : db_(db) {}
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  Status Begin();
  Status Commit();

 private:
  Database& db_;
  bool open_ = false;
};

// Brings the schema from its version (0: an empty file) to scripts.size(), each script in one transaction
// with its version number. FailedPrecondition: the file is newer.
Status Migrate(Database& db, std::span<const char* const> scripts);

// As Database's errors, for one result code.
Status ErrorOf(int code, int system_error, std::string_view detail);

}  // namespace tempera::sqlite
