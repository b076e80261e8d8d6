// Times a running server against the library in this process, turn by turn, on an artifact that the server
// has loaded.
//   serving-bench HOST:PORT ARTIFACT_FOLDER [ROUNDS]    prints one JSON object
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stop_token>
#include <thread>
#include <vector>

#include "base/json.h"
#include "client/client.h"
#include "pipeline/engine.h"
#include "pipeline/image_codec.h"

namespace tempera {
namespace {

using Clock = std::chrono::steady_clock;

double Ms(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

double Median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// Milliseconds of one picture through the library: painted and encoded.
Result<double> Alone(const Engine& engine, uint64_t seed, std::vector<double>& steps) {
  GenerationRequest request;
  request.seed = seed;
  if (engine.info().classes > 0)
    request.class_label = static_cast<int64_t>(seed % static_cast<uint64_t>(engine.info().classes));
  const auto begin = Clock::now();
  TEMPERA_ASSIGN(const ResolvedGeneration resolved, engine.Resolve(request));
  TEMPERA_ASSIGN(const GenerationResult result, engine.Generate({}, resolved, {}));
  TEMPERA_TRY(EncodeImage(result.picture, ImageFormat::kPng, {}).status());
  for (const StepEvent& step : result.steps) steps.push_back(step.milliseconds);
  return Ms(Clock::now() - begin);
}

v1::GenerateRequest RequestOf(const Engine& engine, uint64_t seed) {
  v1::GenerateRequest request;
  request.set_ref(engine.info().id);
  request.set_seed(seed);
  if (engine.info().classes > 0)
    request.set_class_label(static_cast<int64_t>(seed % static_cast<uint64_t>(engine.info().classes)));
  return request;
}

// From the client's cancel, `delay_ms` after the second step, to the moment when the server has let go of the
// model.
Result<double> CancelLatency(Client& client, const Engine& engine, uint64_t seed, double delay_ms) {
  std::stop_source stop;
  Clock::time_point asked;
  const Status ended =
      client
          .Generate({.stop = stop.get_token()}, RequestOf(engine, seed),
                    {.on_progress =
                         [&](const v1::Progress& p) {
                           if (p.step() != 1) return;
                           std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(delay_ms));
                           asked = Clock::now();
                           stop.request_stop();
                         }})
          .status();
  if (!absl::IsCancelled(ended)) return Internal("cancel: got ", Message(ended), ", want CANCELLED");
  for (;;) {
    TEMPERA_ASSIGN(const v1::ListLoadedModelsResponse models, client.ListModels({}, {}));
    const bool busy = std::any_of(models.models().begin(), models.models().end(),
                                  [](const v1::LoadedModel& m) { return m.active_generations() > 0; });
    if (!busy) return Ms(Clock::now() - asked);
  }
}

Status Bench(const std::string& server, const std::filesystem::path& folder, int rounds) {
  TEMPERA_ASSIGN(const auto client, Client::Create({.server = server}));
  TEMPERA_ASSIGN(const auto engine, Engine::LoadArtifact({}, folder, folder.filename().string(), {}));
  std::vector<double> alone, served, ratio, first, cancel, steps, served_steps;
  const auto serve = [&](uint64_t seed) -> Result<double> {
    const auto begin = Clock::now();
    TEMPERA_TRY(
        client
            ->Generate(
                {}, RequestOf(*engine, seed),
                {.on_accepted = [&](const v1::Accepted&) { first.push_back(Ms(Clock::now() - begin)); },
                 .on_progress = [&](const v1::Progress& p) { served_steps.push_back(p.milliseconds()); }})
            .status());
    return Ms(Clock::now() - begin);
  };
  TEMPERA_TRY(Alone(*engine, 0, steps).status());  // warms both up
  TEMPERA_TRY(serve(0).status());
  for (std::vector<double>* v : {&first, &steps, &served_steps}) v->clear();
  for (int round = 0; round < rounds; ++round) {
    // Turns change places, so that neither always follows the other.
    const auto seed = static_cast<uint64_t>(round);
    double by_library = 0, by_server = 0;
    for (const bool library : {round % 2 == 0, round % 2 != 0}) {
      if (library) {
        TEMPERA_ASSIGN(by_library, Alone(*engine, seed, steps));
      } else {
        TEMPERA_ASSIGN(by_server, serve(seed));
      }
    }
    alone.push_back(by_library);
    served.push_back(by_server);
    ratio.push_back(by_server / by_library);
  }
  for (int round = 0; round < rounds; ++round) {
    // At even phases of a step: the server notices a cancel when its step is done.
    const double phase = (round + 0.5) / rounds;
    TEMPERA_ASSIGN(const double to_cancel,
                   CancelLatency(*client, *engine, static_cast<uint64_t>(round), phase * Median(steps)));
    cancel.push_back(to_cancel);
  }
  const Json out{{"library_ms", Median(alone)},
                 {"server_ms", Median(served)},
                 {"server_to_library", Median(ratio)},
                 {"server_step_ms", Median(served_steps)},
                 {"first_event_ms", Median(first)},
                 {"cancel_ms", Median(cancel)},
                 {"greatest_cancel_ms", *std::max_element(cancel.begin(), cancel.end())},
                 {"step_ms", Median(steps)}};
  std::printf("%s\n", out.dump().c_str());
  return OkStatus();
}

}  // namespace
}  // namespace tempera

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: serving-bench HOST:PORT ARTIFACT_FOLDER [ROUNDS]\n");
    return 1;
  }
  tempera::InitCompute();
  tempera::InitComputeThread();
  const tempera::Status status =
      tempera::Bench(argv[1], argv[2], argc > 3 ? std::max(1, std::atoi(argv[3])) : 15);
  if (!status.ok()) std::fprintf(stderr, "serving-bench: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
