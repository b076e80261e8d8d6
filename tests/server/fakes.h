// Engines and jobs that compute nothing, and a whole server around them: what the service does, without
// LibTorch.
#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "server/app.h"
#include "server/compute.h"
#include "server/config.h"

namespace tempera::testing {

// Holds back who passes until it is opened.
class Gate {
 public:
  void Close() { Set(false); }
  void Open() { Set(true); }
  // Waits while it is closed.
  void Pass() {
    std::unique_lock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
    --waiting_;
  }
  // Returns when `count` wait at it.
  void AwaitWaiting(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= count; });
  }

 private:
  void Set(bool open) {
    std::lock_guard lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;
  int waiting_ = 0;
};

// Counts what happened, and waits for it.
class Counter {
 public:
  void Add(int by = 1) {
    std::lock_guard lock(mutex_);
    count_ += by;
    changed_.notify_all();
  }
  void Await(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return count_ >= count; });
  }
  int count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

// What the tests steer and watch.
struct Controls {
  Gate step;                                // passed before each denoising step
  Gate load;                                // passed by each load
  Gate job;                                 // passed by each job's stage
  std::atomic<bool> until_stopped = false;  // steps and jobs go on until they are told to stop
  Counter loads;                            // begun
  Counter steps;                            // done
  int64_t picture_side = 4;
  int64_t model_bytes = 1000;
  std::atomic<int64_t> painting_bytes = 0;  // that painting takes beside the model
};

// "Paints" a picture that depends on the seed. `classes` > 0: a class is needed.
EngineInfo FakeInfo(const std::string& name, const std::string& artifact_id, int64_t classes,
                    const Controls& controls);
std::shared_ptr<const Engine> MakeFakeEngine(const EngineInfo& info, std::shared_ptr<Controls> controls);

// Models are folders with a file "model.json": {"classes": N} or {"broken": "why"}. Artifacts are whatever is
// published; `classes` of theirs are 10. Jobs pass stages "calibrate" and "publish" and make an artifact that
// depends on the spec.
Compute FakeCompute(std::shared_ptr<Controls> controls);
void MakeFakeModel(const std::filesystem::path& folder, const std::string& json = R"({"classes": 0})");
// Writes an artifact's files; its id.
std::string WriteFakeArtifact(const std::filesystem::path& folder, const QuantSpec& spec,
                              const std::string& model);

// A folder that is gone at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A server in this process. Models "plain" and "classes" (10 classes), "broken", under its root.
class TestServer {
 public:
  // `change` adapts the configuration.
  explicit TestServer(std::function<void(ServerConfig&)> change = {});
  ~TestServer();

  App& app() { return *app_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  Controls& controls() { return *controls_; }
  std::filesystem::path root() const { return temp_.path() / "models"; }
  std::filesystem::path data() const { return temp_.path() / "data"; }
  std::string model(const std::string& name) const { return (root() / name).string(); }
  // Publishes an artifact made from "classes"; its id.
  std::string PublishArtifact(const std::string& method = "tfmq");
  // GET of the probe port.
  std::pair<int, std::string> Http(const std::string& path);
  // Drains and waits for the end.
  void Stop();

 private:
  TempFolder temp_;
  std::shared_ptr<Controls> controls_ = std::make_shared<Controls>();
  std::unique_ptr<App> app_;
  std::shared_ptr<grpc::Channel> channel_;
  std::jthread thread_;
};

}  // namespace tempera::testing
