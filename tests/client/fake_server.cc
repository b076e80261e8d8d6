#include "client/fake_server.h"

#include "base/files.h"
#include "base/status.h"

namespace tempera {
namespace {

template <typename Handler, typename... Arguments>
grpc::Status Answer(const Handler& handler, Arguments&&... arguments) {
  if (!handler) return {grpc::StatusCode::UNIMPLEMENTED, "the test has no handler"};
  return handler(std::forward<Arguments>(arguments)...);
}

using Context = grpc::ServerContext;

struct Quantization final : v1::QuantizationService::Service {
  explicit Quantization(const FakeHandlers& handlers) : h(handlers) {}
  grpc::Status Quantize(Context*, const v1::QuantizeRequest* q, google::longrunning::Operation* a) override {
    return Answer(h.quantize, *q, a);
  }
  grpc::Status GetQuantizeJob(Context*, const v1::GetQuantizeJobRequest* q, v1::QuantizeJob* a) override {
    return Answer(h.get_job, *q, a);
  }
  grpc::Status ListQuantizeJobs(Context*, const v1::ListQuantizeJobsRequest* q,
                                v1::ListQuantizeJobsResponse* a) override {
    return Answer(h.list_jobs, *q, a);
  }
  grpc::Status CancelQuantizeJob(Context*, const v1::CancelQuantizeJobRequest* q,
                                 v1::QuantizeJob* a) override {
    return Answer(h.cancel_job, *q, a);
  }
  grpc::Status WatchQuantizeJob(Context* c, const v1::WatchQuantizeJobRequest* q,
                                grpc::ServerWriter<v1::WatchQuantizeJobResponse>* w) override {
    return Answer(h.watch_job, c, *q, w);
  }
  const FakeHandlers& h;
};

struct Artifacts final : v1::ArtifactService::Service {
  explicit Artifacts(const FakeHandlers& handlers) : h(handlers) {}
  grpc::Status GetArtifact(Context*, const v1::GetArtifactRequest* q, v1::Artifact* a) override {
    return Answer(h.get_artifact, *q, a);
  }
  grpc::Status SetAlias(Context*, const v1::SetAliasRequest* q, v1::Alias* a) override {
    return Answer(h.set_alias, *q, a);
  }
  grpc::Status ExplainQuantization(Context*, const v1::ExplainQuantizationRequest* q,
                                   v1::ExplainQuantizationResponse* a) override {
    return Answer(h.explain, *q, a);
  }
  grpc::Status GetQualityReport(Context* c, const v1::GetQualityReportRequest* q,
                                grpc::ServerWriter<v1::GetQualityReportResponse>* w) override {
    return Answer(h.report, c, *q, w);
  }
  const FakeHandlers& h;
};

struct Generation final : v1::GenerationService::Service {
  explicit Generation(const FakeHandlers& handlers) : h(handlers) {}
  grpc::Status Generate(Context* c, const v1::GenerateRequest* q,
                        grpc::ServerWriter<v1::GenerateResponse>* w) override {
    return Answer(h.generate, c, *q, w);
  }
  const FakeHandlers& h;
};

struct Models final : v1::ModelService::Service {
  explicit Models(const FakeHandlers& handlers) : h(handlers) {}
  grpc::Status LoadModel(Context*, const v1::LoadModelRequest* q, v1::LoadedModel* a) override {
    return Answer(h.load_model, *q, a);
  }
  grpc::Status ListLoadedModels(Context*, const v1::ListLoadedModelsRequest* q,
                                v1::ListLoadedModelsResponse* a) override {
    return Answer(h.list_models, *q, a);
  }
  const FakeHandlers& h;
};

}  // namespace

struct FakeServer::Services {
  explicit Services(FakeHandlers given) : handlers(std::move(given)) {}
  FakeHandlers handlers;
  Quantization quantization{handlers};
  Artifacts artifacts{handlers};
  Generation generation{handlers};
  Models models{handlers};
};

FakeServer::FakeServer(FakeHandlers handlers) : services_(std::make_unique<Services>(std::move(handlers))) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&services_->quantization);
  builder.RegisterService(&services_->artifacts);
  builder.RegisterService(&services_->generation);
  builder.RegisterService(&services_->models);
  server_ = builder.BuildAndStart();
  TEMPERA_CHECK(server_ != nullptr && port != 0, "a port on the loopback");
  address_ = Cat("127.0.0.1:", port);
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

google::longrunning::Operation OperationOf(const v1::QuantizeJob& job) {
  google::longrunning::Operation operation;
  operation.set_name("operations/" + job.name());
  operation.mutable_metadata()->PackFrom(job);
  return operation;
}

grpc::Status RichError(grpc::StatusCode code, const std::string& message,
                       const std::vector<const google::protobuf::Message*>& details) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  for (const auto* d : details) status.add_details()->PackFrom(*d);
  return {code, message, status.SerializeAsString()};
}

std::vector<v1::GenerateResponse> GenerationOf(const std::string& bytes, uint64_t seed, size_t piece) {
  std::vector<v1::GenerateResponse> events;
  auto next = [&]() -> v1::GenerateResponse& {
    events.emplace_back().set_sequence(static_cast<int64_t>(events.size()) - 1);
    return events.back();
  };
  v1::Accepted& accepted = *next().mutable_accepted();
  accepted.set_seed(seed);
  accepted.set_model("fashion");
  accepted.set_count(1);
  for (int step = 0; step < 2; ++step) {
    v1::Progress& p = *next().mutable_progress();
    p.set_step(step);
    p.set_steps(2);
    p.set_timestep(500 - 500 * step);
    p.set_milliseconds(1.5);
    if (step == 1) p.set_temporal_feature_error(0.25);
  }
  for (size_t offset = 0; offset < bytes.size(); offset += piece) {
    v1::ImageChunk& chunk = *next().mutable_image();
    chunk.set_seed(seed);
    chunk.set_media_type("image/png");
    chunk.set_total_bytes(static_cast<int64_t>(bytes.size()));
    chunk.set_offset(static_cast<int64_t>(offset));
    chunk.set_data(bytes.substr(offset, piece));
    chunk.set_last(offset + piece >= bytes.size());
    if (chunk.last()) chunk.set_sha256(Sha256Hex(bytes));
  }
  v1::PictureSummary& picture = *next().mutable_summary()->add_pictures();
  picture.set_seed(seed);
  picture.set_sha256(Sha256Hex(bytes));
  picture.set_latent_sha256(std::string(64, 'a'));
  return events;
}

}  // namespace tempera
