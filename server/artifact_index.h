// What the published artifacts are, read from their files. Artifacts never change, so what was read once is
// kept.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "artifact/artifact.h"
#include "base/call.h"
#include "base/status.h"
#include "jobs/job_store.h"
#include "server/compute.h"
#include "storage/object_store.h"
#include "tempera/v1/artifact.pb.h"

namespace tempera {

// What lists and filters need.
struct ArtifactSummary {
  v1::Artifact message;  // without aliases, files, baseline and manifest
  std::string method;
  int64_t create_ms = 0;
  // The feature cache holds every temporal feature: the artifact has no time layers.
  bool cache_complete = false;
};

// Calls block on disk. Thread-safe.
class ArtifactIndex {
 public:
  ArtifactIndex(ObjectStore& objects, JobStore& jobs, const Compute& compute)
      : objects_(objects), jobs_(jobs), compute_(compute) {}

  // NotFound if it is not published; DataLoss if its manifest is not the one that the id names.
  Result<std::shared_ptr<const ArtifactSummary>> Get(const CallScope& scope, const std::string& id);
  // All that are published and readable, newest first; a damaged one is left out (VerifyArtifact tells of
  // it).
  Result<std::vector<std::shared_ptr<const ArtifactSummary>>> All(const CallScope& scope);
  // Everything of one.
  Result<v1::Artifact> Full(const CallScope& scope, const std::string& id);
  // The aliases of every artifact, or of one.
  Result<std::map<std::string, std::vector<std::string>>> Aliases(const std::string& id = {});
  // Its files by path, sorted; NotFound if it is not published.
  Result<std::vector<ObjectInfo>> Files(const CallScope& scope, const std::string& id);

 private:
  ObjectStore& objects_;
  JobStore& jobs_;
  const Compute& compute_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const ArtifactSummary>> known_;
};

// The manifest, its bytes compared with the id: NotFound or DataLoss.
Result<Manifest> ReadManifest(const CallScope& scope, ObjectStore& objects, const std::string& id);
std::string ArtifactKey(const std::string& id, const std::string& path);
// Times of measurements.json: RFC 3339 in UTC, to milliseconds since 1970; 0 if it is none.
int64_t ParseTimeMs(const std::string& text);

}  // namespace tempera
