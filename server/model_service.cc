#include "server/model_service.h"

#include <algorithm>
#include <charconv>

#include "server/messages.h"

namespace tempera {
namespace {

// [begin, end) of a page over `size` items; the token of the next one.
struct Page {
  size_t begin = 0, end = 0;
  std::string next_token;
};

Result<Page> PageOf(const std::string& selection, size_t size, int32_t page_size, const std::string& token) {
  TEMPERA_ASSIGN(const int64_t limit, PageSize(page_size));
  TEMPERA_ASSIGN(const std::string after, ReadPageToken(selection, token));
  Page page;
  if (!after.empty()) {
    const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), page.begin);
    if (error != std::errc() || end != after.data() + after.size())
      return InvalidArgument("page_token: is damaged, want next_page_token of the same request");
    page.begin = std::min(page.begin, size);
  }
  page.end = std::min(size, page.begin + static_cast<size_t>(limit));
  if (page.end < size) page.next_token = PageToken(selection, std::to_string(page.end));
  return page;
}

}  // namespace

grpc::ServerUnaryReactor* ModelService::LoadModel(grpc::CallbackServerContext* context,
                                                  const v1::LoadModelRequest* request,
                                                  v1::LoadedModel* response) {
  return RunAsync(
      backend_, *context, *request, request->request_id(), [this, request, response](rpc::UnaryCall& call) {
        // Loading what is loaded does nothing, so only another body under the same id matters.
        const auto key = KeyOf("LoadModel", *request, request->request_id());
        if (key) {
          const auto answer = backend_.jobs.FindAnswer(*key);
          if (!answer.ok()) return call.FinishWith(RequestIdError(answer.status()));
          if (!answer->has_value()) {
            if (Status saved = RequestIdError(backend_.jobs.SaveAnswer(*key, "")); !saved.ok())
              return call.FinishWith(saved);
          }
        }
        const Result<ModelRef> ref = backend_.refs.Resolve(call.scope(), request->ref(), "ref");
        if (!ref.ok()) return call.FinishWith(ref.status());
        backend_.models.Acquire(call.scope(), *ref, [this, &call, response](Result<ModelLease> lease) {
          if (!lease.ok()) return call.FinishWith(lease.status());
          const std::string wanted = lease->ref().key();
          *lease = ModelLease();
          for (const LoadedModel& model : backend_.models.List()) {
            if (model.ref.key() != wanted) continue;
            *response = LoadedMessage(model);
            if (model.ref.is_artifact)
              if (const auto aliases = artifacts_.Aliases(model.ref.id);
                  aliases.ok() && aliases->contains(model.ref.id))
                response->mutable_aliases()->Assign(aliases->at(model.ref.id).begin(),
                                                    aliases->at(model.ref.id).end());
            return call.FinishWith(OkStatus());
          }
          call.FinishWith(Unavailable("ref: was unloaded again while it was loaded"));
        });
      });
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* context,
                                                    const v1::UnloadModelRequest* request,
                                                    google::protobuf::Empty* response) {
  return Run(
      backend_, *context, *request, request->request_id(), [this, request, response](rpc::UnaryCall& call) {
        return Once(backend_, "UnloadModel", *request, request->request_id(), *response, [&]() -> Status {
          TEMPERA_ASSIGN(const ModelRef ref, backend_.refs.Resolve(call.scope(), request->ref(), "ref"));
          return rpc::WithResource(backend_.models.Unload(ref), "model", request->ref());
        });
      });
}

grpc::ServerUnaryReactor* ModelService::ListLoadedModels(grpc::CallbackServerContext* context,
                                                         const v1::ListLoadedModelsRequest* request,
                                                         v1::ListLoadedModelsResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall&) -> Status {
    const std::vector<LoadedModel> models = backend_.models.List();
    TEMPERA_ASSIGN(const Page page,
                   PageOf("loaded models", models.size(), request->page_size(), request->page_token()));
    TEMPERA_ASSIGN(const auto aliases, artifacts_.Aliases());
    for (size_t i = page.begin; i < page.end; ++i) {
      v1::LoadedModel& message = *response->add_models();
      message = LoadedMessage(models[i]);
      if (const auto it = aliases.find(models[i].ref.id); models[i].ref.is_artifact && it != aliases.end())
        message.mutable_aliases()->Assign(it->second.begin(), it->second.end());
    }
    response->set_next_page_token(page.next_token);
    response->set_memory_budget_bytes(backend_.models.budget_bytes());
    response->set_memory_used_bytes(backend_.models.used_bytes());
    return OkStatus();
  });
}

grpc::ServerUnaryReactor* ModelService::ListTemporalCaches(grpc::CallbackServerContext* context,
                                                           const v1::ListTemporalCachesRequest* request,
                                                           v1::ListTemporalCachesResponse* response) {
  return Run(backend_, *context, *request, {}, [this, request, response](rpc::UnaryCall& call) -> Status {
    std::vector<LoadedModel> models = backend_.models.List();
    std::erase_if(models, [](const LoadedModel& m) { return m.engine->info().cache_entries == 0; });
    std::sort(models.begin(), models.end(),
              [](const LoadedModel& a, const LoadedModel& b) { return a.ref.id < b.ref.id; });
    int64_t total = 0;
    for (const LoadedModel& m : models) total += m.engine->info().cache_bytes;
    TEMPERA_ASSIGN(const Page page,
                   PageOf("caches", models.size(), request->page_size(), request->page_token()));
    for (size_t i = page.begin; i < page.end; ++i) {
      const EngineInfo& info = models[i].engine->info();
      v1::TemporalCache& cache = *response->add_caches();
      cache.set_artifact(info.id);
      cache.set_model(info.name);
      cache.set_entries(info.cache_entries);
      cache.set_bytes(info.cache_bytes);
      cache.set_steps(info.steps);
      cache.set_classes(info.classes);
      const auto summary = artifacts_.Get(call.scope(), info.id);
      cache.set_complete(summary.ok() && (*summary)->cache_complete);
      *cache.mutable_verify_time() = TimeFrom(models[i].load_time);
    }
    response->set_next_page_token(page.next_token);
    response->set_total_bytes(total);
    return OkStatus();
  });
}

}  // namespace tempera
