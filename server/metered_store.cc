#include "server/metered_store.h"

#include <utility>

namespace tempera {
namespace {

class MeteredStore final : public ObjectStore {
 public:
  MeteredStore(std::unique_ptr<ObjectStore> store, Metrics& metrics)
      : store_(std::move(store)), metrics_(metrics) {}

  Result<std::string> Put(const CallScope& scope, const std::string& key, std::string_view bytes,
                          const PutCondition& condition) override {
    const Call call(metrics_, "put");
    return call.Ended(store_->Put(scope, key, bytes, condition), static_cast<int64_t>(bytes.size()));
  }
  Status PutFile(const CallScope& scope, const std::string& key, const std::filesystem::path& file,
                 const std::string& sha256) override {
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    const Call call(metrics_, "put");
    return call.Ended(store_->PutFile(scope, key, file, sha256), error ? 0 : static_cast<int64_t>(size));
  }
  Result<StoredObject> Get(const CallScope& scope, const std::string& key, int64_t limit) override {
    const Call call(metrics_, "get");
    Result<StoredObject> object = store_->Get(scope, key, limit);
    const int64_t bytes = object.ok() ? static_cast<int64_t>(object->bytes.size()) : 0;
    return call.Ended(std::move(object), bytes);
  }
  Result<std::string> GetRange(const CallScope& scope, const std::string& key, int64_t offset,
                               int64_t length) override {
    const Call call(metrics_, "get");
    Result<std::string> bytes = store_->GetRange(scope, key, offset, length);
    const int64_t size = bytes.ok() ? static_cast<int64_t>(bytes->size()) : 0;
    return call.Ended(std::move(bytes), size);
  }
  Status GetFile(const CallScope& scope, const std::string& key, const std::filesystem::path& file) override {
    const Call call(metrics_, "get");
    const Status status = store_->GetFile(scope, key, file);
    std::error_code error;
    const auto size = std::filesystem::file_size(file, error);
    return call.Ended(status, error ? 0 : static_cast<int64_t>(size));
  }
  Result<ObjectInfo> Head(const CallScope& scope, const std::string& key) override {
    const Call call(metrics_, "get");
    return call.Ended(store_->Head(scope, key), 0);
  }
  Result<ObjectPage> List(const CallScope& scope, const ObjectQuery& query) override {
    const Call call(metrics_, "list");
    return call.Ended(store_->List(scope, query), 0);
  }
  Status Delete(const CallScope& scope, const std::string& key) override {
    const Call call(metrics_, "delete");
    return call.Ended(store_->Delete(scope, key), 0);
  }
  std::optional<std::filesystem::path> LocalPath(const std::string& key) const override {
    return store_->LocalPath(key);
  }

 private:
  class Call {
   public:
    Call(Metrics& metrics, const char* op) : metrics_(metrics), op_(op) {}
    template <typename T>
    T Ended(T result, int64_t bytes) const {
      // An absent object and a lost race are answers, not faults of the store.
      const bool ok = Ok(result);
      metrics_.store_requests.Add(1, op_, ok ? "ok" : "error");
      metrics_.store_seconds.Observe(std::chrono::duration<double>(CallScope::Clock::now() - begin_).count(),
                                     op_);
      if (ok && bytes > 0) metrics_.store_bytes.Add(static_cast<double>(bytes), op_);
      return result;
    }

   private:
    static bool Answer(const Status& s) {
      return s.ok() || absl::IsNotFound(s) || absl::IsAlreadyExists(s) || absl::IsAborted(s) ||
             absl::IsInvalidArgument(s) || absl::IsCancelled(s) || absl::IsDeadlineExceeded(s);
    }
    static bool Ok(const Status& s) { return Answer(s); }
    template <typename T>
    static bool Ok(const Result<T>& r) {
      return Answer(r.status());
    }
    Metrics& metrics_;
    const char* op_;
    const CallScope::Clock::time_point begin_ = CallScope::Clock::now();
  };

  const std::unique_ptr<ObjectStore> store_;
  Metrics& metrics_;
};

}  // namespace

std::unique_ptr<ObjectStore> MeterStore(std::unique_ptr<ObjectStore> store, Metrics& metrics) {
  return std::make_unique<MeteredStore>(std::move(store), metrics);
}

}  // namespace tempera
