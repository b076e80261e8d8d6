#include "server/backend.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "base/files.h"

namespace tempera {

Status Backend::CheckServing() const {
  if (!draining) return OkStatus();
  return rpc::WithRetry(rpc::WithReason(Unavailable("server: is draining, ask another"), rpc::kDraining),
                        std::chrono::seconds(1));
}

bool Backend::PostIo(std::function<void()> work) {
  if (io_waiting.fetch_add(1) >= kMaxIoWaiting) {
    --io_waiting;
    return false;
  }
  io.Post([this, work = std::move(work)] {
    --io_waiting;
    work();
  });
  return true;
}

std::optional<RequestKey> KeyOf(std::string_view method, const google::protobuf::Message& request,
                                const std::string& request_id) {
  if (request_id.empty()) return std::nullopt;
  const std::unique_ptr<google::protobuf::Message> body(request.New());
  body->CopyFrom(request);
  if (const auto* field = body->GetDescriptor()->FindFieldByName("request_id"); field != nullptr)
    body->GetReflection()->ClearField(body.get(), field);
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in the order of their keys
    body->SerializeToCodedStream(&coded);
  }
  return RequestKey{request_id, Sha256Hex(Cat(method, "\n", bytes))};
}

Status RequestIdError(const Status& status) {
  if (!absl::IsAlreadyExists(status)) return status;
  return rpc::WithField(rpc::WithReason(status, rpc::kRequestIdReused), "request_id");
}

Result<int64_t> PageSize(int32_t page_size) {
  if (page_size < 0) return InvalidArgument("page_size: got ", page_size, ", want 0 to 1000");
  return page_size == 0 ? 50 : std::min<int64_t>(page_size, 1000);
}

std::string PageToken(const std::string& selection, const std::string& after) {
  return Cat(Sha256Hex(selection).substr(0, 16), ".", after);
}

Result<std::string> ReadPageToken(const std::string& selection, const std::string& token) {
  if (token.empty()) return std::string();
  const std::string prefix = PageToken(selection, "");
  if (!token.starts_with(prefix))
    return InvalidArgument("page_token: is of another list, want next_page_token of the same request");
  return token.substr(prefix.size());
}

}  // namespace tempera
