// Errors as values: Status and Result, and the few macros that move them.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace tempera {

using Status = absl::Status;
template <typename T>
using Result = absl::StatusOr<T>;

// Joins anything that streams into one text.
template <typename... Parts>
std::string Cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

inline Status OkStatus() { return absl::OkStatus(); }

// One function a code, taking the parts of the text. Texts read `<object>: <what>, got <x>, want <y>`: no
// trailing period and no absolute path, for they reach clients.
template <typename... P>
Status InvalidArgument(const P&... parts) {
  return absl::InvalidArgumentError(Cat(parts...));
}
template <typename... P>
Status NotFound(const P&... parts) {
  return absl::NotFoundError(Cat(parts...));
}
template <typename... P>
Status FailedPrecondition(const P&... parts) {
  return absl::FailedPreconditionError(Cat(parts...));
}
template <typename... P>
Status AlreadyExists(const P&... parts) {
  return absl::AlreadyExistsError(Cat(parts...));
}
template <typename... P>
Status DataLoss(const P&... parts) {
  return absl::DataLossError(Cat(parts...));
}
template <typename... P>
Status Internal(const P&... parts) {
  return absl::InternalError(Cat(parts...));
}
template <typename... P>
Status Unavailable(const P&... parts) {
  return absl::UnavailableError(Cat(parts...));
}
template <typename... P>
Status ResourceExhausted(const P&... parts) {
  return absl::ResourceExhaustedError(Cat(parts...));
}
template <typename... P>
Status PermissionDenied(const P&... parts) {
  return absl::PermissionDeniedError(Cat(parts...));
}

// The same code with context before the text.
template <typename... P>
Status Annotate(const Status& status, const P&... context) {
  if (status.ok()) return status;
  return Status(status.code(), Cat(context..., ": ", std::string(status.message())));
}

inline std::string Message(const Status& status) { return std::string(status.message()); }

}  // namespace tempera

#define TEMPERA_CONCAT_2_(a, b) a##b
#define TEMPERA_CONCAT_(a, b) TEMPERA_CONCAT_2_(a, b)

#define TEMPERA_TRY(expr)                              \
  do {                                                 \
    ::tempera::Status tempera_status_ = (expr);        \
    if (!tempera_status_.ok()) return tempera_status_; \
  } while (false)

#define TEMPERA_ASSIGN(decl, expr) TEMPERA_ASSIGN_(decl, expr, TEMPERA_CONCAT_(tempera_result_, __LINE__))
#define TEMPERA_ASSIGN_(decl, expr, tmp)         \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return std::move(tmp).status(); \
  decl = *std::move(tmp)

// A broken promise of our own code. Never for input, files or peers.
#define TEMPERA_CHECK(cond, what)                                                      \
  do {                                                                                 \
    if (!(cond)) [[unlikely]] {                                                        \
      std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", __FILE__, __LINE__, #cond, \
                   std::string(what).c_str());                                         \
      std::abort();                                                                    \
    }                                                                                  \
  } while (false)
