#include "jobs/sqlite.h"

#include <cerrno>
#include <utility>

namespace tempera::sqlite {

Status ErrorOf(int code, int system_error, std::string_view detail) {
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ResourceExhausted("job store: the disk is full");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable("job store: busy, another process holds it");
    case SQLITE_CORRUPT:
      return DataLoss("job store: damaged (", detail, ")");
    case SQLITE_NOTADB:
      return DataLoss("job store: not a job store, or its first page is damaged");
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return PermissionDenied("job store: not writable");
    case SQLITE_NOMEM:
      return ResourceExhausted("job store: out of memory");
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      if (system_error == ENOSPC || system_error == EDQUOT)
        return ResourceExhausted("job store: the disk is full");
      if ((code & 0xff) == SQLITE_CANTOPEN) return Unavailable("job store: cannot be opened");
      return Unavailable("job store: input or output failed (", detail, ")");
    default:
      return Internal("job store: ", detail);
  }
}

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_),
      stmt_(std::exchange(other.stmt_, nullptr)),
      once_(other.once_),
      status_(std::move(other.status_)) {}

Statement::~Statement() {
  if (stmt_ == nullptr) return;
  if (once_) {
    sqlite3_finalize(stmt_);
    return;
  }
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

bool Statement::Step() {
  if (!status_.ok()) return false;
  const int code = sqlite3_step(stmt_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE)
    status_ = ErrorOf(sqlite3_extended_errcode(db_), sqlite3_system_errno(db_), sqlite3_errmsg(db_));
  return false;
}

Status Statement::Row() {
  if (Step()) return OkStatus();
  return status_.ok() ? DataLoss("job store: a row is missing") : status_;
}

Status Statement::Run() {
  TEMPERA_CHECK(!Step(), "a command gave a row");
  return status_;
}

std::string Statement::Text(int column) const {
  const void* text = sqlite3_column_blob(stmt_, column);
  const int size = sqlite3_column_bytes(stmt_, column);
  return text == nullptr ? std::string()
                         : std::string(static_cast<const char*>(text), static_cast<size_t>(size));
}

void Statement::BindOne(int i, int64_t value) {
  if (status_.ok() && sqlite3_bind_int64(stmt_, i, value) != SQLITE_OK)
    status_ = Internal("job store: bind ", i);
}
void Statement::BindOne(int i, double value) {
  if (status_.ok() && sqlite3_bind_double(stmt_, i, value) != SQLITE_OK)
    status_ = Internal("job store: bind ", i);
}
void Statement::BindOne(int i, std::string_view value) {
  const char* data = value.empty() ? "" : value.data();  // a null pointer would bind NULL
  if (status_.ok() &&
      sqlite3_bind_text64(stmt_, i, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8) != SQLITE_OK)
    status_ = Internal("job store: bind ", i);
}

Result<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& file,
                                                 std::chrono::milliseconds busy_timeout) {
  std::unique_ptr<Database> db(new Database);
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  if (sqlite3_open_v2(file.c_str(), &db->db_, flags, nullptr) != SQLITE_OK) return db->LastError();
  sqlite3_busy_timeout(db->db_, static_cast<int>(busy_timeout.count()));
  // Of connections that turn a new file to WAL at once SQLite refuses some without asking their busy handler:
  // each holds what the other waits for. They ask again.
  const auto deadline = std::chrono::steady_clock::now() + busy_timeout;
  for (;;) {
    const Status set = db->Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    if (set.ok()) return db;
    if ((sqlite3_errcode(db->db_) & 0xff) != SQLITE_BUSY || std::chrono::steady_clock::now() >= deadline)
      return set;
    sqlite3_sleep(1);
  }
}

Database::~Database() {
  for (const auto& [text, stmt] : prepared_) sqlite3_finalize(stmt);
  sqlite3_close(db_);
}

Status Database::LastError() const {
  if (db_ == nullptr) return ErrorOf(SQLITE_NOMEM, 0, "");
  return ErrorOf(sqlite3_extended_errcode(db_), sqlite3_system_errno(db_), sqlite3_errmsg(db_));
}

Statement Database::Prepare(const std::string& text) {
  sqlite3_stmt*& stmt = prepared_[text];
  Status status;
  if (stmt == nullptr) status = Compile(text, SQLITE_PREPARE_PERSISTENT, &stmt);
  return Statement(db_, stmt, /*once=*/false, std::move(status));
}

Statement Database::PrepareOnce(const std::string& text) {
  sqlite3_stmt* stmt = nullptr;
  Status status = Compile(text, 0, &stmt);
  return Statement(db_, stmt, /*once=*/true, std::move(status));
}

Status Database::Compile(const std::string& text, unsigned flags, sqlite3_stmt** stmt) {
  const int size = static_cast<int>(text.size());
  if (sqlite3_prepare_v3(db_, text.c_str(), size, flags, stmt, nullptr) != SQLITE_OK) return LastError();
  return OkStatus();
}

Status Database::Execute(const std::string& text) {
  if (sqlite3_exec(db_, text.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return LastError();
  return OkStatus();
}

Status Transaction::Begin() {
  TEMPERA_TRY(db_.Execute("BEGIN IMMEDIATE"));
  open_ = true;
  return OkStatus();
}

Status Transaction::Commit() {
  TEMPERA_TRY(db_.Execute("COMMIT"));
  open_ = false;
  return OkStatus();
}

Transaction::~Transaction() {
  // May find nothing to do: SQLite itself rolls back after some errors.
  if (open_) (void)db_.Execute("ROLLBACK");
}

namespace {

Result<int64_t> Version(Database& db) {
  Statement s = db.Prepare("PRAGMA user_version");
  TEMPERA_TRY(s.Row());
  return s.Int(0);
}

}  // namespace

Status Migrate(Database& db, std::span<const char* const> scripts) {
  const int64_t want = static_cast<int64_t>(scripts.size());
  TEMPERA_ASSIGN(int64_t version, Version(db));
  while (version < want) {
    Transaction transaction(db);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(version, Version(db));  // another process may have been faster
    if (version >= want) break;
    TEMPERA_TRY(db.Execute(scripts[static_cast<size_t>(version)]));
    TEMPERA_TRY(db.Execute(Cat("PRAGMA user_version = ", version + 1)));
    TEMPERA_TRY(transaction.Commit());
    ++version;
  }
  if (version > want)
    return FailedPrecondition("job store: made by a newer version, got schema ", version, ", want at most ",
                              want);
  return OkStatus();
}

}  // namespace tempera::sqlite
