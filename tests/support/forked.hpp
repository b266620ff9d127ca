// Code that runs in a child made by fork(), under a time limit.
#ifndef SYNCSTATE_TESTS_SUPPORT_FORKED_HPP
#define SYNCSTATE_TESTS_SUPPORT_FORKED_HPP

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include "support/sanitized.hpp"

namespace support {

/// False with AddressSanitizer: up to Clang 17 its allocator does not survive fork() while another thread allocates. The
/// child then finds a mutex of the allocator locked by a thread that it does not have. Tests of fork() beside threads
/// that never pause run without these threads there.
constexpr bool threads_may_allocate_during_fork = !has_address_sanitizer;

/// Set in every child made by `run_forked`. A leak check there would report what the parent's threads hold on their
/// stacks, because these threads do not exist there. Everything else that AddressSanitizer finds is still reported.
inline bool is_forked_child = false;

/// What became of a child.
struct ForkedEnd {
  bool is_in_time = false;
  int status = 0;    ///< as waitpid gives it
  std::string said;  ///< all that it wrote to its report

  /// Returns whether it ended by itself, with exit code 0 and without complaints.
  [[nodiscard]] bool is_good() const {
    return is_in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0 && said.empty();
  }
  [[nodiscard]] std::string text() const {
    if (!is_in_time) return "it did not end in time; it said: " + said;
    if (WIFSIGNALED(status)) return "signal " + std::to_string(WTERMSIG(status)) + "; it said: " + said;
    return "exit code " + std::to_string(WEXITSTATUS(status)) + "; it said: " + said;
  }
};

/// Takes the complaints of a child.
class ForkedReport {
 public:
  explicit ForkedReport(int handle) : handle_(handle) {}

  void complain(const std::string& text) const {
    const std::string line = text + "\n";
    if (::write(handle_, line.data(), line.size()) < 0) std::_Exit(3);
  }
  void expect(bool is_true, const std::string& text) const {
    if (!is_true) complain("not so: " + text);
  }

 private:
  int handle_;
};

/// Forks; the child runs `f(const ForkedReport&)` and leaves by `std::exit(0)`. Waits for it, up to `limit`, and kills
/// it then.
template <class F>
ForkedEnd run_forked(F f, std::chrono::seconds limit = std::chrono::seconds(60)) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  std::fflush(nullptr);
  const pid_t id = ::fork();
  if (id < 0) throw std::runtime_error("fork failed");
  if (id == 0) {
    is_forked_child = true;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(report[0]);
    const ForkedReport out(report[1]);
    try {
      f(out);
    } catch (const std::exception& error) {
      out.complain(std::string("thrown: ") + error.what());
    }
    std::exit(0);
  }
  ::close(report[1]);
  ForkedEnd end;
  const auto until = std::chrono::steady_clock::now() + limit;
  for (;;) {  // the report ends with the last process that has it
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    pollfd ready{report[0], POLLIN, 0};
    const int found = left.count() > 0 ? ::poll(&ready, 1, static_cast<int>(left.count())) : 0;
    if (found < 0 && errno == EINTR) continue;
    if (found <= 0) break;
    char chunk[512];
    const ssize_t size = ::read(report[0], chunk, sizeof chunk);
    if (size <= 0) {
      end.is_in_time = true;
      break;
    }
    end.said.append(chunk, static_cast<std::size_t>(size));
  }
  if (!end.is_in_time) ::kill(id, SIGKILL);
  ::waitpid(id, &end.status, 0);
  ::close(report[0]);
  return end;
}

}  // namespace support

#if SYNCSTATE_TESTS_HAVE_ADDRESS_SANITIZER
// LeakSanitizer asks this when it is about to look.
extern "C" __attribute__((used, weak)) int __lsan_is_turned_off() { return support::is_forked_child ? 1 : 0; }
#endif

#endif
