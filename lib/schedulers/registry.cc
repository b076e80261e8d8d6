// The table of samplers.
#include <algorithm>
#include <cmath>

#include "schedulers/discrete.h"

namespace tempera {

extern const SchedulerRow kDdim;
extern const SchedulerRow kDdpm;
extern const SchedulerRow kPndm;
extern const SchedulerRow kEuler;
extern const SchedulerRow kEulerA;
extern const SchedulerRow kHeun;
extern const SchedulerRow kDpmSolver;
extern const SchedulerRow kUniPc;
extern const SchedulerRow kLcm;
extern const SchedulerRow kFlowEuler;

const std::vector<SchedulerRow>& Schedulers() {
  static const std::vector<SchedulerRow> rows{kDdim, kDdpm,      kPndm,  kEuler, kEulerA,
                                              kHeun, kDpmSolver, kUniPc, kLcm,   kFlowEuler};
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

// InvalidArgument where the request sets what means nothing to the row.
Status CheckTaken(const SchedulerRow& row, const SchedulerRequest& request) {
  const auto untaken = [&](const char* field, const auto& got) {
    return InvalidArgument(field, ": ", row.name, " does not take it, got ", got, ", want none");
  };
  if (!row.takes.eta && request.eta.value_or(0) != 0) return untaken("eta", *request.eta);
  if (!row.takes.spacing && request.spacing) return untaken("spacing", *request.spacing);
  if (!row.takes.mu && request.mu) return untaken("mu", *request.mu);
  if (!row.takes.sigmas && request.sigmas) return untaken("sigmas", Cat(request.sigmas->size(), " levels"));
  return OkStatus();
}

}  // namespace

Result<std::shared_ptr<const Scheduler>> CreateScheduler(const SchedulerRequest& request) {
  if (request.steps && *request.steps < 1)
    return InvalidArgument("steps: got ", *request.steps, ", want at least 1");
  if (request.eta && !(std::isfinite(*request.eta) && *request.eta >= 0))
    return InvalidArgument("eta: got ", *request.eta, ", want a finite number that is not negative");
  if (request.mu && !std::isfinite(*request.mu))
    return InvalidArgument("mu: got ", *request.mu, ", want a finite number");
  if (request.spacing && std::find(kSpacings.begin(), kSpacings.end(), *request.spacing) == kSpacings.end())
    return InvalidArgument("spacing: got \"", *request.spacing, "\", want one of ", Joined(kSpacings));
  if (!request.options.is_null() && !request.options.is_object())
    return InvalidArgument("scheduler options: got ", request.options.type_name(), ", want a JSON object");
  TEMPERA_ASSIGN(const SchedulerRow* row, FindRow(request));
  TEMPERA_TRY(CheckTaken(*row, request));
  SchedulerRequest merged = request;
  if (merged.config.is_object()) {
    if (request.options.is_object() && !request.options.empty()) {
      merged.config.update(request.options);
      if (const auto own = request.config.find("_class_name"); own != request.config.end())
        merged.config["_class_name"] = *own;
      merged.label += " with the request's options";
    }
    if (request.spacing) merged.config["timestep_spacing"] = *request.spacing;
  }
  return row->create(*row, merged);
}

}  // namespace tempera
