// Paints prompts with a model folder, a sheet of one picture for each prompt and seed.
//   paint-sheet FOLDER OUT.png SCALE STEPS GUIDANCE SEED,SEED... PROMPT...     one row a seed
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "base/files.h"
#include "pipeline/image_codec.h"
#include "zoo/sheet.h"

namespace tempera::zoo {
namespace {

struct Options {
  std::string folder, out;
  int64_t scale = 1;
  int steps = 0;
  double guidance = 0;
  std::vector<uint64_t> seeds;
  std::vector<std::string> prompts;
};

Status Paint(const Options& o) {
  const CallScope scope;
  TEMPERA_ASSIGN(const auto engine, Engine::LoadModel(scope, o.folder));
  std::vector<Picture> pictures;
  for (const uint64_t seed : o.seeds)
    for (const std::string& prompt : o.prompts) {
      GenerationRequest request;
      request.prompt = prompt;
      request.guidance = o.guidance;
      request.steps = o.steps;
      request.seed = seed;
      TEMPERA_ASSIGN(const ResolvedGeneration resolved, engine->Resolve(request));
      TEMPERA_ASSIGN(GenerationResult result, engine->Generate(scope, resolved, {}));
      pictures.push_back(std::move(result.picture));
    }
  TEMPERA_ASSIGN(const Picture sheet,
                 JoinPictures(pictures, static_cast<int64_t>(o.prompts.size()), o.scale));
  TEMPERA_ASSIGN(const std::string png, EncodeImage(sheet, ImageFormat::kPng));
  return WriteFileAtomic(o.out, png, "sheet");
}

}  // namespace
}  // namespace tempera::zoo

int main(int argc, char** argv) {
  if (argc < 8) {
    std::fprintf(stderr, "usage: paint-sheet FOLDER OUT.png SCALE STEPS GUIDANCE SEED,SEED... PROMPT...\n");
    return 1;
  }
  tempera::zoo::Options o{.folder = argv[1],
                          .out = argv[2],
                          .scale = std::atoll(argv[3]),
                          .steps = std::atoi(argv[4]),
                          .guidance = std::atof(argv[5]),
                          .seeds = {},
                          .prompts = {argv + 7, argv + argc}};
  std::istringstream seeds(argv[6]);
  for (std::string seed; std::getline(seeds, seed, ',');)
    o.seeds.push_back(std::strtoull(seed.c_str(), nullptr, 10));
  tempera::InitCompute();
  tempera::InitComputeThread();
  const tempera::Status status = tempera::zoo::Paint(o);
  if (!status.ok()) std::fprintf(stderr, "paint-sheet: %s\n", tempera::Message(status).c_str());
  return status.ok() ? 0 : 1;
}
