// From what a request names to what can be loaded: the one grammar for models and artifacts.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/call.h"
#include "base/status.h"
#include "jobs/job_store.h"
#include "server/model_manager.h"
#include "storage/object_store.h"

namespace tempera {

// What names are looked up in. Calls block on disk.
struct Refs {
  std::vector<std::filesystem::path> model_roots;
  JobStore& jobs;
  ObjectStore& objects;

  // A model or an artifact:
  //   /path or file:///path   a folder under a root
  //   artifacts/ID, ID, PREFIX (12 to 64 lower-case hexadecimal digits)
  //   NAME                    an alias
  //   PATH                    a folder relative to a root, where no alias has the name
  // `field` names the request's field in errors: InvalidArgument, NotFound, PermissionDenied.
  Result<ModelRef> Resolve(const CallScope& scope, const std::string& text, const std::string& field) const;
  // An artifact's id, from the same text without paths. `with_alias` false refuses aliases.
  Result<std::string> ResolveArtifact(const CallScope& scope, const std::string& text,
                                      const std::string& field, bool with_alias = true) const;
  // A model's folder: an absolute path or file:///path.
  Result<ModelRef> ResolveModel(const std::string& text, const std::string& field) const;
};

// A sane excerpt of what a client sent, in quotes, for errors.
std::string Quoted(const std::string& text);

}  // namespace tempera
