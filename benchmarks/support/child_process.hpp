// A server in a process of its own, which ends with the one that measures it.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_CHILD_PROCESS_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_CHILD_PROCESS_HPP

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace benchmarks {

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
  void wait_for_end() const {
    char byte = 0;
    while (::read(from_parent_, &byte, 1) > 0) {
    }
  }

 private:
  int to_parent_;
  int from_parent_;
};

/// Forks; so no thread may have been started before.
class ChildProcess {
 public:
  /// `serve(ChildDuty&)` runs in the child.
  template <class F>
  explicit ChildProcess(F serve) {
    int up[2];
    int down[2];
    if (::pipe(up) != 0 || ::pipe(down) != 0) throw std::runtime_error("pipe failed");
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
  ~ChildProcess() {
    ::close(end_);
    ::waitpid(id_, nullptr, 0);
  }

  /// What the child said: where it listens.
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

  /// CPU seconds used so far.
  [[nodiscard]] double cpu_seconds() const {
    clockid_t clock = 0;
    timespec time{};
    if (::clock_getcpuclockid(id_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) {
      throw std::runtime_error("the CPU time of the server can't be read");
    }
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  /// Memory in use now, in bytes: what is resident, shared pages included.
  [[nodiscard]] double resident_bytes() const {
    std::ifstream file("/proc/" + std::to_string(id_) + "/statm");
    double all = 0;
    double resident = 0;
    if (!(file >> all >> resident)) throw std::runtime_error("the memory of the server can't be read");
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
  }

 private:
  pid_t id_ = -1;
  int end_ = -1;
  std::string endpoint_;
};

}  // namespace benchmarks

#endif
