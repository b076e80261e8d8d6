// Calls to a TestServer in one line each.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "rpc/status_map.h"
#include "tempera/v1/generation.grpc.pb.h"

namespace tempera::testing {

// A unary call's answer, or its error with details.
template <typename Stub, typename Request, typename Response>
Result<Response> Call(Stub& stub,
                      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                      const Request& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return rpc::FromGrpc(status);
  return response;
}

// All events of a generation.
struct Generated {
  std::vector<v1::GenerateResponse> events;
  Status status;
  std::map<std::string, std::string> trailers;

  std::vector<v1::Progress> progress() const {
    std::vector<v1::Progress> all;
    for (const auto& e : events)
      if (e.has_progress()) all.push_back(e.progress());
    return all;
  }
  // The files, put together again; checks offsets and digests.
  std::vector<std::string> images() const;
  const v1::Accepted& accepted() const { return events.at(0).accepted(); }
  const v1::Summary& summary() const { return events.back().summary(); }
};

inline Generated Generate(const std::shared_ptr<grpc::Channel>& channel, const v1::GenerateRequest& request) {
  const auto stub = v1::GenerationService::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  auto reader = stub->Generate(&context, request);
  Generated all;
  for (v1::GenerateResponse event; reader->Read(&event);) all.events.push_back(event);
  all.status = rpc::FromGrpc(reader->Finish());
  for (const auto& [key, value] : context.GetServerTrailingMetadata())
    all.trailers.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  return all;
}

inline v1::GenerateRequest GenerateOf(const std::string& ref, int64_t class_label = -1, uint64_t seed = 1) {
  v1::GenerateRequest request;
  request.set_ref(ref);
  request.set_seed(seed);
  if (class_label >= 0) request.set_class_label(class_label);
  return request;
}

}  // namespace tempera::testing
