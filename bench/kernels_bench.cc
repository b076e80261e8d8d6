// Throughput of every usable kernel on layer shapes, in 10^9 operations a second (a multiplication and an
// addition count as two): the median of the runs, one thread.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace tempera::kernels {
namespace {

struct Shape {
  int64_t m, n, k;
};

// Seconds of one call: the median over at least 5 calls and 0.2 s.
template <typename Call>
double MedianSeconds(Call call) {
  using Clock = std::chrono::steady_clock;
  call();  // warm
  std::vector<double> seconds;
  const auto begin = Clock::now();
  while (seconds.size() < 5 || Clock::now() - begin < std::chrono::milliseconds(200)) {
    const auto start = Clock::now();
    call();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2),
                   seconds.end());
  return seconds[seconds.size() / 2];
}

void RunShape(const Shape& s, int bits, Format format) {
  std::mt19937 random(1);
  std::vector<uint8_t> a(static_cast<size_t>(s.m * s.k)), codes(static_cast<size_t>(s.n * s.k));
  std::vector<int32_t> zero(static_cast<size_t>(s.n), 1 << (bits - 1)), acc(static_cast<size_t>(s.m * s.n));
  for (uint8_t& x : a) x = static_cast<uint8_t>(random());
  for (uint8_t& x : codes) x = static_cast<uint8_t>(random() % (1u << bits));
  const PackedMatrix w = Pack(format, bits, s.n, s.k, codes.data(), zero.data());
  std::printf("%5lld %5lld %6lld  %s/%d", static_cast<long long>(s.m), static_cast<long long>(s.n),
              static_cast<long long>(s.k), FormatName(format), bits);
  for (const Kernel& kernel : Kernels()) {
    if (!kernel.usable(w)) continue;
    const double seconds = MedianSeconds(
        [&] { kernel.gemm({.m = s.m, .a = a.data(), .lda = s.k, .a_zero = 7, .w = &w, .acc = acc.data()}); });
    std::printf("  %s %.1f", kernel.name, 2e-9 * static_cast<double>(s.m * s.n * s.k) / seconds);
  }
  std::printf("\n");
}

void RunMovers() {
  const int64_t channels = 320, pixels = 4096;
  std::vector<float> x(static_cast<size_t>(channels * pixels));
  std::mt19937 random(2);
  for (float& v : x) v = static_cast<float>(random() % 1000) * 0.01f - 5.0f;
  std::vector<uint8_t> q(x.size());
  const double bytes = 4.0 * static_cast<double>(x.size());
  const double flat =
      MedianSeconds([&] { QuantizeU8(x.data(), static_cast<int64_t>(x.size()), 0.04f, 128, 256, q.data()); });
  const double turned =
      MedianSeconds([&] { QuantizeToNhwc(x.data(), channels, pixels, nullptr, 0.04f, 128, 256, q.data()); });
  const ConvShape conv{.c_in = channels,
                       .h_in = 64,
                       .w_in = 64,
                       .kh = 3,
                       .kw = 3,
                       .stride = 1,
                       .pad_top = 1,
                       .pad_left = 1,
                       .pad_bottom = 1,
                       .pad_right = 1};
  std::vector<uint8_t> columns(static_cast<size_t>(256 * conv.k()));
  const double patches = MedianSeconds([&] { Im2Col(conv, q.data(), 128, 1024, 1280, columns.data()); });
  const std::vector<uint8_t> codes(static_cast<size_t>(1024 * 64), 3);
  const std::vector<int32_t> zero(1024);
  const double pack = MedianSeconds([&] { Pack(Format::kInt8, 8, 1024, 64, codes.data(), zero.data()); });
  std::printf("read, GB/s: QuantizeU8 %.1f, QuantizeToNhwc %.1f; written: Im2Col %.1f, Pack %.1f\n",
              1e-9 * bytes / flat, 1e-9 * bytes / turned,
              1e-9 * static_cast<double>(columns.size()) / patches,
              1e-9 * static_cast<double>(codes.size()) / pack);
}

}  // namespace
}  // namespace tempera::kernels

int main() {
  using namespace tempera::kernels;
  InitCpu();
  std::printf("cpu: %s\n    m     n      k  format/bits, GOP/s on one thread\n", Cpu().text().c_str());
  struct Kind {
    int bits;
    Format format;
  };
  for (const Kind& kind :
       {Kind{8, Format::kInt8}, Kind{6, Format::kInt8}, Kind{5, Format::kInt8}, Kind{4, Format::kInt4}})
    for (const Shape& s : {Shape{1024, 64, 576}, Shape{256, 128, 1152}, Shape{64, 256, 2304},
                           Shape{1024, 320, 2880}, Shape{256, 1280, 11520}, Shape{4096, 320, 320},
                           Shape{4096, 16, 64}, Shape{16, 256, 1024}, Shape{1, 1280, 1280}})
      RunShape(s, kind.bits, kind.format);
  RunMovers();
}
