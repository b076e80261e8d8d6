// Between the project's structs and the messages of the API.
#pragma once

#include <google/longrunning/operations.pb.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "jobs/job.h"
#include "pipeline/engine.h"
#include "quant/spec.h"
#include "server/model_manager.h"
#include "tempera/v1/generation.pb.h"
#include "tempera/v1/model.pb.h"
#include "tempera/v1/quantization.pb.h"

namespace tempera {

// ms: since 1970 UTC.
google::protobuf::Timestamp TimeFromMs(int64_t ms);
google::protobuf::Timestamp TimeFrom(std::chrono::system_clock::time_point time);

// An object of options as the request wrote it; whole numbers stay whole. Not an object where it has no JSON.
Json JsonFrom(const google::protobuf::Struct& object);

QuantRequest RequestFrom(const v1::QuantizationSpec& spec);
v1::QuantizationSpec SpecMessage(const QuantSpec& spec);

v1::QuantizeJob::State StateMessage(JobState state);
// `spec` is the job's, parsed.
v1::QuantizeJob JobMessage(const Job& job, const Result<QuantSpec>& spec);
// "quantizeJobs/{id}" or "{id}"; "operations/{id}" or "{id}". InvalidArgument names the field.
Result<std::string> JobIdFrom(const std::string& name);
Result<std::string> OperationIdFrom(const std::string& name);

v1::ModelInfo InfoMessage(const EngineInfo& info);
v1::LoadedModel LoadedMessage(const LoadedModel& model);
v1::TemporalFeatureError ErrorMessage(const FeatureError& error);
v1::Progress ProgressMessage(int picture, const StepEvent& event);

}  // namespace tempera
