// A computation that a test can follow: ten blocks, each with its checkpoint, then an artifact that depends
// on the spec alone.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "base/files.h"
#include "worker/agent.h"

namespace tempera {

constexpr int kBlocks = 10;

inline std::string BlockBytes(uint64_t seed, int block) { return Cat("seed ", seed, " block ", block); }

// What ten blocks of this seed make; the artifact's id is the SHA-256 of this manifest.
inline std::string ManifestOf(uint64_t seed) {
  Json files = Json::object();
  for (int block = 0; block < kBlocks; ++block) {
    const std::string bytes = BlockBytes(seed, block);
    files[Cat("block", block)] = {{"sha256", Sha256Hex(bytes)}, {"bytes", bytes.size()}};
  }
  return CanonicalJson({{"seed", seed}, {"files", files}});
}
inline std::string ArtifactOf(uint64_t seed) { return Sha256Hex(ManifestOf(seed)); }

struct FakeHooks {
  // Before each block that no checkpoint has.
  std::function<Status(const CallScope&, int block)> before_block;
};

inline Result<QuantizeJobOutput> FakeCompute(const FakeHooks& hooks, const CallScope& scope,
                                             const QuantizeJobInput& input,
                                             const std::function<void(const JobProgress&)>& progress) {
  const auto folder = input.work_folder / "artifact";
  TEMPERA_TRY(MakeFolders(folder, "artifact"));
  for (int block = 0; block < kBlocks; ++block) {
    TEMPERA_TRY(scope.Check());
    const auto checkpoint = folder / Cat("block", block);
    if (!std::filesystem::exists(checkpoint)) {
      if (hooks.before_block) TEMPERA_TRY(hooks.before_block(scope, block));
      TEMPERA_TRY(WriteFileAtomic(checkpoint, BlockBytes(input.spec.seed, block), "checkpoint"));
    }
    progress({.stage = block < 5 ? "calibrate" : "blocks",
              .unit = Cat("block ", block),
              .done = block + 1,
              .total = kBlocks,
              .fraction = (block + 1) / 12.0});
  }
  TEMPERA_TRY(WriteFileAtomic(folder / "measurements.json", CanonicalJson(input.notes), "measurements"));
  TEMPERA_TRY(WriteFileAtomic(folder / "manifest.json", ManifestOf(input.spec.seed), "manifest"));
  return QuantizeJobOutput{ArtifactOf(input.spec.seed), folder};
}

// Specs of these tests hold a seed.
inline Result<QuantSpec> FakeParse(const Json& json, const std::string& label) {
  QuantSpec spec;
  int64_t seed = 0;
  Fields fields(json, label);
  fields.Need("seed", seed);
  TEMPERA_TRY(fields.Finish());
  spec.seed = static_cast<uint64_t>(seed);
  return spec;
}

}  // namespace tempera
