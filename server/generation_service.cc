#include "server/generation_service.h"

#include "server/generation.h"
#include "server/messages.h"
#include "server/version.h"

namespace tempera {
namespace {

// Progress seems fluent to people at twenty events a second.
constexpr rpc::StreamLimits kStreamLimits{.pace = std::chrono::milliseconds(50)};

}  // namespace

Status GenerationService::CheckRequest(const v1::GenerateRequest& request) const {
  TEMPERA_TRY(backend_.CheckServing());
  TEMPERA_TRY(rpc::CheckRequestId(request.request_id()));
  if (request.ref().empty())
    return InvalidArgument("ref: is empty, want an artifact's id, an alias or a model's folder");
  if (request.has_count() && (request.count() < 1 || request.count() > backend_.config.max_count))
    return InvalidArgument("count: got ", request.count(), ", want 1 to ", backend_.config.max_count);
  if (!v1::ImageFormat_IsValid(request.format()))
    return InvalidArgument("format: got ", static_cast<int>(request.format()), ", want PNG, WEBP or JPEG");
  if (!v1::PreviewKind_IsValid(request.preview_kind()))
    return InvalidArgument("preview_kind: got ", static_cast<int>(request.preview_kind()),
                           ", want LATENT_PROJECTION or FULL_DECODE");
  if (request.preview_interval() < 0)
    return InvalidArgument("preview_interval: got ", request.preview_interval(), ", want 0 or more");
  return OkStatus();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerationService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto* writer = new Generation::Writer(*context, *request, request->request_id(), kStreamLimits);
  Generation::Writer::Handle out = writer->handle();
  if (Status status = CheckRequest(*request); !status.ok()) {
    out.Finish(status);
    return writer;
  }
  // Counted until the last thread has let go of it.
  {
    std::lock_guard lock(living_->mutex);
    ++living_->count;
  }
  const std::shared_ptr<Generation> generation(new Generation(backend_, out, writer->info(), *request),
                                               [living = living_](Generation* ended) {
                                                 delete ended;
                                                 std::lock_guard lock(living->mutex);
                                                 --living->count;
                                                 living->changed.notify_all();
                                               });
  {
    std::lock_guard lock(mutex_);
    std::erase_if(generations_, [](const std::weak_ptr<Generation>& g) { return g.expired(); });
    generations_.push_back(generation);
  }
  if (!backend_.PostIo([this, generation] { Begin(generation); }))
    generation->Finish(rpc::WithRetry(
        rpc::WithReason(ResourceExhausted("server: too many calls wait, want at most ", kMaxIoWaiting),
                        rpc::kQueueFull),
        std::chrono::seconds(1)));
  return writer;
}

void GenerationService::Begin(const std::shared_ptr<Generation>& generation) {
  const LogContext log(generation->info().request_id, generation->info().trace_id);
  // Until the engine is there only the client can end the call.
  const CallScope& scope = generation->info().scope;
  Result<ModelRef> ref = backend_.refs.Resolve(scope, generation->request().ref(), "ref");
  if (!ref.ok()) return generation->Finish(ref.status());
  backend_.models.Acquire(scope, *ref, [this, generation](Result<ModelLease> lease) {
    if (!lease.ok()) return generation->Finish(lease.status());
    if (Status status = generation->Prepare(*std::move(lease)); !status.ok())
      return generation->Finish(status);
    if (generation->request().validate_only()) {
      generation->SendAccepted(0);
      return generation->Finish(OkStatus());
    }
    Enqueue(generation);
  });
}

void GenerationService::Enqueue(const std::shared_ptr<Generation>& generation) {
  GenerationQueue::Task task;
  task.model = generation->model();
  task.steps = generation->steps();
  task.moved = [generation](int position) { generation->SendAccepted(position); };
  task.start = [generation] { generation->Run(); };
  const Result<uint64_t> ticket = queue_.Push(std::move(task), [&](const GenerationQueue::Place& place) {
    generation->SendAccepted(place.position);
  });
  if (!ticket.ok()) return generation->Finish(ticket.status());
  generation->Queued(queue_, *ticket);
}

grpc::ServerUnaryReactor* GenerationService::GetCapabilities(grpc::CallbackServerContext* context,
                                                             const v1::GetCapabilitiesRequest* request,
                                                             v1::Capabilities* response) {
  return RunAsync(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) {
    const Compute& compute = backend_.compute;
    response->set_version(kVersion);
    response->mutable_families()->Assign(compute.families.begin(), compute.families.end());
    response->mutable_methods()->Assign(compute.methods.begin(), compute.methods.end());
    for (const int bits : {4, 5, 6, 8}) response->add_weight_bits(bits);
    for (const int bits : {4, 5, 6, 8, 32}) response->add_activation_bits(bits);
    for (const char* strategy : {"reconstruct", "cache", "select"})
      response->add_temporal_strategies(strategy);
    response->mutable_schedulers()->Assign(compute.schedulers.begin(), compute.schedulers.end());
    for (const v1::ImageFormat format : {v1::PNG, v1::WEBP, v1::JPEG}) response->add_formats(format);
    response->set_max_count(backend_.config.max_count);
    response->set_max_queued_generations(backend_.config.max_queued_generations);
    response->set_kernels(compute.kernels);
    if (request->ref().empty()) return call.FinishWith(OkStatus());
    const Result<ModelRef> ref = backend_.refs.Resolve(call.scope(), request->ref(), "ref");
    if (!ref.ok()) return call.FinishWith(ref.status());
    backend_.models.Acquire(call.scope(), *ref, [&call, response](Result<ModelLease> lease) {
      if (lease.ok()) {
        *response->mutable_model() = InfoMessage(lease->engine().info());
        response->set_artifact(lease->engine().info().id);
      }
      const Status status = lease.status();
      if (lease.ok()) *lease = ModelLease();
      call.FinishWith(status);
    });
  });
}

std::vector<std::shared_ptr<Generation>> GenerationService::Living() const {
  std::vector<std::shared_ptr<Generation>> living;
  std::lock_guard lock(mutex_);
  for (const auto& weak : generations_)
    if (auto generation = weak.lock()) living.push_back(std::move(generation));
  return living;
}

void GenerationService::Tick() {
  for (const auto& generation : Living()) generation->KeepAlive();
}

bool GenerationService::WaitIdle(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(living_->mutex);
  return living_->changed.wait_until(lock, deadline, [&] { return living_->count == 0; });
}

void GenerationService::StopAll() {
  for (const auto& generation : Living()) generation->StopForDrain();
}

}  // namespace tempera
