// Typed calls to a Tempera server: deadlines, retries, rich errors, and streams put together again.
//
//   TEMPERA_ASSIGN(auto client, Client::Create({.server = "localhost:50051"}));
//   v1::GenerateRequest request;
//   request.set_ref("fashion:w4a8");
//   TEMPERA_ASSIGN(v1::Summary summary, client->Generate({}, request, {.on_picture = Save}));
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/call.h"
#include "base/status.h"
#include "client/errors.h"
#include "tempera/v1/artifact.pb.h"
#include "tempera/v1/generation.pb.h"
#include "tempera/v1/model.pb.h"
#include "tempera/v1/quantization.pb.h"

namespace tempera {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // HOST:PORT
  // Deadline of a short call, over all its attempts. A scope's own deadline counts too, the earlier wins.
  std::chrono::milliseconds timeout{30'000};
  // The same for calls that read whole artifacts: LoadModel, VerifyArtifact, GetQualityReport.
  std::chrono::milliseconds long_timeout{600'000};
  // Tries of a call that is answered UNAVAILABLE; nothing else is tried again.
  int attempts = 5;
  // Pause before the second try; doubles each time up to 5 s, with jitter. The server's RetryInfo wins.
  std::chrono::milliseconds pause{100};
  // How long WatchJob keeps trying to reach a server that went away.
  std::chrono::milliseconds watch_patience{60'000};
};

// A picture as it was received: whole, its SHA-256 compared.
struct ReceivedPicture {
  int index = 0;  // from 0
  uint64_t seed = 0;
  std::string media_type;
  std::string bytes;
  std::string sha256;
};

// What to be told of a generation. Unset ones are skipped. An error returned by on_picture cancels the
// generation and is what Generate returns.
struct GenerateCallbacks {
  std::function<void(const v1::Accepted&)> on_accepted{};  // again when the place in the queue changes
  std::function<void(const v1::Progress&)> on_progress{};
  std::function<void(const v1::Preview&)> on_preview{};
  std::function<Status(const ReceivedPicture&)> on_picture{};
};

// A whole file of a quality report.
struct ReportFile {
  std::string path;  // relative, stays inside the folder it is written to
  std::string media_type;
  std::string bytes;
};

// 36 characters, random (UUID version 4).
std::string NewRequestId();

// One connection. Every call blocks; the scope's stop request cancels it and gives Cancelled. Requests that
// change something get a request id if they have none, so that a try that was answered too late is not done
// twice. Errors hold the server's details (errors.h). Thread-safe.
class Client {
 public:
  // Does not connect yet. InvalidArgument if the address is not HOST:PORT.
  static Result<std::unique_ptr<Client>> Create(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  const ClientOptions& options() const;

  // The job as it was stored; with validate_only the job that would be.
  Result<v1::QuantizeJob> Quantize(const CallScope& scope, v1::QuantizeRequest request);
  Result<v1::QuantizeJob> GetJob(const CallScope& scope, const std::string& name);
  Result<v1::ListQuantizeJobsResponse> ListJobs(const CallScope& scope,
                                                const v1::ListQuantizeJobsRequest& request);
  Result<v1::QuantizeJob> CancelJob(const CallScope& scope, v1::CancelQuantizeJobRequest request);
  Status DeleteJob(const CallScope& scope, v1::DeleteQuantizeJobRequest request);
  // Calls `on_change` for every state that the server sends and returns the final one. Outlives restarts of
  // the server.
  Result<v1::QuantizeJob> WatchJob(const CallScope& scope, const std::string& name,
                                   const std::function<void(const v1::QuantizeJob&)>& on_change);

  Result<v1::Artifact> GetArtifact(const CallScope& scope, const std::string& artifact);
  Result<v1::ListArtifactsResponse> ListArtifacts(const CallScope& scope,
                                                  const v1::ListArtifactsRequest& request);
  Result<v1::VerifyArtifactResponse> VerifyArtifact(const CallScope& scope, const std::string& artifact);
  Status DeleteArtifact(const CallScope& scope, v1::DeleteArtifactRequest request);
  Result<v1::Alias> SetAlias(const CallScope& scope, v1::SetAliasRequest request);
  Result<v1::ExplainQuantizationResponse> Explain(const CallScope& scope,
                                                  const v1::ExplainQuantizationRequest& request);
  // Calls `on_file` for each whole file whose SHA-256 is right; its error ends the call.
  Status GetReport(const CallScope& scope, const v1::GetQualityReportRequest& request,
                   const std::function<Status(const ReportFile&)>& on_file);

  // Has no deadline but the scope's. DataLoss if a picture does not arrive whole.
  Result<v1::Summary> Generate(const CallScope& scope, v1::GenerateRequest request,
                               const GenerateCallbacks& on);
  Result<v1::Capabilities> GetCapabilities(const CallScope& scope, const std::string& ref);

  Result<v1::LoadedModel> LoadModel(const CallScope& scope, v1::LoadModelRequest request);
  Status UnloadModel(const CallScope& scope, v1::UnloadModelRequest request);
  Result<v1::ListLoadedModelsResponse> ListModels(const CallScope& scope,
                                                  const v1::ListLoadedModelsRequest& request);
  Result<v1::ListTemporalCachesResponse> ListCaches(const CallScope& scope,
                                                    const v1::ListTemporalCachesRequest& request);

 private:
  struct State;
  explicit Client(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

bool IsFinal(v1::QuantizeJob::State state);

}  // namespace tempera
