#include "client/pictures.h"

#include <absl/strings/escaping.h>
#include <fcntl.h>
#include <png.h>
#include <poll.h>
#include <sixel.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/status.h"

namespace tempera {
namespace {

// Small pictures are magnified to about this width.
constexpr uint32_t kWidth = 256;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Primary device attributes (DA1, ECMA-48 and DEC STD 070): "\x1b[?64;4;...c", where 4 stands for sixels. A
// terminal that does not answer in 300 ms has none.
bool AnswersSixel() {
  const int tty = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (tty < 0) return false;
  termios before{};
  std::string answer;
  if (tcgetattr(tty, &before) == 0) {
    termios raw = before;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(tty, TCSANOW, &raw);
    if (write(tty, "\x1b[c", 3) == 3) {
      pollfd wait{.fd = tty, .events = POLLIN, .revents = 0};
      char c = 0;
      while (answer.size() < 128 && poll(&wait, 1, 300) == 1 && read(tty, &c, 1) == 1) {
        answer += c;
        if (c == 'c') break;
      }
    }
    tcsetattr(tty, TCSANOW, &before);
  }
  close(tty);
  return answer.find(";4;") != std::string::npos || answer.ends_with(";4c");
}

struct Pixels {
  uint32_t width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

// Each pixel `times` times in either direction.
Pixels Magnified(const Pixels& p, uint32_t times) {
  Pixels out{.width = p.width * times, .height = p.height * times, .rgb = {}};
  out.rgb.reserve(size_t{3} * out.width * out.height);
  for (uint32_t y = 0; y < out.height; ++y)
    for (uint32_t x = 0; x < out.width; ++x) {
      const uint8_t* from = p.rgb.data() + size_t{3} * (size_t{y / times} * p.width + x / times);
      out.rgb.insert(out.rgb.end(), from, from + 3);
    }
  return out;
}

Pixels ReadPng(const std::string& png) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  Pixels p;
  if (png_image_begin_read_from_memory(&image, png.data(), png.size()) != 0) {
    image.format = PNG_FORMAT_RGB;
    p = {.width = image.width, .height = image.height, .rgb = std::vector<uint8_t>(PNG_IMAGE_SIZE(image))};
    if (png_image_finish_read(&image, nullptr, p.rgb.data(), 0, nullptr) == 0) p = {};
  }
  png_image_free(&image);
  return p;
}

int Append(char* data, int size, void* to) {
  static_cast<std::string*>(to)->append(data, static_cast<size_t>(size));
  return size;
}

std::string Sixels(Pixels p) {
  std::string text;
  sixel_output_t* output = nullptr;
  sixel_dither_t* dither = nullptr;
  if (SIXEL_SUCCEEDED(sixel_output_new(&output, &Append, &text, nullptr)) &&
      SIXEL_SUCCEEDED(sixel_dither_new(&dither, 256, nullptr)) &&
      SIXEL_SUCCEEDED(sixel_dither_initialize(dither, p.rgb.data(), static_cast<int>(p.width),
                                              static_cast<int>(p.height), SIXEL_PIXELFORMAT_RGB888,
                                              SIXEL_LARGE_AUTO, SIXEL_REP_AUTO, SIXEL_QUALITY_AUTO)) &&
      SIXEL_FAILED(sixel_encode(p.rgb.data(), static_cast<int>(p.width), static_cast<int>(p.height), 3,
                                dither, output)))
    text.clear();
  sixel_dither_unref(dither);
  sixel_output_unref(output);
  return text.empty() ? text : text + "\n";
}

// Source: the Kitty graphics protocol: a=T shows what is sent, f=100 is PNG, c the columns it is scaled to,
// m=1 says that more follows; at most 4096 bytes of base64 a piece.
std::string Kitty(const std::string& png, uint32_t columns) {
  const std::string data = absl::Base64Escape(png);
  constexpr size_t kPiece = 4096;
  std::string text;
  for (size_t at = 0; at < data.size(); at += kPiece) {
    text += at == 0 ? Cat("\x1b_Gf=100,a=T,c=", columns, ",m=") : std::string("\x1b_Gm=");
    text += Cat(at + kPiece < data.size() ? 1 : 0, ";", data.substr(at, kPiece), "\x1b\\");
  }
  return text + "\n";
}

}  // namespace

PictureProtocol FindPictureProtocol() {
  const std::string said = Variable("TEMPERA_PICTURES");
  if (said == "kitty") return PictureProtocol::kKitty;
  if (said == "sixel") return PictureProtocol::kSixel;
  if (said == "none" || isatty(STDERR_FILENO) == 0) return PictureProtocol::kNone;
  const std::string term = Variable("TERM"), program = Variable("TERM_PROGRAM");
  if (!Variable("KITTY_WINDOW_ID").empty() || term.find("kitty") != std::string::npos ||
      program == "WezTerm" || program == "ghostty")
    return PictureProtocol::kKitty;
  return AnswersSixel() ? PictureProtocol::kSixel : PictureProtocol::kNone;
}

std::string TerminalPicture(PictureProtocol protocol, const std::string& png) {
  if (protocol == PictureProtocol::kNone) return "";
  const Pixels p = ReadPng(png);
  if (p.rgb.empty()) return "";
  constexpr uint32_t kColumn = 10;  // pixels, about
  if (protocol == PictureProtocol::kKitty) return Kitty(png, std::max(p.width, kWidth) / kColumn);
  return Sixels(Magnified(p, std::max(1u, kWidth / p.width)));
}

}  // namespace tempera
