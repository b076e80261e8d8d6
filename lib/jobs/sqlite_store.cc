#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <random>
#include <utility>

#include "jobs/job_store.h"
#include "jobs/sqlite.h"
#include "jobs/sqlite_rows.h"

namespace tempera {
namespace {

using sqlite::Cursor;
using sqlite::Database;
using sqlite::kSelectJobs;
using sqlite::ReadRow;
using sqlite::Row;
using sqlite::Statement;
using sqlite::Transaction;
using sqlite::Where;

constexpr int64_t kApplicationId = 0x546d706a;

// Forward only: a released script never changes, a new one is appended.
constexpr std::array kSchema{
    R"sql(
PRAGMA application_id = 1416458346;
CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;
INSERT INTO meta VALUES(1, 0);
CREATE TABLE jobs(
  id TEXT PRIMARY KEY, model TEXT NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL, spec TEXT NOT NULL,
  method TEXT NOT NULL, request_id TEXT NOT NULL, state INTEGER NOT NULL, stage TEXT NOT NULL, unit TEXT NOT NULL,
  done INTEGER NOT NULL, total INTEGER NOT NULL, fraction REAL NOT NULL, best_fraction REAL NOT NULL,
  eta_seconds REAL NOT NULL, create_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL, update_ms INTEGER NOT NULL,
  end_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL, attempts INTEGER NOT NULL, fruitless INTEGER NOT NULL,
  worker TEXT NOT NULL, token INTEGER NOT NULL, lease_until_ms INTEGER NOT NULL, error_code INTEGER NOT NULL,
  error TEXT NOT NULL, artifact_id TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
CREATE INDEX jobs_by_time ON jobs(create_ms, id);
CREATE INDEX jobs_by_state ON jobs(state, create_ms, id);
CREATE INDEX jobs_by_revision ON jobs(revision);
CREATE TABLE keys(request_id TEXT PRIMARY KEY, body_sha256 TEXT NOT NULL, answer TEXT NOT NULL,
                  create_ms INTEGER NOT NULL) STRICT;
CREATE INDEX keys_by_time ON keys(create_ms);
CREATE TABLE aliases(name TEXT PRIMARY KEY, artifact_id TEXT NOT NULL, update_ms INTEGER NOT NULL) STRICT;
CREATE INDEX aliases_by_artifact ON aliases(artifact_id);
)sql"};

std::string NewId() {
  std::random_device random;
  const uint64_t value = (uint64_t{random()} << 32) | random();
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

Status LeaseLost(const std::string& id) {
  return absl::AbortedError(Cat("job \"", id, "\": the lease is lost"));
}

class SqliteJobStore final : public JobStore {
 public:
  SqliteJobStore(std::unique_ptr<Database> db, JobStoreOptions options)
      : options_(std::move(options)), db_(std::move(db)) {}

  Result<Created> Create(const NewJob& wanted, const std::optional<RequestKey>& key) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    if (key) {
      TEMPERA_ASSIGN(const auto answer, Answer(*key));
      if (answer) {
        TEMPERA_ASSIGN(Row row, Load(*answer));
        return Created{std::move(row.job), true};
      }
    }
    Row row;
    row.job.id = NewId();
    row.job.model = wanted.model;
    row.job.name = wanted.name;
    row.job.labels = wanted.labels;
    row.job.spec = wanted.spec;
    row.job.method = wanted.method;
    row.job.create_ms = Now();
    if (key) row.job.request_id = key->request_id;
    TEMPERA_TRY(
        db_->Prepare("INSERT INTO jobs VALUES(?1,?2,?3,?4,?5,?6,?7,1,'','',0,0,0.0,0.0,-1.0,?8,0,?8,0,0,0,0,"
                     "'',0,0,0,'','',0)")
            .Bind(row.job.id, wanted.model, wanted.name, CanonicalJson(Json(wanted.labels)),
                  CanonicalJson(wanted.spec), wanted.method, row.job.request_id, row.job.create_ms)
            .Run());
    TEMPERA_TRY(Save(row));
    if (key) TEMPERA_TRY(Remember(*key, row.job.id));
    TEMPERA_TRY(transaction.Commit());
    return Created{std::move(row.job), false};
  }

  Result<Job> Get(const std::string& id) override {
    const std::lock_guard lock(mutex_);
    TEMPERA_ASSIGN(Row row, Load(id));
    return std::move(row.job);
  }

  Result<JobPage> List(const JobQuery& query) override {
    if (query.page_size < 1 || query.page_size > 1000)
      return InvalidArgument("page_size: got ", query.page_size, ", want 1 to 1000");
    const bool ascending = query.order_by == "create_time" || query.order_by == "create_time asc";
    if (!ascending && !query.order_by.empty() && query.order_by != "create_time desc")
      return InvalidArgument("order_by: got \"", query.order_by.substr(0, 60),
                             "\", want \"create_time\" or \"create_time desc\"");
    TEMPERA_ASSIGN(Where where, Where::Parse(query.filter));
    const std::lock_guard lock(mutex_);
    JobPage page;
    {
      Statement count = where.Prepare(*db_, "SELECT count(*) FROM jobs " + where.text);
      TEMPERA_TRY(count.Row());
      page.total_size = count.Int(0);
    }
    if (!query.page_token.empty()) {
      TEMPERA_ASSIGN(const Cursor cursor, Cursor::Parse(query));
      where.values.push_back(cursor.create_ms);
      where.Add(ascending ? "(create_ms, id) > (?, ?)" : "(create_ms, id) < (?, ?)", cursor.id);
    }
    const std::string order = ascending ? "ORDER BY create_ms, id" : "ORDER BY create_ms DESC, id DESC";
    where.values.push_back(query.page_size + 1);
    Statement s = where.Prepare(*db_, Cat(kSelectJobs, where.text, order, " LIMIT ?"));
    while (s.Step()) {
      if (static_cast<int64_t>(page.jobs.size()) == query.page_size) {
        const Job& last = page.jobs.back();
        page.next_page_token = Cursor{last.create_ms, last.id}.Token(query);
        break;
      }
      TEMPERA_ASSIGN(Row row, ReadRow(s));
      page.jobs.push_back(std::move(row.job));
    }
    TEMPERA_TRY(s.status());
    return page;
  }

  Result<Job> Cancel(const std::string& id, const std::string& etag) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(Row row, LoadChecked(id, etag));
    if (row.job.state == JobState::kCancelling || row.job.state == JobState::kCancelled)
      return std::move(row.job);
    if (IsTerminal(row.job.state))
      return FailedPrecondition("job \"", id, "\": has ended, got ", JobStateName(row.job.state),
                                ", want QUEUED or RUNNING");
    const bool queued = row.job.state == JobState::kQueued;
    TEMPERA_TRY(MoveJob(row.job, queued ? JobState::kCancelled : JobState::kCancelling, Now()));
    return SaveAndCommit(row, transaction);
  }

  Status Delete(const std::string& id, const std::string& etag) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(const Row row, LoadChecked(id, etag));
    if (!IsTerminal(row.job.state))
      return FailedPrecondition("job \"", id, "\": has not ended, got ", JobStateName(row.job.state),
                                ", want a terminal state: cancel it first");
    TEMPERA_TRY(db_->Prepare("DELETE FROM jobs WHERE id = ?").Bind(id).Run());
    return transaction.Commit();
  }

  Result<std::map<JobState, int64_t>> CountByState() override {
    const std::lock_guard lock(mutex_);
    std::map<JobState, int64_t> counts;
    Statement s = db_->Prepare("SELECT state, count(*) FROM jobs GROUP BY state");
    while (s.Step()) counts[static_cast<JobState>(s.Int(0))] = s.Int(1);
    TEMPERA_TRY(s.status());
    return counts;
  }

  Result<int64_t> Revision() override {
    const std::lock_guard lock(mutex_);
    return ReadRevision();
  }

  Result<Changes> ChangedSince(int64_t since, int64_t limit) override {
    const std::lock_guard lock(mutex_);
    Changes changes;
    // Read before the jobs: one that changes in between is told now, and not forgotten later.
    TEMPERA_ASSIGN(changes.revision, ReadRevision());
    Statement s =
        db_->Prepare(Cat(kSelectJobs, "WHERE revision > ? ORDER BY revision LIMIT ?")).Bind(since, limit);
    while (s.Step()) {
      TEMPERA_ASSIGN(Row row, ReadRow(s));
      changes.jobs.push_back(std::move(row.job));
    }
    TEMPERA_TRY(s.status());
    const bool full = static_cast<int64_t>(changes.jobs.size()) == limit;
    if (!changes.jobs.empty()) {
      const int64_t last = changes.jobs.back().revision;
      changes.revision = full ? last : std::max(last, changes.revision);
    }
    return changes;
  }

  Result<std::optional<Claimed>> Claim(const std::string& worker, std::chrono::milliseconds lease) override {
    const std::lock_guard lock(mutex_);
    const int64_t now = Now();
    TEMPERA_ASSIGN(std::string id, NextQueued(now));
    if (id.empty()) return std::optional<Claimed>();
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(id, NextQueued(now));  // another worker may have been faster
    if (id.empty()) return std::optional<Claimed>();
    TEMPERA_ASSIGN(Row row, Load(id));
    TEMPERA_TRY(MoveJob(row.job, JobState::kRunning, now));
    ++row.job.attempts;
    if (row.job.start_ms == 0) row.job.start_ms = now;
    row.job.worker = worker;
    row.job.lease_until_ms = now + lease.count();
    row.job.error = OkStatus();
    // The store's revision after this change: no claim before had it.
    TEMPERA_ASSIGN(const int64_t revision, ReadRevision());
    row.token = revision + 1;
    TEMPERA_ASSIGN(Job job, SaveAndCommit(row, transaction));
    return std::optional<Claimed>(Claimed{std::move(job), Lease{id, worker, row.token}});
  }

  Result<Heart> Heartbeat(const Lease& lease, std::chrono::milliseconds extend,
                          const std::optional<Progress>& progress) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(Row row, LoadLeased(lease));
    row.job.lease_until_ms = Now() + extend.count();
    if (progress) {
      row.job.progress = *progress;
      if (progress->fraction > row.best_fraction) {
        row.best_fraction = progress->fraction;
        row.job.fruitless = 0;
      }
    }
    TEMPERA_ASSIGN(const Job job, SaveAndCommit(row, transaction));
    return Heart{job.state == JobState::kCancelling, job.lease_until_ms};
  }

  Result<Job> Finish(const Lease& lease, const Outcome& outcome) override {
    TEMPERA_CHECK(IsTerminal(outcome.state), "outcome is not terminal");
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(Row row, LoadLeased(lease));
    Job& job = row.job;
    TEMPERA_TRY(MoveJob(job, outcome.state, Now()));
    job.lease_until_ms = 0;
    job.error = outcome.error;
    if (outcome.state == JobState::kSucceeded) {
      job.artifact_id = outcome.artifact_id;
      job.progress.fraction = 1;
      job.progress.eta_seconds = 0;
      if (!job.name.empty()) TEMPERA_TRY(PointAlias(job.name, job.artifact_id, Now()));
    }
    return SaveAndCommit(row, transaction);
  }

  Result<Job> Release(const Lease& lease, const Status& reason, std::chrono::milliseconds delay) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(Row row, LoadLeased(lease));
    TEMPERA_TRY(GiveBack(row, reason, Now() + delay.count()));
    return SaveAndCommit(row, transaction);
  }

  Result<Swept> Sweep() override {
    const std::lock_guard lock(mutex_);
    const int64_t now = Now();
    const int64_t old_jobs = now - options_.keep_jobs_ms;
    const int64_t old_keys = now - options_.keep_keys_ms;
    TEMPERA_ASSIGN(const bool needed, SweepNeeded(now, old_jobs, old_keys));
    Swept swept;
    if (!needed) return swept;
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_TRY(EndLeases("lease_until_ms <= ?", now, swept));
    TEMPERA_TRY(
        db_->Prepare("DELETE FROM jobs WHERE state IN (4, 5, 6, 7) AND end_ms <= ?").Bind(old_jobs).Run());
    swept.deleted_jobs = db_->changes();
    TEMPERA_TRY(db_->Prepare("DELETE FROM keys WHERE create_ms <= ?").Bind(old_keys).Run());
    swept.deleted_keys = db_->changes();
    TEMPERA_TRY(transaction.Commit());
    return swept;
  }

  Result<Swept> EndLeasesOf(const std::string& worker) override {
    const std::lock_guard lock(mutex_);
    Swept swept;
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_TRY(EndLeases("worker = ?", worker, swept));
    TEMPERA_TRY(transaction.Commit());
    return swept;
  }

  Result<Alias> MoveAlias(const AliasMove& move, const std::optional<RequestKey>& key) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    if (key) {
      TEMPERA_ASSIGN(const auto answer, Answer(*key));
      if (answer) {
        TEMPERA_ASSIGN(const Json json, ParseJson(*answer, "job store: answer"));
        Alias alias;
        Fields fields(json, "job store: answer");
        fields.Need("name", alias.name);
        fields.Need("artifact_id", alias.artifact_id);
        fields.Need("update_ms", alias.update_ms);
        TEMPERA_TRY(fields.Finish());
        return alias;
      }
    }
    TEMPERA_ASSIGN(const std::optional<Alias> now, FindAlias(move.name));
    const std::string pointed = now ? now->artifact_id : "";
    if (move.expected && *move.expected != pointed)
      return absl::AbortedError(Cat("alias \"", move.name, "\": moved meanwhile, got \"", pointed,
                                    "\", want \"", *move.expected, "\""));
    Alias alias{move.name, move.artifact_id, Now()};
    if (!move.artifact_id.empty()) {
      TEMPERA_TRY(PointAlias(move.name, move.artifact_id, alias.update_ms));
    } else if (now) {
      TEMPERA_TRY(db_->Prepare("DELETE FROM aliases WHERE name = ?").Bind(move.name).Run());
    } else if (!move.expected) {
      return NotFound("alias \"", move.name, "\": does not exist");
    }
    if (key) {
      const Json answer{
          {"name", alias.name}, {"artifact_id", alias.artifact_id}, {"update_ms", alias.update_ms}};
      TEMPERA_TRY(Remember(*key, CanonicalJson(answer)));
    }
    TEMPERA_TRY(transaction.Commit());
    return alias;
  }

  Result<Alias> GetAlias(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    TEMPERA_ASSIGN(const std::optional<Alias> alias, FindAlias(name));
    if (!alias) return NotFound("alias \"", name, "\": does not exist");
    return *alias;
  }

  Result<std::vector<Alias>> ListAliases(const std::string& artifact_id) override {
    const std::lock_guard lock(mutex_);
    std::vector<Alias> aliases;
    Statement s = db_->Prepare(
                         "SELECT name, artifact_id, update_ms FROM aliases WHERE ?1 IN ('', artifact_id)"
                         " ORDER BY name")
                      .Bind(artifact_id);
    while (s.Step()) aliases.push_back({s.Text(0), s.Text(1), s.Int(2)});
    TEMPERA_TRY(s.status());
    return aliases;
  }

  Result<std::optional<std::string>> FindAnswer(const RequestKey& key) override {
    const std::lock_guard lock(mutex_);
    return Answer(key);
  }

  Status SaveAnswer(const RequestKey& key, const std::string& answer) override {
    const std::lock_guard lock(mutex_);
    Transaction transaction(*db_);
    TEMPERA_TRY(transaction.Begin());
    TEMPERA_ASSIGN(const auto earlier, Answer(key));
    if (earlier) return OkStatus();
    TEMPERA_TRY(Remember(key, answer));
    return transaction.Commit();
  }

 private:
  int64_t Now() const { return options_.now_ms(); }

  Result<int64_t> ReadRevision() {
    Statement s = db_->Prepare("SELECT revision FROM meta");
    TEMPERA_TRY(s.Row());
    return s.Int(0);
  }

  Result<Row> Load(const std::string& id) {
    Statement s = db_->Prepare(Cat(kSelectJobs, "WHERE id = ?")).Bind(id);
    if (s.Step()) return ReadRow(s);
    TEMPERA_TRY(s.status());
    return NotFound("job \"", id.substr(0, 60), "\": does not exist");
  }

  Result<Row> LoadChecked(const std::string& id, const std::string& etag) {
    TEMPERA_ASSIGN(Row row, Load(id));
    if (!etag.empty() && etag != row.job.etag())
      return absl::AbortedError(Cat("job \"", id, "\": changed meanwhile, got etag ", etag.substr(0, 60),
                                    ", want ", row.job.etag()));
    return row;
  }

  // The job of a lease that is still held.
  Result<Row> LoadLeased(const Lease& lease) {
    Result<Row> row = Load(lease.job_id);
    if (absl::IsNotFound(row.status())) return LeaseLost(lease.job_id);
    if (!row.ok()) return row;
    const bool held = row->job.state == JobState::kRunning || row->job.state == JobState::kCancelling;
    if (!held || row->token != lease.token) return LeaseLost(lease.job_id);
    return row;
  }

  Result<std::string> NextQueued(int64_t now) {
    Statement s = db_->Prepare(
                         "SELECT id FROM jobs WHERE state = 1 AND not_before_ms <= ?"
                         " ORDER BY create_ms, id LIMIT 1")
                      .Bind(now);
    if (s.Step()) return s.Text(0);
    TEMPERA_TRY(s.status());
    return std::string();
  }

  Result<bool> SweepNeeded(int64_t now, int64_t old_jobs, int64_t old_keys) {
    Statement s = db_->Prepare(
                         "SELECT EXISTS(SELECT 1 FROM jobs WHERE state IN (2, 3) AND lease_until_ms <= ?)"
                         " OR EXISTS(SELECT 1 FROM jobs WHERE state IN (4, 5, 6, 7) AND end_ms <= ?)"
                         " OR EXISTS(SELECT 1 FROM keys WHERE create_ms <= ?)")
                      .Bind(now, old_jobs, old_keys);
    TEMPERA_TRY(s.Row());
    return s.Int(0) != 0;
  }

  // Ends the leases that meet `condition`: their workers are taken for dead.
  template <typename T>
  Status EndLeases(const std::string& condition, const T& value, Swept& swept) {
    std::vector<Row> leased;
    {
      Statement s = db_->Prepare(Cat(kSelectJobs, "WHERE state IN (2, 3) AND ", condition)).Bind(value);
      while (s.Step()) {
        TEMPERA_ASSIGN(Row row, ReadRow(s));
        leased.push_back(std::move(row));
      }
      TEMPERA_TRY(s.status());
    }
    for (Row& row : leased) {
      TEMPERA_TRY(GiveBack(row, Unavailable("worker ", row.job.worker, " died or lost its way"), Now()));
      ++(IsTerminal(row.job.state) ? swept.ended : swept.requeued);
      TEMPERA_TRY(Save(row));
    }
    return OkStatus();
  }

  // A lease ends without its job being done. `reason` not OK counts against the job.
  Status GiveBack(Row& row, const Status& reason, int64_t not_before_ms) {
    Job& job = row.job;
    job.lease_until_ms = 0;
    row.not_before_ms = not_before_ms;
    if (job.state == JobState::kCancelling) return MoveJob(job, JobState::kCancelled, Now());
    if (!reason.ok()) {
      job.error = reason;
      ++job.fruitless;
    }
    if (reason.ok() || job.fruitless < options_.max_fruitless) return MoveJob(job, JobState::kQueued, Now());
    job.error = Annotate(reason, "given up after ", job.fruitless, " attempts that got no further, the last");
    return MoveJob(job, JobState::kFailed, Now());
  }

  // Writes what can change, under a new revision.
  Status Save(Row& row) {
    Job& job = row.job;
    TEMPERA_TRY(db_->Prepare("UPDATE meta SET revision = revision + 1").Run());
    TEMPERA_ASSIGN(job.revision, ReadRevision());
    job.update_ms = Now();
    const Progress& p = job.progress;
    return db_
        ->Prepare(
            "UPDATE jobs SET state = ?2, stage = ?3, unit = ?4, done = ?5, total = ?6, fraction = ?7,"
            " best_fraction = ?8, eta_seconds = ?9, start_ms = ?10, update_ms = ?11, end_ms = ?12,"
            " not_before_ms = ?13, attempts = ?14, fruitless = ?15, worker = ?16, token = ?17,"
            " lease_until_ms = ?18, error_code = ?19, error = ?20, artifact_id = ?21, revision = ?22"
            " WHERE id = ?1")
        .Bind(job.id, static_cast<int>(job.state), p.stage, p.unit, p.done, p.total, p.fraction,
              row.best_fraction, p.eta_seconds, job.start_ms, job.update_ms, job.end_ms, row.not_before_ms,
              job.attempts, job.fruitless, job.worker, row.token, job.lease_until_ms,
              static_cast<int>(job.error.code()), Message(job.error), job.artifact_id, job.revision)
        .Run();
  }

  Result<Job> SaveAndCommit(Row& row, Transaction& transaction) {
    TEMPERA_TRY(Save(row));
    TEMPERA_TRY(transaction.Commit());
    return row.job;
  }

  Result<std::optional<Alias>> FindAlias(const std::string& name) {
    Statement s = db_->Prepare("SELECT artifact_id, update_ms FROM aliases WHERE name = ?").Bind(name);
    if (s.Step()) return std::optional(Alias{name, s.Text(0), s.Int(1)});
    TEMPERA_TRY(s.status());
    return std::optional<Alias>();
  }

  Status PointAlias(const std::string& name, const std::string& artifact_id, int64_t now) {
    return db_
        ->Prepare(
            "INSERT INTO aliases VALUES(?1, ?2, ?3) ON CONFLICT(name) DO UPDATE SET"
            " artifact_id = ?2, update_ms = ?3")
        .Bind(name, artifact_id, now)
        .Run();
  }

  // A key that is too old answers nothing, swept or not.
  Result<std::optional<std::string>> Answer(const RequestKey& key) {
    Statement s = db_->Prepare("SELECT body_sha256, answer FROM keys WHERE request_id = ? AND create_ms > ?")
                      .Bind(key.request_id, Now() - options_.keep_keys_ms);
    if (!s.Step()) {
      TEMPERA_TRY(s.status());
      return std::optional<std::string>();
    }
    if (s.Text(0) != key.body_sha256)
      return AlreadyExists("request_id \"", key.request_id.substr(0, 60),
                           "\": was used with another request");
    return std::optional(s.Text(1));
  }

  Status Remember(const RequestKey& key, const std::string& answer) {
    return db_->Prepare("INSERT OR REPLACE INTO keys VALUES(?, ?, ?, ?)")
        .Bind(key.request_id, key.body_sha256, answer, Now())
        .Run();
  }

  const JobStoreOptions options_;
  std::mutex mutex_;  // guards db_; held over disk writes, for their order is the order of the moves
  const std::unique_ptr<Database> db_;
};

Result<std::string> ReadPragma(Database& db, const std::string& text) {
  Statement s = db.Prepare(text);
  TEMPERA_TRY(s.Row());
  return s.Text(0);
}

}  // namespace

int64_t WallClockMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

Result<std::unique_ptr<JobStore>> OpenSqliteJobStore(const std::filesystem::path& file,
                                                     JobStoreOptions options) {
  if (!options.now_ms) options.now_ms = &WallClockMs;
  TEMPERA_ASSIGN(auto db, Database::Open(file, options.busy_timeout));
  TEMPERA_ASSIGN(const std::string tables, ReadPragma(*db, "SELECT count(*) FROM sqlite_master"));
  TEMPERA_ASSIGN(const std::string application, ReadPragma(*db, "PRAGMA application_id"));
  if (tables != "0" && application != Cat(kApplicationId))
    return DataLoss("job store: is another program's database");
  TEMPERA_ASSIGN(const std::string check, ReadPragma(*db, "PRAGMA quick_check(1)"));
  if (check != "ok") return DataLoss("job store: damaged (", check, ")");
  TEMPERA_TRY(sqlite::Migrate(*db, kSchema));
  return std::make_unique<SqliteJobStore>(std::move(db), std::move(options));
}

}  // namespace tempera
