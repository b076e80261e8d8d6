#include "artifact/artifact.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

#include "base/executors.h"
#include "base/files.h"

namespace tempera {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxManifestBytes = 64ull << 20;

// The parts of the manifest that are kept as JSON. Each is an object or a list.
struct JsonPart {
  const char* key;
  Json Manifest::*part;
};
constexpr std::array<JsonPart, 6> kJsonParts{{{"spec", &Manifest::spec},
                                              {"schedule", &Manifest::schedule},
                                              {"model", &Manifest::model},
                                              {"slots", &Manifest::slots},
                                              {"baseline", &Manifest::baseline},
                                              {"libraries", &Manifest::libraries}}};

// A path of plain components, `/` between them, that stays in its folder; and not a file that is never
// hashed.
bool IsListableName(std::string_view name) {
  for (const std::string_view fixed :
       {kManifestFile, kMeasurementsFile, kReportJsonFile, kReportHtmlFile, kDigestsFile})
    if (name == fixed) return false;
  if (name.size() > 1024) return false;
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') return false;
  for (;;) {
    const size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == name.npos) return true;
    name.remove_prefix(slash + 1);
  }
}

Json FilesJson(const std::map<std::string, FileEntry>& files) {
  Json list = Json::object();
  for (const auto& [name, entry] : files) list[name] = Json{{"sha256", entry.sha256}, {"bytes", entry.bytes}};
  return list;
}

Result<FileEntry> ParseFile(const Json& value, const std::string& label) {
  FileEntry entry;
  Fields fields(value, label);
  fields.Need("sha256", entry.sha256);
  fields.Need("bytes", entry.bytes);
  TEMPERA_TRY(fields.Finish());
  if (!IsArtifactId(entry.sha256)) fields.Fail("sha256", "is wrong, want 64 lower-case hexadecimal digits");
  if (entry.bytes < 0) fields.Fail("bytes", Cat("is wrong, got ", entry.bytes, ", want at least 0"));
  TEMPERA_TRY(fields.status());
  return entry;
}

Status ParseFiles(const Json& files, const std::string& label, std::map<std::string, FileEntry>& out) {
  if (!files.is_object())
    return InvalidArgument(label, ": files is wrong, got ", files.type_name(), ", want an object");
  for (const auto& [name, value] : files.items()) {
    const std::string shown = Json(name.substr(0, 200)).dump(-1, ' ', true, Json::error_handler_t::replace);
    if (!IsListableName(name))
      return InvalidArgument(label, ": files: got the name ", shown,
                             ", want a relative path without \"..\" to a file that is hashed");
    TEMPERA_ASSIGN(FileEntry entry, ParseFile(value, Cat(label, ": files: ", shown)));
    out.emplace(name, std::move(entry));
  }
  return OkStatus();
}

// `folder`/`name` if it is a regular file reached without a symbolic link below `folder`; its size.
Result<int64_t> PlainFileBytes(const fs::path& folder, const std::string& name, const std::string& label) {
  fs::path path = folder;
  fs::file_status status;
  for (const fs::path& part : fs::path(name)) {
    path /= part;
    std::error_code error;
    status = fs::symlink_status(path, error);
    if (status.type() == fs::file_type::not_found) return DataLoss(label, ": is missing");
    if (error) return FileError(error.value(), "stat", label);
    if (fs::is_symlink(status)) return DataLoss(label, ": got a symbolic link, want a file");
  }
  if (!fs::is_regular_file(status)) return DataLoss(label, ": not a regular file");
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  if (error) return FileError(error.value(), "stat", label);
  return static_cast<int64_t>(bytes);
}

}  // namespace

bool IsArtifactId(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string Manifest::Text() const {
  Json json{{"version", version}, {"source_name", source_name}, {"source_sha256", source_sha256}};
  for (const JsonPart& p : kJsonParts) json[p.key] = this->*p.part;
  json["files"] = FilesJson(files);
  return CanonicalJson(json);
}

std::string Manifest::Id() const { return Sha256Hex(Text()); }

Result<Manifest> Manifest::Parse(std::string_view text, std::string_view label_view) {
  const std::string label(label_view);
  if (text.size() > kMaxManifestBytes)
    return InvalidArgument(label, ": too large, got ", text.size(), " bytes, want at most ",
                           kMaxManifestBytes);
  TEMPERA_ASSIGN(const Json json, ParseJson(text, label));
  Manifest m;
  Fields fields(json, label);
  fields.Need("version", m.version);
  TEMPERA_TRY(fields.status());
  // Before all else: another version may have other fields.
  if (m.version != kArtifactVersion)
    return FailedPrecondition(label, ": artifact format is unknown, got version ", m.version,
                              ", want version ", kArtifactVersion);
  fields.Need("source_name", m.source_name);
  fields.Need("source_sha256", m.source_sha256);
  for (const JsonPart& p : kJsonParts) {
    const Json* part = fields.Raw(p.key);
    if (part == nullptr) {
      fields.Fail(p.key, "is missing");
    } else if (!part->is_structured()) {
      fields.Fail(p.key, Cat("is wrong, got ", part->type_name(), ", want an object or a list"));
    } else {
      m.*p.part = *part;
    }
  }
  const Json* files = fields.Raw("files");
  if (files == nullptr) fields.Fail("files", "is missing");
  TEMPERA_TRY(fields.Finish());
  if (!IsArtifactId(m.source_sha256))
    return InvalidArgument(label, ": source_sha256 is wrong, want 64 lower-case hexadecimal digits");
  TEMPERA_TRY(ParseFiles(*files, label, m.files));
  if (m.Text() != text)
    return InvalidArgument(label, ": not in canonical form, so its id would not name its bytes");
  return m;
}

std::string DigestsText(const std::map<std::string, FileEntry>& files) {
  return CanonicalJson(FilesJson(files));
}

Result<std::map<std::string, FileEntry>> ReadDigests(const fs::path& folder, std::string_view label_view) {
  const std::string label(label_view);
  std::map<std::string, FileEntry> files;
  const Result<std::string> text = ReadFile(folder / kDigestsFile, label, kMaxManifestBytes);
  if (absl::IsNotFound(text.status())) return files;
  TEMPERA_TRY(text.status());
  const auto damaged = [](const Status& status) { return DataLoss(Message(status)); };
  const Result<Json> json = ParseJson(*text, label);
  if (!json.ok()) return damaged(json.status());
  if (!json->is_object()) return DataLoss(label, ": got ", json->type_name(), ", want an object");
  for (const auto& [name, value] : json->items()) {
    if (name != kMeasurementsFile && name != kReportJsonFile && name != kReportHtmlFile)
      return DataLoss(label, ": names a file that it must not name");
    Result<FileEntry> entry = ParseFile(value, Cat(label, ": ", name));
    if (!entry.ok()) return damaged(entry.status());
    files.emplace(name, *std::move(entry));
  }
  return files;
}

Result<Manifest> VerifyArtifact(const CallScope& scope, const fs::path& folder, const std::string& id) {
  if (!id.empty() && !IsArtifactId(id))
    return InvalidArgument("artifact id: got ",
                           Json(id.substr(0, 100)).dump(-1, ' ', true, Json::error_handler_t::replace),
                           ", want 64 lower-case hexadecimal digits");
  const std::string owner = id.empty() ? "" : Cat("artifact ", id.substr(0, 12), ": ");
  TEMPERA_TRY(scope.Check());
  const std::string manifest_label = owner + kManifestFile;
  Result<int64_t> manifest_bytes = PlainFileBytes(folder, kManifestFile, manifest_label);
  if (absl::IsDataLoss(manifest_bytes.status()) && !fs::exists(folder / kManifestFile))
    return NotFound(manifest_label, ": is missing, so there is no artifact");
  TEMPERA_TRY(manifest_bytes.status());
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / kManifestFile, manifest_label, kMaxManifestBytes));
  const std::string found_id = Sha256Hex(text);
  if (!id.empty() && found_id != id)
    return DataLoss(manifest_label, ": sha256 is wrong, got ", found_id, ", want ", id);
  TEMPERA_ASSIGN(Manifest manifest, Manifest::Parse(text, manifest_label));

  std::map<std::string, FileEntry> files = manifest.files;
  TEMPERA_ASSIGN(const auto beside, ReadDigests(folder, owner + kDigestsFile));
  files.insert(beside.begin(), beside.end());
  // Sizes of all before the digest of any: a missing file is found at once.
  for (const auto& [name, entry] : files) {
    const std::string label = owner + name;
    TEMPERA_ASSIGN(const int64_t bytes, PlainFileBytes(folder, name, label));
    if (bytes != entry.bytes)
      return DataLoss(label, ": size is wrong, got ", bytes, " bytes, want ", entry.bytes);
  }
  // The largest first: they decide how long it takes.
  std::vector<std::pair<std::string, FileEntry>> by_size(files.begin(), files.end());
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const auto& a, const auto& b) { return a.second.bytes > b.second.bytes; });
  Lanes lanes(AvailableCpus(), nullptr);
  const Status sound = lanes.ParallelFor(static_cast<int64_t>(by_size.size()), [&](int64_t i) -> Status {
    TEMPERA_TRY(scope.Check());
    const auto& [name, entry] = by_size[static_cast<size_t>(i)];
    const std::string label = owner + name;
    TEMPERA_ASSIGN(const std::string digest, Sha256File(folder / name, label));
    if (digest != entry.sha256)
      return DataLoss(label, ": sha256 is wrong, got ", digest, ", want ", entry.sha256);
    return OkStatus();
  });
  TEMPERA_TRY(sound);
  return manifest;
}

}  // namespace tempera
