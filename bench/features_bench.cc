// Times the temporal features of one request under guidance, where time depends on the prompt: all steps in
// one pass against step by step, turn by turn on one thread.
//   features-bench MODEL_FOLDER [STEPS] [ROUNDS]    prints one JSON object
#include <ATen/Functions.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "models/folder.h"
#include "pipeline/engine.h"
#include "schedulers/scheduler.h"
#include "tib/features.h"

namespace tempera {
namespace {

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Status Bench(const std::string& model, int64_t steps, int rounds) {
  TEMPERA_ASSIGN(const ModelFolder folder, OpenModelFolder(model));
  nn::Params params(folder.network.weights, at::kCPU);
  TEMPERA_ASSIGN(const auto network, BuildDenoiser(folder.network.config, folder.network.label, params));
  const DenoiserInfo& info = network->info();
  if (info.added_width == 0) return InvalidArgument(folder.name, ": its time does not depend on the prompt");
  TEMPERA_ASSIGN(const auto scheduler,
                 CreateScheduler({.config = folder.scheduler_config, .name = "ddim", .steps = steps}));
  nn::Conditioning on;
  on.pooled = at::ones({2, info.added_width - 6 * info.size_width});
  on.sizes = at::full({2, 6}, 512.0f);
  const auto timed = [&](const std::vector<std::vector<double>>& passes,
                         std::vector<double>& times) -> Status {
    const auto begin = std::chrono::steady_clock::now();
    for (const std::vector<double>& pass : passes)
      TEMPERA_TRY(ComputeFeatures({}, *network, pass, on, nullptr).status());
    times.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    return OkStatus();
  };
  std::vector<std::vector<double>> each;
  for (const double timestep : scheduler->timesteps()) each.push_back({timestep});
  std::vector<double> warm, whole, single;
  TEMPERA_TRY(timed({scheduler->timesteps()}, warm));
  for (int r = 0; r < rounds; ++r) {
    TEMPERA_TRY(timed({scheduler->timesteps()}, whole));
    TEMPERA_TRY(timed(each, single));
  }
  const Json out{{"steps", scheduler->timesteps().size()},
                 {"one_pass_ms", Median(whole)},
                 {"step_by_step_ms", Median(single)}};
  std::printf("%s\n", out.dump().c_str());
  return OkStatus();
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: features-bench MODEL_FOLDER [STEPS] [ROUNDS]\n");
    return 1;
  }
  tempera::InitCompute();
  const tempera::Status status =
      tempera::Bench(argv[1], argc > 2 ? std::atoll(argv[2]) : 20, argc > 3 ? std::atoi(argv[3]) : 5);
  if (!status.ok()) std::fprintf(stderr, "features-bench: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
