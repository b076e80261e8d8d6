#include "report/measurements.h"

#include "report/schema.h"

namespace tempera {

using schema::Like;

template <typename V>
void Visit(V& v, Like<JobFacts> auto& x) {
  v("id", x.id);
  v("name", x.name);
  v("labels", x.labels);
  v("started", x.started);
  v("finished", x.finished);
}
template <typename V>
void Visit(V& v, Like<MachineFacts> auto& x) {
  v("cpu", x.cpu);
  v("instruction_sets", x.instruction_sets);
  v("system", x.system);
  v("cpus", x.cpus);
  v("memory_bytes", x.memory_bytes);
  v("threads", x.threads);
}
template <typename V>
void Visit(V& v, Like<StageTime> auto& x) {
  v("name", x.name);
  v("seconds", x.seconds);
}
template <typename V>
void Visit(V& v, Like<StepTime> auto& x) {
  v("subject", x.subject);
  v("batch", x.batch);
  v("threads", x.threads);
  v("runs", x.runs);
  v("milliseconds", x.milliseconds);
}
template <typename V>
void Visit(V& v, Like<Measurements> auto& x) {
  v("version", x.version);
  v("job", x.job);
  v("machine", x.machine);
  v("software", x.software);
  v("stages", x.stages);
  v("steps", x.steps);
  v("full_precision_resident_bytes", x.full_precision_resident_bytes);
  v("quantized_resident_bytes", x.quantized_resident_bytes);
}

Json ToJson(const Measurements& measurements) { return schema::Writer::Write(measurements); }

Result<Measurements> MeasurementsFromJson(const Json& json, const std::string& label) {
  TEMPERA_TRY(schema::CheckVersion(json, label, kMeasurementsVersion));
  Measurements out;
  schema::ReadState state{label, OkStatus()};
  schema::Read(state, json, "", out);
  TEMPERA_TRY(state.status);
  TEMPERA_TRY(CheckMeasurements(out, label));
  return out;
}

Status CheckMeasurements(const Measurements& m, const std::string& label) {
  if (const std::string path = schema::FindNonFinite(ToJson(m), ""); !path.empty())
    return InvalidArgument(label, ": ", path, " is wrong, got a value that is not finite");
  for (size_t i = 0; i < m.stages.size(); ++i)
    if (m.stages[i].seconds < 0 || m.stages[i].seconds > 1e9)
      return InvalidArgument(label, ": stages[", i, "].seconds is wrong, got ", m.stages[i].seconds,
                             ", want 0 to 1e9");
  for (size_t i = 0; i < m.steps.size(); ++i) {
    const StepTime& s = m.steps[i];
    if (s.subject != "full_precision" && s.subject != "quantized")
      return InvalidArgument(label, ": steps[", i, "].subject is wrong, got \"", s.subject,
                             "\", want full_precision or quantized");
    if (s.batch < 1 || s.threads < 1 || s.runs < 1 || !(s.milliseconds > 0))
      return InvalidArgument(label, ": steps[", i,
                             "] is wrong, want batch, threads and runs >= 1, milliseconds > 0");
  }
  if (m.full_precision_resident_bytes.value_or(0) < 0 || m.quantized_resident_bytes.value_or(0) < 0)
    return InvalidArgument(label, ": resident bytes are wrong, got a negative count");
  return OkStatus();
}

}  // namespace tempera
