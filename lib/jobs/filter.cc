#include "jobs/filter.h"

#include <charconv>
#include <chrono>

#include "jobs/job.h"

namespace tempera {
namespace {

constexpr size_t kMaxConditions = 32;

struct Token {
  enum Kind { kEnd, kWord, kText, kOperator } kind = kEnd;
  std::string text;
};

bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
         c == '.';
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : rest_(text) {}

  Result<Token> Next() {
    const size_t begin = rest_.find_first_not_of(" \t\n");
    rest_.remove_prefix(std::min(begin, rest_.size()));
    if (rest_.empty()) return Token{};
    const char c = rest_.front();
    if (c == '"') return Quoted();
    if (c == '=' || c == '!' || c == '<' || c == '>') {
      const size_t size = rest_.size() > 1 && rest_[1] == '=' && c != '=' ? 2 : 1;
      return Take(Token::kOperator, size);
    }
    if (!IsWord(c))
      return InvalidArgument("filter: got '", c, "', want a field, an operator, a value or AND");
    size_t size = 1;
    while (size < rest_.size() && IsWord(rest_[size])) ++size;
    return Take(Token::kWord, size);
  }

 private:
  Token Take(Token::Kind kind, size_t size) {
    Token token{kind, std::string(rest_.substr(0, size))};
    rest_.remove_prefix(size);
    return token;
  }

  // A backslash takes the next character as it is.
  Result<Token> Quoted() {
    Token token{Token::kText, ""};
    for (size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == '"') {
        rest_.remove_prefix(i + 1);
        return token;
      }
      if (rest_[i] == '\\' && ++i == rest_.size()) break;
      token.text.push_back(rest_[i]);
    }
    return InvalidArgument("filter: a quoted value does not end");
  }

  std::string_view rest_;
};

// "2026-01-31T00:00:00Z", with or without a fraction.
Result<int64_t> ParseTime(const std::string& text) {
  const Status bad = InvalidArgument("filter: create_time, got \"", text.substr(0, 60),
                                     "\", want a time such as 2026-01-31T00:00:00Z");
  constexpr std::string_view kShape = "dddd-dd-ddTdd:dd:dd";
  if (text.size() < kShape.size() + 1 || text.back() != 'Z') return bad;
  for (size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    if (kShape[i] == 'd' ? !digit : text[i] != kShape[i]) return bad;
  }
  const auto number = [&](size_t at, size_t size) {
    int value = 0;
    std::from_chars(text.data() + at, text.data() + at + size, value);
    return value;
  };
  const std::chrono::year_month_day day(std::chrono::year(number(0, 4)),
                                        std::chrono::month(static_cast<unsigned>(number(5, 2))),
                                        std::chrono::day(static_cast<unsigned>(number(8, 2))));
  if (!day.ok() || number(11, 2) > 23 || number(14, 2) > 59 || number(17, 2) > 59) return bad;
  const std::string fraction = text.substr(kShape.size(), text.size() - kShape.size() - 1);
  int64_t ms = 0;
  if (!fraction.empty()) {
    if (fraction.size() < 2 || fraction.front() != '.') return bad;
    for (size_t i = 1; i < fraction.size(); ++i) {
      if (fraction[i] < '0' || fraction[i] > '9') return bad;
      if (i <= 3) ms += (fraction[i] - '0') * (i == 1 ? 100 : i == 2 ? 10 : 1);
    }
  }
  const int64_t days = std::chrono::sys_days(day).time_since_epoch().count();
  return (((days * 24 + number(11, 2)) * 60 + number(14, 2)) * 60 + number(17, 2)) * 1000 + ms;
}

Status Resolve(JobCondition& condition) {
  constexpr std::string_view kLabels = "labels.";
  if (condition.field.starts_with(kLabels)) {
    condition.label = condition.field.substr(kLabels.size());
    TEMPERA_TRY(Annotate(CheckLabels({{condition.label, ""}}), "filter"));
    condition.field = "label";
  }
  const bool is_time = condition.field == "create_time";
  if (!is_time && condition.op != "=" && condition.op != "!=")
    return InvalidArgument("filter: ", condition.field, ", got \"", condition.op, "\", want = or !=");
  if (is_time) {
    TEMPERA_ASSIGN(condition.number, ParseTime(condition.text));
  } else if (condition.field == "state") {
    TEMPERA_ASSIGN(const JobState state, ParseJobState(condition.text));
    condition.number = static_cast<int64_t>(state);
  } else if (condition.field != "model" && condition.field != "method" && condition.field != "name" &&
             condition.field != "label") {
    return InvalidArgument("filter: got field \"", condition.field.substr(0, 60),
                           "\", want state, model, method, name, create_time or labels.<key>");
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<JobCondition>> ParseJobFilter(std::string_view filter) {
  std::vector<JobCondition> conditions;
  Lexer lexer(filter);
  TEMPERA_ASSIGN(Token token, lexer.Next());
  while (token.kind != Token::kEnd) {
    if (conditions.size() == kMaxConditions)
      return InvalidArgument("filter: got more than ", kMaxConditions, " conditions");
    if (!conditions.empty()) {
      if (token.kind != Token::kWord || token.text != "AND")
        return InvalidArgument("filter: got \"", token.text.substr(0, 60), "\", want AND");
      TEMPERA_ASSIGN(token, lexer.Next());
    }
    if (token.kind != Token::kWord)
      return InvalidArgument("filter: got \"", token.text.substr(0, 60), "\", want a field");
    JobCondition condition{.field = token.text, .op = {}, .label = {}, .text = {}};
    TEMPERA_ASSIGN(token, lexer.Next());
    if (token.kind != Token::kOperator || token.text == "!")
      return InvalidArgument("filter: ", condition.field.substr(0, 60), ", got \"", token.text.substr(0, 60),
                             "\", want =, !=, <, <=, > or >=");
    condition.op = token.text;
    TEMPERA_ASSIGN(token, lexer.Next());
    if (token.kind != Token::kWord && token.kind != Token::kText)
      return InvalidArgument("filter: ", condition.field.substr(0, 60), ", got \"", token.text,
                             "\", want a value");
    condition.text = token.text;
    TEMPERA_TRY(Resolve(condition));
    conditions.push_back(std::move(condition));
    TEMPERA_ASSIGN(token, lexer.Next());
  }
  return conditions;
}

}  // namespace tempera
