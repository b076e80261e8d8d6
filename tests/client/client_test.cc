#include "client/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <regex>
#include <set>

#include "base/files.h"
#include "client/fake_server.h"
#include "client/json_view.h"

namespace tempera {
namespace {

using std::chrono::milliseconds;

std::unique_ptr<Client> Connect(const FakeServer& server) {
  auto client = Client::Create({.server = server.address(), .pause = milliseconds(1)});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

// A generation that sends `events`.
FakeHandlers Sending(std::vector<v1::GenerateResponse> events) {
  FakeHandlers h;
  h.generate = [events](grpc::ServerContext*, const v1::GenerateRequest&,
                        grpc::ServerWriter<v1::GenerateResponse>* w) {
    for (const auto& e : events) w->Write(e);
    return grpc::Status::OK;
  };
  return h;
}

struct Outcome {
  Result<v1::Summary> summary;
  std::vector<ReceivedPicture> pictures;
};

Outcome Generate(const std::vector<v1::GenerateResponse>& events) {
  FakeServer server(Sending(events));
  std::vector<ReceivedPicture> pictures;
  auto summary = Connect(server)->Generate({}, {}, {.on_picture = [&](const ReceivedPicture& p) {
                                             pictures.push_back(p);
                                             return OkStatus();
                                           }});
  return {std::move(summary), std::move(pictures)};
}

// Index of the last event that is a piece of a picture.
size_t LastPiece(const std::vector<v1::GenerateResponse>& events) { return events.size() - 2; }

TEST(Client, RefusesAnAddressWithoutPort) {
  for (const char* address : {"", "localhost", "localhost:", ":5", "host:0", "host:70000", "host:5x"})
    EXPECT_EQ(Client::Create({.server = address}).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
}

TEST(Client, RequestIdsAreRandomUuids) {
  std::set<std::string> seen;
  const std::regex form("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  for (int i = 0; i < 1000; ++i) {
    const std::string id = NewRequestId();
    EXPECT_TRUE(std::regex_match(id, form)) << id;
    seen.insert(id);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Client, TriesAgainOnUnavailableWithTheSameRequestId) {
  std::vector<std::string> ids;
  FakeHandlers h;
  h.set_alias = [&](const v1::SetAliasRequest& q, v1::Alias* a) {
    ids.push_back(q.request_id());
    if (ids.size() < 3) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    a->set_alias(q.alias());
    return grpc::Status::OK;
  };
  FakeServer server(h);
  v1::SetAliasRequest request;
  request.set_alias("a:b");
  const auto alias = Connect(server)->SetAlias({}, request);
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(alias->alias(), "a:b");
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_EQ(ids[0].size(), 36u);
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[0], ids[2]);
}

TEST(Client, GivesUpAfterItsTries) {
  int calls = 0;
  FakeHandlers h;
  h.get_job = [&](const v1::GetQuantizeJobRequest&, v1::QuantizeJob*) {
    ++calls;
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  };
  FakeServer server(h);
  EXPECT_EQ(Connect(server)->GetJob({}, "quantizeJobs/1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls, ClientOptions().attempts);
}

TEST(Client, TriesNothingElseAgain) {
  for (int code = 1; code <= 16; ++code) {
    if (code == grpc::StatusCode::UNAVAILABLE) continue;
    int calls = 0;
    FakeHandlers h;
    h.get_job = [&](const v1::GetQuantizeJobRequest&, v1::QuantizeJob*) {
      ++calls;
      return grpc::Status(static_cast<grpc::StatusCode>(code), "no");
    };
    FakeServer server(h);
    const Status status = Connect(server)->GetJob({}, "quantizeJobs/1").status();
    EXPECT_EQ(static_cast<int>(status.code()), code);
    EXPECT_EQ(calls, 1) << code;
  }
}

TEST(Client, TheServersRetryInfoIsObeyed) {
  int calls = 0;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(3600);
  FakeHandlers h;
  h.get_job = [&](const v1::GetQuantizeJobRequest&, v1::QuantizeJob*) {
    ++calls;
    return RichError(grpc::StatusCode::UNAVAILABLE, "draining", {&retry});
  };
  FakeServer server(h);
  // An hour does not fit into the call's 30 seconds, so it is not tried again and the error comes at once.
  EXPECT_EQ(Connect(server)->GetJob({}, "quantizeJobs/1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls, 1);
}

TEST(Client, AnErrorKeepsItsDetails) {
  google::rpc::ErrorInfo info;
  info.set_reason("UNKNOWN_METHOD");
  info.set_domain("tempera");
  (*info.mutable_metadata())["field"] = "method";
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("spec.method");
  violation->set_description("got magic, want tfmq");
  FakeHandlers h;
  h.quantize = [&](const v1::QuantizeRequest&, google::longrunning::Operation*) {
    return RichError(grpc::StatusCode::INVALID_ARGUMENT, "spec: the method is unknown", {&info, &bad});
  };
  FakeServer server(h);
  const Status status = Connect(server)->Quantize({}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const ErrorDetails d = DetailsOf(status);
  EXPECT_EQ(d.reason, "UNKNOWN_METHOD");
  EXPECT_EQ(d.metadata.at("field"), "method");
  ASSERT_EQ(d.fields.size(), 1u);
  EXPECT_EQ(d.fields[0].path, "spec.method");
  EXPECT_EQ(ErrorText(status),
            "spec: the method is unknown\n  spec.method: got magic, want tfmq\n  (INVALID_ARGUMENT, "
            "UNKNOWN_METHOD)");
  EXPECT_EQ(ErrorJson(status)["fields"][0]["description"], "got magic, want tfmq");
}

TEST(Client, ADeadlineEndsACall) {
  FakeHandlers h;
  h.generate = [](grpc::ServerContext* c, const v1::GenerateRequest&,
                  grpc::ServerWriter<v1::GenerateResponse>* w) {
    while (!c->IsCancelled()) w->Write(v1::GenerateResponse());
    return grpc::Status::CANCELLED;
  };
  FakeServer server(h);
  CallScope scope;
  scope.deadline = CallScope::Clock::now() + milliseconds(50);
  EXPECT_EQ(Connect(server)->Generate(scope, {}, {}).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(Client, AStopRequestCancelsAStreamOnTheServer) {
  std::atomic<bool> cancelled{false};
  FakeHandlers h;
  h.generate = [&](grpc::ServerContext* c, const v1::GenerateRequest&,
                   grpc::ServerWriter<v1::GenerateResponse>* w) {
    v1::GenerateResponse e;
    e.mutable_accepted();
    w->Write(e);
    while (!c->IsCancelled()) w->Write(v1::GenerateResponse());
    cancelled = true;
    return grpc::Status::CANCELLED;
  };
  std::stop_source stop;
  {
    FakeServer server(h);
    const auto result = Connect(server)->Generate(
        {.stop = stop.get_token()}, {}, {.on_accepted = [&](const v1::Accepted&) { stop.request_stop(); }});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  }
  EXPECT_TRUE(cancelled);
}

TEST(Client, PiecesBecomeThePicture) {
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes += static_cast<char>(i * 31 >> 3);
  for (const size_t piece : {bytes.size(), size_t{1 << 14}, size_t{7777}}) {
    const Outcome o = Generate(GenerationOf(bytes, 7, piece));
    ASSERT_TRUE(o.summary.ok()) << o.summary.status();
    ASSERT_EQ(o.pictures.size(), 1u);
    EXPECT_EQ(o.pictures[0].bytes, bytes);
    EXPECT_EQ(o.pictures[0].seed, 7u);
  }
}

TEST(Client, ADamagedPictureIsDataLoss) {
  const auto sound = GenerationOf("a picture's bytes", 7, 5);
  const size_t last = LastPiece(sound);
  std::vector<std::pair<const char*, std::vector<v1::GenerateResponse>>> cases;
  auto add = [&](const char* name) -> std::vector<v1::GenerateResponse>& {
    return cases.emplace_back(name, sound).second;
  };
  auto flipped = [](std::string data) {
    data[0] ^= 1;
    return data;
  };
  auto& byte = add("flipped byte")[last];
  byte.mutable_image()->set_data(flipped(byte.image().data()));
  add("other digest")[last].mutable_image()->set_sha256(std::string(64, '0'));
  add("no digest")[last].mutable_image()->clear_sha256();
  add("gap")[last].mutable_image()->set_offset(16);
  add("too long")[last].mutable_image()->mutable_data()->append("x");
  add("too short")[last].mutable_image()->mutable_data()->pop_back();
  add("negative size")[last].mutable_image()->set_total_bytes(-1);
  add("another size")[last].mutable_image()->set_total_bytes(18);
  add("another picture between")[last].mutable_image()->set_picture(1);
  add("last piece missing").erase(cases.back().second.begin() + static_cast<std::ptrdiff_t>(last));
  add("summary missing").pop_back();
  add("summary of another picture")
      .back()
      .mutable_summary()
      ->mutable_pictures(0)
      ->set_sha256(std::string(64, '0'));
  add("empty summary").back().mutable_summary()->clear_pictures();
  for (const auto& [name, events] : cases)
    EXPECT_EQ(Generate(events).summary.status().code(), absl::StatusCode::kDataLoss) << name;
  for (const auto& [name, events] : cases) {
    if (std::string(name).starts_with("summary") || std::string(name).starts_with("empty")) continue;
    EXPECT_TRUE(Generate(events).pictures.empty()) << name;
  }
}

TEST(Client, AnErrorAfterTheFirstEventIsNotTriedAgain) {
  int calls = 0;
  FakeHandlers h;
  h.generate = [&](grpc::ServerContext*, const v1::GenerateRequest&,
                   grpc::ServerWriter<v1::GenerateResponse>* w) {
    ++calls;
    v1::GenerateResponse e;
    e.mutable_accepted();
    w->Write(e);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  };
  FakeServer server(h);
  EXPECT_EQ(Connect(server)->Generate({}, {}, {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(calls, 1);
}

TEST(Client, WatchingOutlivesServersThatGoAway) {
  int calls = 0;
  FakeHandlers h;
  h.watch_job = [&](grpc::ServerContext*, const v1::WatchQuantizeJobRequest& q,
                    grpc::ServerWriter<v1::WatchQuantizeJobResponse>* w) {
    ++calls;
    v1::WatchQuantizeJobResponse m;
    m.mutable_job()->set_name(q.name());
    m.mutable_job()->set_units_done(calls);
    m.mutable_job()->set_state(calls < 9 ? v1::QuantizeJob::RUNNING : v1::QuantizeJob::SUCCEEDED);
    w->Write(m);
    if (calls == 8) return grpc::Status::OK;         // a polite end before the job's
    if (calls == 7) return grpc::Status::CANCELLED;  // what gRPC's shutdown does to a call
    return calls < 9 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "killed") : grpc::Status::OK;
  };
  FakeServer server(h);
  std::vector<int64_t> seen;
  const auto job = Connect(server)->WatchJob(
      {}, "quantizeJobs/1", [&](const v1::QuantizeJob& j) { seen.push_back(j.units_done()); });
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::QuantizeJob::SUCCEEDED);
  EXPECT_EQ(seen, (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(Client, WatchingAnUnknownJobIsNotFound) {
  FakeHandlers h;
  h.watch_job = [](grpc::ServerContext*, const v1::WatchQuantizeJobRequest&,
                   grpc::ServerWriter<v1::WatchQuantizeJobResponse>*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "job 1: not found");
  };
  FakeServer server(h);
  EXPECT_EQ(Connect(server)->WatchJob({}, "quantizeJobs/1", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST(Client, AReportsFilesArriveWhole) {
  const std::vector<std::pair<std::string, std::string>> files{
      {"report.html", std::string(5000, 'h')}, {"pictures/0.png", ""}, {"report.json", "{}"}};
  FakeHandlers h;
  h.report = [&](grpc::ServerContext*, const v1::GetQualityReportRequest&,
                 grpc::ServerWriter<v1::GetQualityReportResponse>* w) {
    for (const auto& [path, bytes] : files) {
      size_t offset = 0;
      do {
        v1::GetQualityReportResponse m;
        m.set_path(path);
        m.set_total_bytes(static_cast<int64_t>(bytes.size()));
        m.set_offset(static_cast<int64_t>(offset));
        m.set_data(bytes.substr(offset, 1024));
        offset += 1024;
        m.set_last(offset >= bytes.size());
        if (m.last()) m.set_sha256(Sha256Hex(bytes));
        w->Write(m);
      } while (offset < bytes.size());
    }
    return grpc::Status::OK;
  };
  FakeServer server(h);
  std::vector<std::pair<std::string, std::string>> got;
  const Status status = Connect(server)->GetReport({}, {}, [&](const ReportFile& f) {
    got.emplace_back(f.path, f.bytes);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(got, files);
}

TEST(JsonView, NumbersTimesAndAbsentFieldsAreScriptable) {
  v1::QuantizeJob job;
  job.set_name("quantizeJobs/1");
  job.set_state(v1::QuantizeJob::RUNNING);
  job.set_units_total(1ll << 60);
  job.mutable_create_time()->set_seconds(1'700'000'000);
  job.mutable_create_time()->set_nanos(123'000'000);
  job.mutable_eta()->set_seconds(90);
  job.mutable_spec()->set_eta(std::numeric_limits<double>::quiet_NaN());
  job.mutable_spec()->set_seed(~0ull);
  (*job.mutable_labels())["team"] = "vision";
  const Json json = ToJson(job);
  EXPECT_EQ(json["state"], "RUNNING");
  EXPECT_EQ(json["units_total"], 1ll << 60);
  EXPECT_EQ(json["create_time"], "2023-11-14T22:13:20.123Z");
  EXPECT_EQ(json["eta"], 90.0);
  EXPECT_TRUE(json["end_time"].is_null());
  EXPECT_TRUE(json["spec"]["eta"].is_null());
  EXPECT_TRUE(json["spec"]["steps"].is_null());
  EXPECT_EQ(json["spec"]["seed"], ~0ull);
  EXPECT_EQ(json["labels"], (Json{{"team", "vision"}}));
  EXPECT_EQ(json["artifact"], "");
}

}  // namespace
}  // namespace tempera
