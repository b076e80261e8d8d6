// A small HTTP/1.1 server for probes and scrapes: GET and HEAD of a fixed set of paths, on an Asio loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>  // Boost 1.74's awaitable.hpp needs it first

#include "base/status.h"

namespace tempera::rpc {

struct HttpAnswer {
  int code = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

struct HttpOptions {
  std::string listen = "127.0.0.1:9464";  // HOST:PORT ("[::1]:9464" for IPv6); port 0: any free one
  size_t max_connections = 256;           // more wait in the kernel's queue until one closes
  size_t max_header_bytes = 8192;         // 431 beyond
  // A connection must send its whole request, and take its whole answer, within this time each; idle ones are
  // closed.
  std::chrono::milliseconds timeout{10'000};
};

struct HttpServerState;

// Anything but GET and HEAD is 405, an unknown path 404, a body 413. Handlers run on the loop's threads: they
// must not block for long.
class HttpServer {
 public:
  using Handlers = std::map<std::string, std::function<HttpAnswer()>>;

  // Unavailable names the address. The loop must outlive the server and be run by one thread.
  static Result<std::unique_ptr<HttpServer>> Start(boost::asio::io_context& loop, const HttpOptions& options,
                                                   Handlers handlers);
  // Stops listening and closes every connection. REQUIRES: on the loop's thread, or after the loop has
  // stopped.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;

 private:
  explicit HttpServer(std::shared_ptr<HttpServerState> state);
  std::shared_ptr<HttpServerState> state_;
};

// "127.0.0.1:80", "[::1]:80", ":80" (every address). InvalidArgument names the text.
struct HostPort {
  std::string host;
  std::string port;
};
Result<HostPort> ParseHostPort(const std::string& text);

}  // namespace tempera::rpc
