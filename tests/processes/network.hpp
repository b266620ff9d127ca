// Two network namespaces of our own and the cable between them, which can be pulled.
#ifndef SYNCSTATE_TESTS_PROCESSES_NETWORK_HPP
#define SYNCSTATE_TESTS_PROCESSES_NETWORK_HPP

#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace processes {

/// A namespace for the clients, in which this process is from then on, and one for the master.
///
/// Neither has a name: both are gone with the last process in them and the last descriptor of them, however the
/// driver ends. So nothing has to be removed, and nothing of the machine's own network is touched.
class Network {
 public:
  static constexpr const char* master_host = "10.99.0.2";
  static constexpr std::uint16_t master_port = 4433;

  /// Null where this machine does not allow it, with the reason.
  static std::unique_ptr<Network> make(std::string& why_not) {
    const int before = open_own();
    std::unique_ptr<Network> network;
    try {
      network.reset(new Network);
    } catch (const std::exception& error) {
      why_not = error.what();
      // One of a user namespace has no way back, but it has a loopback of its own.
      if (::setns(before, CLONE_NEWNET) != 0) run({"ip", "link", "set", "lo", "up"});
    }
    ::close(before);
    return network;
  }
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network() { ::close(master_); }

  /// The master's namespace.
  [[nodiscard]] int master() const { return master_; }
  [[nodiscard]] bool can_drop() const { return can_drop_; }

  void pull() { run({"ip", "link", "set", "v0", "down"}); }
  void plug() { run({"ip", "link", "set", "v0", "up"}); }

  /// Which packets are lost on their way: `"iifname"` those from the master, `"oifname"` those to it.
  void drop(const std::string& side, unsigned percent) {
    const std::string chain = side == "iifname" ? "input" : "output";
    const std::string which = percent < 100 ? " numgen random mod 100 < " + std::to_string(percent) : "";
    run({"nft", "add rule inet chaos " + chain + " " + side + " v0" + which + " drop"});
  }
  void drop_nothing() {
    if (can_drop_) run({"nft", "flush", "table", "inet", "chaos"});
  }

 private:
  Network() {
    // Clients' first, then the master's, and back.
    if (::unshare(CLONE_NEWNET) != 0) {
      become_root_of_a_user_namespace();
      if (::unshare(CLONE_NEWNET) != 0) fail("a network namespace");
    }
    const int clients = open_own();
    if (::unshare(CLONE_NEWNET) != 0) fail("a second network namespace");
    master_ = open_own();
    run({"ip", "link", "set", "lo", "up"});
    if (::setns(clients, CLONE_NEWNET) != 0) fail("to go back to a network namespace");
    ::close(clients);
    run({"ip", "link", "set", "lo", "up"});
    run({"ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns",
         "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(master_)});
    run({"ip", "address", "add", "10.99.0.1/24", "dev", "v0"});
    run({"ip", "link", "set", "v0", "up"});
    run({"ip", "address", "add", std::string(master_host) + "/24", "dev", "v1"}, master_);
    run({"ip", "link", "set", "v1", "up"}, master_);
    try {
      run({"nft",
           "add table inet chaos; add chain inet chaos input { type filter hook input priority 0; }; "
           "add chain inet chaos output { type filter hook output priority 0; }"});
      drop("iifname", 50);
      drop("oifname", 50);
      can_drop_ = true;
      drop_nothing();
    } catch (const std::exception&) {
      can_drop_ = false;  // then the cable is all there is to pull
    }
  }

  [[noreturn]] static void fail(const std::string& what) {
    throw std::system_error(errno, std::generic_category(), what);
  }

  /// Who is not root may do in namespaces of his own what only root may elsewhere.
  static void become_root_of_a_user_namespace() {
    const std::string user = "0 " + std::to_string(::getuid()) + " 1";
    const std::string group = "0 " + std::to_string(::getgid()) + " 1";
    if (::unshare(CLONE_NEWUSER) != 0) fail("a user namespace");
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", user);
    write_file("/proc/self/gid_map", group);
  }

  static void write_file(const char* name, const std::string& text) {
    const int fd = ::open(name, O_WRONLY | O_CLOEXEC);
    const bool is_written =
        fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    if (fd >= 0) ::close(fd);
    if (!is_written) fail(name);
  }

  static int open_own() {
    const int fd = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("/proc/self/ns/net");
    return fd;
  }

  static void run(const std::vector<std::string>& words, int network = -1) {
    std::vector<char*> arguments;
    std::string text;
    for (const std::string& word : words) {
      arguments.push_back(const_cast<char*>(word.c_str()));
      text += word + " ";
    }
    arguments.push_back(nullptr);
    const pid_t pid = ::fork();
    if (pid < 0) fail("fork");
    if (pid == 0) {
      if (network >= 0 && ::setns(network, CLONE_NEWNET) != 0) ::_exit(126);
      ::execvp(arguments[0], arguments.data());
      ::_exit(127);
    }
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) throw std::runtime_error("this did not work: " + text);
  }

  int master_ = -1;
  bool can_drop_ = false;
};

}  // namespace processes

#endif
