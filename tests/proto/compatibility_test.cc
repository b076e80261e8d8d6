// The interface never breaks a client: what proto/tempera_v1.desc holds stays as it is. After an addition,
// write the file again (in the repository's root):
//   cd proto && protoc -I. --descriptor_set_out=../tests/proto/tempera_v1.desc $(find * -name '*.proto' |
//   sort)
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/files.h"

namespace tempera {
namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::FileDescriptorSet;

FileDescriptorSet Load(const std::string& path) {
  FileDescriptorSet set;
  const auto bytes = ReadFile(path, path);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_TRUE(bytes.ok() && set.ParseFromString(*bytes)) << path;
  return set;
}

// Every promise of the interface as "what it is about" -> "what is promised".
using Promises = std::map<std::string, std::string>;

void AddEnum(const EnumDescriptorProto& e, const std::string& scope, Promises& out) {
  for (const auto& v : e.value()) out[Cat(scope, e.name(), ".", v.name())] = Cat("= ", v.number());
}

void AddMessage(const DescriptorProto& m, const std::string& scope, Promises& out) {
  const std::string name = scope + m.name();
  out[name] = "message";
  for (const FieldDescriptorProto& f : m.field()) {
    const std::string oneof = f.has_oneof_index() ? m.oneof_decl(f.oneof_index()).name() : "";
    out[Cat(name, ".", f.name())] = Cat("= ", f.number(), ", type ", f.type(), " ", f.type_name(), ", label ",
                                        f.label(), ", oneof ", oneof, ", presence ", f.proto3_optional());
  }
  for (const auto& inner : m.nested_type()) AddMessage(inner, name + ".", out);
  for (const auto& inner : m.enum_type()) AddEnum(inner, name + ".", out);
}

Promises PromisesOf(const FileDescriptorSet& set) {
  Promises out;
  for (const FileDescriptorProto& file : set.file()) {
    const std::string scope = file.package() + ".";
    if (file.package() == "google.protobuf") continue;
    for (const auto& m : file.message_type()) AddMessage(m, scope, out);
    for (const auto& e : file.enum_type()) AddEnum(e, scope, out);
    for (const auto& s : file.service())
      for (const auto& m : s.method())
        out[Cat(scope, s.name(), ".", m.name())] =
            Cat(m.client_streaming() ? "stream " : "", m.input_type(), " -> ",
                m.server_streaming() ? "stream " : "", m.output_type());
  }
  return out;
}

// What of `old` is not as it was.
std::vector<std::string> Broken(const Promises& old, const Promises& now) {
  std::vector<std::string> out;
  for (const auto& [what, promise] : old) {
    const auto it = now.find(what);
    if (it == now.end()) {
      out.push_back(Cat(what, ": is gone, was ", promise));
    } else if (it->second != promise) {
      out.push_back(Cat(what, ": got ", it->second, ", want ", promise));
    }
  }
  return out;
}

std::string Lines(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& l : lines) text += l + "\n";
  return text;
}

TEST(Compatibility, NoPromiseIsBroken) {
  const auto broken =
      Broken(PromisesOf(Load("proto/tempera_v1.desc")), PromisesOf(Load(TEMPERA_DESCRIPTORS)));
  EXPECT_TRUE(broken.empty()) << Lines(broken);
}

TEST(Compatibility, EveryAdditionIsPromised) {
  const auto added = Broken(PromisesOf(Load(TEMPERA_DESCRIPTORS)), PromisesOf(Load("proto/tempera_v1.desc")));
  EXPECT_TRUE(added.empty()) << "write proto/tempera_v1.desc again, as the head of this test says:\n"
                             << Lines(added);
}

TEST(Compatibility, TheCheckSeesRenumberedRetypedAndRemovedFields) {
  const FileDescriptorSet now = Load(TEMPERA_DESCRIPTORS);
  const Promises old = PromisesOf(now);
  for (int f = 0; f < now.file_size(); ++f) {
    if (now.file(f).package() != "tempera.v1") continue;
    FileDescriptorSet renumbered = now, retyped = now, removed = now, unary = now;
    renumbered.mutable_file(f)->mutable_message_type(0)->mutable_field(0)->set_number(999);
    retyped.mutable_file(f)->mutable_message_type(0)->mutable_field(0)->set_type(
        FieldDescriptorProto::TYPE_BYTES);
    removed.mutable_file(f)->mutable_message_type(0)->mutable_field()->RemoveLast();
    auto* method = unary.mutable_file(f)->mutable_service(0)->mutable_method(0);
    method->set_server_streaming(!method->server_streaming());
    for (const auto* changed : {&renumbered, &retyped, &removed, &unary})
      EXPECT_EQ(Broken(old, PromisesOf(*changed)).size(), 1u) << now.file(f).name();
  }
}

// Clients know the service from its .proto files alone.
TEST(Comments, EveryMessageFieldValueAndMethodHasOne) {
  std::vector<std::string> bare;
  int seen = 0;
  const FileDescriptorSet set = Load(TEMPERA_DESCRIPTORS);
  for (const FileDescriptorProto& file : set.file()) {
    if (file.package() == "google.protobuf") continue;
    std::map<std::vector<int>, bool> commented;
    for (const auto& l : file.source_code_info().location())
      commented[{l.path().begin(), l.path().end()}] = l.leading_comments().size() > 3;
    for (const auto& [path, has] : commented) {
      // Paths are pairs of (field of the descriptor, index): messages 4, enums 5, services 6, and what they
      // hold: fields 2, nested messages 3, nested enums 4, enumerators and methods 2, oneofs 8 (a synthetic
      // one has no location).
      if (path.size() < 2 || path.size() % 2 != 0 || path[0] < 4 || path[0] > 6) continue;
      bool thing = true;
      for (size_t i = 2; i < path.size(); i += 2)
        thing = thing && (path[i] == 2 || path[i] == 3 || path[i] == 4 || path[i] == 8);
      if (!thing) continue;
      ++seen;
      std::string text = file.name();
      for (const int p : path) text += Cat(" ", p);
      if (!has) bare.push_back(text);
    }
  }
  EXPECT_GT(seen, 300);
  EXPECT_TRUE(bare.empty()) << Lines(bare);
}

// Stock clients decode errors and operations with the published messages.
TEST(Google, NumbersAreThePublishedOnes) {
  Promises promises = PromisesOf(Load(TEMPERA_DESCRIPTORS));
  const std::map<std::string, int> published{
      {"google.rpc.Status.code", 1},
      {"google.rpc.Status.message", 2},
      {"google.rpc.Status.details", 3},
      {"google.rpc.ErrorInfo.reason", 1},
      {"google.rpc.ErrorInfo.domain", 2},
      {"google.rpc.ErrorInfo.metadata", 3},
      {"google.rpc.RetryInfo.retry_delay", 1},
      {"google.rpc.BadRequest.field_violations", 1},
      {"google.rpc.BadRequest.FieldViolation.field", 1},
      {"google.rpc.BadRequest.FieldViolation.description", 2},
      {"google.rpc.QuotaFailure.violations", 1},
      {"google.rpc.PreconditionFailure.violations", 1},
      {"google.rpc.RequestInfo.request_id", 1},
      {"google.rpc.ResourceInfo.resource_type", 1},
      {"google.rpc.ResourceInfo.resource_name", 2},
      {"google.rpc.ResourceInfo.description", 4},
      {"google.longrunning.Operation.name", 1},
      {"google.longrunning.Operation.metadata", 2},
      {"google.longrunning.Operation.done", 3},
      {"google.longrunning.Operation.error", 4},
      {"google.longrunning.Operation.response", 5},
      {"google.longrunning.ListOperationsRequest.filter", 1},
      {"google.longrunning.ListOperationsRequest.page_size", 2},
      {"google.longrunning.ListOperationsRequest.page_token", 3},
      {"google.longrunning.ListOperationsRequest.name", 4},
      {"google.longrunning.WaitOperationRequest.name", 1},
      {"google.longrunning.WaitOperationRequest.timeout", 2},
  };
  for (const auto& [name, number] : published) {
    EXPECT_TRUE(promises[name].starts_with(Cat("= ", number, ","))) << name << " " << promises[name];
  }
}

}  // namespace
}  // namespace tempera
