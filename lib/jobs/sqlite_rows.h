// How jobs lie in the tables, and how lists are asked of them. Private to lib/jobs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "jobs/job_store.h"
#include "jobs/sqlite.h"

namespace tempera::sqlite {

// A job and what only the store needs of it.
struct Row {
  Job job;
  int64_t token = 0;          // of the last lease
  double best_fraction = 0;   // furthest progress ever
  int64_t not_before_ms = 0;  // not to be claimed earlier
};

extern const std::string_view kSelectJobs;  // "SELECT ... FROM jobs ", for ReadRow
Result<Row> ReadRow(const Statement& s);

// A condition that is put together, and the parameters of its question marks in their order.
struct Where {
  std::string text = "WHERE 1 ";
  std::vector<std::variant<int64_t, std::string>> values;

  // InvalidArgument: the filter cannot be read.
  static Result<Where> Parse(const std::string& filter);
  void Add(const std::string& condition, std::variant<int64_t, std::string> value);
  // A statement of this text alone: their number has no bound, so it is not kept.
  Statement Prepare(Database& db, const std::string& sql) const;
};

// The place in a list where a page ended.
struct Cursor {
  int64_t create_ms = 0;
  std::string id;

  // "<digest of filter and order>.<create_ms>.<id>"
  std::string Token(const JobQuery& query) const;
  // InvalidArgument: not a token, or of another filter or order.
  static Result<Cursor> Parse(const JobQuery& query);
};

}  // namespace tempera::sqlite
