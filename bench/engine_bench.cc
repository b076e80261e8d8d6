// Times whole generations of a full-precision model and an artifact, turn by turn on one thread.
//   engine-bench MODEL_FOLDER ARTIFACT_FOLDER [ROUNDS]    prints one JSON object
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "artifact/artifact.h"
#include "base/json.h"
#include "pipeline/engine.h"

namespace tempera {
namespace {

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// Milliseconds of one step (median) and of the whole call.
struct Timed {
  std::vector<double> steps, whole;
  Status Paint(const Engine& engine, const Engine& schedule, uint64_t seed) {
    GenerationRequest request;
    request.seed = seed;
    request.scheduler = schedule.info().scheduler;
    request.steps = schedule.info().steps;
    request.eta = schedule.info().eta;
    if (engine.info().classes > 0)
      request.class_label = static_cast<int64_t>(seed % static_cast<uint64_t>(engine.info().classes));
    TEMPERA_ASSIGN(const ResolvedGeneration resolved, engine.Resolve(request));
    const auto begin = std::chrono::steady_clock::now();
    TEMPERA_ASSIGN(const GenerationResult result, engine.Generate({}, resolved, {}));
    whole.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    for (const StepEvent& s : result.steps) steps.push_back(s.milliseconds);
    return OkStatus();
  }
};

Status Bench(const std::string& model, const std::string& artifact, int rounds) {
  TEMPERA_ASSIGN(const auto full, Engine::LoadModel({}, model));
  TEMPERA_ASSIGN(const auto small, Engine::LoadArtifact({}, artifact, "", {}));
  Timed warm, of_full, of_small, eight_full, eight_small;
  TEMPERA_TRY(warm.Paint(*full, *small, 0));
  TEMPERA_TRY(warm.Paint(*small, *small, 0));
  for (int r = 0; r < rounds; ++r) {
    TEMPERA_TRY(of_full.Paint(*full, *small, static_cast<uint64_t>(r)));
    TEMPERA_TRY(of_small.Paint(*small, *small, static_cast<uint64_t>(r)));
  }
  // A batch of 8 runs row by row: results do not depend on what else is painted.
  for (uint64_t row = 0; row < 8; ++row) TEMPERA_TRY(eight_full.Paint(*full, *small, row));
  for (uint64_t row = 0; row < 8; ++row) TEMPERA_TRY(eight_small.Paint(*small, *small, row));
  const Json out{{"float_step_ms", Median(of_full.steps)},
                 {"integer_step_ms", Median(of_small.steps)},
                 {"integer_whole_ms", Median(of_small.whole)},
                 {"float_step_ms_batch8", 8 * Median(eight_full.steps)},
                 {"integer_step_ms_batch8", 8 * Median(eight_small.steps)},
                 {"weight_bytes", small->info().weight_bytes},
                 {"float_weight_bytes", full->info().weight_bytes}};
  std::printf("%s\n", out.dump().c_str());
  return OkStatus();
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: engine-bench MODEL_FOLDER ARTIFACT_FOLDER [ROUNDS]\n");
    return 1;
  }
  tempera::InitCompute();
  const tempera::Status status = tempera::Bench(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 9);
  if (!status.ok()) std::fprintf(stderr, "engine-bench: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
