// The program, run against a server whose answers the test writes.
#include "client/cli.h"

#include <absl/strings/escaping.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <png.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/files.h"
#include "base/json.h"
#include "client/commands.h"
#include "client/fake_server.h"

namespace tempera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kId[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

v1::QuantizeJob JobIn(v1::QuantizeJob::State state) {
  v1::QuantizeJob job;
  job.set_name("quantizeJobs/00ff");
  job.set_state(state);
  job.mutable_spec()->set_method("tfmq");
  if (state == v1::QuantizeJob::SUCCEEDED) job.set_artifact(kId);
  if (state == v1::QuantizeJob::FAILED) {
    job.mutable_error()->set_code(grpc::StatusCode::DATA_LOSS);
    job.mutable_error()->set_message("unet/config.json: damaged");
  }
  return job;
}

struct Ended {
  int code;
  std::string out, err;
  std::vector<Json> Lines() const {
    std::vector<Json> lines;
    std::istringstream in(out);
    for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
    return lines;
  }
};

class Cli : public testing::Test {
 protected:
  Cli() : cwd_(fs::path(testing::TempDir()) / Cat("cli-", getpid())) { fs::create_directories(cwd_); }
  ~Cli() override { fs::remove_all(cwd_); }

  Ended Call(std::vector<std::string> args) {
    if (!server_) server_.emplace(handlers_);
    std::ostringstream out, err;
    const int code = RunCli(std::move(args), {.out = out,
                                              .err = err,
                                              .cwd = cwd_,
                                              .default_server = server_->address(),
                                              .stop = stop_.get_token()});
    return {code, out.str(), err.str()};
  }

  // Quantize gives a queued job; watching it shows progress and `end`.
  void JobsEnd(v1::QuantizeJob::State end) {
    handlers_.quantize = [this](const v1::QuantizeRequest& q, google::longrunning::Operation* a) {
      asked_ = q;
      *a = OperationOf(JobIn(v1::QuantizeJob::QUEUED));
      return grpc::Status::OK;
    };
    handlers_.watch_job = [end](grpc::ServerContext*, const v1::WatchQuantizeJobRequest& q,
                                grpc::ServerWriter<v1::WatchQuantizeJobResponse>* w) {
      if (q.name() != "quantizeJobs/00ff") return grpc::Status(grpc::StatusCode::NOT_FOUND, q.name());
      v1::WatchQuantizeJobResponse m;
      *m.mutable_job() = JobIn(v1::QuantizeJob::RUNNING);
      m.mutable_job()->set_stage("blocks");
      m.mutable_job()->set_unit("mid_block");
      m.mutable_job()->set_units_done(3);
      m.mutable_job()->set_units_total(7);
      m.mutable_job()->mutable_eta()->set_seconds(92);
      w->Write(m);
      *m.mutable_job() = JobIn(end);
      w->Write(m);
      return grpc::Status::OK;
    };
  }

  void Generates(const std::vector<v1::GenerateResponse>& events) {
    handlers_.generate = [this, events](grpc::ServerContext*, const v1::GenerateRequest& q,
                                        grpc::ServerWriter<v1::GenerateResponse>* w) {
      painted_ = q;
      for (const auto& e : events) w->Write(e);
      return grpc::Status::OK;
    };
  }

  std::vector<std::string> FilesIn(const fs::path& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  std::string Content(const fs::path& path) { return ReadFile(path, path.string()).value_or("none"); }

  fs::path cwd_;
  FakeHandlers handlers_;
  std::optional<FakeServer> server_;
  std::stop_source stop_;
  v1::QuantizeRequest asked_;
  v1::GenerateRequest painted_;
};

TEST_F(Cli, ServerAndJsonAreTakenBeforeAndAfterTheCommand) {
  JobsEnd(v1::QuantizeJob::SUCCEEDED);
  server_.emplace(handlers_);
  const std::string server = server_->address();
  const std::vector<std::vector<std::string>> forms{
      {"--server", server, "--json", "quantize", "m/x"},
      {"quantize", "m/x", "--server", server, "--json"},
      {"--json", "quantize", "--server", server, "m/x"},
      {"quantize", "--json", "m/x", "--server=" + server},
  };
  for (const auto& form : forms) {
    const Ended r = Call(form);
    EXPECT_EQ(r.code, 0) << r.err;
    EXPECT_EQ(r.Lines().back(), (Json{{"job", "00ff"}, {"state", "SUCCEEDED"}, {"artifact", kId}}));
  }
  for (const auto& form : {std::vector<std::string>{"--json", "jobs", "watch", "00ff"},
                           {"jobs", "--json", "watch", "00ff"},
                           {"jobs", "watch", "00ff", "--json"}})
    EXPECT_EQ(Call(form).Lines().back()["artifact"], kId);
}

TEST_F(Cli, QuantizeSendsWhatWasTypedAndNothingElse) {
  JobsEnd(v1::QuantizeJob::SUCCEEDED);
  ASSERT_EQ(Call({"quantize", "models/x"}).code, 0);
  v1::QuantizeRequest plain;
  plain.set_model((cwd_ / "models/x").string());
  plain.mutable_spec();
  EXPECT_EQ(asked_.request_id().size(), 36u);
  asked_.clear_request_id();
  EXPECT_EQ(asked_.SerializeAsString(), plain.SerializeAsString());

  ASSERT_EQ(Call({"quantize",
                  "/m/x",
                  "--method",
                  "brecq",
                  "--weight-bits",
                  "8",
                  "--activation-bits",
                  "32",
                  "--boundary-bits",
                  "8",
                  "--quantize-attention",
                  "--stage-bits",
                  "8",
                  "--override",
                  "conv_in=8",
                  "--override",
                  "mid.a=4/6",
                  "--scheduler",
                  "ddim",
                  "--steps",
                  "20",
                  "--eta",
                  "0.5",
                  "--spacing",
                  "trailing",
                  "--samples-per-step",
                  "3",
                  "--seed",
                  "18446744073709551615",
                  "--classes",
                  "0,9",
                  "--max-iterations",
                  "7",
                  "--batch",
                  "2",
                  "--temporal-strategy",
                  "cache",
                  "--evaluation-pictures",
                  "0",
                  "--compare",
                  "minmax,brecq",
                  "--name",
                  "fashion:w8",
                  "--label",
                  "team=vision",
                  "--label",
                  "a=b=c",
                  "--request-id",
                  "mine"})
                .code,
            0);
  v1::QuantizeRequest full;
  full.set_model("/m/x");
  full.set_alias("fashion:w8");
  full.set_request_id("mine");
  (*full.mutable_labels())["team"] = "vision";
  (*full.mutable_labels())["a"] = "b=c";
  v1::QuantizationSpec& s = *full.mutable_spec();
  s.set_method("brecq");
  s.set_weight_bits(8);
  s.set_activation_bits(32);
  s.set_boundary_bits(8);
  s.set_quantize_attention(true);
  s.set_stage_bits(8);
  s.add_overrides()->set_slot("conv_in");
  s.mutable_overrides(0)->set_weight_bits(8);
  s.add_overrides()->set_slot("mid.a");
  s.mutable_overrides(1)->set_weight_bits(4);
  s.mutable_overrides(1)->set_activation_bits(6);
  s.set_scheduler("ddim");
  s.set_steps(20);
  s.set_eta(0.5);
  s.set_spacing("trailing");
  s.set_samples_per_step(3);
  s.set_seed(~0ull);
  s.add_classes(0);
  s.add_classes(9);
  s.set_max_iterations(7);
  s.set_batch(2);
  s.set_temporal_strategy("cache");
  s.set_evaluation_pictures(0);
  s.add_compare("minmax");
  s.add_compare("brecq");
  EXPECT_EQ(asked_.DebugString(), full.DebugString());
}

TEST_F(Cli, ProgressIsPlainLinesWhereThereIsNoTerminal) {
  JobsEnd(v1::QuantizeJob::SUCCEEDED);
  const Ended r = Call({"quantize", "/m/x"});
  EXPECT_THAT(r.err, HasSubstr("blocks  mid_block  3/7  ETA 1:32\n"));
  EXPECT_EQ(r.err.find('\r'), std::string::npos);
  EXPECT_THAT(r.out, HasSubstr(kId));
}

TEST_F(Cli, DetachPrintsTheJobAndReturns) {
  JobsEnd(v1::QuantizeJob::SUCCEEDED);
  EXPECT_EQ(Call({"quantize", "/m/x", "--detach"}).out, "00ff\n");
  EXPECT_EQ(Call({"quantize", "/m/x", "--detach", "--json"}).Lines().back(),
            (Json{{"job", "00ff"}, {"state", "QUEUED"}, {"artifact", nullptr}}));
}

TEST_F(Cli, AFailedJobHasItsOwnExitCodeAndSaysWhy) {
  JobsEnd(v1::QuantizeJob::FAILED);
  const Ended r = Call({"--json", "quantize", "/m/x"});
  EXPECT_EQ(r.code, kExitJobFailed);
  EXPECT_THAT(r.err, HasSubstr("unet/config.json: damaged"));
  EXPECT_EQ(r.Lines().back()["state"], "FAILED");
  EXPECT_EQ(r.Lines().back()["error"]["code"], "DATA_LOSS");
}

TEST_F(Cli, CtrlCLeavesTheJobRunningAndSaysHowToFollowIt) {
  JobsEnd(v1::QuantizeJob::SUCCEEDED);
  handlers_.watch_job = [this](grpc::ServerContext* c, const v1::WatchQuantizeJobRequest&,
                               grpc::ServerWriter<v1::WatchQuantizeJobResponse>* w) {
    v1::WatchQuantizeJobResponse m;
    *m.mutable_job() = JobIn(v1::QuantizeJob::RUNNING);
    w->Write(m);
    stop_.request_stop();
    while (!c->IsCancelled()) w->Write(m);
    return grpc::Status::CANCELLED;
  };
  handlers_.cancel_job = [](const v1::CancelQuantizeJobRequest&, v1::QuantizeJob*) -> grpc::Status {
    ADD_FAILURE() << "nobody asked for a cancel";
    return grpc::Status::OK;
  };
  const Ended r = Call({"quantize", "/m/x"});
  EXPECT_EQ(r.code, kExitInterrupted);
  EXPECT_THAT(r.err, HasSubstr("tempera jobs watch 00ff"));
  EXPECT_THAT(r.err, HasSubstr("tempera jobs cancel 00ff"));
}

TEST_F(Cli, GenerateWritesThePictureAndItsFigures) {
  Generates(GenerationOf("picture bytes", 7, 4));
  const Ended r = Call({"--json", "generate", "fashion:w4a8", "--class", "3", "--seed", "7", "--scheduler",
                        "ddim", "--steps", "2", "--eta", "0", "--out", "x.png"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Content(cwd_ / "x.png"), "picture bytes");
  ASSERT_EQ(r.Lines().size(), 1u);
  const Json j = r.Lines()[0];
  EXPECT_EQ(j["path"], (cwd_ / "x.png").string());
  EXPECT_EQ(j["seed"], 7);
  EXPECT_EQ(j["sha256"], Sha256Hex("picture bytes"));
  EXPECT_EQ(j["latent_sha256"], std::string(64, 'a'));
  EXPECT_EQ(j["steps"],
            Json::parse(R"([{"step":0,"timestep":500.0,"milliseconds":1.5,"temporal_feature_error":null},
                                        {"step":1,"timestep":0.0,"milliseconds":1.5,"temporal_feature_error":0.25}])"));
  EXPECT_EQ(painted_.ref(), "fashion:w4a8");
  EXPECT_EQ(painted_.class_label(), 3);
  EXPECT_EQ(painted_.seed(), 7u);
  EXPECT_EQ(painted_.scheduler(), "ddim");
  EXPECT_EQ(painted_.steps(), 2);
  EXPECT_TRUE(painted_.has_eta());
  EXPECT_EQ(painted_.format(), v1::PNG);
}

TEST_F(Cli, GenerateSendsNothingThatWasNotTyped) {
  Generates(GenerationOf("p", 7, 4));
  ASSERT_EQ(Call({"generate", "fashion"}).code, 0);
  EXPECT_FALSE(painted_.has_class_label() || painted_.has_seed() || painted_.has_count() ||
               painted_.has_scheduler() || painted_.has_steps() || painted_.has_eta());
  EXPECT_EQ(painted_.preview_interval(), 0);
  EXPECT_EQ(FilesIn(cwd_), std::vector<std::string>{"fashion-7.png"});
}

TEST_F(Cli, SeveralPicturesGoToAFolder) {
  auto events = GenerationOf("first", 7, 100);
  const v1::GenerateResponse summary = events.back();
  events.pop_back();
  v1::ImageChunk second = events.back().image();
  second.set_picture(1);
  second.set_seed(8);
  events.emplace_back().mutable_image()->CopyFrom(second);
  events.push_back(summary);
  auto* p = events.back().mutable_summary()->add_pictures();
  p->CopyFrom(summary.summary().pictures(0));
  p->set_picture(1);
  Generates(events);
  const Ended r = Call({"generate", "x", "--count", "2", "--out", "many", "--json"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(painted_.count(), 2);
  EXPECT_EQ(FilesIn(cwd_ / "many"), (std::vector<std::string>{"x-7.png", "x-8.png"}));
  EXPECT_EQ(r.Lines().size(), 2u);
  EXPECT_EQ(r.Lines()[1]["seed"], 8);
}

TEST_F(Cli, PreviewTakesItsNumberOrNone) {
  auto events = GenerationOf("p", 7, 4);
  v1::GenerateResponse preview;
  preview.mutable_preview()->set_step(1);
  preview.mutable_preview()->set_data("early");
  events.insert(events.begin() + 2, preview);
  Generates(events);
  ASSERT_EQ(Call({"generate", "--preview", "x", "--out", "a.png"}).code, 0);
  EXPECT_EQ(painted_.preview_interval(), 1);
  EXPECT_EQ(Content(cwd_ / "a-step0001.png"), "early");
  for (const auto& form :
       {std::vector<std::string>{"generate", "x", "--preview", "5"}, {"generate", "--preview=5", "x"}}) {
    ASSERT_EQ(Call(form).code, 0);
    EXPECT_EQ(painted_.preview_interval(), 5);
  }
}

TEST_F(Cli, TheFormatComesFromTheOptionOrTheExtension) {
  Generates(GenerationOf("p", 7, 4));
  const std::vector<std::pair<std::vector<std::string>, v1::ImageFormat>> cases{
      {{"--out", "a.webp"}, v1::WEBP},
      {{"--out", "a.jpg"}, v1::JPEG},
      {{"--out", "a"}, v1::PNG},
      {{"--out", "a.webp", "--format", "jpeg"}, v1::JPEG}};
  for (auto [args, format] : cases) {
    args.insert(args.begin(), {"generate", "x"});
    ASSERT_EQ(Call(args).code, 0);
    EXPECT_EQ(painted_.format(), format);
  }
  const Ended bad = Call({"generate", "x", "--format", "gif"});
  EXPECT_EQ(bad.code, kExitUsage);
  EXPECT_THAT(bad.err, HasSubstr("got \"gif\", want png, webp or jpeg"));
}

TEST_F(Cli, ADamagedPictureIsNotWritten) {
  auto events = GenerationOf("picture bytes", 7, 4);
  events[events.size() - 2].mutable_image()->set_sha256(std::string(64, '0'));
  Generates(events);
  std::ofstream(cwd_ / "x.png") << "old";
  const Ended r = Call({"generate", "x", "--out", "x.png"});
  EXPECT_EQ(r.code, kExitDamaged);
  EXPECT_THAT(r.err, HasSubstr("SHA-256"));
  EXPECT_EQ(Content(cwd_ / "x.png"), "old");
  EXPECT_EQ(FilesIn(cwd_), std::vector<std::string>{"x.png"});
}

TEST_F(Cli, ErrorsShowTheServersWordsAndGiveCodes) {
  google::rpc::ErrorInfo info;
  info.set_reason("BAD_CONFIG");
  info.set_domain("tempera");
  const std::string message = "unet/config.json: block_out_channels, got [], want at least one";
  struct Case {
    grpc::StatusCode code;
    int exit;
  };
  for (const Case c : {Case{grpc::StatusCode::INVALID_ARGUMENT, kExitUsage},
                       {grpc::StatusCode::PERMISSION_DENIED, kExitUsage},
                       {grpc::StatusCode::NOT_FOUND, kExitNotFound},
                       {grpc::StatusCode::FAILED_PRECONDITION, kExitRefused},
                       {grpc::StatusCode::ABORTED, kExitRefused},
                       {grpc::StatusCode::RESOURCE_EXHAUSTED, kExitUnavailable},
                       {grpc::StatusCode::DEADLINE_EXCEEDED, kExitUnavailable},
                       {grpc::StatusCode::DATA_LOSS, kExitDamaged},
                       {grpc::StatusCode::INTERNAL, kExitInternal}}) {
    server_.reset();
    handlers_.generate = [&](grpc::ServerContext*, const v1::GenerateRequest&,
                             grpc::ServerWriter<v1::GenerateResponse>*) {
      return RichError(c.code, message, {&info});
    };
    const Ended plain = Call({"generate", "x"});
    EXPECT_EQ(plain.code, c.exit) << c.code;
    EXPECT_THAT(plain.err, HasSubstr("tempera: " + message));
    EXPECT_THAT(plain.err, HasSubstr("BAD_CONFIG"));
    EXPECT_THAT(plain.err, testing::Not(HasSubstr("is a server running")));
    const Ended json = Call({"generate", "x", "--json"});
    EXPECT_EQ(json.code, c.exit);
    EXPECT_EQ(json.out, "");
    EXPECT_EQ(Json::parse(json.err)["error"]["message"], message);
    EXPECT_EQ(Json::parse(json.err)["error"]["reason"], "BAD_CONFIG");
  }
  EXPECT_TRUE(FilesIn(cwd_).empty());
}

TEST_F(Cli, ListsFollowEveryPage) {
  handlers_.list_jobs = [](const v1::ListQuantizeJobsRequest& q, v1::ListQuantizeJobsResponse* a) {
    const int page = q.page_token().empty() ? 0 : std::stoi(q.page_token());
    if (q.filter() != "state = RUNNING") return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "filter");
    for (int i = 0; i < 2; ++i) a->add_quantize_jobs()->set_name(Cat("quantizeJobs/", 2 * page + i));
    if (page < 2) a->set_next_page_token(std::to_string(page + 1));
    return grpc::Status::OK;
  };
  const Ended all = Call({"--json", "jobs", "list", "--filter", "state = RUNNING", "--limit", "0"});
  ASSERT_EQ(all.code, 0) << all.err;
  ASSERT_EQ(all.Lines().size(), 6u);
  EXPECT_EQ(all.Lines()[5]["name"], "quantizeJobs/5");
  EXPECT_EQ(Call({"--json", "jobs", "list", "--filter", "state = RUNNING", "--limit", "4"}).Lines().size(),
            4u);
  EXPECT_THAT(Call({"jobs", "list", "--filter", "state = RUNNING"}).out, HasSubstr("JOB"));
}

TEST_F(Cli, AReportThatLeavesItsFolderIsRefused) {
  std::string path = "report.html";
  handlers_.report = [&](grpc::ServerContext*, const v1::GetQualityReportRequest&,
                         grpc::ServerWriter<v1::GetQualityReportResponse>* w) {
    v1::GetQualityReportResponse m;
    m.set_path(path);
    m.set_data("page");
    m.set_total_bytes(4);
    m.set_last(true);
    m.set_sha256(Sha256Hex("page"));
    w->Write(m);
    return grpc::Status::OK;
  };
  ASSERT_EQ(Call({"report", "x", "--out", "r/s"}).code, 0);
  EXPECT_EQ(Content(cwd_ / "r" / "s" / "report.html"), "page");
  path = "../evil";
  EXPECT_EQ(Call({"report", "x", "--out", "r/s"}).code, kExitDamaged);
  EXPECT_FALSE(fs::exists(cwd_ / "r" / "evil"));
}

TEST_F(Cli, AliasSendsWhatMustBeThereNow) {
  v1::SetAliasRequest got;
  handlers_.set_alias = [&](const v1::SetAliasRequest& q, v1::Alias* a) {
    got = q;
    a->set_alias(q.alias());
    a->set_artifact(q.artifact());
    return grpc::Status::OK;
  };
  ASSERT_EQ(Call({"alias", "a:b", kId}).out, Cat("a:b -> ", kId, "\n"));
  EXPECT_FALSE(got.has_expected_artifact());
  ASSERT_EQ(Call({"alias", "a:b", kId, "--expect", ""}).code, 0);
  EXPECT_TRUE(got.has_expected_artifact() && got.expected_artifact().empty());
  ASSERT_EQ(Call({"alias", "a:b", "--remove"}).out, "a:b removed\n");
  EXPECT_EQ(Call({"alias", "a:b"}).code, kExitUsage);
  EXPECT_EQ(Call({"alias", "a:b", kId, "--remove"}).code, kExitUsage);
}

TEST_F(Cli, ExplainAsksForTheLayerAndStep) {
  v1::ExplainQuantizationRequest got;
  handlers_.explain = [&](const v1::ExplainQuantizationRequest& q, v1::ExplainQuantizationResponse* a) {
    got = q;
    v1::LayerExplanation& l = *a->add_layers();
    l.set_layer("mid_block.conv");
    l.set_weight_bits(4);
    v1::StepExplanation& step = *l.add_steps();
    step.set_step(2);
    step.set_scale(0.25);
    step.set_zero_point(17);
    step.set_strategy("cache");
    return grpc::Status::OK;
  };
  const Ended r = Call({"explain", "x", "--layer", "mid_block", "--step", "2"});
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(got.layer(), "mid_block");
  EXPECT_EQ(got.step(), 2);
  EXPECT_THAT(r.out, HasSubstr("mid_block.conv"));
  EXPECT_THAT(r.out, HasSubstr("W4A32"));
  EXPECT_THAT(r.out, HasSubstr("17"));
  ASSERT_EQ(Call({"explain", "x"}).code, 0);
  EXPECT_FALSE(got.has_step());
}

TEST_F(Cli, WrongCommandLinesAreUsageErrors) {
  const std::vector<std::vector<std::string>> wrong{
      {},
      {"paint"},
      {"quantize"},
      {"generate"},
      {"jobs"},
      {"jobs", "show"},
      {"generate", "x", "--seed", "-1"},
      {"generate", "x", "--seed", "abc"},
      {"generate", "x", "--steps", "99999999999"},
      {"generate", "x", "--steps", "1.5"},
      {"generate", "x", "y"},
      {"quantize", "x", "--label", "nokey"},
      {"quantize", "x", "--override", "conv"},
      {"quantize", "x", "--override", "conv=8/x"},
      {"report", "x"},
      {"completion", "fish"},
      {"generate", "x", "--server", "nowhere"},
      {"generate", "x", "--negative-prompt", "\xff"},
      {"quantize", "x", "--prompt", "a", "--prompt", "caf\xe9"},
  };
  for (const auto& args : wrong) {
    const Ended r = Call(args);
    EXPECT_EQ(r.code, kExitUsage) << testing::PrintToString(args);
    EXPECT_NE(r.err, "") << testing::PrintToString(args);
    EXPECT_EQ(r.out, "") << testing::PrintToString(args);
  }
}

TEST_F(Cli, UsageErrorsNameTheWordAndKeepToJson) {
  EXPECT_THAT(Call({"nonsense"}).err, HasSubstr("command: got nonsense, want one of quantize, generate"));
  EXPECT_THAT(Call({}).err, HasSubstr("command: is missing, want one of quantize"));
  EXPECT_THAT(Call({"jobs", "lost"}).err, HasSubstr("command: got lost, want one of list, show"));
  EXPECT_THAT(Call({"generate", "x", "--seed", "-1"}).err, HasSubstr("got -1, want a whole number"));
  EXPECT_THAT(Call({"generate", "x", "--prompt", "ab\xff"}).err,
              HasSubstr("--prompt: not valid UTF-8 at byte 2"));
  const std::string prompts = (cwd_ / "prompts.txt").string();
  std::ofstream(prompts) << "a cat\n\nbad \xff\n";
  EXPECT_THAT(Call({"quantize", "x", "--prompts-file", prompts}).err,
              HasSubstr("--prompts-file: line 3: not valid UTF-8 at byte 4"));
  for (const auto& args : {std::vector<std::string>{"--json", "nonsense"},
                           {"quantize", "--json"},
                           {"--json", "generate", "x", "--steps", "many"}}) {
    const Ended r = Call(args);
    EXPECT_EQ(r.code, kExitUsage);
    EXPECT_EQ(Json::parse(r.err)["error"]["code"], "INVALID_ARGUMENT") << r.err;
  }
}

TEST_F(Cli, OddNumbersReachTheServerWhichJudgesThem) {
  handlers_.generate = [this](grpc::ServerContext*, const v1::GenerateRequest& q,
                              grpc::ServerWriter<v1::GenerateResponse>*) {
    painted_ = q;
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no");
  };
  EXPECT_EQ(Call({"generate", "x", "--class", "-1", "--eta", "nan", "--steps", "0", "--count", "-2"}).code,
            kExitUsage);
  EXPECT_EQ(painted_.class_label(), -1);
  EXPECT_TRUE(std::isnan(painted_.eta()));
  EXPECT_TRUE(painted_.has_steps());
  EXPECT_EQ(painted_.count(), -2);
}

TEST_F(Cli, HelpTeachesAndSucceeds) {
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{{"--help"},
                                                                                    {"quantize", "--help"},
                                                                                    {"generate", "-h"},
                                                                                    {"alias", "--help"},
                                                                                    {"explain", "--help"}}) {
    const Ended r = Call(args);
    EXPECT_EQ(r.code, 0);
    EXPECT_THAT(r.out, HasSubstr("Example"));
    EXPECT_EQ(r.err, "");
  }
  EXPECT_THAT(Call({"--help"}).out, HasSubstr("Exit codes:"));
}

TEST_F(Cli, NoServerIsUnavailable) {
  server_.emplace(handlers_);
  const std::string gone = server_->address();
  server_.reset();
  const Ended r = Call({"models", "list", "--server", gone});
  EXPECT_EQ(r.code, kExitUnavailable);
  EXPECT_THAT(r.err, HasSubstr(gone));
}

// What bash offers for a line, words in the order of the script.
std::string Complete(const fs::path& script, const std::string& words) {
  const std::string command =
      Cat("bash -c 'cd / && source \"", script.string(), "\" && COMP_WORDS=(", words,
          ") && COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && _tempera && echo \"${COMPREPLY[*]}\"'");
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  for (int c; (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  return pclose(pipe) == 0 ? out : "failed: " + out;
}

// A PNG of two colours.
std::string SmallPng() {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = image.height = 4;
  image.format = PNG_FORMAT_RGB;
  std::string pixels(48, '\x20'), bytes(4096, '\0');
  for (size_t i = 0; i < pixels.size(); i += 6) pixels[i] = '\xf0';
  png_alloc_size_t size = bytes.size();
  EXPECT_NE(png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.data(), 0, nullptr), 0);
  bytes.resize(size);
  return bytes;
}

TEST_F(Cli, PicturesAreShownAsTheTerminalTakesThem) {
  const std::string png = SmallPng();
  std::ofstream(cwd_ / "a.png", std::ios::binary) << png;
  std::ofstream(cwd_ / "b.png") << "no picture";
  v1::GenerateResponse preview;
  preview.mutable_preview()->set_data(png);
  auto events = GenerationOf("p", 7, 4);
  events.insert(events.begin() + 2, preview);
  Generates(events);
  setenv("TEMPERA_PICTURES", "kitty", 1);
  const std::string kitty = Call({"view", "a.png"}).err;
  EXPECT_TRUE(kitty.starts_with("\x1b_Gf=100,a=T,c=25,m=0;" + absl::Base64Escape(png) + "\x1b\\")) << kitty;
  EXPECT_EQ(Call({"view", "b.png"}).code, 1);
  setenv("TEMPERA_PICTURES", "sixel", 1);
  const std::string sixels = Call({"view", "a.png"}).err;
  EXPECT_TRUE(sixels.starts_with("\x1bP")) << sixels;
  EXPECT_THAT(sixels, HasSubstr("\"1;1;256;256"));
  EXPECT_THAT(sixels, HasSubstr("\x1b\\"));
  // Previews are shown instead of written.
  EXPECT_THAT(Call({"generate", "--preview", "x", "--out", "c.png"}).err, HasSubstr("\x1bP"));
  EXPECT_FALSE(fs::exists(cwd_ / "c-step0000.png"));
  setenv("TEMPERA_PICTURES", "none", 1);
  EXPECT_THAT(Call({"view", "a.png"}).err, HasSubstr("look at a.png"));
  unsetenv("TEMPERA_PICTURES");
}

TEST_F(Cli, BashCompletesCommandsOptionsAndValues) {
  const fs::path script = cwd_ / "tempera.bash";
  std::ofstream(script) << Call({"completion", "bash"}).out;
  EXPECT_EQ(Complete(script, "tempera q"), "quantize\n");
  EXPECT_EQ(Complete(script, "tempera --json jobs wa"), "watch\n");
  EXPECT_EQ(Complete(script, "tempera generate x --mas"), "--mask\n");
  EXPECT_EQ(Complete(script, "tempera jobs list --js"), "--json\n");
  EXPECT_EQ(Complete(script, "tempera quantize --method b"), "brecq\n");
  EXPECT_EQ(Complete(script, "tempera completion z"), "zsh\n");
  EXPECT_THAT(Complete(script, "tempera generate /tm"), HasSubstr("/tmp"));
  EXPECT_EQ(Complete(script, "tempera jobs /tm"), "\n");
}

TEST_F(Cli, ZshScriptNamesEveryCommand) {
  const std::string script = Call({"completion", "zsh"}).out;
  EXPECT_TRUE(script.starts_with("#compdef tempera\n"));
  for (const char* word : {"'quantize:", "'jobs list')", "'--preview:", "'zsh'"})
    EXPECT_THAT(script, HasSubstr(word));
}

}  // namespace
}  // namespace tempera
