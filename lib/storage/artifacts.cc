#include "storage/artifacts.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/files.h"
#include "base/json.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;

constexpr char kRoot[] = "artifacts/";
constexpr char kManifest[] = "manifest.json";
constexpr char kDigests[] = "digests.json";  // of the files that the manifest does not name
constexpr uint64_t kMaxManifestBytes = 64 << 20;

bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Status CheckId(const std::string& id) {
  if (id.size() == 64 && IsHex(id)) return OkStatus();
  return InvalidArgument("artifact id \"", id.substr(0, 100), "\": want 64 lower-case hexadecimal digits");
}

std::string Key(const std::string& id, const std::string& file) { return Cat(kRoot, id, "/", file); }

// "artifact 0123456789ab"
std::string Named(const std::string& id) { return Cat("artifact ", id.substr(0, 12)); }

// The part of the manifest that publishing needs: its files and their SHA-256.
Result<std::map<std::string, std::string>> FilesOf(const std::string& manifest, const std::string& label) {
  TEMPERA_ASSIGN(const Json json, ParseJson(manifest, label));
  Fields fields(json, label);
  const Json* list = fields.Raw("files");
  if (list == nullptr || !list->is_object())
    return InvalidArgument(label, ": files is missing, want an object");
  std::map<std::string, std::string> files;
  for (const auto& [name, entry] : list->items()) {
    Fields f(entry, Cat(label, ": ", name));
    f.Need("sha256", files[name]);
    TEMPERA_TRY(f.status());
  }
  return files;
}

// The published files that the manifest does not name are as digests.json says.
bool UnhashedFilesAreSound(const CallScope& scope, ObjectStore& store, const std::string& id) {
  const Result<StoredObject> digests = store.Get(scope, Key(id, kDigests));
  if (!digests.ok()) return false;
  const Result<Json> json = ParseJson(digests->bytes, kDigests);
  if (!json.ok() || !json->is_object()) return false;
  for (const auto& [name, entry] : json->items()) {
    std::string sha256;
    Fields fields(entry, kDigests);
    fields.Need("sha256", sha256);
    const Result<StoredObject> file = store.Get(scope, Key(id, name));
    if (!fields.status().ok() || !file.ok() || Sha256Hex(file->bytes) != sha256) return false;
  }
  return true;
}

// Regular files below `folder`, by their relative names; hidden ones are a dead writer's. A link or a device
// among them is an error.
Result<std::vector<std::string>> LocalFiles(const fs::path& folder, const std::string& label) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(folder, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const fs::file_status status = it->symlink_status(error);
    if (error) break;
    if (it->path().filename().native().starts_with('.')) {
      it.disable_recursion_pending();
      continue;
    }
    if (fs::is_directory(status)) continue;
    const std::string name = it->path().lexically_relative(folder).generic_string();
    if (!fs::is_regular_file(status)) return InvalidArgument(label, ": ", name, ": not a regular file");
    names.push_back(name);
  }
  if (error) return FileError(error.value(), "list", label);
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::vector<ObjectInfo>> StoredFiles(const CallScope& scope, ObjectStore& store,
                                            const std::string& id) {
  std::vector<ObjectInfo> files;
  ObjectQuery query{.prefix = Key(id, "")};
  do {
    TEMPERA_ASSIGN(ObjectPage page, store.List(scope, query));
    std::move(page.objects.begin(), page.objects.end(), std::back_inserter(files));
    query.page_token = page.next_page_token;
  } while (!query.page_token.empty());
  return files;
}

}  // namespace

Status PublishArtifact(const CallScope& scope, ObjectStore& store, const fs::path& folder,
                       const std::string& id) {
  TEMPERA_TRY(CheckId(id));
  const std::string label = Named(id);
  TEMPERA_ASSIGN(const std::string manifest,
                 ReadFile(folder / kManifest, Cat(label, ": ", kManifest), kMaxManifestBytes));
  const std::string digest = Sha256Hex(manifest);
  if (digest != id)
    return DataLoss(label, ": ", kManifest, " has another SHA-256, got ", digest, ", want ", id);
  TEMPERA_ASSIGN(const auto named, FilesOf(manifest, Cat(label, ": ", kManifest)));
  TEMPERA_ASSIGN(const std::vector<std::string> files, LocalFiles(folder, label));
  for (const auto& [name, file] : named)
    if (!std::binary_search(files.begin(), files.end(), name))
      return DataLoss(label, ": ", name, " is missing");

  TEMPERA_ASSIGN(const std::vector<ObjectInfo> stored, StoredFiles(scope, store, id));
  std::set<std::string> there;
  for (const ObjectInfo& object : stored) there.insert(object.key);
  const bool published = there.contains(Key(id, kManifest));
  const bool keep_unhashed = published && UnhashedFilesAreSound(scope, store, id);
  std::vector<std::string> made;
  const auto put_all = [&]() -> Status {
    for (const std::string& name : files) {
      if (name == kManifest) continue;
      const std::string key = Key(id, name);
      const auto it = named.find(name);
      // Without its manifest, what lies there may be of a run that died: its unhashed files are not to be
      // kept.
      if (it == named.end() && keep_unhashed && there.contains(key)) continue;
      if (!there.contains(key)) made.push_back(key);
      TEMPERA_TRY(store.PutFile(scope, key, folder / name, it == named.end() ? "" : it->second));
    }
    return published ? OkStatus() : store.Put(scope, Key(id, kManifest), manifest).status();
  };
  const Status status = put_all();
  if (status.ok()) return status;
  // Unless someone else published it meanwhile. A store that fails here too keeps them: the next try goes on
  // from there.
  const Result<bool> exists = ArtifactExists(CallScope{}, store, id);
  if (exists.ok() && !*exists)
    for (const std::string& key : made) (void)store.Delete(CallScope{}, key);
  return status;
}

Result<bool> ArtifactExists(const CallScope& scope, ObjectStore& store, const std::string& id) {
  TEMPERA_TRY(CheckId(id));
  const Result<ObjectInfo> head = store.Head(scope, Key(id, kManifest));
  if (head.ok()) return true;
  if (absl::IsNotFound(head.status())) return false;
  return head.status();
}

Result<fs::path> OpenArtifact(const CallScope& scope, ObjectStore& store, const std::string& id,
                              const fs::path& cache) {
  TEMPERA_ASSIGN(const bool exists, ArtifactExists(scope, store, id));
  if (!exists) return NotFound(Named(id), ": does not exist");
  if (const auto local = store.LocalPath(Cat(kRoot, id))) return *local;

  const fs::path folder = cache / id;
  std::error_code error;
  if (fs::exists(folder / kManifest, error)) return folder;
  TEMPERA_ASSIGN(const std::vector<ObjectInfo> files, StoredFiles(scope, store, id));
  const auto fetch = [&](const std::string& name) -> Status {
    const fs::path file = folder / name;
    TEMPERA_TRY(MakeFolders(file.parent_path(), Named(id)));
    return store.GetFile(scope, Key(id, name), file);
  };
  // The manifest last here too: a download that died is taken up again, file by file.
  const std::string own = Key(id, "");
  for (const ObjectInfo& object : files) {
    const std::string name = object.key.substr(own.size());
    if (name != kManifest) TEMPERA_TRY(fetch(name));
  }
  TEMPERA_TRY(fetch(kManifest));
  return folder;
}

Result<std::string> FindArtifact(const CallScope& scope, ObjectStore& store, const std::string& prefix) {
  if (prefix.size() < 12 || prefix.size() > 64 || !IsHex(prefix))
    return InvalidArgument("artifact \"", prefix.substr(0, 100),
                           "\": want 12 to 64 lower-case hexadecimal digits");
  std::string found;
  ObjectQuery query{.prefix = Cat(kRoot, prefix), .fold = true};
  do {
    TEMPERA_ASSIGN(const ObjectPage page, store.List(scope, query));
    for (const std::string& folder : page.folders) {
      const std::string id = folder.substr(sizeof(kRoot) - 1, folder.size() - sizeof(kRoot));
      if (!CheckId(id).ok()) continue;
      TEMPERA_ASSIGN(const bool exists, ArtifactExists(scope, store, id));
      if (!exists) continue;
      if (!found.empty()) return InvalidArgument("artifact \"", prefix, "\": is ambiguous, give more digits");
      found = id;
    }
    query.page_token = page.next_page_token;
  } while (!query.page_token.empty());
  if (found.empty()) return NotFound("artifact \"", prefix, "\": does not exist");
  return found;
}

Result<ArtifactPage> ListArtifacts(const CallScope& scope, ObjectStore& store, const std::string& page_token,
                                   int64_t limit) {
  TEMPERA_ASSIGN(
      const ObjectPage page,
      store.List(scope, {.prefix = kRoot, .fold = true, .page_token = page_token, .limit = limit}));
  ArtifactPage result;
  for (const std::string& folder : page.folders) {
    const std::string id = folder.substr(sizeof(kRoot) - 1, folder.size() - sizeof(kRoot));
    if (!CheckId(id).ok()) continue;
    TEMPERA_ASSIGN(const bool exists, ArtifactExists(scope, store, id));
    if (exists) result.ids.push_back(id);
  }
  result.next_page_token = page.next_page_token;
  return result;
}

Status DeleteArtifact(const CallScope& scope, ObjectStore& store, const std::string& id) {
  TEMPERA_TRY(CheckId(id));
  TEMPERA_TRY(store.Delete(scope, Key(id, kManifest)));
  TEMPERA_ASSIGN(const std::vector<ObjectInfo> files, StoredFiles(scope, store, id));
  for (const ObjectInfo& object : files) TEMPERA_TRY(store.Delete(scope, object.key));
  return OkStatus();
}

}  // namespace tempera
