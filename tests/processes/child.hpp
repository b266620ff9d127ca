// A process of the driver's own that is spoken to in lines.
#ifndef SYNCSTATE_TESTS_PROCESSES_CHILD_HPP
#define SYNCSTATE_TESTS_PROCESSES_CHILD_HPP

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "processes/loop.hpp"

namespace processes {

/// A running program: gets lines on its standard input, and every line of its standard output is handed on, also
/// those it wrote just before it died.
///
/// Lifetime: killed by the destructor, and by the kernel should the driver die.
class Child {
 public:
  struct Callbacks {
    std::function<void(std::string_view line)> on_line;
    std::function<void(int status)> on_exit;  ///< as of waitpid, after the last line; may destroy the Child
  };

  /// Starts `words`, in the network namespace `network` unless that is -1.
  Child(Loop& loop, const std::vector<std::string>& words, int network, Callbacks callbacks)
      : loop_(loop), callbacks_(std::move(callbacks)) {
    const auto [their_input, our_output] = make_pipe();
    const auto [our_input, their_output] = make_pipe();
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::signal(SIGPIPE, SIG_DFL);
      if (network >= 0 && ::setns(network, CLONE_NEWNET) != 0) ::_exit(126);
      ::dup2(their_input, STDIN_FILENO);
      ::dup2(their_output, STDOUT_FILENO);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ::close(their_input);
    ::close(their_output);
    input_ = our_input;
    output_ = our_output;
    for (const int fd : {input_, output_}) ::fcntl(fd, F_SETFL, O_NONBLOCK);
    loop_.watch(input_, POLLIN, [this] { read_on(); });
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    loop_.forget(input_);
    ::close(input_);
    ::close(output_);
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  [[nodiscard]] pid_t pid() const { return pid_; }

  /// Sends a line. The pipe holds thousands of ours; one that is full belongs to a process that hangs.
  void tell(const std::string& line) {
    const std::string text = line + "\n";
    const ssize_t written = ::write(output_, text.data(), text.size());
    if (written == static_cast<ssize_t>(text.size()) || (written < 0 && errno == EPIPE)) return;
    throw std::runtime_error("process " + std::to_string(pid_) + " does not read what it is told");
  }

  void signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
  }

 private:
  static std::pair<int, int> make_pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0)
      throw std::system_error(errno, std::generic_category(), "pipe2");
    return {ends[0], ends[1]};
  }

  void read_on() {
    std::array<char, 65'536> buffer;
    const ssize_t got = ::read(input_, buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) {
      text_.append(buffer.data(), static_cast<std::size_t>(got));
      std::size_t begin = 0;
      for (std::size_t end; (end = text_.find('\n', begin)) != std::string::npos; begin = end + 1) {
        callbacks_.on_line(std::string_view(text_).substr(begin, end - begin));
      }
      text_.erase(0, begin);
      return;
    }
    loop_.forget(input_);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    const auto on_exit = std::move(callbacks_.on_exit);
    on_exit(status);
  }

  Loop& loop_;
  Callbacks callbacks_;
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string text_;
};

}  // namespace processes

#endif
