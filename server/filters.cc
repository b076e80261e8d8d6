#include "server/filters.h"

#include <algorithm>

namespace tempera {

std::string AliasToName(std::string_view filter) {
  constexpr std::string_view kAlias = "alias";
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  std::string out;
  for (size_t i = 0; i < filter.size();) {
    if (filter[i] == '"') {  // a quoted value, as it is
      size_t end = i + 1;
      while (end < filter.size() && filter[end] != '"') end += filter[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, filter.size());
      out.append(filter.substr(i, end - i));
      i = end;
    } else if (is_word(filter[i])) {
      size_t end = i;
      while (end < filter.size() && is_word(filter[end])) ++end;
      const std::string_view word = filter.substr(i, end - i);
      const size_t next = filter.find_first_not_of(" \t\n", end);
      const bool is_field = next != std::string_view::npos && (filter[next] == '=' || filter[next] == '!');
      out.append(word == kAlias && is_field ? "name" : word);
      i = end;
    } else {
      out.push_back(filter[i++]);
    }
  }
  return out;
}

Result<std::vector<JobCondition>> ParseArtifactFilter(const std::string& filter) {
  TEMPERA_ASSIGN(std::vector<JobCondition> conditions, ParseJobFilter(AliasToName(filter)));
  for (const JobCondition& c : conditions)
    if (c.field != "model" && c.field != "method" && c.field != "name" && c.field != "create_time" &&
        c.field != "label")
      return InvalidArgument("filter: got field \"", c.field,
                             "\", want model, method, alias, create_time or labels.KEY");
  return conditions;
}

bool Matches(const std::vector<JobCondition>& conditions, const ArtifactSummary& artifact,
             const std::vector<std::string>& aliases) {
  for (const JobCondition& c : conditions) {
    if (c.field == "create_time") {
      const int64_t t = artifact.create_ms;
      const bool holds = c.op == "="    ? t == c.number
                         : c.op == "!=" ? t != c.number
                         : c.op == "<"  ? t < c.number
                         : c.op == "<=" ? t <= c.number
                         : c.op == ">"  ? t > c.number
                                        : t >= c.number;
      if (!holds) return false;
      continue;
    }
    bool equal = false;
    if (c.field == "model") equal = artifact.message.model().name() == c.text;
    if (c.field == "method") equal = artifact.method == c.text;
    if (c.field == "name") equal = std::find(aliases.begin(), aliases.end(), c.text) != aliases.end();
    if (c.field == "label") {
      const auto it = artifact.message.labels().find(c.label);
      equal = it != artifact.message.labels().end() && it->second == c.text;
    }
    if (equal != (c.op == "=")) return false;
  }
  return true;
}

Result<bool> Descending(const std::string& order_by) {
  if (order_by.empty() || order_by == "create_time desc") return true;
  if (order_by == "create_time") return false;
  return InvalidArgument("order_by: got \"", order_by.substr(0, 60),
                         "\", want create_time or create_time desc");
}

}  // namespace tempera
