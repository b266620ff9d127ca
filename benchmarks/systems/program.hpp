// A server that somebody else wrote: started, waited for, measured from outside, ended.
#ifndef SYNCSTATE_BENCHMARKS_SYSTEMS_PROGRAM_HPP
#define SYNCSTATE_BENCHMARKS_SYSTEMS_PROGRAM_HPP

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "syncstate/tcp/test_data.hpp"
#include "systems/server.hpp"
#include "systems/wire.hpp"

namespace benchmarks {

/// A folder for one server, with the certificate and key of our tests; it ends with this.
class Workplace {
 public:
  Workplace() {
    std::string pattern = (std::filesystem::temp_directory_path() / "benchmark-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    path_ = pattern;
    write("server.crt", syncstate::tcp::test_data::certificate_pem);
    write("server.key", syncstate::tcp::test_data::private_key_pem);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  ~Workplace() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::string path_of(const char* file) const { return (path_ / file).string(); }
  void write(const char* file, std::string_view text) const {
    if (!(std::ofstream(path_of(file)) << text << std::flush)) throw std::runtime_error("can't write a file");
  }

 private:
  std::filesystem::path path_;
};

/// Where a program is found, if it is installed: in PATH, or where Debian keeps what only root runs.
[[nodiscard]] inline std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string folders = std::string(path == nullptr ? "" : path) + ":/usr/sbin:/usr/local/sbin";
  for (std::size_t begin = 0; begin < folders.size();) {
    const std::size_t end = std::min(folders.find(':', begin), folders.size());
    std::string file = folders.substr(begin, end - begin) + "/" + name;
    if (::access(file.c_str(), X_OK) == 0) return file;
    begin = end + 1;
  }
  return std::nullopt;
}

/// A port of this machine that is free now.
[[nodiscard]] inline in_port_t free_port() { return wire::listen().second; }

/// The process of such a server; it has started once it has written a certain line.
class Program final : public Server {
 public:
  /// Runs `command`, and waits until it has written `sign`. What it writes is read no further.
  Program(std::unique_ptr<Workplace> workplace, in_port_t port, const std::vector<std::string>& command,
          std::string_view sign)
      : workplace_(std::move(workplace)), port_(port) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
    id_ = ::fork();
    if (id_ < 0) throw std::runtime_error("fork failed");
    if (id_ == 0) run(command, ends[1]);
    ::close(ends[1]);
    output_ = ends[0];
    std::string text;
    char chunk[4096];
    while (text.find(sign) == std::string::npos) {
      const ssize_t size = ::read(output_, chunk, sizeof chunk);
      if (size <= 0) {
        kill();
        throw std::runtime_error(command.front() + " did not start: " + text);
      }
      text.append(chunk, static_cast<std::size_t>(size));
    }
  }
  ~Program() override { kill(); }

  [[nodiscard]] in_port_t port() const override { return port_; }

  [[nodiscard]] double cpu_seconds() const override {
    clockid_t clock = 0;
    timespec time{};
    if (::clock_getcpuclockid(id_, &clock) != 0 || ::clock_gettime(clock, &time) != 0) {
      throw std::runtime_error("the CPU time of a server can't be read");
    }
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }

  [[nodiscard]] double resident_bytes() const override {
    std::ifstream file("/proc/" + std::to_string(id_) + "/statm");
    double all = 0;
    double resident = 0;
    if (!(file >> all >> resident)) throw std::runtime_error("the memory of a server can't be read");
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
  }

  [[nodiscard]] std::size_t open_files() const override {
    const std::filesystem::directory_iterator files("/proc/" + std::to_string(id_) + "/fd");
    return static_cast<std::size_t>(
        std::distance(std::filesystem::begin(files), std::filesystem::end(files)));
  }

 private:
  [[noreturn]] static void run(const std::vector<std::string>& command, int output) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    // Not the descriptors that tell other servers to end.
    ::close_range(3, ~0U, 0);
    std::vector<char*> arguments;
    for (const std::string& one : command) arguments.push_back(const_cast<char*>(one.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments.front(), arguments.data());
    std::_Exit(127);
  }

  void kill() {
    ::kill(id_, SIGKILL);  // it keeps nothing that would have to be written
    ::waitpid(id_, nullptr, 0);
    ::close(output_);
  }

  std::unique_ptr<Workplace> workplace_;
  in_port_t port_;
  pid_t id_ = -1;
  int output_ = -1;
};

}  // namespace benchmarks

#endif
