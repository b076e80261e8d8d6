// Artifacts in an object store: `artifacts/<id>/<file>`. An artifact exists if and only if its manifest does.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "storage/object_store.h"

namespace tempera {

// Puts every file below `folder`, the manifest last, so that no reader meets half an artifact. Each file that
// the manifest names is checked against its digest as it is copied (DataLoss); `id` must be the manifest's
// SHA-256. Idempotent: after a crash call it again. An artifact that is there already keeps its unhashed
// files if they are as digests.json says; all others are put anew, which mends a damaged artifact. A call
// that fails removes the files that it made.
Status PublishArtifact(const CallScope& scope, ObjectStore& store, const std::filesystem::path& folder,
                       const std::string& id);

// A folder on this machine with all files of the artifact: the store's own, or `cache`/<id>, downloaded once.
// NotFound if it is not published. The files are not verified here (VerifyArtifact does).
Result<std::filesystem::path> OpenArtifact(const CallScope& scope, ObjectStore& store, const std::string& id,
                                           const std::filesystem::path& cache);

Result<bool> ArtifactExists(const CallScope& scope, ObjectStore& store, const std::string& id);

// The id that `prefix` (12 to 64 lower-case hexadecimal digits) begins. NotFound; InvalidArgument if it is
// ambiguous or no such prefix.
Result<std::string> FindArtifact(const CallScope& scope, ObjectStore& store, const std::string& prefix);

struct ArtifactPage {
  std::vector<std::string> ids;  // ascending
  std::string next_page_token;   // empty: this was the last page
};
// At most `limit` (1 to 1000) ids; a page may be shorter than `limit` and not the last.
Result<ArtifactPage> ListArtifacts(const CallScope& scope, ObjectStore& store, const std::string& page_token,
                                   int64_t limit);

// The manifest first, so that a crash leaves no half artifact. An absent one is no error.
Status DeleteArtifact(const CallScope& scope, ObjectStore& store, const std::string& id);

}  // namespace tempera
