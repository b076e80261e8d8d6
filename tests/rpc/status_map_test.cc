#include "rpc/status_map.h"

#include <google/rpc/error_details.pb.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "tempera/v1/generation.pb.h"
#include "tempera/v1/quantization.pb.h"

namespace tempera::rpc {
namespace {

template <typename Detail>
std::vector<Detail> Details(const grpc::Status& status) {
  google::rpc::Status proto;
  EXPECT_TRUE(proto.ParseFromString(status.error_details()));
  EXPECT_EQ(proto.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(proto.message(), status.error_message());
  std::vector<Detail> found;
  for (const auto& any : proto.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) found.push_back(detail);
  }
  return found;
}

TEST(StatusMap, OkHasNoDetails) {
  EXPECT_TRUE(ToGrpc(OkStatus()).ok());
  EXPECT_TRUE(ToGrpc(OkStatus()).error_details().empty());
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
}

TEST(StatusMap, EveryCodeHasExactlyOneErrorInfoWithALegalReason) {
  for (int code = 1; code <= 16; ++code) {
    const grpc::Status status = ToGrpc(Status(static_cast<absl::StatusCode>(code), "thing: wrong"));
    EXPECT_EQ(static_cast<int>(status.error_code()), code);
    const auto infos = Details<google::rpc::ErrorInfo>(status);
    ASSERT_EQ(infos.size(), 1u) << code;
    EXPECT_EQ(infos[0].domain(), "tempera");
    EXPECT_TRUE(std::regex_match(infos[0].reason(), std::regex("[A-Z][A-Z0-9_]{1,61}[A-Z0-9]")))
        << infos[0].reason();
    EXPECT_EQ(Details<google::rpc::RetryInfo>(status).size(), code == 14 ? 1u : 0u) << code;
  }
}

TEST(StatusMap, FieldNamedByTheTextBecomesAViolation) {
  const auto* request = tempera::v1::QuantizeRequest::descriptor();
  const auto field = [&](const std::string& text) {
    const auto bad = Details<google::rpc::BadRequest>(ToGrpc(InvalidArgument(text), request));
    return bad.empty() ? std::string() : bad[0].field_violations(0).field();
  };
  EXPECT_EQ(field("model: is empty"), "model");
  EXPECT_EQ(field("weight_bits: got 3, want 4, 5, 6 or 8"),
            "spec.weight_bits");  // not the deeper one of overrides
  EXPECT_EQ(field("spec.steps: got 0"), "spec.steps");
  EXPECT_EQ(field("overrides[2].slot: unknown"), "spec.overrides.slot");
  EXPECT_EQ(field("unet/config.json: in_channels: got 0"), "");
  EXPECT_EQ(field("no colon here"), "");
  EXPECT_EQ(field("nothing: of the name"), "");
  EXPECT_EQ(field(": empty"), "");
  const auto info = Details<google::rpc::ErrorInfo>(ToGrpc(InvalidArgument("steps: got 0"), request));
  EXPECT_EQ(info.at(0).reason(), kInvalidField);
  EXPECT_EQ(info.at(0).metadata().at("field"), "spec.steps");
}

TEST(StatusMap, OtherCodesNameNoField) {
  const auto status = ToGrpc(NotFound("model: is not there"), tempera::v1::QuantizeRequest::descriptor());
  EXPECT_TRUE(Details<google::rpc::BadRequest>(status).empty());
}

TEST(StatusMap, FactsTravelThereAndBack) {
  Status status = ResourceExhausted("queue: full, got 64 waiting, want at most 64");
  status = WithReason(status, kQueueFull);
  status = WithRetry(status, std::chrono::milliseconds(1500));
  status = WithResource(status, "model", "fashion");
  status = WithField(status, "ref");
  const grpc::Status wire = ToGrpc(status, nullptr, "req-1");
  EXPECT_EQ(Details<google::rpc::RetryInfo>(wire).at(0).retry_delay().nanos(), 500'000'000);
  EXPECT_EQ(Details<google::rpc::ResourceInfo>(wire).at(0).resource_name(), "fashion");
  EXPECT_EQ(Details<google::rpc::RequestInfo>(wire).at(0).request_id(), "req-1");
  const Status back = FromGrpc(wire);
  EXPECT_EQ(back.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Message(back), Message(status));
  EXPECT_EQ(Reason(back), kQueueFull);
  EXPECT_EQ(RetryDelay(back), std::chrono::milliseconds(1500));
  EXPECT_EQ(Field(back), "ref");
}

TEST(StatusMap, EachTypeAtMostOnce) {
  Status status = WithRetry(WithReason(Unavailable("x: y"), kDraining), std::chrono::seconds(1));
  status = WithRetry(WithReason(status, kQueueFull), std::chrono::seconds(2));
  google::rpc::Status proto = ToProto(status, nullptr, "id");
  std::set<std::string> types;
  for (const auto& any : proto.details()) EXPECT_TRUE(types.insert(any.type_url()).second) << any.type_url();
  EXPECT_EQ(Reason(FromProto(proto)), kQueueFull);
}

TEST(StatusMap, TextsAreCutAndAlwaysUtf8) {
  std::string wild;
  for (int i = 0; i < 5000; ++i) wild.push_back(static_cast<char>(i * 37));
  const google::rpc::Status proto = ToProto(InvalidArgument(wild));
  EXPECT_LE(proto.message().size(), 2048u);
  google::rpc::Status again;  // a proto3 string that is not UTF-8 does not parse
  EXPECT_TRUE(again.ParseFromString(proto.SerializeAsString()));
  // Two, three and four bytes pass; overlong, surrogate, beyond the last and cut ones do not.
  EXPECT_EQ(ToProto(InvalidArgument("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80")).message(),
            "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80");
  EXPECT_EQ(ToProto(InvalidArgument("\xC0\xAF|\xED\xA0\x80|\xF4\x90\x80\x80|\xE2\x82")).message(),
            "??|???|????|??");
}

TEST(StatusMap, ForeignStatusKeepsCodeAndText) {
  const Status status = FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "boom", "not a proto \xff"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Message(status), "boom");
  EXPECT_FALSE(Reason(status));
}

TEST(StatusMap, FieldSearchTakesTheLeastNested) {
  const auto* request = tempera::v1::QuantizeRequest::descriptor();
  EXPECT_EQ(FindField(*request, "model"), "model");
  EXPECT_EQ(FindField(*request, "slot"), "spec.overrides.slot");
  EXPECT_EQ(FindField(*request, "weight_bits"), "spec.weight_bits");
  EXPECT_EQ(FindField(*request, "overrides.slot"), "spec.overrides.slot");
  EXPECT_EQ(FindField(*request, "overrides.other"), "");
  EXPECT_EQ(FindField(*request, ""), "");
  // `eta` is in the accepted event's schedule alone, `picture` in several events of the same depth.
  const auto* response = tempera::v1::GenerateResponse::descriptor();
  EXPECT_EQ(FindField(*response, "eta"), "accepted.schedule.eta");
  EXPECT_EQ(FindField(*response, "picture"), "");
}

}  // namespace
}  // namespace tempera::rpc
