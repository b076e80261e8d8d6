#include "worker/worker_name.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tempera {
namespace {

std::string Host() {
  char host[256] = "worker";
  ::gethostname(host, sizeof(host) - 1);
  return host;
}

// The number in "pid:[4026531836]", or "0" where there is no /proc.
std::string PidNamespace() {
  char link[64] = {};
  if (::readlink("/proc/self/ns/pid", link, sizeof(link) - 1) < 0) return "0";
  std::string digits(link);
  std::erase_if(digits, [](char c) { return c < '0' || c > '9'; });
  return digits;
}

// When process `pid` started, in clock ticks since boot; empty: there is none, or it is a zombie.
std::string StartOf(std::string_view pid) {
  std::ifstream file(Cat("/proc/", pid, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return "";
  // "<pid> (<name, may hold anything>) <state> ...": the start is the 22nd field, the state the third.
  std::istringstream fields(line.substr(std::min(line.size(), line.rfind(')') + 1)));
  std::string field, state;
  for (int i = 3; i <= 22 && fields >> field; ++i)
    if (i == 3) state = field;
  return state == "Z" || state == "X" ? "" : field;
}

}  // namespace

std::string ThisWorkerName() {
  const std::string pid = Cat(::getpid());
  return Cat(Host(), ":", pid, ":", PidNamespace(), ".", StartOf(pid));
}

bool IsDeadWorker(const std::string& name) {
  const std::string host = Cat(Host(), ":");
  if (!name.starts_with(host)) return false;
  const size_t colon = name.find(':', host.size());
  const size_t dot = colon == std::string::npos ? colon : name.find('.', colon);
  if (dot == std::string::npos) return false;
  const std::string pid = name.substr(host.size(), colon - host.size());
  const bool number = !pid.empty() && pid.size() < 11 &&
                      std::all_of(pid.begin(), pid.end(), [](char c) { return c >= '0' && c <= '9'; });
  const std::string start = name.substr(dot + 1);
  if (!number || start.empty() || name.substr(colon + 1, dot - colon - 1) != PidNamespace()) return false;
  return StartOf(pid) != start;
}

}  // namespace tempera
