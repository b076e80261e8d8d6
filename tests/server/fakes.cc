#include "server/fakes.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <cmath>
#include <span>

#include "artifact/artifact.h"
#include "base/files.h"
#include "report/measurements.h"
#include "storage/artifacts.h"
#include "weights/weights.h"

namespace tempera::testing {
namespace fs = std::filesystem;
namespace {

class FakeEngine final : public Engine {
 public:
  FakeEngine(EngineInfo info, std::shared_ptr<Controls> controls)
      : info_(std::move(info)), controls_(std::move(controls)) {}

  const EngineInfo& info() const override { return info_; }

  Result<ResolvedGeneration> Resolve(const GenerationRequest& r) const override {
    ResolvedGeneration out;
    out.seed = r.seed;
    out.scheduler = r.scheduler.value_or(info_.scheduler);
    if (out.scheduler != "ddim" && out.scheduler != "ddpm")
      return InvalidArgument("scheduler: got \"", out.scheduler, "\", want ddim or ddpm");
    out.steps = r.steps.value_or(info_.steps);
    if (out.steps < 1 || out.steps > 1000)
      return InvalidArgument("steps: got ", out.steps, ", want 1 to 1000");
    out.eta = r.eta.value_or(0);
    if (!(out.eta >= 0 && out.eta <= 1)) return InvalidArgument("eta: got ", out.eta, ", want 0 to 1");
    if (info_.classes > 0 && !r.class_label)
      return InvalidArgument("class_label: is missing, want 0 to ", info_.classes - 1);
    if (info_.classes == 0 && r.class_label) return InvalidArgument("class_label: the model has no classes");
    if (r.class_label && (*r.class_label < 0 || *r.class_label >= info_.classes))
      return InvalidArgument("class_label: got ", *r.class_label, ", want 0 to ", info_.classes - 1);
    out.wish.class_label = r.class_label;
    out.wish.size = {info_.height, info_.width};
    out.memory_bytes = controls_->painting_bytes;
    out.preview_interval = r.preview_interval;
    return out;
  }

  Result<GenerationResult> Generate(const CallScope& scope, const ResolvedGeneration& r,
                                    const GenerationEvents& events) const override {
    GenerationResult result;
    result.picture.width = result.picture.height = controls_->picture_side;
    result.picture.channels = 3;
    result.picture.pixels.resize(static_cast<size_t>(3 * controls_->picture_side * controls_->picture_side));
    for (size_t i = 0; i < result.picture.pixels.size(); ++i)
      result.picture.pixels[i] = static_cast<uint8_t>(i * 31 + r.seed * 7);
    for (int k = 0; k < r.steps; ++k) {
      controls_->step.Pass();
      while (controls_->until_stopped && scope.Check().ok()) std::this_thread::yield();
      TEMPERA_TRY(scope.Check());
      StepEvent step;
      step.step = k;
      step.steps = r.steps;
      step.timestep = 1000.0 - 1000.0 * k / r.steps;
      step.milliseconds = 1;
      if (info_.is_artifact) {
        const int bin = std::min(19, static_cast<int>(step.timestep / 50));
        step.temporal_feature_error = 1e-3;
        step.errors = {{bin, "down", 1e-3}, {bin, "up", 2e-3}};
      }
      controls_->steps.Add();
      if (events.on_step) events.on_step(step);
      if (r.preview_interval > 0 && (k + 1) % r.preview_interval == 0 && k + 1 < r.steps && events.on_preview)
        events.on_preview(step, result.picture);
      result.steps.push_back(step);
    }
    result.latent_sha256 = Sha256Hex(Cat("latent", r.seed));
    result.denoise_ms = r.steps;
    result.decode_ms = 1;
    return result;
  }
  bool CorruptCacheForTest(int64_t) const override { return false; }
  int64_t TemporalMultiplications() const override { return 0; }

 private:
  const EngineInfo info_;
  const std::shared_ptr<Controls> controls_;
};

Json SpecJson(const QuantSpec& s) {
  return {{"method", s.method},
          {"weight_bits", s.weight_bits},
          {"activation_bits", s.activation_bits},
          {"stage_bits", s.stage_bits},
          {"scheduler", s.scheduler},
          {"steps", s.steps},
          {"eta", s.eta},
          {"seed", s.seed}};
}

Result<QuantSpec> ParseSpecJson(const Json& json, const std::string& label) {
  QuantSpec s;
  Fields f(json, label);
  f.Need("method", s.method);
  f.Need("weight_bits", s.weight_bits);
  f.Need("activation_bits", s.activation_bits);
  f.Need("stage_bits", s.stage_bits);
  f.Need("scheduler", s.scheduler);
  f.Need("steps", s.steps);
  f.Need("eta", s.eta);
  int64_t seed = 0;
  f.Need("seed", seed);
  s.seed = static_cast<uint64_t>(seed);
  TEMPERA_TRY(f.Finish());
  return s;
}

Result<Json> ReadModel(const fs::path& folder) {
  TEMPERA_ASSIGN(const std::string text, ReadFile(folder / "model.json", "model.json"));
  TEMPERA_ASSIGN(const Json json, ParseJson(text, "model.json"));
  if (json.contains("broken"))
    return InvalidArgument("unet/config.json: ", json["broken"].get<std::string>());
  return json;
}

Result<QuantSpec> ResolveFake(const QuantRequest& r, const fs::path& folder) {
  QuantSpec s;
  s.method = r.method.value_or("tfmq");
  if (s.method != "tfmq" && s.method != "minmax")
    return InvalidArgument("method: got \"", s.method, "\", want tfmq or minmax");
  s.weight_bits = r.weight_bits.value_or(4);
  if (s.weight_bits != 4 && s.weight_bits != 8)
    return InvalidArgument("weight_bits: got ", s.weight_bits, ", want 4 or 8");
  s.activation_bits = r.activation_bits.value_or(8);
  s.stage_bits = r.stage_bits.value_or(32);
  s.scheduler = r.scheduler.value_or("ddim");
  s.steps = r.steps.value_or(5);
  if (s.steps < 1 || s.steps > 1000) return InvalidArgument("steps: got ", s.steps, ", want 1 to 1000");
  s.eta = r.eta.value_or(0);
  if (!(s.eta >= 0 && s.eta <= 1)) return InvalidArgument("eta: got ", s.eta, ", want 0 to 1");
  s.seed = r.seed.value_or(0) & INT64_MAX;
  TEMPERA_TRY(ReadModel(folder).status());
  return s;
}

}  // namespace

EngineInfo FakeInfo(const std::string& name, const std::string& artifact_id, int64_t classes,
                    const Controls& controls) {
  EngineInfo info;
  info.is_artifact = !artifact_id.empty();
  info.id = artifact_id;
  info.name = name;
  info.source_sha256 = std::string(64, 'a');
  info.pipeline = "DDPMPipeline";
  info.family = "unet";
  info.channels = 3;
  info.height = info.width = controls.picture_side;
  info.classes = classes;
  info.scheduler = "ddim";
  info.steps = 5;
  info.schedulers = {"ddim", "ddpm"};
  info.weight_bytes = controls.model_bytes;
  if (info.is_artifact) {
    info.cache_bytes = 10;
    info.cache_entries = 5;
    info.reference_bytes = 20;
    info.baseline = {{19, "down", 1e-3, 5e-4, 2e-3}, {19, "up", 2e-3, 1e-3, 3e-3}};
  }
  return info;
}

std::shared_ptr<const Engine> MakeFakeEngine(const EngineInfo& info, std::shared_ptr<Controls> controls) {
  return std::make_shared<FakeEngine>(info, std::move(controls));
}

std::string WriteFakeArtifact(const fs::path& folder, const QuantSpec& spec, const std::string& model) {
  fs::create_directories(folder);
  const auto put = [&](const std::string& name, const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomic(folder / name, bytes, name).ok());
  };
  const auto bytes_of = [](const auto& values) {
    return std::span(reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(values[0]));
  };
  // "conv": a concatenation of two parts, the first with a range a step; "time": a cached temporal feature.
  const std::vector<uint8_t> codes{1, 2, 3, 4}, zero{8, 7}, step_zero{10, 20, 30, 40, 50}, one_zero{128},
      chosen{1, 1, 0, 1, 1};
  const std::vector<float> scale{0.5f, 0.25f}, step_scale{1, 2, 3, 4, 5}, one_scale{0.5f};
  const std::string weights = SafetensorsBytes({{"conv.weight.0.codes", Dtype::kU8, {2, 2}, codes},
                                                {"conv.weight.0.scale", Dtype::kF32, {2}, bytes_of(scale)},
                                                {"conv.weight.0.zero", Dtype::kU8, {2}, zero},
                                                {"conv.weight.1.scale", Dtype::kF32, {2}, bytes_of(scale)},
                                                {"conv.weight.1.zero", Dtype::kU8, {2}, zero}});
  const std::string tables = SafetensorsBytes({{"conv.input.0.scale", Dtype::kF32, {5}, bytes_of(step_scale)},
                                               {"conv.input.0.zero", Dtype::kU8, {5}, step_zero},
                                               {"conv.input.1.scale", Dtype::kF32, {1}, bytes_of(one_scale)},
                                               {"conv.input.1.zero", Dtype::kU8, {1}, one_zero},
                                               {"select.time", Dtype::kU8, {5}, chosen}});
  put(kWeightsFile, weights);
  put(kTablesFile, tables);
  Manifest manifest;
  manifest.source_name = model;
  manifest.source_sha256 = std::string(64, 'a');
  manifest.spec = SpecJson(spec);
  manifest.schedule = Json{{"scheduler", spec.scheduler}, {"timesteps", {801.0, 601.0, 401.0, 201.0, 1.0}}};
  manifest.model = Json{{"name", model},
                        {"pipeline", "DDPMPipeline"},
                        {"family", "unet"},
                        {"class_names", {"a", "b"}},
                        {"dropped_parameters", {"time.weight", "time.bias"}},
                        {"picture", {1, 32, 48}},
                        {"classes", 2}};
  const auto slot = [](const char* name, const char* role, int weight_bits, int activation_bits, int parts) {
    return Json{{"slot", name},
                {"role", role},
                {"unit", "u"},
                {"group", "down"},
                {"weight_bits", weight_bits},
                {"activation_bits", activation_bits},
                {"equalized", false},
                {"dynamic", false},
                {"parts", parts}};
  };
  manifest.slots = Json::array(
      {slot("down.conv", "conv", 0, 0, 1), slot("conv", "conv", 4, 8, 2), slot("time", "time", 8, 0, 1)});
  manifest.baseline = Json::array(
      {Json{{"timestep_bin", 19}, {"block_group", "down"}, {"ratio", 1e-3}, {"low", 1e-4}, {"high", 1e-2}}});
  manifest.libraries = Json::object();
  manifest.files[kWeightsFile] = {Sha256Hex(weights), static_cast<int64_t>(weights.size())};
  manifest.files[kTablesFile] = {Sha256Hex(tables), static_cast<int64_t>(tables.size())};
  Measurements measured;
  measured.job.id = "0123456789abcdef";
  measured.job.labels = {{"team", "vision"}};
  measured.job.started = measured.job.finished = "2026-01-31T10:00:00Z";
  put(kMeasurementsFile, CanonicalJson(ToJson(measured)));
  put(kReportHtmlFile, "<!doctype html><title>report</title>" + std::string(3 << 20, ' '));
  put(kReportJsonFile, "");
  std::map<std::string, FileEntry> beside;
  for (const char* name : {kMeasurementsFile, kReportHtmlFile, kReportJsonFile}) {
    const Result<std::string> bytes = ReadFile(folder / name, name);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    beside[name] = {Sha256Hex(*bytes), static_cast<int64_t>(bytes->size())};
  }
  put(kDigestsFile, DigestsText(beside));
  put(kManifestFile, manifest.Text());
  return manifest.Id();
}

void MakeFakeModel(const fs::path& folder, const std::string& json) {
  fs::create_directories(folder);
  std::ofstream(folder / "model.json") << json;
}

Compute FakeCompute(std::shared_ptr<Controls> controls) {
  Compute c;
  c.load_model = [controls](const CallScope& scope,
                            const fs::path& folder) -> Result<std::shared_ptr<const Engine>> {
    controls->loads.Add();
    controls->load.Pass();
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const Json json, ReadModel(folder));
    return MakeFakeEngine(FakeInfo(folder.filename().string(), "", json.value("classes", 0), *controls),
                          controls);
  };
  c.load_artifact = [controls](const CallScope& scope, const fs::path& folder, const std::string& id,
                               const EngineOptions&) -> Result<std::shared_ptr<const Engine>> {
    controls->loads.Add();
    controls->load.Pass();
    TEMPERA_TRY(scope.Check());
    TEMPERA_ASSIGN(const std::string text, ReadFile(folder / kManifestFile, kManifestFile));
    TEMPERA_ASSIGN(const Manifest manifest, Manifest::Parse(text, kManifestFile));
    return MakeFakeEngine(FakeInfo(manifest.source_name, id, 10, *controls), controls);
  };
  c.resolve_spec = &ResolveFake;
  c.spec_to_json = &SpecJson;
  c.parse_spec = &ParseSpecJson;
  c.run_job = [controls](
                  const CallScope& scope, const QuantizeJobInput& input, Lanes&,
                  const std::function<void(const JobProgress&)>& progress) -> Result<QuantizeJobOutput> {
    for (int i = 0; i < 4; ++i) {
      progress({.stage = i < 2 ? "calibrate" : "pack",
                .unit = Cat("block", i),
                .done = i,
                .total = 4,
                .fraction = i / 4.0,
                .eta_seconds = 4.0 - i});
      controls->job.Pass();
      while (controls->until_stopped && scope.Check().ok()) std::this_thread::yield();
      TEMPERA_TRY(scope.Check());
    }
    const fs::path folder = input.work_folder / "artifact";
    const std::string id = WriteFakeArtifact(folder, input.spec, input.model_folder.filename().string());
    return QuantizeJobOutput{id, folder};
  };
  c.decode_image = [](std::string_view) -> Result<Picture> { return InvalidArgument("not a PNG file"); };
  c.encode_image = [](const Picture& p, ImageFormat,
                      const std::map<std::string, std::string>&) -> Result<std::string> {
    return std::string(p.pixels.begin(), p.pixels.end());
  };
  c.methods = {"minmax", "tfmq"};
  c.schedulers = {"ddim", "ddpm"};
  c.families = {"unet"};
  c.kernels = "fake";
  c.torch_version = "none";
  return c;
}

TempFolder::TempFolder() {
  std::string name = (fs::temp_directory_path() / "tempera-XXXXXX").string();
  EXPECT_NE(::mkdtemp(name.data()), nullptr);
  path_ = name;
}
TempFolder::~TempFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
}

TestServer::TestServer(std::function<void(ServerConfig&)> change) {
  MakeFakeModel(root() / "plain");
  MakeFakeModel(root() / "classes", R"({"classes": 10})");
  MakeFakeModel(root() / "broken", R"({"broken": "in_channels: got 0"})");
  ServerConfig config;
  config.data = data().string();
  config.model_roots = {fs::canonical(root()).string()};
  config.listen = config.metrics_listen = "127.0.0.1:0";
  config.threads = 1;
  config.no_worker = true;
  if (change) change(config);
  auto app = App::Create(config, FakeCompute(controls_));
  EXPECT_TRUE(app.ok()) << app.status();
  app_ = *std::move(app);
  channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(app_->grpc_port()),
                                 grpc::InsecureChannelCredentials());
  thread_ = std::jthread([this] { app_->Run(false); });
}

TestServer::~TestServer() { Stop(); }

void TestServer::Stop() {
  if (!thread_.joinable()) return;
  app_->Drain();
  thread_.join();
}

std::string TestServer::PublishArtifact(const std::string& method) {
  QuantSpec spec;
  spec.method = method;
  spec.scheduler = "ddim";
  spec.steps = 5;
  const fs::path folder = temp_.path() / ("made-" + method);
  const std::string id = WriteFakeArtifact(folder, spec, "classes");
  auto store = OpenFolderStore(DataFolder{data()}.objects());
  EXPECT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE(tempera::PublishArtifact({}, **store, folder, id).ok());
  return id;
}

std::pair<int, std::string> TestServer::Http(const std::string& path) {
  namespace asio = boost::asio;
  asio::io_context io;
  asio::ip::tcp::socket socket(io);
  boost::system::error_code error;
  socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(app_->http_port())}, error);
  if (error) return {0, error.message()};
  asio::write(socket, asio::buffer("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              error);
  std::string answer;
  asio::read(socket, asio::dynamic_buffer(answer), error);
  if (answer.size() < 12) return {0, answer};
  const size_t body = answer.find("\r\n\r\n");
  return {std::atoi(answer.c_str() + 9), body == std::string::npos ? "" : answer.substr(body + 4)};
}

}  // namespace tempera::testing
