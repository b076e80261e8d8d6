#include "rpc/http_server.h"

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/write.hpp>
#include <future>
#include <thread>

namespace tempera::rpc {
namespace {
namespace asio = boost::asio;
using tcp = asio::ip::tcp;

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpOptions options = {}) {
    options.listen = "127.0.0.1:0";
    auto server = HttpServer::Start(loop_, options,
                                    {{"/livez",
                                      [] {
                                        return HttpAnswer{200, "ok\n"};
                                      }},
                                     {"/readyz",
                                      [] {
                                        return HttpAnswer{503, "stores: not answering\n"};
                                      }},
                                     {"/big", [] {
                                        return HttpAnswer{200, std::string(4 << 20, 'x')};
                                      }}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    thread_ = std::jthread([this] { loop_.run(); });
  }
  ~HttpServerTest() override {
    if (!thread_.joinable()) return;
    std::promise<void> gone;
    asio::post(loop_, [&] {
      server_.reset();
      gone.set_value();
    });
    gone.get_future().wait();
    guard_.reset();
    thread_.join();
  }

  tcp::socket Connect() {
    tcp::socket socket(client_);
    socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(server_->port())});
    return socket;
  }
  // Sends `bytes` and reads to the end of the connection.
  std::string Exchange(const std::string& bytes) {
    tcp::socket socket = Connect();
    boost::system::error_code error;
    asio::write(socket, asio::buffer(bytes), error);
    std::string answer;
    asio::read(socket, asio::dynamic_buffer(answer), error);
    return answer;
  }
  std::string Get(const std::string& path, const std::string& method = "GET") {
    return Exchange(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  asio::io_context loop_, client_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_ = asio::make_work_guard(loop_);
  std::unique_ptr<HttpServer> server_;
  std::jthread thread_;
};

TEST_F(HttpServerTest, AnswersItsPaths) {
  Start();
  EXPECT_EQ(Get("/livez").substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_TRUE(Get("/livez").ends_with("\r\n\r\nok\n"));
  EXPECT_TRUE(Get("/livez?verbose=1").ends_with("\r\n\r\nok\n"));
  EXPECT_EQ(Get("/readyz").substr(0, 12), "HTTP/1.1 503");
  EXPECT_EQ(Get("/nothing").substr(0, 12), "HTTP/1.1 404");
  EXPECT_EQ(Get("/").substr(0, 12), "HTTP/1.1 404");
}

TEST_F(HttpServerTest, HeadHasTheHeadersAndNoBody) {
  Start();
  const std::string answer = Get("/livez", "HEAD");
  EXPECT_NE(answer.find("Content-Length: 3\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\n")) << answer;
}

TEST_F(HttpServerTest, OtherMethodsAreRefused) {
  Start();
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE"}) {
    const std::string answer = Get("/livez", method);
    EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 405") << method;
    EXPECT_NE(answer.find("Allow: GET, HEAD"), std::string::npos);
  }
}

TEST_F(HttpServerTest, KeepsTheConnection) {
  Start();
  tcp::socket socket = Connect();
  for (int i = 0; i < 3; ++i) {
    asio::write(socket, asio::buffer(std::string("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")));
    std::string answer;
    const size_t headers = asio::read_until(socket, asio::dynamic_buffer(answer), "\r\n\r\n");
    while (answer.size() < headers + 3)
      asio::read(socket, asio::dynamic_buffer(answer), asio::transfer_exactly(1));
    EXPECT_TRUE(answer.ends_with("ok\n"));
  }
}

TEST_F(HttpServerTest, RefusesBadAndOversizedRequests) {
  Start();
  EXPECT_EQ(Exchange("GARBAGE\r\n\r\n").substr(0, 12), "HTTP/1.1 400");
  EXPECT_EQ(Exchange(std::string(100, '\0') + "\r\n\r\n").substr(0, 12), "HTTP/1.1 400");
  EXPECT_EQ(Exchange("GET /livez HTTP/1.1\r\nX: " + std::string(20'000, 'a') + "\r\n\r\n").substr(0, 12),
            "HTTP/1.1 431");
  EXPECT_EQ(Exchange("POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n").substr(0, 12),
            "HTTP/1.1 413");
  EXPECT_EQ(Get("/livez").substr(0, 12), "HTTP/1.1 200");  // and lives on
}

TEST_F(HttpServerTest, SlowClientsAreClosed) {
  Start({.timeout = std::chrono::milliseconds(50)});
  tcp::socket idle = Connect(), half = Connect();
  asio::write(half, asio::buffer(std::string("GET /livez HT")));
  for (tcp::socket* socket :
       {&idle, &half}) {  // the read returns because the server closes, or the test times out
    char byte;
    boost::system::error_code error;
    EXPECT_EQ(asio::read(*socket, asio::buffer(&byte, 1), error), 0u);
    EXPECT_TRUE(error);
  }
}

// The slow reader holds the only place, so the second client is answered only once the first was closed.
TEST_F(HttpServerTest, SlowReadersAreClosed) {
  Start({.max_connections = 1, .timeout = std::chrono::milliseconds(50)});
  tcp::socket slow = Connect();
  std::string requests;  // their answers are more than the buffers of both sockets hold
  for (int i = 0; i < 64; ++i) requests += "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
  asio::write(slow, asio::buffer(requests));
  EXPECT_TRUE(Get("/livez").ends_with("ok\n"));
}

TEST_F(HttpServerTest, MoreConnectionsThanTheBoundAreServedInTurn) {
  Start({.max_connections = 4});
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 40; ++i)
    answers.push_back(std::async(std::launch::async, [this] {
      asio::io_context io;
      tcp::socket socket(io);
      socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(server_->port())});
      asio::write(socket,
                  asio::buffer(std::string("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")));
      boost::system::error_code error;
      std::string answer;
      asio::read(socket, asio::dynamic_buffer(answer), error);
      return answer;
    }));
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ends_with("ok\n"));
}

TEST_F(HttpServerTest, TakenPortIsAnError) {
  Start();
  const auto second =
      HttpServer::Start(loop_, {.listen = "127.0.0.1:" + std::to_string(server_->port())}, {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(Message(second.status()).find("127.0.0.1:"), std::string::npos);
}

TEST(HostPort, Parses) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:80")->host, "127.0.0.1");
  EXPECT_EQ(ParseHostPort("[::1]:9464")->host, "::1");
  EXPECT_EQ(ParseHostPort("localhost:0")->port, "0");
  EXPECT_EQ(ParseHostPort(":9464")->host, "");
  for (const char* bad :
       {"", "host", "host:", "host:x", "host:70000", "::1:80", "[::1:80", "host:-1", "host:8 0"})
    EXPECT_EQ(ParseHostPort(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
}

}  // namespace
}  // namespace tempera::rpc
