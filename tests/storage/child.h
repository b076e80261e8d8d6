// Child processes that tests run, kill and put on small disks. REQUIRES of every function: no other thread is
// alive.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <random>
#include <string>

namespace tempera {

// What `fn` returned in a child; "died" where it did not come to that.
inline std::string RunInChild(const std::function<std::string()>& fn) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    const std::string text = "r" + fn();
    const ssize_t n = write(ends[1], text.data(), text.size());
    _exit(n == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text.empty() ? "died" : text.substr(1);
}

constexpr char kNoMount[] = "no mount";

// As RunInChild, with a tmpfs of `size` ("64k") on `where` that no other process sees; kNoMount where the
// kernel forbids it.
inline std::string RunOnSmallDisk(const std::filesystem::path& where, const std::string& size,
                                  const std::function<std::string()>& fn) {
  return RunInChild([&]() -> std::string {
    const std::string map = "0 " + std::to_string(getuid()) + " 1";
    if (unshare(CLONE_NEWNS) != 0) {
      if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kNoMount;
      const int file = open("/proc/self/uid_map", O_WRONLY);
      if (file < 0 || write(file, map.data(), map.size()) < 0) return kNoMount;
      close(file);
    }
    const std::string options = "size=" + size + ",mode=0777";
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", where.c_str(), "tmpfs", 0, options.c_str()) != 0)
      return kNoMount;
    return fn();
  });
}

// Runs `work` in a child, which calls its argument after each thing done, and kills it with SIGKILL at a
// random moment after a random number (at most `most`) of things. Returns how many the child is known to have
// done; a child that ends by itself (work returned) is a failure.
inline int KillAtRandom(std::mt19937& random, int most,
                        const std::function<void(const std::function<void()>&)>& work) {
  int ends[2];
  if (pipe(ends) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    work([&] {
      if (write(ends[1], "x", 1) != 1) _exit(1);
    });
    _exit(0);
  }
  close(ends[1]);
  const int wanted = std::uniform_int_distribution<int>(0, most)(random);
  int done = 0;
  char byte;
  while (done < wanted && read(ends[0], &byte, 1) == 1) ++done;
  // Somewhere inside of the next thing: up to 3 ms of turning.
  const auto turns = std::chrono::microseconds(std::uniform_int_distribution<int>(0, 3000)(random));
  for (const auto begin = std::chrono::steady_clock::now();
       std::chrono::steady_clock::now() - begin < turns;) {
  }
  kill(child, SIGKILL);
  int state = 0;
  waitpid(child, &state, 0);
  EXPECT_TRUE(WIFSIGNALED(state)) << "the child ended by itself, exit status " << WEXITSTATUS(state);
  while (read(ends[0], &byte, 1) == 1) ++done;
  close(ends[0]);
  return done;
}

}  // namespace tempera
