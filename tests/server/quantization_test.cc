#include <google/longrunning/operations.grpc.pb.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "metrics/metrics.h"
#include "server/calls.h"
#include "server/fakes.h"
#include "tempera/v1/artifact.grpc.pb.h"
#include "tempera/v1/quantization.grpc.pb.h"

namespace tempera {
namespace {

namespace lro = google::longrunning;
using testing::Call;
using testing::TestServer;
using Stub = v1::QuantizationService::Stub;
using Operations = lro::Operations::Stub;

class Quantize : public ::testing::Test {
 protected:
  void Start(bool worker) {
    server_ = std::make_unique<TestServer>([=](ServerConfig& c) { c.no_worker = !worker; });
    stub_ = v1::QuantizationService::NewStub(server_->channel());
    operations_ = lro::Operations::NewStub(server_->channel());
  }
  v1::QuantizeRequest Request() {
    v1::QuantizeRequest request;
    request.set_model(server_->model("classes"));
    return request;
  }
  Result<lro::Operation> Submit(const v1::QuantizeRequest& request) {
    return Call(*stub_, &Stub::Quantize, request);
  }
  v1::QuantizeJob Get(const std::string& name) {
    v1::GetQuantizeJobRequest request;
    request.set_name(name);
    const auto job = Call(*stub_, &Stub::GetQuantizeJob, request);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : v1::QuantizeJob();
  }
  static v1::QuantizeJob JobOf(const lro::Operation& operation) {
    v1::QuantizeJob job;
    EXPECT_TRUE(operation.metadata().UnpackTo(&job));
    return job;
  }
  // All states that a watch tells.
  std::vector<v1::QuantizeJob> Watch(const std::string& name, Status* status) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::WatchQuantizeJobRequest request;
    request.set_name(name);
    auto reader = stub_->WatchQuantizeJob(&context, request);
    std::vector<v1::QuantizeJob> seen;
    for (v1::WatchQuantizeJobResponse m; reader->Read(&m);) seen.push_back(m.job());
    *status = rpc::FromGrpc(reader->Finish());
    return seen;
  }

  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Stub> stub_;
  std::unique_ptr<Operations> operations_;
};

TEST_F(Quantize, RunsToAnArtifactThatPaints) {
  Start(true);
  v1::QuantizeRequest request = Request();
  request.set_alias("fashion:w4a8");
  (*request.mutable_labels())["team"] = "vision";
  const auto operation = Submit(request);
  ASSERT_TRUE(operation.ok()) << operation.status();
  EXPECT_FALSE(operation->done());
  const v1::QuantizeJob submitted = JobOf(*operation);
  EXPECT_EQ(submitted.spec().method(), "tfmq");
  EXPECT_EQ(submitted.spec().weight_bits(), 4);
  EXPECT_EQ(submitted.spec().stage_bits(), 32);
  EXPECT_EQ(submitted.model(), server_->model("classes"));
  EXPECT_EQ(submitted.operation(), operation->name());

  Status status;
  const auto seen = Watch(submitted.name(), &status);
  EXPECT_TRUE(status.ok()) << status;
  ASSERT_FALSE(seen.empty());
  EXPECT_EQ(seen.back().state(), v1::QuantizeJob::SUCCEEDED) << seen.back().DebugString();
  EXPECT_EQ(seen.back().fraction(), 1);
  EXPECT_EQ(seen.back().artifact().size(), 64u);

  lro::WaitOperationRequest wait;
  wait.set_name(operation->name());
  const auto done = Call(*operations_, &Operations::WaitOperation, wait);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_TRUE(done->done());
  v1::Artifact artifact;
  ASSERT_TRUE(done->response().UnpackTo(&artifact));
  EXPECT_EQ(artifact.id(), seen.back().artifact());
  const auto got = testing::Generate(server_->channel(), testing::GenerateOf("fashion:w4a8", 2));
  EXPECT_TRUE(got.status.ok()) << got.status;
  EXPECT_EQ(got.accepted().artifact(), artifact.id());
}

TEST_F(Quantize, ValidateOnlyStoresNothing) {
  Start(false);
  v1::QuantizeRequest request = Request();
  request.set_validate_only(true);
  request.mutable_spec()->set_weight_bits(8);
  request.mutable_spec()->set_stage_bits(8);
  const auto operation = Submit(request);
  ASSERT_TRUE(operation.ok()) << operation.status();
  EXPECT_TRUE(operation->done());
  EXPECT_EQ(operation->name(), "");
  EXPECT_EQ(JobOf(*operation).spec().weight_bits(), 8);
  EXPECT_EQ(JobOf(*operation).spec().stage_bits(), 8);
  EXPECT_EQ(JobOf(*operation).state(), v1::QuantizeJob::STATE_UNSPECIFIED);
  const auto list = Call(*stub_, &Stub::ListQuantizeJobs, v1::ListQuantizeJobsRequest());
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->quantize_jobs_size(), 0);
}

TEST_F(Quantize, BadRequestsNameTheFieldAndStoreNothing) {
  Start(false);
  const auto field = [&](std::function<void(v1::QuantizeRequest&)> change) {
    v1::QuantizeRequest request = Request();
    change(request);
    const auto operation = Submit(request);
    EXPECT_EQ(operation.status().code(), absl::StatusCode::kInvalidArgument) << operation.status();
    return rpc::Field(operation.status()).value_or("none");
  };
  EXPECT_EQ(field([](auto& r) { r.set_model(""); }), "model");
  EXPECT_EQ(field([](auto& r) { r.set_model("relative"); }), "model");
  EXPECT_EQ(field([&](auto& r) { r.set_model(server_->model("broken")); }), "model");
  EXPECT_EQ(field([&](auto& r) { r.set_model(server_->model("plain") + "/model.json"); }), "model");
  EXPECT_EQ(field([](auto& r) { r.mutable_spec()->set_method("magic"); }), "spec.method");
  EXPECT_EQ(field([](auto& r) { r.mutable_spec()->set_weight_bits(3); }), "spec.weight_bits");
  EXPECT_EQ(field([](auto& r) { r.mutable_spec()->set_steps(0); }), "spec.steps");
  EXPECT_EQ(field([](auto& r) { r.mutable_spec()->set_eta(std::nan("")); }), "spec.eta");
  EXPECT_EQ(field([](auto& r) { r.set_alias("has space"); }), "alias");
  EXPECT_EQ(field([](auto& r) { r.set_alias(std::string(64, 'a')); }), "alias");
  EXPECT_EQ(field([](auto& r) { (*r.mutable_labels())["BAD KEY"] = "x"; }), "labels");
  EXPECT_EQ(field([](auto& r) { r.set_request_id(std::string(37, 'a')); }), "request_id");
  v1::QuantizeRequest outside = Request();
  outside.set_model("/etc");
  EXPECT_EQ(Submit(outside).status().code(), absl::StatusCode::kPermissionDenied);
  outside.set_model(server_->model("nothing"));
  EXPECT_EQ(Submit(outside).status().code(), absl::StatusCode::kNotFound);
  const auto list = Call(*stub_, &Stub::ListQuantizeJobs, v1::ListQuantizeJobsRequest());
  EXPECT_EQ(list->quantize_jobs_size(), 0);
}

TEST_F(Quantize, RequestIdsAnswerOnce) {
  Start(false);
  v1::QuantizeRequest request = Request();
  request.set_request_id("5c7f0f0e-0b5e-4a3c-9f6e-2d1c0b9a8f7e");
  for (int i = 0; i < 5; ++i) (*request.mutable_labels())["k" + std::to_string(i)] = "v";
  const auto first = Submit(request), second = Submit(request);
  ASSERT_TRUE(first.ok() && second.ok()) << second.status();
  EXPECT_EQ(first->name(), second->name());
  request.mutable_spec()->set_weight_bits(8);
  const auto reused = Submit(request);
  EXPECT_EQ(reused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(rpc::Reason(reused.status()), rpc::kRequestIdReused);
  // The id of another method's request is taken, too.
  v1::CancelQuantizeJobRequest cancel;
  cancel.set_request_id(request.request_id());
  cancel.set_name(JobOf(*first).name());
  EXPECT_EQ(Call(*stub_, &Stub::CancelQuantizeJob, cancel).status().code(), absl::StatusCode::kAlreadyExists);
  const auto list = Call(*stub_, &Stub::ListQuantizeJobs, v1::ListQuantizeJobsRequest());
  EXPECT_EQ(list->quantize_jobs_size(), 1);
}

TEST_F(Quantize, CancelsQueuedAndRunningJobs) {
  Start(true);
  server_->controls().until_stopped = true;
  const auto running = Submit(Request());
  ASSERT_TRUE(running.ok()) << running.status();
  while (Get(JobOf(*running).name()).state() == v1::QuantizeJob::QUEUED) std::this_thread::yield();
  const auto queued = Submit(Request());
  ASSERT_TRUE(queued.ok()) << queued.status();
  v1::CancelQuantizeJobRequest cancel;
  cancel.set_name(JobOf(*queued).name());
  auto job = Call(*stub_, &Stub::CancelQuantizeJob, cancel);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::QuantizeJob::CANCELLED);
  EXPECT_EQ(job->error().code(), 1);
  cancel.set_name(JobOf(*running).name());
  job = Call(*stub_, &Stub::CancelQuantizeJob, cancel);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::QuantizeJob::CANCELLING);
  Status status;
  const auto seen = Watch(cancel.name(), &status);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen.back().state(), v1::QuantizeJob::CANCELLED);
  // Cancelling what is finished returns it.
  job = Call(*stub_, &Stub::CancelQuantizeJob, cancel);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::QuantizeJob::CANCELLED);
  lro::GetOperationRequest get;
  get.set_name(running->name());
  const auto operation = Call(*operations_, &Operations::GetOperation, get);
  ASSERT_TRUE(operation.ok());
  EXPECT_TRUE(operation->done());
  EXPECT_EQ(operation->error().code(), 1);
}

TEST_F(Quantize, DeletesFinishedJobsOnly) {
  Start(false);
  const auto operation = Submit(Request());
  v1::DeleteQuantizeJobRequest request;
  request.set_name(JobOf(*operation).name());
  auto deleted = Call(*stub_, &Stub::DeleteQuantizeJob, request);
  EXPECT_EQ(deleted.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(rpc::Reason(deleted.status()), rpc::kJobNotFinished);
  lro::CancelOperationRequest cancel;
  cancel.set_name(operation->name());
  EXPECT_TRUE(Call(*operations_, &Operations::CancelOperation, cancel).ok());
  request.set_etag("wrong");
  EXPECT_EQ(Call(*stub_, &Stub::DeleteQuantizeJob, request).status().code(), absl::StatusCode::kAborted);
  request.set_etag(Get(request.name()).etag());
  EXPECT_TRUE(Call(*stub_, &Stub::DeleteQuantizeJob, request).ok());
  v1::GetQuantizeJobRequest get;
  get.set_name(request.name());
  const auto gone = Call(*stub_, &Stub::GetQuantizeJob, get);
  EXPECT_EQ(gone.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(rpc::Reason(gone.status()), rpc::kJobNotFound);
}

TEST_F(Quantize, ListsInPagesWithFilters) {
  Start(false);
  for (int i = 0; i < 5; ++i) {
    v1::QuantizeRequest request = Request();
    request.set_alias("m:v" + std::to_string(i));
    request.mutable_spec()->set_method(i % 2 == 0 ? "tfmq" : "minmax");
    ASSERT_TRUE(Submit(request).ok());
  }
  v1::ListQuantizeJobsRequest request;
  request.set_page_size(2);
  std::vector<std::string> aliases;
  for (;;) {
    const auto page = Call(*stub_, &Stub::ListQuantizeJobs, request);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_EQ(page->total_size(), 5);
    for (const auto& job : page->quantize_jobs()) aliases.push_back(job.alias());
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
  }
  EXPECT_EQ(aliases, (std::vector<std::string>{"m:v4", "m:v3", "m:v2", "m:v1", "m:v0"}));
  v1::ListQuantizeJobsRequest filtered;
  filtered.set_filter("alias = \"m:v1\" AND state = QUEUED");
  const auto found = Call(*stub_, &Stub::ListQuantizeJobs, filtered);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->quantize_jobs_size(), 1);
  filtered.set_page_token(request.page_token());
  EXPECT_EQ(Call(*stub_, &Stub::ListQuantizeJobs, filtered).status().code(),
            absl::StatusCode::kInvalidArgument);
  filtered.clear_page_token();
  filtered.set_filter("nonsense !!");
  EXPECT_EQ(rpc::Field(Call(*stub_, &Stub::ListQuantizeJobs, filtered).status()), "filter");
  filtered.clear_filter();
  filtered.set_page_size(-1);
  EXPECT_EQ(rpc::Field(Call(*stub_, &Stub::ListQuantizeJobs, filtered).status()), "page_size");
  const auto operations = Call(*operations_, &Operations::ListOperations, lro::ListOperationsRequest());
  ASSERT_TRUE(operations.ok());
  EXPECT_EQ(operations->operations_size(), 5);
}

TEST_F(Quantize, BadNamesAreRefused) {
  Start(false);
  for (const char* name : {"", "x", "quantizeJobs/", "quantizeJobs/zz", "operations/0123456789abcdef"}) {
    v1::GetQuantizeJobRequest request;
    request.set_name(name);
    EXPECT_EQ(rpc::Field(Call(*stub_, &Stub::GetQuantizeJob, request).status()), "name") << name;
    Status status;
    EXPECT_TRUE(Watch(name, &status).empty());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
  }
  Status status;
  EXPECT_TRUE(Watch("quantizeJobs/0123456789abcdef", &status).empty());
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  lro::WaitOperationRequest wait;
  wait.set_name("operations/0123456789abcdef");
  EXPECT_EQ(Call(*operations_, &Operations::WaitOperation, wait).status().code(),
            absl::StatusCode::kNotFound);
  wait.mutable_timeout()->set_seconds(-5);
  EXPECT_EQ(rpc::Field(Call(*operations_, &Operations::WaitOperation, wait).status()), "timeout");
}

TEST_F(Quantize, WaitReturnsTheStateAtItsTimeout) {
  Start(false);
  const auto operation = Submit(Request());
  lro::WaitOperationRequest wait;
  wait.set_name(operation->name());
  wait.mutable_timeout()->set_nanos(200'000'000);
  const auto waited = Call(*operations_, &Operations::WaitOperation, wait);
  ASSERT_TRUE(waited.ok()) << waited.status();
  EXPECT_FALSE(waited->done());
}

TEST_F(Quantize, WatchersThatVanish) {
  Start(false);
  const auto operation = Submit(Request());
  const std::string name = JobOf(*operation).name();
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    v1::WatchQuantizeJobRequest request;
    request.set_name(name);
    auto reader = stub_->WatchQuantizeJob(&context, request);
    v1::WatchQuantizeJobResponse message;
    if (i % 2 == 0) {
      EXPECT_TRUE(reader->Read(&message));
    }
    context.TryCancel();
    reader->Finish();
  }
  server_->Stop();
  EXPECT_EQ(
      server_->app().metrics().requests_in_flight.Value("tempera.v1.QuantizationService/WatchQuantizeJob"),
      0);
}

// The worker runs into the drain: its job waits in the queue for the next one.
TEST_F(Quantize, DrainGivesTheJobBack) {
  Start(true);
  server_->controls().until_stopped = true;
  const auto operation = Submit(Request());
  ASSERT_TRUE(operation.ok()) << operation.status();
  const std::string name = JobOf(*operation).name();
  while (Get(name).state() == v1::QuantizeJob::QUEUED) std::this_thread::yield();
  server_->Stop();
  const auto store = OpenSqliteJobStore(DataFolder{server_->data()}.jobs(), {});
  ASSERT_TRUE(store.ok()) << store.status();
  const auto job = (*store)->Get(name.substr(name.find('/') + 1));
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_TRUE(job->error.ok()) << "a drain is no failed attempt";
}

}  // namespace
}  // namespace tempera
