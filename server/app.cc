#include "server/app.h"

#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "artifact/artifact.h"
#include "base/files.h"
#include "base/log.h"
#include "metrics/metrics.h"
#include "rpc/http_server.h"
#include "rpc/server.h"
#include "server/artifact_index.h"
#include "server/artifact_service.h"
#include "server/backend.h"
#include "server/data_lock.h"
#include "server/generation_queue.h"
#include "server/generation_service.h"
#include "server/job_watch.h"
#include "server/metered_store.h"
#include "server/model_service.h"
#include "server/quantization_service.h"
#include "server/readiness.h"
#include "server/version.h"
#include "server/worker_metrics.h"
#include "storage/artifacts.h"
#include "worker/agent.h"

namespace tempera {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kIoThreads = 4;
constexpr std::chrono::milliseconds kTick{100};
constexpr int kTicksASecond = 10;
constexpr std::chrono::seconds kLoadRetry{5};

std::vector<fs::path> Paths(const std::vector<std::string>& texts) { return {texts.begin(), texts.end()}; }

// Bytes of the weights' files below `folder`: about what a loaded model takes.
int64_t TensorBytes(const fs::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code size_error;
    const auto size = it->path().extension() == ".safetensors" ? it->file_size(size_error) : 0;
    if (!size_error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

struct App::State {
  State(const ServerConfig& c, Compute k, DataLock l, std::unique_ptr<JobStore> j)
      : config(c),
        compute(std::move(k)),
        data{config.data},
        lock(std::move(l)),
        metrics({kVersion, kRevision, compute.torch_version, "cpu"}),
        jobs(std::move(j)),
        readiness(config.load) {}

  Result<std::shared_ptr<const Engine>> Load(const CallScope& scope, const ModelRef& ref);
  int64_t Estimate(const ModelRef& ref);
  Status Start();
  void Tick();
  void LookAtStores();
  void LoadAtStart(const std::string& ref);
  void UpdateModelHealth();
  void OnSignal();
  void Drain();
  void DrainNow();

  const ServerConfig config;
  const Compute compute;
  const DataFolder data;
  DataLock lock;
  Metrics metrics;
  std::unique_ptr<JobStore> jobs;
  std::unique_ptr<ObjectStore> objects;
  Readiness readiness;

  // Everything below may use what is above; the threads end before what they use.
  asio::io_context loop{1};
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work{asio::make_work_guard(loop)};
  asio::steady_timer ticker{loop};
  asio::signal_set signals{loop};
  int ticks = 0;
  int signal_count = 0;
  std::atomic<bool> looking = false;                  // at the stores
  std::mutex closing_mutex;                           // guards the next
  bool closing = false;                               // the io threads are going
  std::map<std::string, Clock::time_point> load_due;  // of --load; on the loop's thread

  std::unique_ptr<Refs> refs;
  std::unique_ptr<Lanes> io, lanes;
  std::mutex health_mutex;  // guards the set
  std::set<std::string> healthy_models;
  std::atomic<rpc::Server*> health_server = nullptr;
  std::unique_ptr<ModelManager> models;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<GenerationQueue> queue;
  std::unique_ptr<ArtifactIndex> artifacts;
  std::unique_ptr<JobWatch> watch;
  std::unique_ptr<GenerationService> generation_service;
  std::unique_ptr<ArtifactService> artifact_service;
  std::unique_ptr<QuantizationService> quantization_service;
  std::unique_ptr<OperationsService> operations_service;
  std::unique_ptr<ModelService> model_service;
  std::unique_ptr<rpc::Server> grpc;
  std::unique_ptr<rpc::HttpServer> http;
  std::unique_ptr<WorkerMetrics> worker_metrics;
  std::unique_ptr<Lanes> worker_lanes;
  std::unique_ptr<WorkerAgent> agent;
  std::once_flag drain_once;
  std::unique_ptr<Lanes> drainer;  // last: it works on all of the above
};

Result<std::shared_ptr<const Engine>> App::State::Load(const CallScope& scope, const ModelRef& ref) {
  if (!ref.is_artifact) {
    auto engine = compute.load_model(scope, ref.folder);
    if (absl::IsInvalidArgument(engine.status()) || absl::IsNotFound(engine.status()) ||
        absl::IsFailedPrecondition(engine.status()))
      return rpc::WithField(rpc::WithReason(engine.status(), rpc::kBadModel), "ref");
    return engine;
  }
  TEMPERA_ASSIGN(const fs::path folder, OpenArtifact(scope, *objects, ref.id, data.cache()));
  const Result<Manifest> manifest = VerifyArtifact(scope, folder, ref.id);
  const auto damaged = [&](const Status& status, const std::string& model) {
    metrics.cache_verify_failures.Add(1, model);
    Log(LogLevel::kError, "artifact_damaged", {{"artifact", ref.id}, {"error", Message(status)}});
    return rpc::WithResource(rpc::WithReason(status, rpc::kArtifactDamaged), "artifact", ref.id);
  };
  if (absl::IsDataLoss(manifest.status())) return damaged(manifest.status(), "unknown");
  if (!manifest.ok()) return manifest.status();
  EngineOptions options;
  options.metric = !config.no_temporal_metric;
  auto engine = compute.load_artifact(scope, folder, ref.id, options);
  if (absl::IsDataLoss(engine.status())) return damaged(engine.status(), manifest->source_name);
  return engine;
}

int64_t App::State::Estimate(const ModelRef& ref) {
  if (!ref.is_artifact) return TensorBytes(ref.folder);
  const auto folder = objects->LocalPath("artifacts/" + ref.id);
  return folder ? TensorBytes(*folder) : 0;
}

Status App::State::Start() {
  TEMPERA_TRY(MakeFolders(data.work(), "data folder"));
  TEMPERA_ASSIGN(std::unique_ptr<ObjectStore> store, OpenFolderStore(data.objects()));
  objects = MeterStore(std::move(store), metrics);

  const int threads = config.threads > 0 ? config.threads : AvailableCpus();
  refs.reset(new Refs{Paths(config.model_roots), *jobs, *objects});
  io = std::make_unique<Lanes>(kIoThreads, nullptr);
  lanes = std::make_unique<Lanes>(threads, compute.init_thread);
  models = std::make_unique<ModelManager>(
      ModelManager::Options{config.memory_budget_bytes},
      [this](const CallScope& scope, const ModelRef& ref) { return Load(scope, ref); },
      [this](const ModelRef& ref) { return Estimate(ref); }, metrics,
      [this] {
        const std::lock_guard not_closing(closing_mutex);
        if (!closing) io->Post([this] { UpdateModelHealth(); });
      },
      compute.init_thread);
  backend.reset(new Backend{.config = config,
                            .compute = compute,
                            .jobs = *jobs,
                            .objects = *objects,
                            .refs = *refs,
                            .models = *models,
                            .metrics = metrics,
                            .io = *io});
  queue = std::make_unique<GenerationQueue>(config.max_queued_generations, *lanes, metrics);
  artifacts = std::make_unique<ArtifactIndex>(*objects, *jobs, compute);
  watch = std::make_unique<JobWatch>(*jobs, *io);
  generation_service = std::make_unique<GenerationService>(*backend, *queue);
  artifact_service = std::make_unique<ArtifactService>(*backend, *artifacts, [this] { UpdateModelHealth(); });
  quantization_service = std::make_unique<QuantizationService>(*backend, *artifacts, *watch);
  operations_service = std::make_unique<OperationsService>(*backend, *artifacts, *watch);
  model_service = std::make_unique<ModelService>(*backend, *artifacts);

  metrics.OnCollect([this] { metrics.server_ready.Set(readiness.Check().ok() ? 1 : 0); });
  LookAtStores();
  TEMPERA_ASSIGN(
      http, rpc::HttpServer::Start(
                loop, {.listen = config.metrics_listen},
                {{"/livez",
                  [] {
                    return rpc::HttpAnswer{200, "ok\n"};
                  }},
                 {"/readyz",
                  [this] {
                    const Status ready = readiness.Check();
                    return ready.ok() ? rpc::HttpAnswer{200, "ok\n"} : rpc::HttpAnswer{503, Message(ready)};
                  }},
                 {"/metrics", [this] {
                    return rpc::HttpAnswer{200, metrics.Text(), "text/plain; version=0.0.4; charset=utf-8"};
                  }}}));
  rpc::ServerOptions options;
  options.listen = config.listen;
  options.reflection = !config.no_reflection;
  TEMPERA_ASSIGN(
      grpc, rpc::Server::Start(options,
                               {generation_service.get(), artifact_service.get(), quantization_service.get(),
                                operations_service.get(), model_service.get()},
                               metrics));
  health_server = grpc.get();
  if (!config.no_worker) {
    worker_metrics = std::make_unique<WorkerMetrics>(metrics);
    worker_lanes = std::make_unique<Lanes>(threads, compute.init_thread);
    AgentOptions agent_options;
    agent_options.work_root = data.work();
    agent_options.model_roots = Paths(config.model_roots);
    agent = std::make_unique<WorkerAgent>(std::move(agent_options), *jobs, *objects, *worker_lanes,
                                          compute.run_job, compute.parse_spec, worker_metrics.get());
    agent->Start();
  }
  drainer = std::make_unique<Lanes>(2, nullptr);
  for (const std::string& ref : config.load) load_due[ref] = Clock::now();
  Tick();
  Log(LogLevel::kInfo, "server_started",
      {{"listen", config.listen},
       {"port", grpc->port()},
       {"metrics_listen", config.metrics_listen},
       {"metrics_port", http->port()},
       {"threads", threads},
       {"worker", !config.no_worker},
       {"version", kVersion}});
  return OkStatus();
}

// On the loop's thread, ten times a second.
void App::State::Tick() {
  watch->Poll();
  for (auto it = load_due.begin(); it != load_due.end();) {
    if (Clock::now() < it->second) {
      ++it;
      continue;
    }
    LoadAtStart(it->first);
    it = load_due.erase(it);
  }
  if (++ticks % kTicksASecond == 0 && !looking.exchange(true)) {
    io->Post([this] {
      LookAtStores();
      UpdateModelHealth();
      generation_service->Tick();
      looking = false;
    });
  }
  ticker.expires_after(kTick);
  ticker.async_wait([this](boost::system::error_code error) {
    if (!error) Tick();
  });
}

void App::State::LookAtStores() {
  const Result<std::map<JobState, int64_t>> counts = jobs->CountByState();
  Status status = counts.status();
  if (status.ok()) status = objects->List({}, {.prefix = "artifacts/", .fold = true, .limit = 1}).status();
  readiness.SetStores(status);
  if (!counts.ok()) return;
  for (const JobState state :
       {JobState::kQueued, JobState::kRunning, JobState::kCancelling, JobState::kSucceeded, JobState::kFailed,
        JobState::kCancelled, JobState::kRejected}) {
    const auto it = counts->find(state);
    metrics.jobs.Set(it == counts->end() ? 0 : static_cast<double>(it->second),
                     WorkerMetrics::StateLabel(state));
  }
}

void App::State::LoadAtStart(const std::string& text) {
  io->Post([this, text] {
    const auto ended = [this, text](const Status& status) {
      readiness.SetLoad(text, status);
      if (status.ok()) return;
      Log(LogLevel::kError, "load_failed", {{"ref", text}, {"error", Message(status)}});
      asio::post(loop, [this, text] { load_due[text] = Clock::now() + kLoadRetry; });
    };
    const Result<ModelRef> ref = refs->Resolve({}, text, "--load");
    if (!ref.ok()) return ended(ref.status());
    models->Acquire({}, *ref, [ended](Result<ModelLease> lease) { ended(lease.status()); });
  });
}

// The names under which loaded models are healthy: their folder's, or the artifact's id and aliases.
void App::State::UpdateModelHealth() {
  std::set<std::string> now;
  const auto aliases = artifacts->Aliases();
  for (const LoadedModel& model : models->List()) {
    if (!model.ref.is_artifact) {
      now.insert("model:" + model.engine->info().name);
      continue;
    }
    now.insert("model:" + model.ref.id);
    if (!aliases.ok()) continue;
    if (const auto it = aliases->find(model.ref.id); it != aliases->end())
      for (const std::string& alias : it->second) now.insert("model:" + alias);
  }
  std::lock_guard guard(health_mutex);
  rpc::Server* server = health_server;
  if (server == nullptr) return;
  for (const std::string& name : now)
    if (!healthy_models.contains(name)) server->SetServing(name, true);
  for (const std::string& name : healthy_models)
    if (!now.contains(name)) server->SetServing(name, false);
  healthy_models = std::move(now);
}

void App::State::OnSignal() {
  signals.async_wait([this](boost::system::error_code error, int number) {
    if (error) return;
    if (++signal_count > 1) {
      // Nothing is lost: stores and artifacts are changed in one step each, a job's lease runs out.
      Log(LogLevel::kWarn, "server_killed", {{"signal", number}});
      ::_exit(128 + number);
    }
    Log(LogLevel::kInfo, "server_draining", {{"signal", number}});
    Drain();
    OnSignal();
  });
}

void App::State::Drain() {
  std::call_once(drain_once, [this] { drainer->Post([this] { DrainNow(); }); });
}

void App::State::DrainNow() {
  readiness.SetDraining();
  grpc->Drain();
  if (config.drain_delay_seconds > 0) {
    asio::steady_timer delay(loop, std::chrono::seconds(config.drain_delay_seconds));
    std::promise<void> over;
    delay.async_wait([&](boost::system::error_code) { over.set_value(); });
    over.get_future().wait();
  }
  backend->draining = true;
  std::promise<void> worker_stopped;
  drainer->Post([&] {
    if (agent != nullptr) agent->Stop();
    worker_stopped.set_value();
  });
  watch->EndAll(backend->CheckServing());
  if (!generation_service->WaitIdle(Clock::now() + std::chrono::seconds(config.drain_seconds))) {
    Log(LogLevel::kWarn, "drain_timeout", {{"seconds", config.drain_seconds}});
    generation_service->StopAll();
    generation_service->WaitIdle(Clock::now() + std::chrono::seconds(10));
  }
  worker_stopped.get_future().wait();
  watch->EndAll(backend->CheckServing());  // those that came while it was decided
  grpc->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  Log(LogLevel::kInfo, "server_stopped");
  asio::post(loop, [this] {
    ticker.cancel();
    signals.cancel();
    http.reset();
    work.reset();
    loop.stop();
  });
}

App::App(std::unique_ptr<State> state) : state_(std::move(state)) {}

App::~App() {
  State& s = *state_;
  if (s.drainer != nullptr) s.drainer.reset();
  if (s.agent != nullptr) s.agent->Stop();
  if (s.grpc != nullptr) s.grpc->Shutdown(std::chrono::system_clock::now());
  s.health_server = nullptr;
  {
    const std::lock_guard lock(s.closing_mutex);
    s.closing = true;
  }
  s.io.reset();  // what it runs uses all the rest
}

Result<std::unique_ptr<App>> App::Create(const ServerConfig& config, Compute compute) {
  const DataFolder data{config.data};
  TEMPERA_TRY(MakeFolders(data.root, "data folder"));
  TEMPERA_ASSIGN(DataLock lock, DataLock::Take(data.root));
  TEMPERA_ASSIGN(std::unique_ptr<JobStore> jobs, OpenSqliteJobStore(data.jobs(), {}));
  std::unique_ptr<App> app(
      new App(std::make_unique<State>(config, std::move(compute), std::move(lock), std::move(jobs))));
  TEMPERA_TRY(app->state_->Start());
  return app;
}

void App::Run(bool handle_signals) {
  if (handle_signals) {
    state_->signals.add(SIGTERM);
    state_->signals.add(SIGINT);
    state_->OnSignal();
  }
  state_->loop.run();
}

void App::Drain() { state_->Drain(); }
int App::grpc_port() const { return state_->grpc->port(); }
int App::http_port() const { return state_->http->port(); }
std::shared_ptr<grpc::Channel> App::InProcessChannel() { return state_->grpc->InProcessChannel(); }
Metrics& App::metrics() { return state_->metrics; }

}  // namespace tempera
