// Tests promises of transports that only a misbehaving network shows: names with several addresses, servers that do not
// answer, goodbyes, and which links share a thread.
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/tcp.hpp"
#include "syncstate/tcp/acceptor.hpp"
#include "syncstate/tcp/connector.hpp"
#include "syncstate/tcp/minute_count.hpp"
#include "tcp/link_harness.hpp"

namespace transport_test {

/// Names that only this program knows: asked for through `getaddrinfo` below.
class FakeNames {
 public:
  static FakeNames& get() {
    static FakeNames names;
    return names;
  }

  void set(const std::string& name, std::vector<std::string> addresses) {
    const std::lock_guard lock(mutex_);
    names_[name] = std::move(addresses);
  }
  /// Has look-ups of this program's names wait until `release`.
  void hold() {
    const std::lock_guard lock(mutex_);
    is_held_ = true;
  }
  void release() {
    const std::lock_guard lock(mutex_);
    is_held_ = false;
    changed_.notify_all();
  }
  /// None for a name that the system is to be asked for.
  std::optional<std::vector<std::string>> find(const char* name) {
    if (name == nullptr) return std::nullopt;
    std::unique_lock lock(mutex_);
    const auto found = names_.find(name);
    if (found == names_.end()) return std::nullopt;
    const auto addresses = found->second;
    changed_.wait(lock, [&] { return !is_held_; });
    return addresses;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool is_held_ = false;
  std::map<std::string, std::vector<std::string>> names_;
};

/// Holds the I/O and handshake threads of servers, while armed, when the kernel wakes them; see `epoll_wait` below.
class WakeGate {
 public:
  static WakeGate& get() {
    static WakeGate gate;
    return gate;
  }
  void arm() { is_armed_ = true; }
  void release() {
    const std::lock_guard lock(mutex_);
    is_armed_ = false;
    changed_.notify_all();
  }
  void pass() {
    if (!is_armed_) return;
    std::array<char, 16> name{};
    ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    const std::string_view kind(name.data());
    if (!kind.starts_with("ss-io-") && !kind.starts_with("ss-hs-")) return;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !is_armed_; });
  }

 private:
  std::atomic<bool> is_armed_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
};

/// A port to which a socket is bound before it connects there: so TCP connects it with itself.
inline std::atomic<std::uint16_t> self_port{0};

}  // namespace transport_test

// These stand before the system's own in this program.
extern "C" int getaddrinfo(const char* name, const char* service, const addrinfo* hints, addrinfo** result) {
  using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto system = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  const bool is_numeric = hints != nullptr && (hints->ai_flags & AI_NUMERICHOST) != 0;
  const auto addresses = is_numeric ? std::nullopt : transport_test::FakeNames::get().find(name);
  if (!addresses) return system(name, service, hints, result);
  addrinfo numeric = *hints;
  numeric.ai_flags |= AI_NUMERICHOST;
  addrinfo* first = nullptr;
  addrinfo** last = &first;
  for (const std::string& address : *addresses) {
    if (system(address.c_str(), service, &numeric, last) != 0) return EAI_FAIL;
    while (*last != nullptr) last = &(*last)->ai_next;
  }
  *result = first;
  return 0;
}

extern "C" int connect(int handle, const sockaddr* address, socklen_t size) {
  using Function = int (*)(int, const sockaddr*, socklen_t);
  static const auto system = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "connect"));
  const std::uint16_t port = transport_test::self_port;
  if (port != 0 && address->sa_family == AF_INET) {
    sockaddr_in to{};
    std::memcpy(&to, address, sizeof to);
    const int on = 1;
    ::setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (to.sin_port == htons(port) && ::bind(handle, address, size) != 0) return -1;
  }
  return system(handle, address, size);
}

extern "C" int epoll_wait(int handle, epoll_event* events, int most, int limit) {
  using Function = int (*)(int, epoll_event*, int, int);
  static const auto system = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "epoll_wait"));
  const int count = system(handle, events, most, limit);
  const int error = errno;
  transport_test::WakeGate::get().pass();
  errno = error;
  return count;
}

namespace transport_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::tcp::Acceptor;
using ss::tcp::ConnectorOptions;
using ss::tcp::Endpoint;
using ss::tcp::SocketAddress;
using ss::tcp::TlsConnector;
using ss::testing::contains_text;

constexpr auto patience = 30s;  // a limit, not a pause

TlsContext named_context() {
  return TlsContext(ClientTls::from_pem(ss::tcp::test_data::certificate_pem).verify_name("localhost"));
}

/// Accepts, and is a server to every client that comes.
struct Accepting {
  explicit Accepting(asio::io_context& io_, const Endpoint& at = {"127.0.0.1", 0})
      : io(io_), acceptor(io.get_executor(), ss::tcp::listen_on(at)) {
    acceptor.start([this](NativeSocket socket, std::string address) {
      addresses.push_back(address);
      owners.push_back(std::make_shared<Owner>());
      links.push_back(
          TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(socket)), tls, address));
      links.back()->start(owners.back());
    });
  }
  [[nodiscard]] std::uint16_t port() const { return ss::tcp::parse_endpoint(acceptor.endpoint()).port; }

  asio::io_context& io;
  TlsContext tls = server_context();
  std::vector<std::string> addresses;
  std::vector<std::shared_ptr<Owner>> owners;
  std::vector<std::shared_ptr<TlsLink>> links;
  Acceptor acceptor;
};

/// A listening socket whose queue is full: a client that connects gets no answer.
class FullQueue {
 public:
  FullQueue() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    REQUIRE(::listen(listener_.get(), 0) == 0);
    at_ = ss::tcp::local_address(listener_.get());
    for (int i = 0; i < 8; ++i) {  // more than it takes
      waiting_.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      (void)::connect(waiting_.back().get(), at_.data(), at_.size);
    }
  }
  [[nodiscard]] std::uint16_t port() const { return ss::tcp::numeric_endpoint(at_).port; }

 private:
  NativeSocket listener_;
  SocketAddress at_;
  std::vector<NativeSocket> waiting_;
};

using Map = ss::StateMap<std::string, std::string>;
using Event = ss::Event<std::string>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, std::string>;
using Remote = ss::tcp::TcpStateRemote;

ss::tcp::ServerOptions server_options(const std::string& endpoint = "127.0.0.1:0") {
  return {
      .endpoint = endpoint,
      .tls = ServerTls::from_pem(ss::tcp::test_data::certificate_pem, ss::tcp::test_data::private_key_pem),
      .password = "a password"};
}

std::shared_ptr<Remote> make_remote(const std::string& endpoint) {
  return std::make_shared<Remote>(
      ss::tcp::RemoteOptions{.endpoint = endpoint,
                             .tls = ClientTls::from_pem(ss::tcp::test_data::certificate_pem),
                             .password = "a password",
                             .event_timeout = patience,
                             .request_timeout = patience,
                             .backoff = {.first = 10ms, .most = 200ms}});
}

Map frozen_map(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  map.push("a", "-");
  map.freeze(patience);
  return map;
}

}  // namespace

TEST_CASE("every address of a name is tried in turn, and each of them only for its time") {
  asio::io_context io;
  Accepting server(io);
  FakeNames& names = FakeNames::get();
  ConnectorOptions options;
  options.connect_time = 50ms;
  std::vector<Endpoint> endpoints{{"several.test", server.port()}};
  std::optional<FullQueue> full;
  SECTION("others refuse") { names.set("several.test", {"127.0.0.2", "127.0.0.3", "127.0.0.1"}); }
  SECTION("the first one is of another family") {
    names.set("several.test", {"::ffff:127.0.0.2", "127.0.0.1"});
  }
  SECTION("the name comes after another one, whose only address is not that of a server") {
    names.set("nowhere.test", {"127.0.0.2"});
    names.set("several.test", {"127.0.0.3", "127.0.0.1"});
    endpoints.insert(endpoints.begin(), Endpoint{"nowhere.test", server.port()});
  }
  SECTION("one that does not answer is given up") {
    full.emplace();
    names.set("full.test", {"127.0.0.1"});
    names.set("several.test", {"127.0.0.2", "127.0.0.1"});
    endpoints.insert(endpoints.begin(), Endpoint{"full.test", full->port()});
  }
  TlsConnector connector(io.get_executor(), std::move(endpoints), named_context(), options);
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1 || owner->closed == 1; }));
  INFO(owner->detail);
  CHECK(owner->opened == 1);
  CHECK(server.addresses.size() == 1);
  CHECK(owner->info.peer.address == "127.0.0.1");
}

TEST_CASE("an address that does not answer is given up after the time for connecting") {
  asio::io_context io;
  const FullQueue full;
  ConnectorOptions options;
  options.connect_time = 50ms;
  TlsConnector connector(io.get_executor(), {{"127.0.0.1", full.port()}}, named_context(), options);
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->reason == StateErrc::unavailable);
  CHECK_THAT(owner->detail, contains_text("connecting took too long"));
}

TEST_CASE("a name that nobody answers for is given up after its time, and the next endpoint is tried") {
  asio::io_context io;
  Accepting server(io);
  FakeNames& names = FakeNames::get();
  names.set("slow.test", {"127.0.0.1"});
  names.hold();
  const std::shared_ptr<void> release(nullptr, [&](void*) { names.release(); });
  ConnectorOptions options;
  options.resolve_time = 50ms;
  const bool has_another = GENERATE(false, true);
  std::vector<Endpoint> endpoints{{"slow.test", server.port()}};
  if (has_another) endpoints.push_back({"127.0.0.1", server.port()});
  TlsConnector connector(io.get_executor(), std::move(endpoints), named_context(), options);
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1 || owner->closed == 1; }));
  CHECK(owner->opened == (has_another ? 1 : 0));
  if (has_another) return;
  CHECK(owner->reason == StateErrc::unavailable);
  CHECK_THAT(owner->detail, contains_text("slow.test"));
  CHECK_THAT(owner->detail, contains_text("finding the address took too long"));
}

TEST_CASE("a look-up ends though a child that was forked off during it has every descriptor") {
  asio::io_context io;
  Accepting server(io);
  FakeNames& names = FakeNames::get();
  names.set("forking.test", {"127.0.0.1"});
  names.hold();
  std::shared_ptr<void> release(nullptr, [&](void*) { names.release(); });
  ConnectorOptions options;
  options.resolve_time = 10s;  // fails by then
  TlsConnector connector(io.get_executor(), {{"forking.test", server.port()}}, named_context(), options);
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  io.poll();  // the look-up is under way
  int hold[2];
  REQUIRE(::pipe(hold) == 0);
  const pid_t child = ::fork();
  if (child == 0) {  // lives on, and does nothing
    ::close(hold[1]);
    char word = 0;
    (void)!::read(hold[0], &word, 1);
    std::_Exit(0);
  }
  ::close(hold[0]);
  release.reset();
  CHECK(run_until(io, [&] { return owner->opened == 1 || owner->closed == 1; }));
  CHECK(owner->opened == 1);
  ::close(hold[1]);
  ::waitpid(child, nullptr, 0);
}

TEST_CASE("a socket that TCP connected with itself is no server") {
  asio::io_context io;
  NativeSocket listener = ss::tcp::listen_on({"127.0.0.1", 0});
  const Endpoint nobody = ss::tcp::numeric_endpoint(ss::tcp::local_address(listener.get()));
  { const NativeSocket gone = std::move(listener); }
  self_port = nobody.port;
  const std::shared_ptr<void> reset(nullptr, [](void*) { self_port = 0; });
  TlsConnector connector(io.get_executor(), {nobody}, client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->reason == StateErrc::unavailable);
  CHECK(owner->detail == to_string(nobody) + ": Connection refused");
}

TEST_CASE("a server that stops says so to every client, however late its threads wake") {
  auto options = server_options();
  options.io_threads = 2;
  options.handshake_threads = 2;
  Server server(std::move(options));
  server.start();
  struct Heard {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<ss::LinkStatus> after_live;
  };
  const auto heard = std::make_shared<Heard>();
  constexpr std::size_t clients = 5;
  std::vector<std::shared_ptr<Remote>> remotes;
  for (std::size_t i = 0; i < clients; ++i) {
    remotes.push_back(make_remote(server.endpoint()));
    (void)frozen_map(remotes.back());
    remotes.back()->on_status([heard, is_first = true](const ss::LinkStatus& status) mutable {
      if (status.state == ss::LinkState::live || !std::exchange(is_first, false)) return;
      const std::lock_guard lock(heard->mutex);
      heard->after_live.push_back(status);
      heard->changed.notify_all();
    });
  }
  // And one that has not proven itself: it is on a handshake thread.
  const auto at = ss::tcp::detail::resolve_now(ss::tcp::parse_endpoint(server.endpoint()), AI_NUMERICHOST);
  NativeSocket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(socket.get(), at.addresses.at(0).data(), at.addresses.at(0).size) == 0);
  RawPeer stranger(std::move(socket), false);
  const auto wait_for_stranger = [&](const std::function<bool()>& is_reached) {
    const auto until = std::chrono::steady_clock::now() + patience;
    while (!is_reached() && std::chrono::steady_clock::now() < until) {
      stranger.take();
      stranger.flush();
      std::this_thread::yield();
    }
    return is_reached();
  };
  REQUIRE(wait_for_stranger([&] { return stranger.is_open() && stranger.unsent_bytes() == 0; }));
  // An answer to a key update tells that the server's end is through its handshake, too.
  const auto before = BIO_number_read(SSL_get_rbio(stranger.ssl()));
  REQUIRE(SSL_key_update(stranger.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
  REQUIRE(SSL_do_handshake(stranger.ssl()) == 1);
  REQUIRE(wait_for_stranger([&] { return BIO_number_read(SSL_get_rbio(stranger.ssl())) > before; }));

  // The server's threads do nothing until `stop` has nothing left to do but wait for them.
  WakeGate::get().arm();
  std::atomic<pid_t> stopper{0};
  std::thread stopping([&] {
    stopper = ::gettid();
    server.stop();
  });
  int times_asleep = 0;  // in a row; more than the locks on the way there can explain
  for (const auto until = std::chrono::steady_clock::now() + patience;
       times_asleep < 50 && std::chrono::steady_clock::now() < until; std::this_thread::yield()) {
    std::ifstream status("/proc/self/task/" + std::to_string(stopper) + "/status");
    std::string line;
    while (std::getline(status, line) && !line.starts_with("State:")) {
    }
    times_asleep = line.find("S (sleeping)") != std::string::npos ? times_asleep + 1 : 0;
  }
  CHECK(times_asleep == 50);
  WakeGate::get().release();
  stopping.join();

  CHECK(wait_for_stranger([&] { return stranger.is_at_end; }));
  CHECK(stranger.saw_close_notify);
  CHECK(!stranger.received.empty());  // the goodbye
  std::unique_lock lock(heard->mutex);
  CHECK(heard->changed.wait_for(lock, patience, [&] { return heard->after_live.size() == clients; }));
  for (const ss::LinkStatus& status : heard->after_live) {
    CHECK(status.reason == StateErrc::stopped);
    CHECK(status.detail == "the server stops");
  }
}

TEST_CASE("links are spread evenly over the I/O threads") {
  const std::size_t threads = GENERATE(1u, 2u, 4u);
  auto options = server_options();
  options.io_threads = threads;
  options.handshake_threads = 2;
  options.hooks_on_io_threads = true;
  Server server(std::move(options));
  std::mutex mutex;
  std::map<std::string, int> ran;  // by the thread's name: that of the link which brought the event
  server.add_hook([&](Map& map, const Event& event) {
    std::array<char, 16> name{};
    ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    const std::lock_guard lock(mutex);
    ++ran[name.data()];
    map.set("a", event.content);
  });
  server.start();
  std::vector<std::shared_ptr<Remote>> remotes;
  for (std::size_t i = 0; i < 2 * threads; ++i) {
    remotes.push_back(make_remote(server.endpoint()));
    const Map map = frozen_map(remotes.back());
    remotes.back()->send_event(map.hash(), Event{std::to_string(i)});
  }
  const std::lock_guard lock(mutex);
  CHECK(ran.size() == threads);
  for (const auto& [name, count] : ran) {
    INFO(name);
    CHECK(name.starts_with("ss-io-"));
    CHECK(count == 2);
  }
}

TEST_CASE("the end of a stream without close_notify is never a clean end") {
  const bool is_server = GENERATE(false, true);  // the link; the peer is the other side
  const bool is_lax = GENERATE(false, true);     // the context of a user who does not care
  const bool amid_record = GENERATE(false, true);
  INFO("server " << is_server << ", lax " << is_lax << ", amid a record " << amid_record);
  asio::io_context io;
  SocketPair pair = connected_pair();
  RawPeer peer(std::move(is_server ? pair.client : pair.server), !is_server);
  const auto owner = std::make_shared<Owner>();
  std::shared_ptr<TlsLink> link;
  const std::shared_ptr<SSL_CTX> context = RawPeer::make_context(is_server);
  if (is_lax) SSL_CTX_set_options(context.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
  if (is_server) {
    const TlsContext tls = is_lax ? TlsContext(ServerTls::from_context(context.get())) : server_context();
    link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), tls, "10.0.0.1");
  } else {
    X509_STORE* const store = SSL_CTX_get_cert_store(context.get());
    const std::unique_ptr<BIO, decltype(&BIO_free)> text(
        BIO_new_mem_buf(ss::tcp::test_data::certificate_pem.data(),
                        static_cast<int>(ss::tcp::test_data::certificate_pem.size())),
        BIO_free);
    const std::unique_ptr<X509, decltype(&X509_free)> trusted(
        PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr), X509_free);
    REQUIRE(X509_STORE_add_cert(store, trusted.get()) == 1);
    const TlsContext tls = is_lax ? TlsContext(ClientTls::from_context(context.get())) : client_context();
    link = TlsLink::make_client(ss::tcp::adopt(io.get_executor(), std::move(pair.client)), tls, "localhost",
                                "10.0.0.2");
  }
  link->start(owner);
  REQUIRE(run_until(
      io, [&] { return owner->opened == 1 && peer.is_open(); },
      [&] {
        peer.take();
        peer.flush();
      }));
  peer.write("whole");
  while (peer.flush()) {
  }
  REQUIRE(run_until(io, [&] { return owner->received == "whole"; }));
  peer.write("a record of which only some bytes come");
  if (amid_record) peer.flush(7);
  ::shutdown(peer.handle(), SHUT_WR);
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->received == "whole");
  CHECK(owner->reason == StateErrc::link_closed);
  CHECK(owner->detail == "the peer closed the connection without a goodbye");
}

TEST_CASE("a link with a silent peer is closed without waiting for it, and what fits is said before") {
  asio::io_context io;
  SocketPair pair = connected_pair(4'096);
  RawPeer peer(std::move(pair.client), false);
  const auto owner = std::make_shared<Owner>();
  ss::tcp::TlsLinkOptions options;
  options.close_time = std::chrono::hours(1);
  const auto link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)),
                                         server_context(), "10.0.0.1", options);
  link->start(owner);
  REQUIRE(run_until(
      io, [&] { return owner->opened == 1 && peer.is_open(); },
      [&] {
        peer.take();
        peer.flush();
      }));
  const bool is_full = GENERATE(false, true);
  owner->outbox = is_full ? pattern(4'000'000) : "goodbye";
  if (is_full) {
    link->wake();
    for (std::size_t ran = 1; ran > 0; io.restart()) ran = io.poll();
    REQUIRE(!owner->outbox.empty());
  }
  link->close_without_waiting();
  CHECK(owner->closed == 0);  // never from inside the call
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
  CHECK(owner->reason == StateErrc::link_closed);
  CHECK(link.use_count() == 1);
  if (is_full) return;
  REQUIRE(run_until(
      io, [&] { return peer.is_at_end; }, [&] { peer.take(); }));
  CHECK(peer.received == "goodbye");
  CHECK(peer.saw_close_notify);
}

TEST_CASE("the channel binding is the exporter of RFC 9266, as another implementation computes it") {
  asio::io_context io;
  const bool is_server = GENERATE(false, true);
  SocketPair pair = connected_pair();
  RawPeer peer(std::move(is_server ? pair.client : pair.server), !is_server);
  const auto owner = std::make_shared<Owner>();
  std::shared_ptr<TlsLink> link;
  if (is_server) {
    link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), server_context(),
                                "10.0.0.1");
  } else {
    link = TlsLink::make_client(ss::tcp::adopt(io.get_executor(), std::move(pair.client)), client_context(),
                                "localhost", "10.0.0.2");
  }
  link->start(owner);
  REQUIRE(run_until(
      io, [&] { return owner->opened == 1 && peer.is_open(); },
      [&] {
        peer.take();
        peer.flush();
      }));
  const std::string_view label = "EXPORTER-Channel-Binding";  // section 2 of the RFC; no context; 32 bytes
  ss::Bytes expected(32);
  REQUIRE(SSL_export_keying_material(peer.ssl(), reinterpret_cast<unsigned char*>(expected.data()),
                                     expected.size(), label.data(), label.size(), nullptr, 0, 0) == 1);
  CHECK(owner->info.channel_binding == expected);
}

TEST_CASE("key updates are forgiven after a minute") {
  const std::size_t most = GENERATE(0u, 1u, 8u);
  ss::tcp::detail::MinuteCount count(most);
  auto now = std::chrono::steady_clock::time_point{} + std::chrono::hours(24);
  for (int minute = 0; minute < 5; ++minute) {
    for (std::size_t i = 0; i < most; ++i) {
      CHECK(count.add(now));
      CHECK(!count.is_exceeded());
      now += 1ms;
    }
    if (minute == 2) {  // exceeded within the minute, and forgiven as well
      CHECK(!count.add(now));
      CHECK(count.is_exceeded());
      CHECK(!count.add(now + 59s));
    }
    now += 60s;
  }
}

TEST_CASE("the minute of key updates begins with the first of them") {
  ss::tcp::detail::MinuteCount count(2);
  const auto begin = std::chrono::steady_clock::time_point{} + std::chrono::hours(24);
  CHECK(count.add(begin));
  CHECK(count.add(begin + 59'999ms));
  CHECK(!count.add(begin + 59'999ms));
  CHECK(count.add(begin + 60s));
  CHECK(!count.is_exceeded());
  CHECK(count.add(begin + 119s));
  CHECK(!count.add(begin + 119s));
  // The first one of all begins a minute, too, where a clock begins when the machine does.
  ss::tcp::detail::MinuteCount early(1);
  const auto since_start = std::chrono::steady_clock::time_point{} + 30s;
  CHECK(early.add(since_start));
  CHECK(!early.add(since_start + 59s));
  CHECK(early.add(since_start + 60s));
}

TEST_CASE("a v6 address is counted as one, whatever port its clients come from") {
  const auto address_of = [](const std::string& host, std::uint16_t port) {
    return ss::tcp::numeric_endpoint(
        ss::tcp::detail::resolve_now({host, port}, AI_NUMERICHOST).addresses.at(0));
  };
  const auto counted_as = [&](const std::string& host, std::uint16_t port) {
    return ss::tcp::network_of({address_of(host, port).host, 0});
  };
  CHECK(address_of("2001:db8::1", 4711).host == "2001:db8::1");
  CHECK(address_of("2001:db8::1", 4711).port == 4711);
  for (const char* host :
       {"2001:db8::1", "::1", "fe80::1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "192.0.2.1"}) {
    INFO(host);
    std::set<std::string> counted;
    for (const int port : {1, 80, 4711, 40'000, 65'535}) {
      counted.insert(counted_as(host, static_cast<std::uint16_t>(port)));
    }
    CHECK(counted.size() == 1);
  }
  CHECK(counted_as("2001:db8::1", 1) == counted_as("2001:db8::2:3:4:5", 2));
  CHECK(counted_as("2001:db8::1", 1) != counted_as("2001:db8:0:1::1", 1));
  CHECK(counted_as("::ffff:192.0.2.1", 1) == counted_as("192.0.2.1", 2));
}

TEST_CASE("clients of one v6 address share the limit on links of an address") {
  auto options = server_options("[::1]:0");
  options.limits.links_per_address = 2;
  Server server(std::move(options));
  try {
    server.start();
  } catch (const ss::StateError& error) {  // a system without v6
    WARN("not tested: no ::1 here: " << error.what());
    return;
  }
  std::vector<std::shared_ptr<Remote>> remotes;
  for (int i = 0; i < 2; ++i) {
    remotes.push_back(make_remote(server.endpoint()));
    frozen_map(remotes.back());
  }
  CHECK(server.link_count() == 2);
  const auto third = make_remote(server.endpoint());
  Map map(third);
  map.push("a", "-");
  CHECK_THROWS_AS(map.freeze(500ms), ss::StateError);
  CHECK(server.link_count() == 2);
  remotes.pop_back();
  CHECK_NOTHROW(map.freeze(patience));
}

TEST_CASE("an acceptor tells a v6 peer's address without its port") {
  asio::io_context io;
  std::optional<Accepting> server;
  try {
    server.emplace(io, Endpoint{"::1", 0});
  } catch (const ss::StateError& error) {
    WARN("not tested: no ::1 here: " << error.what());
    return;
  }
  TlsConnector connector(io.get_executor(), {{"::1", server->port()}}, client_context());
  const auto owner = std::make_shared<Owner>();
  const auto link = connector.connect(owner);
  REQUIRE(run_until(io, [&] { return owner->opened == 1; }));
  CHECK(server->addresses == std::vector<std::string>{"::1"});
  CHECK(owner->info.peer.address == "::1");
}

}  // namespace transport_test
