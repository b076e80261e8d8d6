#include "jobs/sqlite_rows.h"

#include <charconv>

#include "base/files.h"
#include "jobs/filter.h"

namespace tempera::sqlite {

const std::string_view kSelectJobs =
    "SELECT id, model, name, labels, spec, method, request_id, state, stage, unit, done, total, fraction,"
    " best_fraction, eta_seconds, create_ms, start_ms, update_ms, end_ms, not_before_ms, attempts, "
    "fruitless, worker,"
    " token, lease_until_ms, error_code, error, artifact_id, revision FROM jobs ";

Result<Row> ReadRow(const Statement& s) {
  Row row;
  Job& job = row.job;
  int c = 0;
  job.id = s.Text(c++);
  job.model = s.Text(c++);
  job.name = s.Text(c++);
  const std::string labels = s.Text(c++);
  const std::string spec = s.Text(c++);
  job.method = s.Text(c++);
  job.request_id = s.Text(c++);
  job.state = static_cast<JobState>(s.Int(c++));
  job.progress.stage = s.Text(c++);
  job.progress.unit = s.Text(c++);
  job.progress.done = s.Int(c++);
  job.progress.total = s.Int(c++);
  job.progress.fraction = s.Double(c++);
  row.best_fraction = s.Double(c++);
  job.progress.eta_seconds = s.Double(c++);
  job.create_ms = s.Int(c++);
  job.start_ms = s.Int(c++);
  job.update_ms = s.Int(c++);
  job.end_ms = s.Int(c++);
  row.not_before_ms = s.Int(c++);
  job.attempts = s.Int(c++);
  job.fruitless = s.Int(c++);
  job.worker = s.Text(c++);
  row.token = s.Int(c++);
  job.lease_until_ms = s.Int(c++);
  const auto code = static_cast<absl::StatusCode>(s.Int(c++));
  job.error = Status(code, s.Text(c++));
  job.artifact_id = s.Text(c++);
  job.revision = s.Int(c++);
  const std::string label = Cat("job store: job ", job.id);
  if (JobStateName(job.state) == "UNKNOWN")
    return DataLoss(label, ": got state ", static_cast<int>(job.state), ", want a known one");
  const Result<Json> read_spec = ParseJson(spec, label);
  const Result<Json> read_labels = ParseJson(labels, label);
  if (!read_spec.ok() || !read_labels.ok() || !read_labels->is_object())
    return DataLoss(label, ": damaged record");
  job.spec = *read_spec;
  for (const auto& [key, value] : read_labels->items()) {
    if (!value.is_string()) return DataLoss(label, ": damaged labels");
    job.labels[key] = value.get<std::string>();
  }
  return row;
}

Result<Where> Where::Parse(const std::string& filter) {
  TEMPERA_ASSIGN(const std::vector<JobCondition> conditions, ParseJobFilter(filter));
  Where where;
  for (const JobCondition& c : conditions) {
    if (c.field == "label") {
      where.values.push_back("$.\"" + c.label + "\"");
      // IS NOT: a job without the label differs from every value.
      where.Add(c.op == "=" ? "json_extract(labels, ?) IS ?" : "json_extract(labels, ?) IS NOT ?", c.text);
    } else if (c.field == "state" || c.field == "create_time") {
      where.Add(Cat(c.field == "state" ? "state " : "create_ms ", c.op, " ?"), c.number);
    } else {
      where.Add(Cat(c.field, " ", c.op, " ?"), c.text);
    }
  }
  return where;
}

void Where::Add(const std::string& condition, std::variant<int64_t, std::string> value) {
  text += "AND " + condition + " ";
  values.push_back(std::move(value));
}

Statement Where::Prepare(Database& db, const std::string& sql) const {
  Statement s = db.PrepareOnce(sql);
  int i = 0;
  for (const auto& value : values) {
    ++i;
    std::visit([&](const auto& v) { s.BindOne(i, v); }, value);
  }
  return s;
}

namespace {
std::string Digest(const JobQuery& query) {
  return Sha256Hex(Cat(query.filter, "\n", query.order_by)).substr(0, 16);
}
}  // namespace

std::string Cursor::Token(const JobQuery& query) const { return Cat(Digest(query), ".", create_ms, ".", id); }

Result<Cursor> Cursor::Parse(const JobQuery& query) {
  const std::string& token = query.page_token;
  const size_t first = token.find('.');
  const size_t second = first == std::string::npos ? first : token.find('.', first + 1);
  if (second == std::string::npos) return InvalidArgument("page_token: is not of this list");
  Cursor cursor;
  const char* const end = token.data() + second;
  const auto [read, error] = std::from_chars(token.data() + first + 1, end, cursor.create_ms);
  if (error != std::errc() || read != end) return InvalidArgument("page_token: is not of this list");
  if (token.substr(0, first) != Digest(query))
    return InvalidArgument("page_token: is of another filter or order_by");
  cursor.id = token.substr(second + 1);
  return cursor;
}

}  // namespace tempera::sqlite
