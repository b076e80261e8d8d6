#include "server/refs.h"

#include <algorithm>

#include "artifact/artifact.h"
#include "base/files.h"
#include "rpc/status_map.h"
#include "storage/artifacts.h"
#include "weights/layout.h"
#include "worker/agent.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

bool IsHex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

constexpr std::string_view kFolder = "artifacts/";
constexpr std::string_view kFile = "file://";

// The folder relative to the root that holds it.
std::string Shown(const fs::path& folder, const std::vector<fs::path>& roots) {
  for (const fs::path& root : roots) {
    std::error_code error;
    const fs::path base = fs::canonical(root, error);
    if (error) continue;
    const auto mismatch = std::mismatch(base.begin(), base.end(), folder.begin(), folder.end());
    if (mismatch.first != base.end()) continue;
    const std::string relative = folder.lexically_relative(base).string();
    return relative == "." ? folder.filename().string() : relative;
  }
  return folder.filename().string();
}

// Faults of a path, as errors of the field that named it.
Status PathError(const Status& status, const std::string& field, const std::string& text) {
  const Status annotated = rpc::WithField(Annotate(status, field), field);
  if (absl::IsNotFound(status))
    return rpc::WithResource(rpc::WithReason(annotated, rpc::kModelNotFound), "model", text);
  if (absl::IsPermissionDenied(status)) return rpc::WithReason(annotated, rpc::kPathOutsideRoots);
  return annotated;
}

}  // namespace

std::string Quoted(const std::string& text) {
  return Json(text.substr(0, 200)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<ModelRef> Refs::ResolveModel(const std::string& text, const std::string& field) const {
  if (text.empty())
    return rpc::WithField(InvalidArgument(field, ": is empty, want an absolute path or file:///path"), field);
  Result<fs::path> folder = ResolveModelFolder(text, model_roots);
  if (!folder.ok()) return PathError(folder.status(), field, text);
  ModelRef ref;
  ref.folder = *std::move(folder);
  ref.shown = Shown(ref.folder, model_roots);
  return ref;
}

Result<std::string> Refs::ResolveArtifact(const CallScope& scope, const std::string& text,
                                          const std::string& field, bool with_alias) const {
  if (text.empty())
    return rpc::WithField(InvalidArgument(field, ": is empty, want an artifact's id, prefix or alias"),
                          field);
  std::string id = text.starts_with(kFolder) ? text.substr(kFolder.size()) : text;
  const auto missing = [&](const Status& status) {
    return rpc::WithResource(rpc::WithReason(status, rpc::kArtifactNotFound), "artifact", text);
  };
  if (IsHex(id) && id.size() >= 12 && id.size() <= 64) {
    Result<std::string> found = FindArtifact(scope, objects, id);
    if (found.ok()) return found;
    if (absl::IsNotFound(found.status()))
      return missing(
          NotFound(field, ": no artifact ", id.size() == 64 ? "is" : "begins with", " ", Quoted(text)));
    return absl::IsInvalidArgument(found.status()) ? rpc::WithField(Annotate(found.status(), field), field)
                                                   : found.status();
  }
  if (text.starts_with(kFolder))
    return rpc::WithField(InvalidArgument(field, ": got ", Quoted(text),
                                          ", want artifacts/ and 12 to 64 lower-case "
                                          "hexadecimal digits"),
                          field);
  if (!with_alias)
    return rpc::WithField(InvalidArgument(field, ": got ", Quoted(text),
                                          ", want 12 to 64 lower-case hexadecimal "
                                          "digits; an alias may have moved"),
                          field);
  if (Status status = CheckAliasName(text); !status.ok())
    return rpc::WithField(InvalidArgument(field, ": got ", Quoted(text),
                                          ", want an artifact's id, a prefix of at least "
                                          "12 digits, or an alias"),
                          field);
  Result<Alias> alias = jobs.GetAlias(text);
  if (alias.ok()) return alias->artifact_id;
  if (!absl::IsNotFound(alias.status())) return alias.status();
  return rpc::WithResource(rpc::WithReason(NotFound(field, ": no alias ", Quoted(text)), rpc::kAliasNotFound),
                           "alias", text);
}

Result<ModelRef> Refs::Resolve(const CallScope& scope, const std::string& text,
                               const std::string& field) const {
  if (text.empty())
    return rpc::WithField(
        InvalidArgument(field, ": is empty, want an artifact's id, an alias or a model's folder"), field);
  if (text.starts_with('/') || text.starts_with(kFile)) return ResolveModel(text, field);
  if (text.find("://") != std::string::npos)
    return rpc::WithField(
        InvalidArgument(field, ": got ", Quoted(text), ", want file:///path: other stores are not served"),
        field);

  const bool is_id = text.starts_with(kFolder) || (IsHex(text) && text.size() >= 12 && text.size() <= 64);
  const bool may_be_alias = !is_id && CheckAliasName(text).ok();
  Status missing;
  if (is_id || may_be_alias) {
    Result<std::string> id = ResolveArtifact(scope, text, field);
    if (id.ok()) return ModelRef{.is_artifact = true, .id = *id, .folder = {}, .shown = *id};
    missing = id.status();
    if (is_id || rpc::Reason(missing) != rpc::kAliasNotFound) return missing;
  }
  // A folder relative to a root. What leaves the roots is found out as for any path.
  Status no_folder;
  for (const fs::path& root : model_roots) {
    Result<ModelRef> ref = ResolveModel((root / text).string(), field);
    if (ref.ok()) return ref;
    const Result<fs::path> file = ResolveUnder((root / text).string(), model_roots);
    std::error_code error;
    if (file.ok() && fs::is_regular_file(*file, error))
      no_folder = rpc::WithField(
          InvalidArgument(field, ": model ", Quoted(text), " is no folder", ModelPathHint(*file)), field);
  }
  TEMPERA_TRY(no_folder);
  if (!missing.ok())
    return rpc::WithResource(
        rpc::WithReason(NotFound(field, ": no alias and no model ", Quoted(text)), rpc::kAliasNotFound),
        "alias", text);
  return rpc::WithResource(
      rpc::WithReason(NotFound(field, ": no model ", Quoted(text), " under the served roots"),
                      rpc::kModelNotFound),
      "model", text);
}

}  // namespace tempera
