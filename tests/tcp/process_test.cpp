// Tests what the library does to its process: its threads, their names and signals, and what happens after fork().
#include <dirent.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/forked.hpp"
#include "support/inproc_world.hpp"
#include "syncstate/detail/hook_waits.hpp"
#include "syncstate/remote_core.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/acceptor.hpp"
#include "syncstate/tcp/test_data.hpp"
#include "syncstate/threads/hook_pool.hpp"
#include "syncstate/threads/own_thread.hpp"

#include <asio/io_context.hpp>

namespace process_test {

namespace ss = syncstate;
using namespace std::chrono_literals;
using support::ForkedReport;
using support::run_forked;

namespace {

using Map = ss::StateMap<std::string, std::string>;
struct Set {
  std::string key;
  std::string value;
};
using Event = ss::Event<Set>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, Set>;
using Remote = ss::tcp::TcpStateRemote;
using Replica = ss::Replica<std::string, std::string>;

constexpr auto patience = 30s;  // a limit, not a pause

std::unique_ptr<Server> make_server(int listener = -1) {
  ss::tcp::ServerOptions options{.endpoint = "127.0.0.1:0",
                                 .listener = listener,
                                 .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                     ss::tcp::test_data::private_key_pem),
                                 .password = "a password"};
  options.io_threads = 2;
  auto server = std::make_unique<Server>(std::move(options));
  server->add_hook([](Map& map, const Event& event) { map.set(event.content.key, event.content.value); });
  return server;
}

ss::tcp::RemoteOptions remote_options(const std::string& endpoint) {
  return {.endpoint = endpoint,
          .tls = ss::tcp::ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
          .password = "a password",
          .event_timeout = 30s,
          .request_timeout = 30s,
          .backoff = {.first = 10ms, .most = 200ms}};
}

std::shared_ptr<Remote> make_remote(const std::string& endpoint) {
  return std::make_shared<Remote>(remote_options(endpoint));
}

template <class R>
Map freeze_map(const std::shared_ptr<R>& remote) {
  Map map(remote);
  map.push("a", "first");
  map.push("b", "first");
  map.freeze(patience);
  return map;
}

Map master_map() {
  Map map(ss::Role::master);
  map.push("a", "first");
  map.push("b", "first");
  map.freeze();
  return map;
}

/// A remote that can only be asked, so that a replica polls it on a thread of its own.
struct AskedRemote {
  template <class K, class V>
  void init(const ss::StateMap<K, V>&) {}
  template <class K, class V>
  ss::Diff<K, V> fetch_updates(const ss::StateMap<K, V>& map, ss::UpdateId) {
    ++*asked;
    return map.diff(map.update_id(), map.update_id());
  }
  std::shared_ptr<std::atomic<int>> asked = std::make_shared<std::atomic<int>>(0);
};

/// Everything that has threads, live and in use.
struct World {
  World() {
    server->start();
    handle.emplace(server->host(master_map()));
    remote = make_remote(server->endpoint());
    map.emplace(freeze_map(remote));
    hash = map->hash();
    replica.emplace(Map(*map));
    replica->on_update([this](const auto&) { ++updates; });
    view.emplace(replica->view());
    lone = make_remote(server->endpoint());
    lone_map.emplace(freeze_map(lone));
    Map asking(asked);
    asking.push("x", "y");
    asking.freeze();
    polled.emplace(std::move(asking), ss::ReplicaOptions{.poll_every = 1ms});
    executor.post([] {});
    pool_lane->post([] {});
    check_serves();
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  ~World() = default;

  /// What goes from an event to the replica does so.
  bool serves() {
    const ss::UpdateId id = remote->send_event(hash, Event{{"a", std::to_string(++count)}});
    return replica->wait_for(id, patience) && replica->view().at("a") == std::to_string(count);
  }
  void check_serves() { CHECK(serves()); }

  std::unique_ptr<Server> server = make_server();
  std::optional<ss::MasterHandle<std::string, std::string>> handle;
  std::shared_ptr<Remote> remote;
  std::optional<Map> map;
  ss::MapHash hash;
  std::optional<Replica> replica;
  std::optional<ss::View<std::string, std::string>> view;
  std::shared_ptr<Remote> lone;  // which no replica keeps
  std::optional<Map> lone_map;
  std::shared_ptr<AskedRemote> asked = std::make_shared<AskedRemote>();
  std::optional<Replica> polled;
  ss::ThreadExecutor executor;
  ss::HookPool pool{2};
  std::shared_ptr<ss::SerialExecutor> pool_lane = pool.make_serial();
  std::atomic<int> updates{0};
  int count = 0;
};

/// Threads that keep all locks of a world busy while it lives; none where they would break fork().
class Traffic {
 public:
  explicit Traffic(World& world) {
    run([&world](std::uint64_t i) { world.remote->send_event(world.hash, Event{{"b", std::to_string(i)}}); });
    run([&world](std::uint64_t i) {
      world.handle->modify([i](Map& map) { map.set("b", std::to_string(i)); });
      (void)world.replica->age();
      (void)world.replica->status();
      (void)world.remote->status();
      (void)world.lone->status();
      (void)world.lone->hosted();
      (void)world.server->link_count();
      world.executor.post([] {});
      world.pool_lane->post([] {});
    });
  }
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;
  ~Traffic() {
    is_over_ = true;
    for (auto& thread : threads_) thread.join();
  }

 private:
  template <class F>
  void run(F f) {
    if (!support::threads_may_allocate_during_fork) return;
    threads_.emplace_back([this, f] {
      for (std::uint64_t i = 0; !is_over_; ++i) f(i);
    });
  }
  std::atomic<bool> is_over_{false};
  std::vector<std::thread> threads_;
};

struct ThreadInfo {
  std::string name;
  std::uint64_t blocked = 0;  // bit n - 1: signal n
};

/// Returns whether a thread of that name can be ThreadSanitizer's own: it has the name of the program.
bool may_be_the_sanitizers(const std::string& thread_name) {
  if (!support::has_thread_sanitizer) return false;
  std::ifstream comm("/proc/self/comm");
  std::string program;
  std::getline(comm, program);
  return thread_name == program;
}

/// The threads of this process other than the calling one and that of a sanitizer.
std::vector<ThreadInfo> other_threads() {
  std::vector<ThreadInfo> threads;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc/self/task"), ::closedir);
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string id = entry->d_name;
    if (id[0] == '.' || id == std::to_string(::gettid())) continue;
    ThreadInfo info;
    std::ifstream comm("/proc/self/task/" + id + "/comm");
    std::getline(comm, info.name);
    if (may_be_the_sanitizers(info.name)) continue;
    std::ifstream status("/proc/self/task/" + id + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("SigBlk:")) info.blocked = std::stoull(line.substr(7), nullptr, 16);
    }
    threads.push_back(info);
  }
  return threads;
}

/// The numbers in the names that are `kind` and a number. They count up in the whole process, and with them those of a
/// child go on, so none begins with 0 but in a process that had no such thread before.
std::set<std::uint64_t> numbers_of(const std::string& kind, const std::set<std::string>& names) {
  std::set<std::uint64_t> numbers;
  for (const std::string& name : names) {
    if (!name.starts_with(kind) || name.size() == kind.size()) continue;
    if (name.find_first_not_of("0123456789", kind.size()) != std::string::npos) continue;
    numbers.insert(std::stoull(name.substr(kind.size())));
  }
  return numbers;
}

std::uint64_t bit_of(int signal) { return std::uint64_t{1} << (signal - 1); }

/// As `other_threads`, once all of them run: the C library blocks every signal in a thread that has not begun to.
std::vector<ThreadInfo> settled_threads() {
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    auto threads = other_threads();
    const bool have_begun = std::none_of(threads.begin(), threads.end(), [](const ThreadInfo& thread) {
      return (thread.blocked & bit_of(SIGILL)) != 0;
    });
    if (have_begun || std::chrono::steady_clock::now() > until) return threads;
    std::this_thread::yield();
  }
}

std::error_code code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const ss::StateError& error) {
    if (error.detail().find("fork") == std::string::npos) return ss::StateErrc::protocol_error;
    return error.code();
  }
  return {};
}

/// Every call that would wait, or take a lock of a thread that does not exist here, refuses.
void expect_refusals(World& w, const ForkedReport& report) {
  const auto refuses = [&](const std::string& what, const std::function<void()>& call) {
    report.expect(code_of(call) == ss::StateErrc::stopped, what + " throws `stopped` and says why");
  };
  refuses("send_event", [&] { w.remote->send_event(w.hash, Event{{"a", "child"}}); });
  refuses("async_send_event", [&] { w.remote->async_send_event(w.hash, Event{{"a", "c"}}, [](auto...) {}); });
  refuses("sync", [&] { w.map->sync(); });
  refuses("freeze", [&] { (void)freeze_map(w.remote); });
  refuses("attach", [&] { (void)w.remote->attach<std::string, std::string>(w.hash); });
  refuses("hosted", [&] { (void)w.remote->hosted(); });
  refuses("on_status", [&] { w.remote->on_status([](const auto&) {}); });
  refuses("set_password", [&] { w.remote->set_password("x"); });
  refuses("reload_tls of a remote", [&] { w.remote->reload_tls(); });
  refuses("start of a remote", [&] { w.remote->start(); });
  refuses("a new replica", [&] { const Replica another{Map(*w.map)}; });
  report.expect(w.remote->status().reason == ss::StateErrc::stopped, "the remote's status is `stopped`");
  report.expect(w.remote->status().state == ss::LinkState::failed, "the remote's status is failed");

  report.expect(w.view->at("b") == "first" || !w.view->at("b").empty(), "a view stays readable");
  report.expect(!w.replica->view().at("a").empty(), "the replica stays readable");
  refuses("wait_for", [&] { (void)w.replica->wait_for(1'000'000'000, 1h); });
  refuses("on_reached", [&] { (void)w.replica->on_reached(1'000'000'000, [](auto) {}); });
  refuses("on_update", [&] { w.replica->on_update([](const auto&) {}); });
  refuses("on_status of a replica", [&] { w.replica->on_status([](const auto&) {}); });
  refuses("wait_for of a polling replica", [&] { (void)w.polled->wait_for(1'000'000'000, 1h); });
  report.expect(w.replica->status().reason == ss::StateErrc::stopped, "the replica's status is `stopped`");
  report.expect(w.polled->status().reason == ss::StateErrc::stopped, "the poller's status is `stopped`");
  report.expect(w.replica->age() == ss::Duration::max(), "the replica's age is unknown");

  refuses("modify", [&] { w.handle->modify([](Map& map) { map.set("a", "child"); }); });
  refuses("update_id of a handle", [&] { (void)w.handle->update_id(); });
  refuses("add_hook", [&] { w.server->add_hook([](Map&, const Event&) {}); });
  refuses("add_init_hook", [&] { w.server->add_init_hook([](const auto&) {}); });
  refuses("core", [&] { (void)w.server->core(); });
  refuses("host", [&] { (void)w.server->host(master_map()); });
  refuses("start of a server", [&] { w.server->start(); });
  refuses("endpoint", [&] { (void)w.server->endpoint(); });
  refuses("link_count", [&] { (void)w.server->link_count(); });
  refuses("disconnect", [&] { w.server->disconnect([](const ss::Peer&) { return true; }); });
  refuses("recheck", [&] { w.server->recheck(); });
  refuses("set_passwords", [&] { w.server->set_passwords({"x"}); });
  refuses("reload_tls of a server", [&] { w.server->reload_tls(); });
  refuses("run_blocking", [&] { w.pool_lane->run_blocking([] {}); });
  refuses("make_serial", [&] { (void)w.pool.make_serial(); });
  refuses("start of a pool", [&] { w.pool.start(); });
  report.expect(w.executor.is_of_other_process(), "the executor knows");

  // Tasks are destroyed, whether or not a thread of the parent held the locks.
  for (int i = 0; i < 100; ++i) {
    w.executor.post([] {});
    w.executor.post_at(ss::TimePoint(), [] {});
    w.pool_lane->post([] {});
    w.pool_lane->post_at(ss::TimePoint(), [] {});
    w.pool_lane->dispatch([] {});
  }

  w.server->stop();
  refuses("add_hook after stop", [&] { w.server->add_hook([](Map&, const Event&) {}); });
  refuses("add_init_hook after stop", [&] { w.server->add_init_hook([](const auto&) {}); });
  refuses("core after stop", [&] { (void)w.server->core(); });
  refuses("host after stop", [&] { (void)w.server->host(master_map()); });
  refuses("start after stop", [&] { w.server->start(); });
  refuses("endpoint after stop", [&] { (void)w.server->endpoint(); });
  refuses("link_count after stop", [&] { (void)w.server->link_count(); });
  refuses("disconnect after stop", [&] { w.server->disconnect([](const ss::Peer&) { return true; }); });
  refuses("recheck after stop", [&] { w.server->recheck(); });
  refuses("set_passwords after stop", [&] { w.server->set_passwords({"x"}); });
  refuses("reload_tls after stop", [&] { w.server->reload_tls(); });
  refuses("modify after stop", [&] { w.handle->modify([](Map& map) { map.set("a", "child"); }); });
  refuses("update_id after stop", [&] { (void)w.handle->update_id(); });

  // What the child makes itself works, although a thread of the parent may have been anywhere when it was forked off.
  ss::HookPool fresh(1);
  bool has_run = false;
  fresh.make_serial()->run_blocking([&] { has_run = true; });
  report.expect(has_run, "a pool of the child's own works");
}

}  // namespace

TEST_CASE("signals that are sent to the process are left to the program, and every thread has a name") {
  const auto end = run_forked([](const ForkedReport& report) {
    // The program's threads leave everything unblocked while they make servers and clients...
    sigset_t none;
    ::sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    World world;
    sigset_t now;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &now);
    report.expect(::sigismember(&now, SIGTERM) == 0 && ::sigismember(&now, SIGINT) == 0,
                  "the mask of the thread that made them is what it was");

    const std::vector<ThreadInfo> threads = settled_threads();
    std::set<std::string> names;
    for (const ThreadInfo& thread : threads) {
      names.insert(thread.name);
      report.expect(thread.name.starts_with("ss-"), "'" + thread.name + "' is a name of ours");
      report.expect(thread.name.size() <= 15, "'" + thread.name + "' is short");
      for (int signal = 1; signal <= 64; ++signal) {
        const bool is_fault = signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
                              signal == SIGTRAP || signal == SIGSYS || signal == SIGABRT;
        const bool cannot_be_blocked = signal == SIGKILL || signal == SIGSTOP || signal == 32 || signal == 33;
        if (cannot_be_blocked) continue;
        report.expect(((thread.blocked & bit_of(signal)) == 0) == is_fault,
                      thread.name + (is_fault ? " takes" : " blocks") + " signal " + std::to_string(signal));
      }
    }
    report.expect(names.size() == threads.size(), "no two threads have the same name");
    for (const char* kind : {"ss-io-", "ss-hs-", "ss-hook-", "ss-remote-", "ss-exec-"}) {
      const bool is_there =
          std::any_of(names.begin(), names.end(), [&](const auto& n) { return n.starts_with(kind); });
      report.expect(is_there, std::string("there is a thread ") + kind);
    }
    const std::set<std::uint64_t> io_numbers = numbers_of("ss-io-", names);
    report.expect(io_numbers.size() == 2 && *io_numbers.rbegin() == *io_numbers.begin() + 1,
                  "the two I/O threads have numbers that follow each other");

    // ... and one of them takes SIGTERM by sigwait then, as it would by signalfd.
    sigset_t term;
    ::sigemptyset(&term);
    ::sigaddset(&term, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &term, nullptr);
    ::kill(::getpid(), SIGTERM);
    const timespec limit{30, 0};
    report.expect(::sigtimedwait(&term, nullptr, &limit) == SIGTERM, "sigwait gets SIGTERM");
    report.expect(world.serves(), "the world goes on");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a thread that looks names up takes no signals either") {
  const auto end = run_forked([](const ForkedReport& report) {
    std::atomic<bool> is_over{false};
    std::thread thread = ss::detail::start_thread(ss::detail::ThreadKind::resolver, [&] {
      while (!is_over) std::this_thread::yield();
    });
    const auto threads = other_threads();
    report.expect(threads.size() == 1 && numbers_of("ss-resolve-", {threads[0].name}).size() == 1,
                  "it is named");
    report.expect(threads.size() == 1 && (threads[0].blocked & bit_of(SIGTERM)) != 0, "it blocks SIGTERM");
    is_over = true;
    thread.join();
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("nothing has threads before it is started or used") {
  const auto end = run_forked([](const ForkedReport& report) {
    const auto server = make_server();
    const auto handle = server->host(master_map());
    handle.modify([](Map& map) { map.set("a", "by hand"); });
    auto remote = make_remote("127.0.0.1:1");
    remote->set_password("another");
    remote->reload_tls();
    const ss::ThreadExecutor executor;
    ss::HookPool pool(2);
    const auto lane = pool.make_serial();
    int runs = 0;
    lane->run_blocking([&] { ++runs; });
    report.expect(runs == 1, "an idle pool runs it here");
    report.expect(other_threads().empty(), "there is no thread");
    remote.reset();
    server->stop();
    report.expect(other_threads().empty(), "and none is needed to end");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a server and a remote that were made before the process forked start in the child") {
  const bool adopts = GENERATE(false, true);
  INFO("an adopted listener: " << adopts);
  const auto end = run_forked([adopts](const ForkedReport& report) {
    int listener = -1;
    if (adopts) listener = ss::tcp::listen_on({"127.0.0.1", 0}).release();
    std::optional<ss::tcp::NativeSocket> parents(listener >= 0 ? ::dup(listener) : -1);
    auto server = make_server(listener);
    const auto handle = server->host(master_map());
    handle.modify([](Map& map) { map.set("b", "before"); });

    const auto child = run_forked([&](const ForkedReport& out) {
      parents.reset();
      handle.modify([](Map& map) { map.set("b", "between"); });
      server->start();
      auto remote = make_remote(server->endpoint());
      Map map = freeze_map(remote);
      const ss::MapHash hash = map.hash();
      Replica replica(std::move(map));
      const ss::UpdateId id = remote->send_event(hash, Event{{"a", "from the child"}});
      out.expect(id == 3, "the third commit");
      out.expect(replica.wait_for(id, patience), "it is shown");
      out.expect(replica.view().at("a") == "from the child" && replica.view().at("b") == "between", "right");
      server->stop();
    });
    report.expect(child.is_good(), "the child: " + child.text());

    // The parent's copy was never started: it ends without a sound, or is started here as well, whatever the child did.
    if (adopts) return server.reset();
    server->start();
    auto remote = make_remote(server->endpoint());
    report.expect(freeze_map(remote).is_frozen(), "the parent serves, too");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("parent and child may both start what was made before, and do not get into each other's way") {
  const auto end = run_forked([](const ForkedReport& report) {
    auto server = make_server();
    const ss::Epoch epoch = server->host(master_map()).epoch();
    const auto child = run_forked([&](const ForkedReport& out) {
      server->start();
      auto remote = make_remote(server->endpoint());
      const ss::MapHash hash = freeze_map(remote).hash();
      const ss::Position position = remote->send_event(hash, Event{{"a", "from the child"}});
      out.expect(position.update_id == 1, "the child serves");
      out.expect(position.epoch != epoch,
                 "another life than the parent's, though no handle was asked for it");
      const auto grandchild = run_forked([&](const ForkedReport& deeper) {
        deeper.expect(code_of([&] { server->start(); }) == ss::StateErrc::stopped, "it was started already");
      });
      out.expect(grandchild.is_good(), "the grandchild: " + grandchild.text());
      out.expect(freeze_map(make_remote(server->endpoint())).is_frozen(), "the child serves on");
    });
    report.expect(child.is_good(), "the child: " + child.text());
    server->start();
    report.expect(freeze_map(make_remote(server->endpoint())).is_frozen(), "the parent serves");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("children that are started one after the other serve on one listener") {
  const auto end = run_forked([](const ForkedReport& report) {
    auto server = make_server(ss::tcp::listen_on({"127.0.0.1", 0}).release());
    const auto handle = server->host(master_map());
    const ss::Epoch epoch = handle.epoch();
    std::set<std::string> lives{std::to_string(epoch)};
    for (int round = 0; round < 3; ++round) {
      const auto child = run_forked([&](const ForkedReport& out) {
        // The child's commits are of another life of the map than those of the parent and of other children.
        const ss::Position before = handle.modify([](Map& map) { map.set("b", "before"); });
        server->start();
        auto remote = make_remote(server->endpoint());
        Map map = freeze_map(remote);
        const ss::MapHash hash = map.hash();
        Replica replica(std::move(map));
        const ss::UpdateId id = remote->send_event(hash, Event{{"a", "from the child"}});
        out.expect(replica.wait_for(id, patience) && replica.view().at("a") == "from the child", "it serves");
        const ss::Position shown = replica.view().position();
        out.expect(shown.epoch == before.epoch && shown.update_id == before.update_id + 1, "one history");
        out.expect(handle.epoch() == shown.epoch, "the handle is in the same life");
        out.complain("life " + std::to_string(shown.epoch));
        server->stop();
      });
      report.expect(child.is_in_time && child.status == 0 && child.said.starts_with("life "), child.text());
      report.expect(child.said.find('\n') + 1 == child.said.size(), child.text());
      report.expect(lives.insert(child.said).second, "another life than those before");
    }
    report.expect(handle.epoch() == epoch, "the parent's own life of the map goes on");
    server->start();
    report.expect(handle.epoch() == epoch, "and is served in its own process");
    report.expect(freeze_map(make_remote(server->endpoint())).is_frozen(), "the parent serves, too");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a map keeps its life in a child once its server was started") {
  ss::inproc::VirtualTime time;
  ss::ServerCoreOptions options;
  options.passwords = {"a password"};
  ss::inproc::StateServer<std::string, std::string, Set> server(time, std::make_shared<ss::inproc::Port>(),
                                                                std::move(options));
  const auto first = server.host(master_map());
  server.start();
  Map other(ss::Role::master);
  other.push("c", "first");
  other.freeze();
  const auto second = server.host(std::move(other));
  const ss::Epoch epochs[]{first.epoch(), second.epoch()};
  const auto end = run_forked([&](const ForkedReport& report) {
    report.expect(first.modify([](Map& map) { map.set("a", "x"); }).epoch == epochs[0],
                  "hosted before start");
    report.expect(second.modify([](Map& map) { map.set("c", "x"); }).epoch == epochs[1], "hosted after it");
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a child that serves goes on while the parent starts its copy of the server") {
  const bool adopts = GENERATE(false, true);
  INFO("an adopted listener: " << adopts);
  const auto end = run_forked([adopts](const ForkedReport& report) {
    auto server = make_server(adopts ? ss::tcp::listen_on({"127.0.0.1", 0}).release() : -1);
    (void)server->host(master_map());
    int hold[2];
    int told[2];
    if (::pipe(hold) != 0 || ::pipe(told) != 0) return report.complain("no pipe");
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(hold[1]);
      ::close(told[0]);
      server->start();
      const std::string endpoint = server->endpoint();
      (void)!::write(told[1], endpoint.data(), endpoint.size());
      ::close(told[1]);
      char word = 0;
      (void)!::read(hold[0], &word, 1);
      std::_Exit(0);
    }
    ::close(hold[0]);
    ::close(told[1]);
    std::string childs(64, '\0');
    childs.resize(static_cast<std::size_t>((std::max<ssize_t>)(0, ::read(told[0], childs.data(), 64))));
    report.expect(freeze_map(make_remote(childs)).is_frozen(), "the child serves alone");
    server->start();
    report.expect((server->endpoint() == childs) == adopts, "each listens where it is to");
    for (int round = 0; round < 4; ++round) {  // of one listener, either of both accepts
      report.expect(freeze_map(make_remote(server->endpoint())).is_frozen(), "the parent's serves");
      report.expect(freeze_map(make_remote(childs)).is_frozen(), "the child's serves");
    }
    server->stop();
    report.expect(freeze_map(make_remote(childs)).is_frozen(),
                  "the child's serves when the parent's has ended");
    ::close(hold[1]);
    ::waitpid(child, nullptr, 0);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a listener is taken over once, also where start fails and is called again") {
  const int unusable = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  auto server = make_server(unusable);
  const auto fails = [&] {
    try {
      server->start();
    } catch (const ss::StateError& error) {
      return error.code() == ss::StateErrc::invalid_option;
    }
    return false;
  };
  CHECK(fails());
  const int others = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);  // gets the number, if that is free
  CHECK(fails());
  CHECK(::fcntl(others, F_GETFD) >= 0);
  server.reset();
  CHECK(::fcntl(others, F_GETFD) >= 0);
  CHECK(::fcntl(unusable, F_GETFD) < 0);
  ::close(others);
}

TEST_CASE("a process may fork between a start that fails and the next one") {
  const bool adopts = GENERATE(false, true);
  INFO("an adopted listener: " << adopts);
  const auto end = run_forked([adopts](const ForkedReport& report) {
    ss::tcp::ServerOptions options{.endpoint = "127.0.0.1:0",
                                   .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                       ss::tcp::test_data::private_key_pem)};
    if (adopts) options.listener = ss::tcp::listen_on({"127.0.0.1", 0}).release();
    auto server = std::make_unique<Server>(std::move(options));
    (void)server->host(master_map());
    try {
      server->start();
      report.complain("an empty password is taken");
    } catch (const ss::StateError& error) {
      report.expect(error.code() == ss::StateErrc::invalid_option, "an empty password is refused");
    }
    const auto serves = [&](const ForkedReport& out) {
      server->set_passwords({"a password"});
      server->start();
      out.expect(freeze_map(make_remote(server->endpoint())).is_frozen(), "it serves");
    };
    const auto unused = run_forked([&](const ForkedReport&) { server.reset(); });
    report.expect(unused.is_good(), "a child that never starts it: " + unused.text());
    for (int round = 0; round < 2; ++round) {
      const auto child = run_forked([&](const ForkedReport& out) {
        serves(out);
        server->stop();
      });
      report.expect(child.is_good(), "the child: " + child.text());
    }
    serves(report);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a child that is forked off leaves by return or exit, and the parent's links go on") {
  const auto end = run_forked(
      [](const ForkedReport& report) {
        static std::optional<World> world;  // what `exit` destroys
        world.emplace();
        const auto since = world->remote->status().since;
        const auto lone_since = world->lone->status().since;
        {
          const Traffic traffic(*world);
          for (int round = 0; round < 6; ++round) {
            const auto by_return = run_forked([](const ForkedReport&) { world.reset(); }, 20s);
            report.expect(by_return.is_good(), "by return: " + by_return.text());
            const auto by_exit = run_forked([](const ForkedReport&) { std::exit(0); }, 20s);
            report.expect(by_exit.is_good(), "by exit: " + by_exit.text());
            const auto by_stop = run_forked(
                [](const ForkedReport&) {
                  world->server->stop();
                  world->server->stop();
                  world->pool.join();
                  world->server.reset();
                },
                20s);
            report.expect(by_stop.is_good(), "by stop: " + by_stop.text());
            const auto calls = run_forked([](const ForkedReport& out) { expect_refusals(*world, out); }, 20s);
            report.expect(calls.is_good(), "calls: " + calls.text());
            const auto backwards = run_forked(
                [](const ForkedReport&) {  // everything else goes before what it belongs to
                  world->remote.reset();
                  world->server.reset();
                  world->replica.reset();
                  world->map.reset();
                  world->handle.reset();
                },
                20s);
            report.expect(backwards.is_good(), "backwards: " + backwards.text());
          }
        }
        report.expect(world->serves(), "the parent's link serves");
        report.expect(world->remote->status().since == since, "it is the same link as before");
        report.expect(world->lone->status().since == lone_since, "so is the other one");
        report.expect(world->server->link_count() == 2, "and there is no further one");
        world.reset();
      },
      240s);
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a link that the parent ends is over at once, though a child has a copy of its socket") {
  const auto end = run_forked([](const ForkedReport& report) {
    const auto server = make_server();
    server->start();
    auto remote = make_remote(server->endpoint());
    (void)freeze_map(remote);
    int hold[2];
    if (::pipe(hold) != 0) return report.complain("no pipe");
    const pid_t child = ::fork();
    if (child == 0) {  // lives on with every descriptor, and does nothing
      ::close(hold[1]);
      char word = 0;
      (void)!::read(hold[0], &word, 1);
      std::_Exit(0);
    }
    ::close(hold[0]);
    remote.reset();
    const auto until = std::chrono::steady_clock::now() + 10s;  // below `Limits::silence`
    while (server->link_count() != 0 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    report.expect(server->link_count() == 0, "the server knows that its client has gone");
    ::close(hold[1]);
    ::waitpid(child, nullptr, 0);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a child that lets go of a server does not keep its port open") {
  const auto end = run_forked([](const ForkedReport& report) {
    const auto server = make_server();
    server->start();
    const auto address =
        ss::tcp::detail::resolve_now(ss::tcp::parse_endpoint(server->endpoint()), AI_NUMERICHOST)
            .addresses.at(0);
    const auto can_connect = [&] {
      const ss::tcp::NativeSocket client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      return ::connect(client.get(), address.data(), address.size) == 0;
    };
    int hold[2];
    int done[2];
    if (::pipe(hold) != 0 || ::pipe(done) != 0) return report.complain("no pipe");
    const pid_t child = ::fork();
    if (child == 0) {  // lives on
      ::close(hold[1]);
      server->stop();
      ::close(done[1]);
      char word = 0;
      (void)!::read(hold[0], &word, 1);
      std::_Exit(0);
    }
    ::close(hold[0]);
    ::close(done[1]);
    char word = 0;
    (void)!::read(done[0], &word, 1);
    report.expect(can_connect(), "the parent still listens");
    server->stop();
    report.expect(!can_connect(), "nobody listens any more");
    ::close(hold[1]);
    ::waitpid(child, nullptr, 0);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a port is free after stop, though a child has a copy of the listener") {
  const auto end = run_forked([](const ForkedReport& report) {
    auto server = make_server();
    server->start();
    const std::string endpoint = server->endpoint();
    int hold[2];
    if (::pipe(hold) != 0) return report.complain("no pipe");
    const pid_t child = ::fork();
    if (child == 0) {  // lives on with every descriptor, and does nothing
      ::close(hold[1]);
      char word = 0;
      (void)!::read(hold[0], &word, 1);
      std::_Exit(0);
    }
    ::close(hold[0]);
    server->stop();
    ss::tcp::ServerOptions options{.endpoint = endpoint,
                                   .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                       ss::tcp::test_data::private_key_pem),
                                   .password = "a password"};
    Server next(std::move(options));
    (void)next.host(master_map());
    next.start();
    report.expect(freeze_map(make_remote(endpoint)).is_frozen(), "another server serves there");
    ::close(hold[1]);
    ::waitpid(child, nullptr, 0);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("on a context of the user's a child lets go as well") {
  const auto end = run_forked([](const ForkedReport& report) {
    auto io = std::make_unique<asio::io_context>();
    const auto guard =
        std::make_unique<asio::executor_work_guard<asio::io_context::executor_type>>(io->get_executor());
    auto server = std::make_unique<Server>(
        *io, ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                                    .tls = ss::tcp::ServerTls::from_pem(ss::tcp::test_data::certificate_pem,
                                                                        ss::tcp::test_data::private_key_pem),
                                    .password = "a password"});
    server->start();
    std::thread thread([&] { io->run(); });
    auto remote = std::make_shared<Remote>(*io, remote_options(server->endpoint()));
    std::optional<Map> map(freeze_map(remote));
    const auto since = remote->status().since;
    for (int round = 0; round < 5; ++round) {
      const auto child = run_forked([&](const ForkedReport& out) {
        out.expect(code_of([&] { (void)remote->hosted(); }) == ss::StateErrc::stopped, "hosted refuses");
        out.expect(code_of([&] { (void)server->link_count(); }) == ss::StateErrc::stopped,
                   "the server refuses");
        map.reset();
        remote.reset();
        server.reset();
        // The context itself is the user's to end or to leave; its thread does not exist here.
        (void)guard.get();
        (void)io.release();
        new std::thread(std::move(thread));
      });
      report.expect(child.is_good(), "the child: " + child.text());
      report.expect(remote->hosted().size() == 1, "the parent's link goes on");
    }
    report.expect(remote->status().since == since, "it is the same link");
    map.reset();
    remote.reset();
    server.reset();
    io->stop();
    thread.join();
  });
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("a child finds no lock of the process held by a thread that it does not have") {
  const auto end = run_forked([](const ForkedReport& report) {
    std::atomic<bool> is_over{false};
    std::thread holder([&] {  // holds the mutex for most of the time
      ss::detail::HookLane lane;
      auto& graph = ss::detail::HookWaitGraph::of_process();
      while (!is_over) graph.set_runner(lane, std::this_thread::get_id());
    });
    for (int round = 0; round < 40; ++round) {
      const auto child = run_forked(
          [](const ForkedReport& out) {
            ss::HookPool pool(1);
            bool has_run = false;
            pool.make_serial()->run_blocking([&] { has_run = true; });
            out.expect(has_run, "a pool of the child's own works");
          },
          10s);
      report.expect(child.is_good(), "the child: " + child.text());
      if (!child.is_good()) break;
    }
    is_over = true;
    holder.join();
  });
  INFO(end.text());
  CHECK(end.is_good());
}

namespace {

std::mutex programs_lock;
std::atomic<bool> is_forking{false};

}  // namespace

TEST_CASE(
    "fork() does not wait for locks of the library, for one that the program takes before it may stand "
    "behind them") {
  const auto end = run_forked(
      [](const ForkedReport& report) {
        // Registered before the library's own, if there are any: so it is called after them.
        ::pthread_atfork(
            [] {
              is_forking = true;
              programs_lock.lock();
            },
            [] { programs_lock.unlock(); }, [] { programs_lock.unlock(); });
        ss::HookPool pool(1);
        const auto lane = pool.make_serial();
        lane->run_blocking([] {});
        std::atomic<bool> is_held{false};
        std::thread user([&] {
          const std::lock_guard lock(programs_lock);
          is_held = true;
          while (!is_forking) std::this_thread::yield();
          lane->run_blocking([] {});
        });
        while (!is_held) std::this_thread::yield();
        const pid_t child = ::fork();
        if (child == 0) std::_Exit(0);
        user.join();
        int status = 1;
        ::waitpid(child, &status, 0);
        report.expect(status == 0, "the child ends");
      },
      20s);
  INFO(end.text());
  CHECK(end.is_good());
}

TEST_CASE("waits of hooks of the parent's threads are none in a child") {
  const auto end = run_forked([](const ForkedReport& report) {
    using ss::detail::HookWaits;
    const ss::detail::MapLife a{ss::MapHash{}, 1};
    const ss::detail::MapLife b{ss::MapHash{}, 2};
    const int owners[2]{};
    report.expect(HookWaits::add(&owners[0], {a}, b), "a hook of `a` waits for `b`");
    report.expect(!HookWaits::add(&owners[1], {b}, a), "a hook of `b` can't wait for `a`");
    std::atomic<bool> is_over{false};
    std::thread busy([&] {
      const int owner = 0;
      while (!is_over && support::threads_may_allocate_during_fork) {
        (void)HookWaits::add(&owner, {ss::detail::MapLife{ss::MapHash{}, 3}}, a);
        HookWaits::remove(&owner);
      }
    });
    for (int round = 0; round < 40; ++round) {
      const auto child = run_forked(
          [&](const ForkedReport& out) {
            out.expect(HookWaits::add(&owners[1], {b}, a), "nobody waits in the child");
            HookWaits::remove(&owners[0]);
            HookWaits::remove(&owners[1]);
          },
          10s);
      report.expect(child.is_good(), "the child: " + child.text());
      if (!child.is_good()) break;
    }
    is_over = true;
    busy.join();
    report.expect(!HookWaits::add(&owners[1], {b}, a), "the parent's waits are as before");
    HookWaits::remove(&owners[0]);
  });
  INFO(end.text());
  CHECK(end.is_good());
}

namespace {

/// Notes when a remote connects, and lets no link come about.
class NoConnector final : public ss::Connector {
 public:
  explicit NoConnector(std::shared_ptr<ss::Executor> executor) : executor_(std::move(executor)) {}
  std::shared_ptr<ss::Link> connect(std::shared_ptr<ss::LinkOwner> owner) override {
    times.push_back(std::to_string(executor_->now().time_since_epoch().count()));
    return ss::inproc::PortConnector(std::make_shared<ss::inproc::Port>(), executor_, "127.0.0.1")
        .connect(std::move(owner));
  }
  std::vector<std::string> times;

 private:
  std::shared_ptr<ss::Executor> executor_;
};

/// What children say of when the same remote connects there, started in each of them.
std::set<std::string> times_of_children(std::uint64_t seed, int children) {
  ss::inproc::VirtualTime time;
  const auto executor = time.make_executor();
  const auto connector = std::make_shared<NoConnector>(executor);
  ss::RemoteCoreOptions options;
  options.password = "a password";
  options.seed = seed;
  const auto remote = ss::detail::RemoteCore::create(executor, connector, std::move(options));
  std::set<std::string> all;
  for (int i = 0; i < children; ++i) {
    const auto child = run_forked([&](const ForkedReport& out) {
      remote->start();
      out.expect(time.run_until([&] { return connector->times.size() == 8; }, 1h),
                 "it tries again and again");
      for (const std::string& at : connector->times) out.complain(at);
      remote->stop();
      time.run_ready();
    });
    INFO(child.text());
    CHECK((child.is_in_time && child.status == 0));
    CHECK(child.said.find("not so") == std::string::npos);
    all.insert(child.said);
  }
  return all;
}

}  // namespace

TEST_CASE("children that start the same remote do not come back at the same times, unless it has a seed") {
  CHECK(times_of_children(0, 3).size() == 3);
  CHECK(times_of_children(7, 2).size() == 1);
}

TEST_CASE("what has no threads goes on in a child") {
  ss::inproc::VirtualTime time;
  const auto port = std::make_shared<ss::inproc::Port>();
  ss::ServerCoreOptions options;
  options.passwords = {"a password"};
  ss::inproc::StateServer<std::string, std::string, Set> server(time, port, std::move(options));
  server.add_hook([](Map& map, const Event& event) { map.set(event.content.key, event.content.value); });
  server.start();
  ss::RemoteCoreOptions client;
  client.password = "a password";
  const auto remote = std::make_shared<ss::inproc::StateRemote>(time, port, std::move(client));
  Map map = freeze_map(remote);
  const ss::MapHash hash = map.hash();
  Replica replica(std::move(map));
  const auto serves = [&](const std::string& value) {
    return replica.wait_for(remote->send_event(hash, Event{{"a", value}}), patience) &&
           replica.view().at("a") == value;
  };
  CHECK(serves("before"));
  const auto end = run_forked(
      [&](const ForkedReport& report) { report.expect(serves("in the child"), "the child's copy serves"); });
  INFO(end.text());
  CHECK(end.is_good());
  CHECK(replica.view().at("a") == "before");
  CHECK(serves("after"));
}

}  // namespace process_test
