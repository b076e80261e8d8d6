// The table of samplers.
#include <cmath>

#include "schedulers/scheduler.h"

namespace tempera {

extern const SchedulerRow kDdim;
extern const SchedulerRow kDdpm;

const std::vector<SchedulerRow>& Schedulers() {
  static const std::vector<SchedulerRow> rows{kDdim, kDdpm};
  return rows;
}

namespace {

// "ddim, ddpm": the rows' names or classes.
std::string Names(const char* SchedulerRow::*member) {
  std::string text;
  for (const SchedulerRow& row : Schedulers()) text += (text.empty() ? "" : ", ") + std::string(row.*member);
  return text;
}

Result<const SchedulerRow*> FindRow(const SchedulerRequest& request) {
  if (request.name) {
    for (const SchedulerRow& row : Schedulers())
      if (*request.name == row.name) return &row;
    return InvalidArgument("scheduler: unknown name, got \"", *request.name, "\", want one of ",
                           Names(&SchedulerRow::name));
  }
  Fields fields(request.config, request.label);
  std::string class_name;
  fields.Need("_class_name", class_name);
  TEMPERA_TRY(fields.status());
  for (const SchedulerRow& row : Schedulers())
    if (class_name == row.class_name) return &row;
  return InvalidArgument(request.label, ": _class_name is not supported, got \"", class_name,
                         "\", want one of ", Names(&SchedulerRow::class_name));
}

}  // namespace

Result<std::shared_ptr<const Scheduler>> CreateScheduler(const SchedulerRequest& request) {
  if (request.steps && *request.steps < 1)
    return InvalidArgument("steps: got ", *request.steps, ", want at least 1");
  if (request.eta && !(std::isfinite(*request.eta) && *request.eta >= 0))
    return InvalidArgument("eta: got ", *request.eta, ", want a finite number that is not negative");
  TEMPERA_ASSIGN(const SchedulerRow* row, FindRow(request));
  return row->create(*row, request);
}

}  // namespace tempera
