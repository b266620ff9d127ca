// A server in a process of its own, which ends with the one that watches it.
#ifndef SYNCSTATE_TESTS_SUPPORT_CHILD_PROCESS_HPP
#define SYNCSTATE_TESTS_SUPPORT_CHILD_PROCESS_HPP

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "support/process_memory.hpp"

namespace support {

/// What a child has to do: say where it listens, then serve until the parent is done with it.
class ChildDuty {
 public:
  ChildDuty(int to_parent, int from_parent) : to_parent_(to_parent), from_parent_(from_parent) {}

  void listens_at(const std::string& where) {
    if (::write(to_parent_, where.data(), where.size()) < 0) std::_Exit(1);
    ::close(to_parent_);
  }
  /// Readable, at its end, once the parent is done.
  [[nodiscard]] int end_handle() const { return from_parent_; }
  /// Waits for the next word of `ChildProcess::tell`; none once the parent is done.
  [[nodiscard]] std::optional<char> next_word() const {
    char word = 0;
    if (::read(from_parent_, &word, 1) != 1) return std::nullopt;
    return word;
  }
  void wait_for_end() const {
    while (next_word()) {
    }
  }

 private:
  int to_parent_;
  int from_parent_;
};

/// Forks; so no thread may be running when one is made.
class ChildProcess {
 public:
  /// `serve(ChildDuty&)` runs in the child.
  template <class F>
  explicit ChildProcess(F serve) {
    int up[2];
    int down[2];
    if (::pipe(up) != 0 || ::pipe(down) != 0) throw std::runtime_error("pipe failed");
    std::fflush(nullptr);
    id_ = ::fork();
    if (id_ < 0) throw std::runtime_error("fork failed");
    if (id_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(up[0]);
      ::close(down[1]);
      ChildDuty duty(up[1], down[0]);
      try {
        serve(duty);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "server: %s\n", error.what());
        std::_Exit(1);
      }
      std::_Exit(0);
    }
    ::close(up[1]);
    ::close(down[0]);
    end_ = down[1];
    char chunk[256];
    for (ssize_t size = 0; (size = ::read(up[0], chunk, sizeof chunk)) > 0;) {
      endpoint_.append(chunk, static_cast<std::size_t>(size));
    }
    ::close(up[0]);
    if (endpoint_.empty()) throw std::runtime_error("the server did not start");
  }

  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() { end(); }

  /// Has the child end, and waits for it. Returns its exit code, or minus the signal that killed it.
  int end() {
    if (end_ >= 0) {
      ::close(std::exchange(end_, -1));
      ::waitpid(id_, &status_, 0);
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }

  /// What the child said: where it listens.
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

  /// Says a word to the child, which waits for it in `ChildDuty::next_word`.
  void tell(char word) {
    if (::write(end_, &word, 1) != 1) throw std::runtime_error("the server does not listen");
  }

  /// CPU seconds used so far.
  [[nodiscard]] double cpu_seconds() const {
    clockid_t clock = 0;
    timespec time{};
    if (::clock_getcpuclockid(id_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) {
      throw std::runtime_error("the CPU time of the server can't be read");
    }
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  /// The memory of the child.
  [[nodiscard]] ProcessMemory memory() const { return ProcessMemory(in_proc("")); }
  /// What is resident now, in bytes.
  [[nodiscard]] double resident_bytes() const { return memory().resident_bytes(); }
  /// The most that was ever resident since `forget_peak`, in bytes.
  [[nodiscard]] double peak_resident_bytes() const { return memory().peak_resident_bytes(); }
  void forget_peak() const { memory().forget_peak(); }

  /// How many file descriptors the child has open.
  [[nodiscard]] std::size_t open_files() const {
    const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(in_proc("fd").c_str()), ::closedir);
    if (!folder) throw std::runtime_error("the open files of the server can't be read");
    std::size_t count = 0;
    while (const dirent* entry = ::readdir(folder.get())) count += entry->d_name[0] != '.' ? 1 : 0;
    return count;
  }

 private:
  [[nodiscard]] std::string in_proc(const char* file) const {
    return "/proc/" + std::to_string(id_) + "/" + file;
  }

  pid_t id_ = -1;
  int end_ = -1;
  int status_ = 0;
  std::string endpoint_;
};

}  // namespace support

#endif
