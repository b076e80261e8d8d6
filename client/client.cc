#include "client/client.h"

#include <google/protobuf/empty.pb.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <random>
#include <stop_token>
#include <utility>

#include "client/pieces.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/generation.grpc.pb.h"
#include "tempera/v1/model.grpc.pb.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {
namespace {

using Clock = CallScope::Clock;
using std::chrono::milliseconds;

constexpr int kMaxMessageBytes = 64 << 20;
constexpr uint64_t kMaxPictureBytes = 1ull << 30;
constexpr uint64_t kMaxReportFileBytes = 1ull << 30;

std::mt19937_64& Random() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random;
}

// Ready for one attempt: cancelled when the scope stops, over at `deadline`.
struct Attempt {
  Attempt(const CallScope& scope, Clock::time_point deadline)
      : on_stop(scope.stop, [this] { context.TryCancel(); }) {
    if (deadline != Clock::time_point::max())
      context.set_deadline(
          std::chrono::system_clock::now() +
          std::chrono::duration_cast<std::chrono::system_clock::duration>(deadline - Clock::now()));
  }
  grpc::ClientContext context;
  std::stop_callback<std::function<void()>> on_stop;
};

// False if the scope stops first.
bool Sleep(const CallScope& scope, milliseconds pause) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, scope.stop, pause, [] { return false; });
  return !scope.stop.stop_requested();
}

}  // namespace

struct Client::State {
  ClientOptions options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::QuantizationService::Stub> quantization;
  std::unique_ptr<v1::ArtifactService::Stub> artifacts;
  std::unique_ptr<v1::GenerationService::Stub> generation;
  std::unique_ptr<v1::ModelService::Stub> models;

  // The pause before try number `attempt` + 1, counted from 1.
  milliseconds Pause(const Status& error, int attempt) const {
    const auto told = DetailsOf(error).retry_delay;
    if (told) return std::max(*told, milliseconds(0));
    const double full =
        std::min(static_cast<double>(options.pause.count()) * (1 << std::min(attempt - 1, 10)), 5000.0);
    return milliseconds(static_cast<int64_t>(full * std::uniform_real_distribution<>(0.5, 1.0)(Random())));
  }

  // Waits and says whether the failed call may be tried again.
  bool Again(const CallScope& scope, const Status& error, int attempt, Clock::time_point deadline) const {
    if (error.code() != absl::StatusCode::kUnavailable) return false;
    const milliseconds pause = Pause(error, attempt);
    if (deadline != Clock::time_point::max() && Clock::now() + pause >= deadline) return false;
    return Sleep(scope, pause);
  }

  // `call` is one attempt; `may_repeat` is asked after it failed.
  Status Retried(const CallScope& scope, milliseconds timeout,
                 const std::function<Status(grpc::ClientContext*)>& call,
                 const std::function<bool()>& may_repeat = {}) const {
    Clock::time_point deadline = scope.deadline;
    if (timeout.count() > 0) deadline = std::min(deadline, Clock::now() + timeout);
    for (int attempt = 1;; ++attempt) {
      Status status;
      {
        Attempt one(scope, deadline);
        status = call(&one.context);
      }
      if (status.ok()) return status;
      if (attempt >= options.attempts || (may_repeat && !may_repeat()) ||
          !Again(scope, status, attempt, deadline))
        return status;
    }
  }

  template <typename Stub, typename Request, typename Response>
  Result<Response> Unary(const CallScope& scope, milliseconds timeout, Stub& stub,
                         grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                         const Request& request) const {
    Response response;
    TEMPERA_TRY(Retried(scope, timeout, [&](grpc::ClientContext* context) {
      response.Clear();
      return FromGrpc((stub.*method)(context, request, &response));
    }));
    return response;
  }

  // One attempt of a server stream; an error of `on_message` cancels it and is returned.
  template <typename Reader, typename Response>
  static Status Read(grpc::ClientContext* context, Reader& reader, Response& message,
                     const std::function<Status(const Response&)>& on_message) {
    Status own;
    while (reader.Read(&message)) {
      own = on_message(message);
      if (!own.ok()) {
        context->TryCancel();
        break;
      }
    }
    const grpc::Status theirs = reader.Finish();
    return own.ok() ? FromGrpc(theirs) : own;
  }
};

namespace {

template <typename Request>
void NameRequest(Request& request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
}

}  // namespace

std::string NewRequestId() {
  static constexpr char kDigits[] = "0123456789abcdef";
  uint64_t high = Random()(), low = Random()();
  high = (high & ~0xf000ull) | 0x4000ull;                // version 4
  low = (low & ~(0xc000ull << 48)) | (0x8000ull << 48);  // variant 1
  std::string id;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) id += '-';
    const uint64_t half = i < 16 ? high : low;
    id += kDigits[(half >> (60 - 4 * (i % 16))) & 15];
  }
  return id;
}

bool IsFinal(v1::QuantizeJob::State state) {
  return state == v1::QuantizeJob::SUCCEEDED || state == v1::QuantizeJob::FAILED ||
         state == v1::QuantizeJob::CANCELLED || state == v1::QuantizeJob::REJECTED;
}

Result<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  const size_t colon = options.server.rfind(':');
  const std::string port = colon == std::string::npos ? "" : options.server.substr(colon + 1);
  if (colon == 0 || port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) < 1 ||
      std::stoi(port) > 65535)
    return InvalidArgument("server: got \"", options.server, "\", want HOST:PORT");
  auto state = std::make_unique<State>();
  state->options = options;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);  // this is the time that a connect may take
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);  // a stream notices a dead server
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // No proxy can reach this machine's own loopback.
  const std::string host = options.server.substr(0, colon);
  if (host == "localhost" || host == "[::1]" || host.starts_with("127."))
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  state->channel = grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments);
  state->quantization = v1::QuantizationService::NewStub(state->channel);
  state->artifacts = v1::ArtifactService::NewStub(state->channel);
  state->generation = v1::GenerationService::NewStub(state->channel);
  state->models = v1::ModelService::NewStub(state->channel);
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::~Client() = default;
const ClientOptions& Client::options() const { return state_->options; }

Result<v1::QuantizeJob> Client::Quantize(const CallScope& scope, v1::QuantizeRequest request) {
  NameRequest(request);
  TEMPERA_ASSIGN(const google::longrunning::Operation operation,
                 state_->Unary(scope, state_->options.timeout, *state_->quantization,
                               &v1::QuantizationService::Stub::Quantize, request));
  v1::QuantizeJob job;
  if (!operation.metadata().UnpackTo(&job))
    return Internal("Quantize: metadata of the operation, got ", operation.metadata().type_url(), ", want ",
                    job.GetTypeName());
  return job;
}

Result<v1::QuantizeJob> Client::GetJob(const CallScope& scope, const std::string& name) {
  v1::GetQuantizeJobRequest request;
  request.set_name(name);
  return state_->Unary(scope, state_->options.timeout, *state_->quantization,
                       &v1::QuantizationService::Stub::GetQuantizeJob, request);
}

Result<v1::ListQuantizeJobsResponse> Client::ListJobs(const CallScope& scope,
                                                      const v1::ListQuantizeJobsRequest& request) {
  return state_->Unary(scope, state_->options.timeout, *state_->quantization,
                       &v1::QuantizationService::Stub::ListQuantizeJobs, request);
}

Result<v1::QuantizeJob> Client::CancelJob(const CallScope& scope, v1::CancelQuantizeJobRequest request) {
  NameRequest(request);
  return state_->Unary(scope, state_->options.timeout, *state_->quantization,
                       &v1::QuantizationService::Stub::CancelQuantizeJob, request);
}

Status Client::DeleteJob(const CallScope& scope, v1::DeleteQuantizeJobRequest request) {
  NameRequest(request);
  return state_
      ->Unary(scope, state_->options.timeout, *state_->quantization,
              &v1::QuantizationService::Stub::DeleteQuantizeJob, request)
      .status();
}

Result<v1::QuantizeJob> Client::WatchJob(const CallScope& scope, const std::string& name,
                                         const std::function<void(const v1::QuantizeJob&)>& on_change) {
  v1::WatchQuantizeJobRequest request;
  request.set_name(name);
  v1::QuantizeJob last;
  bool heard = false;
  Clock::time_point last_heard = Clock::now();
  for (int attempt = 1;; ++attempt) {
    Status status;
    {
      Attempt one(scope, scope.deadline);
      auto reader = state_->quantization->WatchQuantizeJob(&one.context, request);
      v1::WatchQuantizeJobResponse message;
      status = State::Read<grpc::ClientReader<v1::WatchQuantizeJobResponse>, v1::WatchQuantizeJobResponse>(
          &one.context, *reader, message, [&](const v1::WatchQuantizeJobResponse& m) {
            last = m.job();
            heard = true;
            last_heard = Clock::now();
            attempt = 1;
            if (on_change) on_change(last);
            return OkStatus();
          });
    }
    if (heard && IsFinal(last.state())) return last;
    // A stream that ends early without an error is a server that goes away politely; one that is cancelled
    // by nobody here, a server that goes away.
    if (status.ok() || (absl::IsCancelled(status) && !scope.stop.stop_requested()))
      status = Unavailable("WatchQuantizeJob: the stream ended before the job did");
    const bool patient = heard ? Clock::now() - last_heard < state_->options.watch_patience
                               : attempt < state_->options.attempts;
    if (!patient || !state_->Again(scope, status, attempt, scope.deadline)) {
      if (scope.stop.stop_requested()) return absl::CancelledError("cancelled by the caller");
      return status;
    }
  }
}

Result<v1::Artifact> Client::GetArtifact(const CallScope& scope, const std::string& artifact) {
  v1::GetArtifactRequest request;
  request.set_artifact(artifact);
  return state_->Unary(scope, state_->options.timeout, *state_->artifacts,
                       &v1::ArtifactService::Stub::GetArtifact, request);
}

Result<v1::ListArtifactsResponse> Client::ListArtifacts(const CallScope& scope,
                                                        const v1::ListArtifactsRequest& request) {
  return state_->Unary(scope, state_->options.timeout, *state_->artifacts,
                       &v1::ArtifactService::Stub::ListArtifacts, request);
}

Result<v1::VerifyArtifactResponse> Client::VerifyArtifact(const CallScope& scope,
                                                          const std::string& artifact) {
  v1::VerifyArtifactRequest request;
  request.set_artifact(artifact);
  return state_->Unary(scope, state_->options.long_timeout, *state_->artifacts,
                       &v1::ArtifactService::Stub::VerifyArtifact, request);
}

Status Client::DeleteArtifact(const CallScope& scope, v1::DeleteArtifactRequest request) {
  NameRequest(request);
  return state_
      ->Unary(scope, state_->options.timeout, *state_->artifacts, &v1::ArtifactService::Stub::DeleteArtifact,
              request)
      .status();
}

Result<v1::Alias> Client::SetAlias(const CallScope& scope, v1::SetAliasRequest request) {
  NameRequest(request);
  return state_->Unary(scope, state_->options.timeout, *state_->artifacts,
                       &v1::ArtifactService::Stub::SetAlias, request);
}

Result<v1::ExplainQuantizationResponse> Client::Explain(const CallScope& scope,
                                                        const v1::ExplainQuantizationRequest& request) {
  return state_->Unary(scope, state_->options.timeout, *state_->artifacts,
                       &v1::ArtifactService::Stub::ExplainQuantization, request);
}

Status Client::GetReport(const CallScope& scope, const v1::GetQualityReportRequest& request,
                         const std::function<Status(const ReportFile&)>& on_file) {
  bool heard = false;
  return state_->Retried(
      scope, state_->options.long_timeout,
      [&](grpc::ClientContext* context) -> Status {
        std::optional<Pieces> pieces;
        auto reader = state_->artifacts->GetQualityReport(context, request);
        v1::GetQualityReportResponse message;
        auto on_message = [&](const v1::GetQualityReportResponse& m) -> Status {
          heard = true;
          if (!pieces) pieces.emplace(m.path(), m.total_bytes(), kMaxReportFileBytes);
          if (pieces->label() != m.path())
            return DataLoss("report: file ", pieces->label(), " ended early, got ", m.path(), " next");
          TEMPERA_TRY(pieces->Add(m.offset(), m.total_bytes(), m.data(), m.last(), m.sha256()));
          if (!m.last()) return OkStatus();
          ReportFile file{m.path(), m.media_type(), pieces->Take()};
          pieces.reset();
          return on_file(file);
        };
        TEMPERA_TRY(
            (State::Read<grpc::ClientReader<v1::GetQualityReportResponse>, v1::GetQualityReportResponse>(
                context, *reader, message, on_message)));
        if (pieces) return DataLoss("report: file ", pieces->label(), " ended early");
        return OkStatus();
      },
      [&] { return !heard; });
}

Result<v1::Summary> Client::Generate(const CallScope& scope, v1::GenerateRequest request,
                                     const GenerateCallbacks& on) {
  NameRequest(request);
  bool heard = false;
  std::optional<v1::Summary> summary;
  std::map<int, std::string> digests;
  std::optional<Pieces> pieces;
  int current = 0;
  auto on_image = [&](const v1::ImageChunk& m) -> Status {
    if (!pieces) {
      current = m.picture();
      pieces.emplace(Cat("picture ", current), m.total_bytes(), kMaxPictureBytes);
    }
    if (current != m.picture())
      return DataLoss(pieces->label(), ": ended early, got picture ", m.picture(), " next");
    TEMPERA_TRY(pieces->Add(m.offset(), m.total_bytes(), m.data(), m.last(), m.sha256()));
    if (!m.last()) return OkStatus();
    ReceivedPicture picture{m.picture(), m.seed(), m.media_type(), pieces->Take(), m.sha256()};
    pieces.reset();
    digests[picture.index] = picture.sha256;
    return on.on_picture ? on.on_picture(picture) : OkStatus();
  };
  auto on_event = [&](const v1::GenerateResponse& m) -> Status {
    heard = true;
    switch (m.event_case()) {
      case v1::GenerateResponse::kAccepted:
        if (on.on_accepted) on.on_accepted(m.accepted());
        return OkStatus();
      case v1::GenerateResponse::kProgress:
        if (on.on_progress) on.on_progress(m.progress());
        return OkStatus();
      case v1::GenerateResponse::kPreview:
        if (on.on_preview) on.on_preview(m.preview());
        return OkStatus();
      case v1::GenerateResponse::kImage:
        return on_image(m.image());
      case v1::GenerateResponse::kSummary:
        summary = m.summary();
        return OkStatus();
      case v1::GenerateResponse::EVENT_NOT_SET:
        return OkStatus();  // an event of a newer server
    }
    return OkStatus();
  };
  TEMPERA_TRY(state_->Retried(
      scope, milliseconds(0),
      [&](grpc::ClientContext* context) {
        auto reader = state_->generation->Generate(context, request);
        v1::GenerateResponse message;
        return State::Read<grpc::ClientReader<v1::GenerateResponse>, v1::GenerateResponse>(context, *reader,
                                                                                           message, on_event);
      },
      [&] { return !heard; }));
  if (request.validate_only()) return summary.value_or(v1::Summary());
  if (pieces) return DataLoss(pieces->label(), ": the stream ended before the picture did");
  if (!summary) return DataLoss("generation: the stream ended without a summary");
  for (const auto& p : summary->pictures())
    if (!digests.contains(p.picture()) || digests[p.picture()] != p.sha256())
      return DataLoss("picture ", p.picture(), ": SHA-256 in the summary, got ", p.sha256(), ", want ",
                      digests.contains(p.picture()) ? digests[p.picture()] : "that of a received picture");
  if (static_cast<size_t>(summary->pictures_size()) != digests.size())
    return DataLoss("generation: pictures in the summary, got ", summary->pictures_size(), ", want ",
                    digests.size());
  return *summary;
}

Result<v1::Capabilities> Client::GetCapabilities(const CallScope& scope, const std::string& ref) {
  v1::GetCapabilitiesRequest request;
  request.set_ref(ref);
  return state_->Unary(scope, ref.empty() ? state_->options.timeout : state_->options.long_timeout,
                       *state_->generation, &v1::GenerationService::Stub::GetCapabilities, request);
}

Result<v1::LoadedModel> Client::LoadModel(const CallScope& scope, v1::LoadModelRequest request) {
  NameRequest(request);
  return state_->Unary(scope, state_->options.long_timeout, *state_->models,
                       &v1::ModelService::Stub::LoadModel, request);
}

Status Client::UnloadModel(const CallScope& scope, v1::UnloadModelRequest request) {
  NameRequest(request);
  return state_
      ->Unary(scope, state_->options.timeout, *state_->models, &v1::ModelService::Stub::UnloadModel, request)
      .status();
}

Result<v1::ListLoadedModelsResponse> Client::ListModels(const CallScope& scope,
                                                        const v1::ListLoadedModelsRequest& request) {
  return state_->Unary(scope, state_->options.timeout, *state_->models,
                       &v1::ModelService::Stub::ListLoadedModels, request);
}

Result<v1::ListTemporalCachesResponse> Client::ListCaches(const CallScope& scope,
                                                          const v1::ListTemporalCachesRequest& request) {
  return state_->Unary(scope, state_->options.timeout, *state_->models,
                       &v1::ModelService::Stub::ListTemporalCaches, request);
}

}  // namespace tempera
