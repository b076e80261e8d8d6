// A thousand random changes of each request message: every call ends, the server lives.
#include <google/longrunning/operations.grpc.pb.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/impl/client_unary_call.h>
#include <gtest/gtest.h>

#include <random>

#include "server/calls.h"
#include "server/fakes.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/model.grpc.pb.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using testing::TestServer;

constexpr int kMutations = 1000;

// Changes fields of a message, or its bytes.
class Mutator {
 public:
  Mutator(uint64_t seed, std::vector<std::string> words) : random_(seed), words_(std::move(words)) {}

  void Change(Message& message) {
    const auto* type = message.GetDescriptor();
    const int changes = 1 + Below(3);
    for (int i = 0; i < changes && type->field_count() > 0; ++i)
      ChangeField(message, *type->field(Below(type->field_count())));
  }
  std::string ChangeBytes(std::string bytes) {
    for (int i = 1 + Below(4); i > 0; --i) {
      const int kind = Below(4);
      if (kind == 0 && !bytes.empty()) bytes[Below(bytes.size())] ^= static_cast<char>(1 << Below(8));
      if (kind == 1) bytes.insert(Below(bytes.size() + 1), 1, static_cast<char>(Below(256)));
      if (kind == 2 && !bytes.empty()) bytes.erase(Below(bytes.size()), 1);
      if (kind == 3 && !bytes.empty()) bytes.resize(Below(bytes.size()));
    }
    return bytes;
  }
  int Below(size_t n) { return static_cast<int>(std::uniform_int_distribution<size_t>(0, n - 1)(random_)); }

 private:
  std::string Text() {
    std::string text = words_[Below(words_.size())];
    switch (Below(6)) {
      case 0:
        return std::string(Below(5000), 'a');
      case 1:
        return text + "\xC3\xA9\n\t\"\\";
      case 2:
        return text.substr(0, Below(text.size() + 1));
      case 3:
        return text + "/../" + text;
      default:
        return text;
    }
  }
  int64_t Number() {
    static constexpr int64_t kNumbers[] = {
        0, 1, -1, 2, 3, 4, 5, 8, 32, 49, 64, 65, 1000, 1001, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    return kNumbers[Below(std::size(kNumbers))];
  }
  double Real() {
    const double reals[] = {0, 1, -1, 0.5, 1e300, -1e300, std::nan(""), INFINITY, -INFINITY, 5e-324};
    return reals[Below(std::size(reals))];
  }
  void ChangeField(Message& message, const FieldDescriptor& field) {
    const auto* access = message.GetReflection();
    if (Below(6) == 0) return access->ClearField(&message, &field);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* inner = field.is_repeated() ? access->AddMessage(&message, &field)
                                           : access->MutableMessage(&message, &field);
      if (depth_ < 4) {
        ++depth_;
        Change(*inner);
        --depth_;
      }
      return;
    }
#define TEMPERA_SET(KIND, NAME, VALUE)                                          \
  case FieldDescriptor::CPPTYPE_##KIND:                                         \
    if (field.is_repeated()) return access->Add##NAME(&message, &field, VALUE); \
    return access->Set##NAME(&message, &field, VALUE)
    switch (field.cpp_type()) {
      TEMPERA_SET(INT32, Int32, static_cast<int32_t>(Number()));
      TEMPERA_SET(INT64, Int64, Number());
      TEMPERA_SET(UINT32, UInt32, static_cast<uint32_t>(Number()));
      TEMPERA_SET(UINT64, UInt64, static_cast<uint64_t>(Number()));
      TEMPERA_SET(DOUBLE, Double, Real());
      TEMPERA_SET(FLOAT, Float, static_cast<float>(Real()));
      TEMPERA_SET(BOOL, Bool, Below(2) == 0);
      TEMPERA_SET(ENUM, EnumValue, static_cast<int>(Number() % 100));
      TEMPERA_SET(STRING, String, Text());
      default:
        return;
    }
#undef TEMPERA_SET
  }

  std::mt19937_64 random_;
  std::vector<std::string> words_;
  int depth_ = 0;
};

class Mutations : public ::testing::Test {
 protected:
  Mutations() {
    id_ = server_.PublishArtifact();
    v1::SetAliasRequest alias;
    alias.set_alias("m:stable");
    alias.set_artifact(id_);
    EXPECT_TRUE(testing::Call(*v1::ArtifactService::NewStub(server_.channel()),
                              &v1::ArtifactService::Stub::SetAlias, alias)
                    .ok());
  }
  ~Mutations() override {
    // It lives, and does its work.
    EXPECT_EQ(server_.Http("/readyz").first, 200);
    EXPECT_TRUE(
        testing::Generate(server_.channel(), testing::GenerateOf(server_.model("plain"))).status.ok());
  }

  // Half of the requests changed field by field, half byte by byte. Answers are read to the end of each
  // stream.
  void Run(const std::string& method, const Message& base, bool stream) {
    Mutator mutator(20260131, {"",
                               "x",
                               id_,
                               id_.substr(0, 12),
                               "artifacts/" + id_,
                               "m:stable",
                               "m:new",
                               "plain",
                               server_.model("plain"),
                               server_.model("classes"),
                               server_.model("broken"),
                               "/etc",
                               "..",
                               "file:///",
                               "s3://b/k",
                               "quantizeJobs/0123456789abcdef",
                               "operations/0123456789abcdef",
                               "tfmq",
                               "ddim",
                               "report.html",
                               "state = QUEUED",
                               "AND AND",
                               "create_time desc",
                               "5c7f0f0e-0b5e-4a3c-9f6e-2d1c0b9a8f7e"});
    int refused = 0;
    for (int i = 0; i < kMutations; ++i) {
      std::unique_ptr<Message> request(base.New());
      request->CopyFrom(base);
      if (i % 2 == 0) mutator.Change(*request);
      std::string bytes = request->SerializeAsString();
      if (i % 2 == 1) bytes = mutator.ChangeBytes(std::move(bytes));
      const grpc::Status status = Send(method, bytes, stream);
      // A call that hangs ends by the deadline.
      EXPECT_NE(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << request->DebugString();
      EXPECT_NE(status.error_code(), grpc::StatusCode::UNKNOWN) << status.error_message();
      if (status.ok()) continue;
      ++refused;
      EXPECT_TRUE(rpc::Reason(rpc::FromGrpc(status))) << "no details: " << status.error_message();
      if (::testing::Test::HasFailure()) break;
    }
    EXPECT_GT(refused, 0);
  }

  grpc::Status Send(const std::string& method, const std::string& bytes, bool stream) {
    grpc::Slice slice(bytes);
    grpc::ByteBuffer request(&slice, 1);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    if (!stream) {
      grpc::ByteBuffer response;
      const grpc::internal::RpcMethod rpc(method.c_str(), grpc::internal::RpcMethod::NORMAL_RPC);
      return grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
          server_.channel().get(), rpc, &context, request, &response);
    }
    const grpc::internal::RpcMethod rpc(method.c_str(), grpc::internal::RpcMethod::SERVER_STREAMING);
    std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
        grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(server_.channel().get(), rpc, &context,
                                                                      request));
    int read = 0;
    for (grpc::ByteBuffer message; reader->Read(&message);) {
      if (++read < 200) continue;
      context.TryCancel();  // a watch of a job that nobody runs has no end
      reader->Finish();
      return grpc::Status::OK;
    }
    return reader->Finish();
  }

  TestServer server_;
  std::string id_;
};

TEST_F(Mutations, Generate) {
  v1::GenerateRequest base = testing::GenerateOf(server_.model("classes"), 3);
  base.set_steps(3);
  Run("/tempera.v1.GenerationService/Generate", base, true);
}
TEST_F(Mutations, GetCapabilities) {
  v1::GetCapabilitiesRequest base;
  base.set_ref(id_);
  Run("/tempera.v1.GenerationService/GetCapabilities", base, false);
}
TEST_F(Mutations, Quantize) {
  v1::QuantizeRequest base;
  base.set_model(server_.model("classes"));
  base.set_alias("m:new");
  base.mutable_spec()->set_weight_bits(4);
  base.mutable_spec()->add_overrides()->set_slot("conv_in");
  Run("/tempera.v1.QuantizationService/Quantize", base, false);
}
TEST_F(Mutations, Jobs) {
  v1::GetQuantizeJobRequest get;
  get.set_name("quantizeJobs/0123456789abcdef");
  Run("/tempera.v1.QuantizationService/GetQuantizeJob", get, false);
  v1::ListQuantizeJobsRequest list;
  list.set_filter("state = RUNNING AND labels.team = \"x\"");
  list.set_order_by("create_time desc");
  Run("/tempera.v1.QuantizationService/ListQuantizeJobs", list, false);
  v1::CancelQuantizeJobRequest cancel;
  cancel.set_name(get.name());
  Run("/tempera.v1.QuantizationService/CancelQuantizeJob", cancel, false);
  v1::DeleteQuantizeJobRequest remove;
  remove.set_name(get.name());
  Run("/tempera.v1.QuantizationService/DeleteQuantizeJob", remove, false);
  v1::WatchQuantizeJobRequest watch;
  watch.set_name(get.name());
  Run("/tempera.v1.QuantizationService/WatchQuantizeJob", watch, true);
}
TEST_F(Mutations, Operations) {
  const std::string service = "/google.longrunning.Operations/";
  google::longrunning::GetOperationRequest get;
  get.set_name("operations/0123456789abcdef");
  Run(service + "GetOperation", get, false);
  google::longrunning::ListOperationsRequest list;
  list.set_filter("method = tfmq");
  Run(service + "ListOperations", list, false);
  google::longrunning::CancelOperationRequest cancel;
  cancel.set_name(get.name());
  Run(service + "CancelOperation", cancel, false);
  google::longrunning::DeleteOperationRequest remove;
  remove.set_name(get.name());
  Run(service + "DeleteOperation", remove, false);
  google::longrunning::WaitOperationRequest wait;
  wait.set_name(get.name());
  wait.mutable_timeout()->set_nanos(1000);
  Run(service + "WaitOperation", wait, false);
}
TEST_F(Mutations, Artifacts) {
  const std::string service = "/tempera.v1.ArtifactService/";
  v1::GetArtifactRequest get;
  get.set_artifact(id_);
  Run(service + "GetArtifact", get, false);
  v1::ListArtifactsRequest list;
  list.set_filter("model = classes");
  Run(service + "ListArtifacts", list, false);
  v1::VerifyArtifactRequest verify;
  verify.set_artifact(id_);
  Run(service + "VerifyArtifact", verify, false);
  v1::SetAliasRequest alias;
  alias.set_alias("m:new");
  alias.set_artifact(id_);
  Run(service + "SetAlias", alias, false);
  v1::GetQualityReportRequest report;
  report.set_artifact(id_);
  report.add_paths("report.json");
  Run(service + "GetQualityReport", report, true);
  v1::ExplainQuantizationRequest explain;
  explain.set_artifact(id_);
  Run(service + "ExplainQuantization", explain, false);
  v1::DeleteArtifactRequest remove;
  remove.set_artifact(std::string(64, '0'));
  Run(service + "DeleteArtifact", remove, false);
}
TEST_F(Mutations, Models) {
  const std::string service = "/tempera.v1.ModelService/";
  v1::LoadModelRequest load;
  load.set_ref("m:stable");
  Run(service + "LoadModel", load, false);
  v1::UnloadModelRequest unload;
  unload.set_ref("m:stable");
  Run(service + "UnloadModel", unload, false);
  v1::ListLoadedModelsRequest list;
  list.set_page_size(1);
  list.set_page_token("x");
  Run(service + "ListLoadedModels", list, false);
  v1::ListTemporalCachesRequest caches;
  caches.set_page_token("x");
  Run(service + "ListTemporalCaches", caches, false);
}

}  // namespace
}  // namespace tempera
