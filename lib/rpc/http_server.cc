#include "rpc/http_server.h"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>

namespace tempera::rpc {
namespace {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using Code = beast::error_code;
}  // namespace

Result<HostPort> ParseHostPort(const std::string& text) {
  const auto bad = [&] {
    return InvalidArgument("address: got \"", text, "\", want HOST:PORT, [IPV6]:PORT or :PORT");
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad();
  HostPort parts{text.substr(0, colon), text.substr(colon + 1)};
  if (parts.host.size() >= 2 && parts.host.front() == '[' && parts.host.back() == ']') {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos || parts.host.find('[') != std::string::npos) {
    return bad();
  }
  if (parts.port.empty() || parts.port.size() > 5 ||
      parts.port.find_first_not_of("0123456789") != std::string::npos || std::stoi(parts.port) > 65535)
    return bad();
  return parts;
}

class HttpConnection;

struct HttpServerState : std::enable_shared_from_this<HttpServerState> {
  HttpServerState(asio::io_context& io, const HttpOptions& o, HttpServer::Handlers h)
      : options(o), handlers(std::move(h)), acceptor(io), retry(io) {}

  void Accept();
  void Left(HttpConnection* connection);

  const HttpOptions options;
  const HttpServer::Handlers handlers;
  tcp::acceptor acceptor;
  asio::steady_timer retry;
  std::set<HttpConnection*> open;
  bool accepting = false;
  bool closed = false;
};

// One client: request, answer, request ... until it closes, errs or times out. Keeps itself alive by its
// pending operation.
class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(tcp::socket socket, std::shared_ptr<HttpServerState> state)
      : stream_(std::move(socket)), state_(std::move(state)) {
    state_->open.insert(this);
  }
  ~HttpConnection() { state_->Left(this); }

  void Read() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(state_->options.max_header_bytes));
    parser_->body_limit(1024);
    stream_.expires_after(state_->options.timeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](Code error, size_t) { self->OnRead(error); });
  }
  void Close() {
    Code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void OnRead(Code error) {
    if (state_->closed) return Close();
    if (error == http::error::header_limit) return Answer({431, "headers: too long\n"}, false, 11);
    if (error == http::error::body_limit) return Answer({413, "body: not wanted\n"}, false, 11);
    // Other errors of the parser's own: the client does not speak HTTP. Of the socket: it is gone or too
    // slow.
    if (error && error.category() == http::make_error_code(http::error::bad_method).category() &&
        error != http::error::end_of_stream && error != http::error::partial_message)
      return Answer({400, "request: cannot be parsed\n"}, false, 11);
    if (error) return Close();
    const auto& request = parser_->get();
    const bool head = request.method() == http::verb::head;
    if (!head && request.method() != http::verb::get)
      return Answer({405, "method: want GET or HEAD\n"}, request.keep_alive(), request.version());
    std::string path(request.target());
    path = path.substr(0, path.find('?'));
    const auto it = state_->handlers.find(path);
    HttpAnswer answer = it == state_->handlers.end() ? HttpAnswer{404, "path: not found\n"} : it->second();
    Answer(std::move(answer), request.keep_alive(), request.version(), head);
  }

  void Answer(HttpAnswer answer, bool keep_alive, unsigned version, bool head = false) {
    response_.emplace();
    response_->version(version);
    response_->result(static_cast<unsigned>(answer.code));
    response_->set(http::field::content_type, answer.content_type);
    response_->set(http::field::cache_control, "no-store");
    if (answer.code == 405) response_->set(http::field::allow, "GET, HEAD");
    response_->keep_alive(keep_alive);
    response_->body() = std::move(answer.body);
    response_->prepare_payload();
    if (head) {  // the headers of the GET, without its body
      response_->body().clear();
    }
    stream_.expires_after(state_->options.timeout);
    serializer_.emplace(*response_);
    const auto done = [self = shared_from_this(), keep_alive](Code error, size_t) {
      if (error || !keep_alive || self->state_->closed) return self->Finish();
      self->Read();
    };
    if (head) {
      serializer_->split(true);
      http::async_write_header(stream_, *serializer_, done);
    } else {
      http::async_write(stream_, *serializer_, done);
    }
  }
  void Finish() {
    Code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }

  beast::tcp_stream stream_;
  std::shared_ptr<HttpServerState> state_;
  beast::flat_buffer buffer_{64 * 1024};
  std::optional<http::request_parser<http::string_body>> parser_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
};

void HttpServerState::Accept() {
  if (closed || accepting || open.size() >= options.max_connections) return;
  accepting = true;
  acceptor.async_accept([self = shared_from_this()](Code error, tcp::socket socket) {
    self->accepting = false;
    if (self->closed) return;
    if (!error) {
      std::make_shared<HttpConnection>(std::move(socket), self)->Read();
      return self->Accept();
    }
    // Out of descriptors or the like: it would fail again at once.
    self->retry.expires_after(std::chrono::milliseconds(100));
    self->retry.async_wait([self](Code wait_error) {
      if (!wait_error) self->Accept();
    });
  });
}

void HttpServerState::Left(HttpConnection* connection) {
  open.erase(connection);
  Accept();
}

HttpServer::HttpServer(std::shared_ptr<HttpServerState> state) : state_(std::move(state)) {}

Result<std::unique_ptr<HttpServer>> HttpServer::Start(asio::io_context& loop, const HttpOptions& options,
                                                      Handlers handlers) {
  TEMPERA_ASSIGN(const HostPort where, ParseHostPort(options.listen));
  Code error;
  tcp::endpoint endpoint;
  if (where.host.empty()) {
    endpoint = tcp::endpoint(tcp::v6(), static_cast<uint16_t>(std::stoi(where.port)));  // both families
  } else {
    tcp::resolver resolver(loop);
    const auto found = resolver.resolve(where.host, where.port, tcp::resolver::passive, error);
    if (error || found.empty()) return Unavailable("listen ", options.listen, ": ", error.message());
    endpoint = *found.begin();
  }
  auto state = std::make_shared<HttpServerState>(loop, options, std::move(handlers));
  const auto fail = [&] { return Unavailable("listen ", options.listen, ": ", error.message()); };
  state->acceptor.open(endpoint.protocol(), error);
  if (error && where.host.empty()) {  // a machine without IPv6
    endpoint = tcp::endpoint(tcp::v4(), endpoint.port());
    state->acceptor.open(endpoint.protocol(), error);
  }
  if (error) return fail();
  state->acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (endpoint.protocol() == tcp::v6() && where.host.empty())
    state->acceptor.set_option(asio::ip::v6_only(false), error);
  if (state->acceptor.bind(endpoint, error); error) return fail();
  if (state->acceptor.listen(asio::socket_base::max_listen_connections, error); error) return fail();
  state->Accept();
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::~HttpServer() {
  state_->closed = true;
  Code ignored;
  state_->acceptor.close(ignored);
  state_->retry.cancel();
  for (HttpConnection* connection : state_->open) connection->Close();
}

int HttpServer::port() const {
  Code ignored;
  return state_->acceptor.local_endpoint(ignored).port();
}

}  // namespace tempera::rpc
