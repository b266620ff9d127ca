// Whole services over real TLS on loopback: servers, remotes and replicas as users make them.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <future>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "support/freed_secrets.hpp"
#include "support/sanitized.hpp"
#include "support/tcp_proxy.hpp"
#include "syncstate/protocol/client_session.hpp"
#include "syncstate/tcp.hpp"

#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/use_future.hpp>

namespace service_test {

namespace ss = syncstate;
using namespace std::chrono_literals;

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

constexpr auto patience = 20s;  // a limit, not a pause

const support::Certificate& good_certificate() {
  static const support::Certificate certificate = support::make_certificate({});
  return certificate;
}

ss::tcp::ServerOptions server_options() {
  return {.endpoint = "127.0.0.1:0",
          .tls = ss::tcp::ServerTls::from_pem(good_certificate().pem, good_certificate().key_pem),
          .password = "a password"};
}

ss::tcp::RemoteOptions remote_options(const std::string& endpoint) {
  return {.endpoint = endpoint,
          .tls = ss::tcp::ClientTls::from_pem(good_certificate().pem),
          .password = "a password",
          .event_timeout = 60s,  // the large test under a sanitizer takes a while
          .backoff = {.first = 10ms, .most = 200ms}};
}

void add_set_hook(Server& server) {
  server.add_hook([](Map& map, const Event& event) { map.set(event.content.key, event.content.value); });
}

std::unique_ptr<Server> start_server(ss::tcp::ServerOptions options = server_options()) {
  auto server = std::make_unique<Server>(std::move(options));
  add_set_hook(*server);
  server->start();
  return server;
}

std::shared_ptr<Remote> connect(const Server& server) {
  auto remote = std::make_shared<Remote>(remote_options(server.endpoint()));
  remote->start();
  return remote;
}

Map small_map(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  map.push("a", "first a");
  map.push("b", "first b");
  return map;
}

/// The code that `call` throws; none if it returns.
template <class F>
std::error_code error_of(F&& call) {
  try {
    call();
  } catch (const std::system_error& error) {
    return error.code();
  }
  return {};
}

std::error_code freeze_error(Map& map, ss::Duration limit = patience) {
  try {
    map.freeze(limit);
  } catch (const ss::StateError& error) {
    INFO(error.what());
    return error.code();
  }
  return {};
}

std::uint16_t port_of(const std::string& endpoint) { return ss::tcp::parse_endpoint(endpoint).port; }

/// A server with one client that must go on being served, whatever the others do.
struct Service {
  explicit Service(ss::tcp::ServerOptions options = server_options())
      : server(start_server(std::move(options))) {
    remote = connect(*server);
    Map map = small_map(remote);
    map.freeze(patience);
    hash = map.hash();
    replica.emplace(std::move(map));
  }

  void check_still_serves() {
    const ss::UpdateId id = remote->send_event(hash, Event{{"a", "still here"}});
    CHECK(replica->wait_for(id, patience));
    CHECK(replica->view().at("a") == "still here");
  }

  std::unique_ptr<Server> server;
  std::shared_ptr<Remote> remote;
  ss::MapHash hash;
  std::optional<Replica> replica;
};

}  // namespace

TEST_CASE("a change goes from one process's event to another's replica over TLS", "[tcp]") {
  Service service;
  const auto other = connect(*service.server);
  Map map = other->attach<std::string, std::string>(service.hash);
  CHECK(map.at("b") == "first b");
  const Replica replica(std::move(map));
  const ss::UpdateId id = service.remote->send_event(service.hash, Event{{"b", "changed"}});
  CHECK(const_cast<Replica&>(replica).wait_for(id, patience));
  CHECK(replica.view().at("b") == "changed");
  CHECK(replica.epoch() == service.replica->epoch());
  CHECK(other->hosted().size() == 1);
  CHECK(other->hosted().front().hash == service.hash);
  CHECK(other->status().state == ss::LinkState::live);
}

TEST_CASE(
    "hooks run on the I/O thread where that is asked for, and never keep it from a map that is being changed",
    "[tcp]") {
  auto options = server_options();
  const bool on_io_thread = GENERATE(false, true);
  options.hooks_on_io_threads = on_io_thread;
  std::atomic<std::thread::id> io_thread;
  std::atomic<std::thread::id> hook_thread;
  options.authorizer = [&](const ss::Peer&, ss::Action action, const ss::MapHash&) {
    if (action == ss::Action::send_event) io_thread = std::this_thread::get_id();
    return true;
  };
  Server server(std::move(options));
  server.add_hook([&](Map& map, const Event& event) {
    hook_thread = std::this_thread::get_id();
    map.set(event.content.key, event.content.value);
  });
  Map mine(ss::Role::master);
  mine.push("a", "first a");
  mine.freeze();
  const auto handle = server.host(std::move(mine));
  server.start();
  const auto remote = connect(server);
  Map map = remote->attach<std::string, std::string>(handle.hash());
  CHECK(remote->send_event(map.hash(), Event{{"a", "1"}}).update_id == 1);
  CHECK((hook_thread.load() == io_thread.load()) == on_io_thread);

  std::promise<void> is_changing;
  std::promise<void> release;
  std::thread changing([&] {
    handle.modify([&](Map& m) {
      is_changing.set_value();
      release.get_future().wait_for(patience);
      m.set("a", "2");
    });
  });
  is_changing.get_future().wait_for(patience);
  auto answer = remote->async_send_event(map.hash(), Event{{"a", "3"}}, asio::use_future);
  CHECK(remote->hosted().size() == 1);  // the link is served while the event waits for its map
  CHECK(answer.wait_for(0s) == std::future_status::timeout);
  release.set_value();
  changing.join();
  CHECK(answer.get().update_id == 3);
  CHECK(map.sync() == 3);
  CHECK(map.at("a") == "3");
}

TEST_CASE("with a small share for fan-out many commits are merged, and none is left out", "[tcp]") {
  auto options = server_options();
  options.fan_out_share = 0.01;
  const auto server = start_server(std::move(options));
  const auto remote = connect(*server);
  Map map = small_map(remote);
  map.freeze(patience);
  const ss::MapHash hash = map.hash();
  std::vector<std::unique_ptr<std::atomic<int>>> counts;  // before the replicas, whose callbacks count
  std::vector<std::unique_ptr<Replica>> replicas;
  for (int i = 0; i < 10; ++i) {
    counts.push_back(std::make_unique<std::atomic<int>>(0));
    replicas.push_back(std::make_unique<Replica>(connect(*server)->attach<std::string, std::string>(hash)));
    replicas.back()->on_update([count = counts.back().get()](const auto&) { ++*count; });
  }
  for (const auto& replica : replicas) {
    while (replica->epoch() == 0) std::this_thread::yield();
  }
  constexpr ss::UpdateId commits = 20'000;
  std::vector<std::future<ss::Position>> answers;
  for (ss::UpdateId id = 1; id <= commits; ++id) {
    if (id > 500) CHECK(answers[id - 501].get().update_id == id - 500);
    answers.push_back(remote->async_send_event(hash, Event{{"a", std::to_string(id)}}, asio::use_future));
  }
  for (const auto& replica : replicas) {
    CHECK(replica->wait_for(commits, patience));
    CHECK(replica->view().at("a") == std::to_string(commits));
  }
  // A round of sending, and a hundred times as long until the next: some ten, where there would be hundreds.
  for (const auto& count : counts) CHECK(*count < static_cast<int>(commits) / 400);
}

TEST_CASE("a server without threads is refused", "[tcp]") {
  const auto refuses = [](auto change) {
    auto options = server_options();
    change(options);
    CHECK(error_of([&] { const Server server(options); }) == ss::StateErrc::invalid_option);
  };
  refuses([](auto& options) { options.io_threads = 0; });
  refuses([](auto& options) { options.handshake_threads = 0; });
  refuses([](auto& options) { options.hook_threads = 0; });
}

TEST_CASE("a share for fan-out that is none is refused", "[tcp]") {
  for (const double share : {0.0, -1.0, 1.5}) {
    auto options = server_options();
    options.fan_out_share = share;
    try {
      const Server server(std::move(options));
      FAIL("taken: " << share);
    } catch (const ss::StateError& error) {
      CHECK(error.code() == ss::StateErrc::invalid_option);
    }
  }
}

TEST_CASE("threads that look before they sleep serve as others do", "[tcp]") {
  auto options = server_options();
  options.spin = 200us;
  options.hooks_on_io_threads = true;
  const auto server = start_server(std::move(options));
  auto ours = remote_options(server->endpoint());
  ours.spin = 200us;
  const auto remote = std::make_shared<Remote>(ours);
  Map map = small_map(remote);
  map.freeze(patience);
  const ss::MapHash hash = map.hash();
  Replica replica(std::move(map));
  for (ss::UpdateId id = 1; id <= 50; ++id) {
    CHECK(remote->send_event(hash, Event{{"a", std::to_string(id)}}).update_id == id);
    CHECK(replica.wait_for(id, patience));
  }
  CHECK(replica.view().at("a") == "50");
}

TEST_CASE("a remote on a context of one thread refuses blocking calls in all its handlers", "[tcp]") {
  const auto server = start_server();
  asio::io_context io;
  auto options = remote_options(server->endpoint());
  options.context_has_one_thread = true;
  const auto remote = std::make_shared<Remote>(io, options);
  std::error_code code;
  asio::post(io, [&] {
    try {
      (void)remote->hosted();
    } catch (const ss::StateError& error) {
      code = error.code();
    }
    io.stop();
  });
  io.run();
  CHECK(code == ss::StateErrc::would_deadlock);

  io.restart();
  std::thread thread([&] { io.run(); });
  Map map = small_map(remote);
  map.freeze(patience);
  CHECK(remote->send_event(map.hash(), Event{{"a", "1"}}).update_id == 1);
  CHECK(map.sync() == 1);
  io.stop();
  thread.join();
}

TEST_CASE("a wrong password is unauthorized, and others are served", "[tcp]") {
  Service service;
  auto options = remote_options(service.server->endpoint());
  options.password = "another password";
  const auto remote = std::make_shared<Remote>(options);
  Map map = small_map(remote);
  CHECK(freeze_error(map) == ss::StateErrc::unauthorized);
  CHECK(map.is_frozen());
  CHECK(map.at("a") == "first a");
  CHECK(remote->status().state == ss::LinkState::failed);
  CHECK(remote->status().reason == ss::StateErrc::unauthorized);
  service.check_still_serves();
}

TEST_CASE(
    "a certificate of an unknown authority and one for another host are rejected, an expired one at start",
    "[tcp]") {
  Service service;
  const auto refused_by = [](const support::Certificate& certificate, const support::Certificate& trusted) {
    auto options = server_options();
    options.tls = ss::tcp::ServerTls::from_pem(certificate.pem, certificate.key_pem);
    const auto server = start_server(std::move(options));
    auto client = remote_options(server->endpoint());
    client.tls = ss::tcp::ClientTls::from_pem(trusted.pem);
    const auto remote = std::make_shared<Remote>(client);
    Map map = small_map(remote);
    return freeze_error(map);
  };
  const auto unknown = support::make_certificate({});
  const auto expired = support::make_certificate({.not_after = "20210101000000Z"});
  const auto elsewhere = support::make_certificate({.alternative_names = "DNS:elsewhere.example"});
  CHECK(refused_by(unknown, good_certificate()) == ss::StateErrc::certificate_rejected);
  CHECK_THROWS_WITH(refused_by(expired, expired), ss::testing::contains_text("certificate has expired"));
  CHECK(refused_by(elsewhere, elsewhere) == ss::StateErrc::certificate_rejected);
  service.check_still_serves();
}

TEST_CASE("types that differ are named, and others are served", "[tcp]") {
  Service service;
  const auto remote = connect(*service.server);
  ss::StateMap<std::string, int> map(remote);
  map.push("a", 1);
  CHECK_THROWS_WITH(map.freeze(patience), ss::testing::contains_text("{string: string}") &&
                                              ss::testing::contains_text("{string: i32}"));
  try {
    service.remote->send_event(service.hash, ss::Event<int>{7});
    FAIL("an event of another type was taken");
  } catch (const ss::StateError& error) {
    CHECK(error.code() == ss::StateErrc::type_mismatch);
  }
  service.check_still_serves();
}

TEST_CASE("a server that takes no uploads names the first key that differs", "[tcp]") {
  auto options = server_options();
  options.allow_uploads = false;
  Server server(options);
  add_set_hook(server);
  Map hosted(ss::Role::master);
  hosted.push("a", "first a");
  hosted.push("b", "another b");
  hosted.freeze();
  auto handle = server.host(std::move(hosted));
  server.start();
  const auto remote = connect(server);
  Map map = small_map(remote);
  CHECK_THROWS_WITH(map.freeze(patience), ss::testing::contains_text("\"b\""));
  Map other(remote);
  other.push("quite another key", "");
  CHECK(freeze_error(other) == ss::StateErrc::not_hosted);

  Map attached = remote->attach<std::string, std::string>(handle.hash());
  CHECK(handle.modify([](Map& state) { state.set("a", "by the host"); }).update_id == 1);
  CHECK(attached.sync() == 1);
  CHECK(attached.at("a") == "by the host");
}

namespace {

/// A client that speaks the protocol up to a point, and then sends what it likes.
class RawClient final : public ss::LinkOwner {
 public:
  RawClient(std::string password, ss::Bytes after_welcome)
      : password_(std::move(password)), after_welcome_(std::move(after_welcome)) {}

  void on_open(const ss::LinkInfo& info) override {
    session_.on_open(password_, info.channel_binding, std::chrono::steady_clock::now());
    link->wake();
  }
  void on_bytes(ss::ByteView bytes) override {
    session_.on_bytes(bytes, std::chrono::steady_clock::now(),
                      [this](const auto& action) { on_action(action); });
    link->wake();
  }
  void produce(ss::Bytes& out) override {
    session_.produce(out);
    if (out.empty() && is_welcome_) out.swap(after_welcome_);
  }
  void on_closed(std::error_code, const std::string&) override { closed.set_value(); }

  std::shared_ptr<ss::Link> link;
  std::promise<void> closed;
  ss::StateErrc goodbye{};

 private:
  void on_action(const ss::protocol::ServerAuthenticated&) { is_welcome_ = true; }
  void on_action(const ss::protocol::CloseSession& action) { goodbye = action.reason; }
  template <class Other>
  void on_action(const Other&) {}

  std::string password_;
  ss::Bytes after_welcome_;
  ss::Limits limits_;
  ss::protocol::ClientSession session_{limits_, std::chrono::steady_clock::now()};
  bool is_welcome_ = false;
};

ss::StateErrc goodbye_after(const Server& server, ss::Bytes bytes) {
  ss::tcp::IoThread thread(ss::detail::ThreadKind::remote);
  thread.start();
  auto client = std::make_shared<RawClient>("a password", std::move(bytes));
  auto connector = std::make_shared<ss::tcp::TlsConnector>(
      thread.asio_executor(), std::vector{ss::tcp::parse_endpoint(server.endpoint())},
      ss::tcp::TlsContext(ss::tcp::ClientTls::from_pem(good_certificate().pem)));
  thread.executor()->post([client, connector] { client->link = connector->connect(client); });
  REQUIRE(client->closed.get_future().wait_for(patience) == std::future_status::ready);
  thread.executor()->post([client] { client->link.reset(); });
  thread.stop();
  return client->goodbye;
}

ss::Bytes bytes_of(std::initializer_list<int> values) {
  ss::Bytes bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

}  // namespace

TEST_CASE("wrong bytes end their session with a code, and others are served", "[tcp]") {
  Service service;
  // A frame of 2 MiB, of 2^32-1, of 2^63; an unknown kind; a frame that only servers send; an upload nobody
  // wants.
  CHECK(goodbye_after(*service.server, bytes_of({0x80, 0x80, 0x80, 0x01, 16})) == ss::StateErrc::too_large);
  CHECK(goodbye_after(*service.server, bytes_of({0xff, 0xff, 0xff, 0xff, 0x0f})) == ss::StateErrc::too_large);
  CHECK(goodbye_after(*service.server, bytes_of({0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                                 0x01})) == ss::StateErrc::too_large);
  CHECK(goodbye_after(*service.server, bytes_of({1, 200})) == ss::StateErrc::protocol_error);
  CHECK(goodbye_after(*service.server, bytes_of({2, 39, 1})) == ss::StateErrc::protocol_error);
  CHECK(goodbye_after(*service.server, bytes_of({3, 16, 1, 2})) == ss::StateErrc::decode_error);
  service.check_still_serves();
}

TEST_CASE("a remote reconnects by itself, and its replica resumes with what changed meanwhile", "[tcp]") {
  Service service;
  support::TcpProxy proxy(port_of(service.server->endpoint()));
  const auto remote = std::make_shared<Remote>(remote_options(proxy.endpoint()));
  Map map = small_map(remote);
  map.freeze(patience);
  Replica replica(std::move(map));
  CHECK(replica.wait_for(service.remote->send_event(service.hash, Event{{"a", "before"}}), patience));

  std::promise<void> went_stale;
  std::atomic<bool> has_told = false;
  remote->on_status([&](const ss::LinkStatus& status) {
    if (status.state == ss::LinkState::stale && !has_told.exchange(true)) went_stale.set_value();
  });
  proxy.set_closed(true);
  proxy.cut();
  REQUIRE(went_stale.get_future().wait_for(patience) == std::future_status::ready);
  ss::UpdateId last = 0;
  for (int i = 0; i < 10; ++i)
    last = service.remote->send_event(service.hash, Event{{"a", std::to_string(i)}});
  CHECK(replica.view().at("a") == "before");  // readable while the server is out of reach
  proxy.set_closed(false);
  CHECK(replica.wait_for(last, patience));
  CHECK(replica.view().at("a") == "9");
  CHECK(replica.epoch() == service.replica->epoch());
}

TEST_CASE("an event that was sent when the link broke takes effect at most once", "[tcp]") {
  Service service;
  support::TcpProxy proxy(port_of(service.server->endpoint()));
  auto options = remote_options(proxy.endpoint());
  options.backoff = {.first = 1ms, .most = 5ms};
  const auto remote = std::make_shared<Remote>(options);
  Map map = small_map(remote);
  map.freeze(patience);
  const ss::UpdateId before = service.remote->send_event(service.hash, Event{{"a", "start"}});
  ss::UpdateId last = before;
  int answered = 0;
  for (int i = 0; i < 50; ++i) {
    auto answer = remote->async_send_event(map.hash(), Event{{"b", std::to_string(i)}}, asio::use_future);
    // A little later each time: before it goes out, while it runs, while its answer is on its way, after it.
    for (int k = 0; k < 20 * i; ++k) std::this_thread::yield();
    proxy.cut();
    try {
      last = answer.get();
      ++answered;
    } catch (const std::system_error& error) {
      INFO(error.what());
      CHECK((error.code() == ss::StateErrc::outcome_unknown || error.code() == ss::StateErrc::unavailable));
    }
  }
  const ss::UpdateId head = service.remote->send_event(service.hash, Event{{"a", "end"}});
  // Every commit of the fifty is one event, run once: none that was answered is missing, none came twice.
  CHECK(head - before - 1 >= static_cast<ss::UpdateId>(answered));
  CHECK(head - before - 1 <= 50);
  CHECK(last < head);
}

TEST_CASE("a restarted master is another epoch, ahead of or behind the replica", "[tcp]") {
  Service service;
  const std::string endpoint = service.server->endpoint();
  for (int i = 0; i < 5; ++i) service.remote->send_event(service.hash, Event{{"a", std::to_string(i)}});
  service.check_still_serves();
  const ss::Epoch first = service.replica->epoch();
  Map held = service.remote->attach<std::string, std::string>(service.hash);
  held.sync();
  Replica holding(std::move(held), ss::ReplicaOptions{.epoch_policy = ss::EpochPolicy::hold});

  std::promise<ss::Epoch> changed;
  std::atomic<bool> has_told = false;
  service.replica->on_update([&](const auto& diff) {
    if (diff.epoch() != first && !has_told.exchange(true)) changed.set_value(diff.epoch());
  });
  service.server.reset();
  auto options = server_options();
  options.endpoint = endpoint;
  service.server = start_server(std::move(options));  // the remote brings the map itself
  auto future = changed.get_future();
  REQUIRE(future.wait_for(patience) == std::future_status::ready);
  CHECK(future.get() != first);
  CHECK(service.replica->view().at("a") == "first a");  // fell back to its initial value
  service.check_still_serves();
  CHECK(service.replica->update_id() == 1);
  CHECK(holding.epoch() == first);
  CHECK(holding.view().at("a") == "still here");
  CHECK(holding.status().reason == ss::StateErrc::epoch_changed);
}

TEST_CASE("an empty password needs mutual TLS, which names the client to hooks", "[tcp]") {
  auto options = server_options();
  options.password.clear();
  {
    Server server(options);
    CHECK_THROWS_WITH(server.start(), ss::testing::contains_text("mutual TLS"));
  }
  const auto authority = support::make_certificate({.common_name = "authority"});
  const auto alice =
      support::make_certificate({.common_name = "alice", .issuer = &authority, .is_authority = false});
  options.tls = options.tls.require_client_certificates_pem(authority.pem);
  Server server(options);
  std::promise<ss::EventContext> seen;
  server.add_hook([&](Map&, const Event&, const ss::EventContext& context) { seen.set_value(context); });
  server.start();

  auto client = remote_options(server.endpoint());
  client.password.clear();
  client.tls = client.tls.with_certificate_pem(alice.pem, alice.key_pem);
  const auto remote = std::make_shared<Remote>(client);
  Map map = small_map(remote);
  map.freeze(patience);
  CHECK(remote->send_event(map.hash(), Event{{"a", ""}}).update_id == 0);  // it set nothing: the head
  const ss::EventContext context = seen.get_future().get();
  CHECK(context.certificate_subject == "CN=alice");
  CHECK(context.peer_address == "127.0.0.1");
  CHECK(context.map == map.hash());

  client.tls = ss::tcp::ClientTls::from_pem(good_certificate().pem);
  Map stranger = small_map(std::make_shared<Remote>(client));
  CHECK(freeze_error(stranger));
}

TEST_CASE("several passwords are taken while one is being replaced", "[tcp]") {
  auto options = server_options();
  options.more_passwords = {"the next password"};
  const auto server = start_server(options);
  for (const char* password : {"a password", "the next password"}) {
    auto client = remote_options(server->endpoint());
    client.password = password;
    Map map = small_map(std::make_shared<Remote>(client));
    CHECK_FALSE(freeze_error(map));
  }
}

TEST_CASE("a server listens on the socket that it is given, and keeps to passwords, limits and logs",
          "[tcp]") {
  ss::tcp::NativeSocket listener = ss::tcp::listen_on({"127.0.0.1", 0});
  const std::string endpoint =
      ss::tcp::to_string(ss::tcp::numeric_endpoint(ss::tcp::local_address(listener.get())));
  auto options = server_options();
  options.endpoint = "192.0.2.1:1";  // not looked at
  options.listener = listener.release();
  options.retired_passwords = {"a former password"};
  options.limits.failed_proofs_per_minute = 1;
  options.map_options.log_diffs = 0;
  const auto server = start_server(std::move(options));
  CHECK(server->endpoint() == endpoint);

  // The proof of a retired password is not held against its address, from which the next client comes.
  auto former = remote_options(endpoint);
  former.password = "a former password";
  Map map_of_former = small_map(std::make_shared<Remote>(former));
  CHECK(freeze_error(map_of_former) == ss::StateErrc::unauthorized);
  const auto remote = connect(*server);
  Map map = small_map(remote);
  map.freeze(patience);
  for (int i = 1; i <= 3; ++i) remote->send_event(map.hash(), Event{{"a", std::to_string(i)}});
  CHECK(map.set_update_id(1) == 3);  // without a log there is nothing between here and the head
  CHECK(map.at("a") == "3");

  auto guessing = remote_options(endpoint);
  guessing.password = "a guess";
  Map map_of_guesser = small_map(std::make_shared<Remote>(guessing));
  CHECK(freeze_error(map_of_guesser) == ss::StateErrc::unauthorized);
  Map barred = small_map(connect(*server));
  CHECK(freeze_error(barred, 1s) == ss::StateErrc::unavailable);  // busy: that address has guessed once
  const ss::UpdateId last = remote->send_event(map.hash(), Event{{"a", "4"}});
  CHECK(last == 4);
}

TEST_CASE("passwords rotate while the server runs, and links that proved themselves go on", "[tcp]") {
  Service service;
  const auto freeze_with = [&](const char* password) {
    auto client = remote_options(service.server->endpoint());
    client.password = password;
    Map map = small_map(std::make_shared<Remote>(client));
    return freeze_error(map);
  };
  service.server->set_passwords({"a password", "the next one"});
  CHECK_FALSE(freeze_with("a password"));
  CHECK_FALSE(freeze_with("the next one"));
  service.server->set_passwords({"the next one"});
  CHECK(freeze_with("a password") == ss::StateErrc::unauthorized);
  CHECK_FALSE(freeze_with("the next one"));
  CHECK_THROWS_AS(service.server->set_passwords({}), ss::StateError);
  CHECK_THROWS_AS(service.server->set_passwords({"good", ""}), ss::StateError);
  CHECK_FALSE(freeze_with("the next one"));  // nothing has changed
  service.check_still_serves();              // on a link that was made with the first one
}

TEST_CASE("certificates are reloaded while the server runs, and links that are open go on", "[tcp]") {
  const auto before = support::make_certificate({});
  const auto after = support::make_certificate({});
  const std::string folder = [] {
    std::string name = "/tmp/syncstate_test_XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    return name;
  }();
  const auto write = [&](const support::Certificate& certificate) {
    std::ofstream(folder + "/server.crt") << certificate.pem;
    std::ofstream(folder + "/server.key") << certificate.key_pem;
  };
  write(before);
  auto options = server_options();
  options.tls = ss::tcp::ServerTls::from_files(folder + "/server.crt", folder + "/server.key");
  const auto server = start_server(std::move(options));
  const auto connect_trusting = [&](const support::Certificate& trusted) {
    auto client = remote_options(server->endpoint());
    client.tls = ss::tcp::ClientTls::from_pem(trusted.pem);
    return std::make_shared<Remote>(client);
  };
  const auto first = connect_trusting(before);
  Map map = small_map(first);
  map.freeze(patience);
  const auto freeze_trusting = [&](const support::Certificate& trusted) {
    Map another = small_map(connect_trusting(trusted));
    return freeze_error(another);
  };

  SECTION("the files that were named, read anew") {
    write(after);
    CHECK_FALSE(freeze_trusting(before));  // not before it is told to
    server->reload_tls();
    CHECK(freeze_trusting(before) == ss::StateErrc::certificate_rejected);
    CHECK_FALSE(freeze_trusting(after));
  }
  SECTION("another certificate") {
    server->reload_tls(ss::tcp::ServerTls::from_pem(after.pem, after.key_pem));
    CHECK(freeze_trusting(before) == ss::StateErrc::certificate_rejected);
    server->reload_tls();  // what it has now, not what it was made with
    CHECK_FALSE(freeze_trusting(after));
  }
  SECTION("a file that can't be used changes nothing") {
    std::ofstream(folder + "/server.crt") << "no certificate";
    CHECK_THROWS_AS(server->reload_tls(), ss::StateError);
    CHECK_FALSE(freeze_trusting(before));
  }
  SECTION("clients are asked for certificates from now on") {
    const auto authority = support::make_certificate({.common_name = "the authority"});
    const auto own = support::make_certificate({.common_name = "a client", .issuer = &authority});
    const auto tls = ss::tcp::ServerTls::from_pem(before.pem, before.key_pem);
    server->reload_tls(tls.require_client_certificates_pem(authority.pem));
    CHECK(freeze_trusting(before));
    auto client = remote_options(server->endpoint());
    client.tls = ss::tcp::ClientTls::from_pem(before.pem).with_certificate_pem(own.pem, own.key_pem);
    Map certified = small_map(std::make_shared<Remote>(client));
    CHECK_FALSE(freeze_error(certified));
    CHECK_THROWS_AS(server->reload_tls(tls), ss::StateError);  // and can't be let off again
  }
  CHECK(first->send_event(map.hash(), Event{{"a", "on the old link"}}).update_id == 1);
  for (const char* name : {"/server.crt", "/server.key"}) std::remove((folder + name).c_str());
  CHECK(::rmdir(folder.c_str()) == 0);
}

TEST_CASE("a remote that reads its certificates again reads those that it was given last", "[tcp]") {
  const auto server = start_server();
  auto options = remote_options(server->endpoint());
  options.tls = ss::tcp::ClientTls::from_pem(support::make_certificate({}).pem);
  const auto remote = std::make_shared<Remote>(options);
  Map map = small_map(remote);
  CHECK(freeze_error(map) == ss::StateErrc::certificate_rejected);
  remote->reload_tls(ss::tcp::ClientTls::from_pem(good_certificate().pem));
  CHECK_FALSE(freeze_error(map));
  remote->reload_tls();
  const auto next = std::make_shared<std::promise<ss::LinkState>>();  // of the link after this one
  remote->on_status([next, is_lost = false, is_told = false](const ss::LinkStatus& status) mutable {
    if (status.state == ss::LinkState::stale) {
      is_lost = true;
    } else if (is_lost && !std::exchange(is_told, true)) {
      next->set_value(status.state);
    }
  });
  CHECK(server->disconnect([](const ss::Peer&) { return true; }) == 1);
  auto state = next->get_future();
  REQUIRE(state.wait_for(patience) == std::future_status::ready);
  CHECK(state.get() == ss::LinkState::live);
}

TEST_CASE("a remote keeps to the times, limits and handlers that it is given", "[tcp]") {
  // Nobody shakes hands here.
  const ss::tcp::NativeSocket silent = ss::tcp::listen_on({"127.0.0.1", 0});
  auto options =
      remote_options(ss::tcp::to_string(ss::tcp::numeric_endpoint(ss::tcp::local_address(silent.get()))));
  options.request_timeout = 1ms;
  options.event_timeout = 1ms;
  options.limits.event_bytes = 100;
  {
    const auto remote = std::make_shared<Remote>(options);
    Map map = small_map(remote);
    CHECK(freeze_error(map, 1ms) == ss::StateErrc::unavailable);
    const auto ends = [&](auto call, ss::Duration otherwise) {
      const auto start = std::chrono::steady_clock::now();
      CHECK(error_of(call) == ss::StateErrc::unavailable);
      CHECK(std::chrono::steady_clock::now() - start < otherwise);
    };
    ends([&] { static_cast<void>(remote->hosted()); }, 5s);
    ends([&] { map.sync(); }, 5s);
    ends([&] { remote->send_event(map.hash(), Event{{"a", "b"}}); }, 10s);

    const Event too_large{{"a", std::string(100, 'x')}};
    CHECK(error_of([&] { remote->send_event(map.hash(), too_large); }) == ss::StateErrc::too_large);
    auto answer = remote->async_send_event(map.hash(), too_large, asio::use_future);
    REQUIRE(answer.wait_for(patience) == std::future_status::ready);
    CHECK(error_of([&] { answer.get(); }) == ss::StateErrc::too_large);
  }

  const auto server = start_server();
  options = remote_options(server->endpoint());
  options.password = "another password";
  options.backoff.unauthorized = 0ms;
  const auto reported = std::make_shared<std::promise<void>>();
  const auto is_live = std::make_shared<std::promise<void>>();
  options.on_error = [reported, is_told = false](const std::exception_ptr&) mutable {
    if (!std::exchange(is_told, true)) reported->set_value();
  };
  const auto remote = std::make_shared<Remote>(options);
  Map map = small_map(remote);
  CHECK(freeze_error(map) == ss::StateErrc::unauthorized);
  remote->on_status([is_live, is_told = false](const ss::LinkStatus& status) mutable {
    if (status.state != ss::LinkState::live || std::exchange(is_told, true)) return;
    is_live->set_value();
    throw std::runtime_error("on purpose");
  });
  // It comes back by itself, long before the half minute that such a client waits otherwise.
  server->set_passwords({"another password"});
  CHECK(is_live->get_future().wait_for(patience) == std::future_status::ready);
  CHECK(reported->get_future().wait_for(patience) == std::future_status::ready);
}

TEST_CASE("an authorizer knows a peer by its certificate, and on_error what hooks throw", "[tcp]") {
  const auto authority = support::make_certificate({.common_name = "the authority"});
  auto options = server_options();
  options.tls = options.tls.require_client_certificates_pem(authority.pem);
  options.authorizer = [](const ss::Peer& peer, ss::Action action, const ss::MapHash&) {
    switch (action) {
      case ss::Action::init:
      case ss::Action::follow:
      case ss::Action::fetch: return true;
      case ss::Action::send_event: return peer.certificate_subject == "CN=dispatcher";
    }
    return false;
  };
  std::promise<std::string> reported;
  options.on_error = [&](const std::exception_ptr& error) {
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& e) {
      reported.set_value(e.what());
    }
  };
  Server server(std::move(options));
  server.add_hook([](Map&, const Event& event) { throw std::runtime_error(event.content.value); });
  server.start();
  const auto send_as = [&](const std::string& name) {
    const auto own = support::make_certificate({.common_name = name, .issuer = &authority});
    auto client = remote_options(server.endpoint());
    client.tls = client.tls.with_certificate_pem(own.pem, own.key_pem);
    const auto remote = std::make_shared<Remote>(client);
    Map map = small_map(remote);
    map.freeze(patience);
    try {
      remote->send_event(map.hash(), Event{{"a", "by " + name}});
    } catch (const ss::StateError& error) {
      return error.code();
    }
    return std::error_code();
  };
  CHECK(send_as("watcher") == ss::StateErrc::forbidden);
  CHECK(send_as("dispatcher") == ss::StateErrc::hook_failed);
  CHECK(reported.get_future().get() == "by dispatcher");
}

TEST_CASE("a server stops while clients are in the middle of their handshakes", "[tcp]") {
  for (int i = 0; i < 10; ++i) {
    auto server = start_server();
    std::vector<std::shared_ptr<Remote>> remotes;
    for (int k = 0; k < 8; ++k) remotes.push_back(connect(*server));
    for (int k = 0; k < 100 * i; ++k) std::this_thread::yield();
    auto options = server_options();
    options.endpoint = server->endpoint();
    server->stop();
    if (i % 2 == 0) server.reset();
    // Its endpoint is free again, and the clients find whoever serves there next.
    const auto next = start_server(std::move(options));
    for (const auto& remote : remotes) {
      Map map = small_map(remote);
      CHECK_FALSE(freeze_error(map));
    }
  }
}

TEST_CASE("server and remote run on the user's own context", "[tcp]") {
  asio::io_context context;
  auto work = asio::make_work_guard(context);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  {
    Server server(context, server_options());
    add_set_hook(server);
    server.start();
    const auto remote = std::make_shared<Remote>(context, remote_options(server.endpoint()));
    Map map = small_map(remote);
    map.freeze(patience);
    const ss::MapHash hash = map.hash();
    Replica replica(std::move(map));
    CHECK(replica.wait_for(remote->send_event(hash, Event{{"a", "on a strand"}}), patience));
    CHECK(replica.view().at("a") == "on a strand");
  }
  work.reset();
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("a remote opens a map also for one who has stopped waiting before it began", "[tcp]") {
  const auto server = start_server();
  asio::io_context context;  // which nobody runs yet
  const auto remote = std::make_shared<Remote>(context, remote_options(server->endpoint()));
  Map map = small_map(remote);
  CHECK(freeze_error(map, 1ms) == ss::StateErrc::unavailable);
  std::thread running([&, work = asio::make_work_guard(context)] { context.run(); });
  std::error_code error;
  try {
    CHECK(remote->send_event(map.hash(), Event{{"a", "known all the same"}}).update_id == 1);
  } catch (const ss::StateError& failure) {
    error = failure.code();
  }
  CHECK_FALSE(error);
  context.stop();
  running.join();
}

TEST_CASE("async_send_event takes any completion token, and can be cancelled", "[tcp]") {
  Service service;
  auto future = service.remote->async_send_event(service.hash, Event{{"a", "future"}}, asio::use_future);
  REQUIRE(future.wait_for(patience) == std::future_status::ready);
  CHECK(future.get().update_id == 1);

  SECTION("a thousand in flight keep their order") {
    std::vector<std::future<ss::Position>> answers;
    for (int i = 0; i < 3'000; ++i) {
      answers.push_back(
          service.remote->async_send_event(service.hash, Event{{"a", std::to_string(i)}}, asio::use_future));
    }
    for (std::size_t i = 0; i < answers.size(); ++i) REQUIRE(answers[i].get().update_id == i + 2);
  }
  SECTION("one that can't be sent is cancelled") {
    const auto nowhere = std::make_shared<Remote>(remote_options("127.0.0.1:1"));
    Map map = small_map(nowhere);
    CHECK_THROWS_AS(map.freeze(50ms), ss::StateError);
    CHECK(map.is_frozen());
    asio::io_context context;
    asio::cancellation_signal signal;
    std::error_code result;
    nowhere->async_send_event(map.hash(), Event{{"a", ""}},
                              asio::bind_cancellation_slot(
                                  signal.slot(), asio::bind_executor(context.get_executor(),
                                                                     [&](std::error_code error,
                                                                         ss::UpdateId) { result = error; })));
    signal.emit(asio::cancellation_type::terminal);
    context.run_for(patience);
    CHECK(result == asio::error::operation_aborted);
  }
}

TEST_CASE("an asynchronous event that was sent ends as outcome_unknown, cancelled or too late", "[tcp]") {
  const bool is_cancelled = GENERATE(true, false);
  CAPTURE(is_cancelled);
  std::promise<void> runs;
  std::promise<void> may_end;
  Server server(server_options());
  server.add_hook([&](Map& map, const Event& event) {
    runs.set_value();
    may_end.get_future().wait();
    map.set(event.content.key, event.content.value);
  });
  server.start();
  auto options = remote_options(server.endpoint());
  if (!is_cancelled) options.event_timeout = 500ms;
  const auto remote = std::make_shared<Remote>(options);
  Map map = small_map(remote);
  map.freeze(patience);
  asio::io_context context;
  asio::cancellation_signal signal;
  std::error_code result;
  remote->async_send_event(
      map.hash(), Event{{"a", "held"}},
      asio::bind_cancellation_slot(
          signal.slot(), asio::bind_executor(context.get_executor(),
                                             [&](std::error_code error, ss::UpdateId) { result = error; })));
  const bool has_run = runs.get_future().wait_for(patience) == std::future_status::ready;
  if (is_cancelled) signal.emit(asio::cancellation_type::terminal);
  if (has_run) context.run_for(patience);
  may_end.set_value();
  CHECK(has_run);
  CHECK(result == ss::StateErrc::outcome_unknown);
}

TEST_CASE("a hook that waits for an event of its own map, over TCP, is refused", "[tcp]") {
  auto options = server_options();
  options.hooks_on_io_threads = GENERATE(false, true);
  CAPTURE(options.hooks_on_io_threads);
  Server server(std::move(options));
  std::shared_ptr<Remote> inner;
  std::error_code code;
  server.add_hook([&](Map& map, const Event& event) {
    map.set(event.content.key, event.content.value);
    if (event.content.key == "b") return;
    try {
      inner->send_event(map.hash(), Event{{"b", "never"}});
    } catch (const ss::StateError& error) {
      code = error.code();
    }
  });
  server.start();
  const auto outer = connect(server);
  Map map = small_map(outer);
  map.freeze(patience);
  auto inner_options = remote_options(server.endpoint());
  inner_options.event_timeout = 5s;  // where it is not refused, it ends as outcome_unknown then
  inner = std::make_shared<Remote>(inner_options);
  Map copy = small_map(inner);
  copy.freeze(patience);
  CHECK(outer->send_event(map.hash(), Event{{"a", "outer"}}).update_id == 1);
  CHECK(code == ss::StateErrc::would_deadlock);
  map.sync();
  CHECK(map.update_id() == 1);
  CHECK(map.at("b") == "first b");
}

TEST_CASE("hooks of two maps that wait for events of each other's map are refused where it closes", "[tcp]") {
  Server server(server_options());  // with two hook threads
  std::shared_ptr<Remote> inner;
  std::mutex mutex;
  std::map<std::string, std::error_code> codes;
  ss::MapHash first_hash;
  ss::MapHash second_hash;
  server.add_hook([&](Map& map, const Event& event) {
    map.set("a", event.content.value);
    if (event.content.key == "end") return;
    const bool is_first = map.hash() == first_hash;
    std::error_code code;
    try {
      inner->send_event(is_first ? second_hash : first_hash, Event{{is_first ? "on" : "end", "inner"}});
    } catch (const ss::StateError& error) {
      code = error.code();
    }
    const std::lock_guard lock(mutex);
    codes[is_first ? "first" : "second"] = code;
  });
  server.start();
  auto options = remote_options(server.endpoint());
  options.event_timeout = 5s;  // where it is not refused, it ends as outcome_unknown then
  inner = std::make_shared<Remote>(options);
  const auto outer = connect(server);
  Map first = small_map(outer);
  first.freeze(patience);
  Map copy = small_map(inner);
  copy.freeze(patience);
  Map second(inner);
  second.push("a", "of the second map");
  second.freeze(patience);
  first_hash = first.hash();
  second_hash = second.hash();
  for (int round = 0; round < 2; ++round) {
    CHECK_NOTHROW(outer->send_event(first_hash, Event{{"on", "outer"}}));
    const std::lock_guard lock(mutex);
    CHECK(codes["first"] == std::error_code());  // the second map's hook went on, and so did the first one's
    CHECK(codes["second"] == ss::StateErrc::would_deadlock);
    codes.clear();
  }
}

TEST_CASE("a circle of one hook that waits for an event and one that waits for its modify is refused",
          "[tcp]") {
  const bool is_modify_first = GENERATE(false, true);
  CAPTURE(is_modify_first);
  Server server(server_options());  // with two hook threads
  std::optional<ss::MasterHandle<std::string, std::string>> first;
  std::shared_ptr<Remote> inner;
  ss::MapHash second_hash;
  ss::Epoch second_epoch = 0;
  std::promise<void> first_runs;
  std::mutex mutex;
  std::map<std::string, std::error_code> codes;
  const auto note = [&](const std::string& what, std::error_code code) {
    const std::lock_guard lock(mutex);
    codes[what] = code;
  };
  // Returns whether a hook of the second map waits for its change of the first map.
  const auto is_modify_waited_for = [&] {
    return !ss::detail::HookWaits::could_add({ss::detail::MapLife{first->hash(), first->epoch()}},
                                             ss::detail::MapLife{second_hash, second_epoch});
  };
  server.add_hook([&](Map& map, const Event& event) {
    map.set("a", event.content.value);
    if (map.hash() == second_hash) {
      note("modify", error_of([&] { first->modify([](Map& m) { m.set("a", "by modify"); }); }));
      return;
    }
    if (is_modify_first) {
      first_runs.set_value();
      const auto limit = std::chrono::steady_clock::now() + patience;
      while (!is_modify_waited_for() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    }
    note("event", error_of([&] { inner->send_event(second_hash, Event{{"a", "inner"}}); }));
  });
  const auto host = [&](const std::string& key) {
    Map map(ss::Role::master);
    map.push("a", "first a");
    map.push(key, "");
    map.freeze();
    return server.host(std::move(map));
  };
  first = host("of the first map");
  const auto second = host("of the second map");
  second_hash = second.hash();
  second_epoch = second.epoch();
  server.start();
  auto options = remote_options(server.endpoint());
  options.event_timeout = 5s;  // where it is not refused, it ends as outcome_unknown then
  inner = std::make_shared<Remote>(options);
  const Map at_inner = inner->attach<std::string, std::string>(second_hash);
  const auto outer = connect(server);
  const Map at_first = outer->attach<std::string, std::string>(first->hash());
  const Map at_second = outer->attach<std::string, std::string>(second_hash);
  for (int round = 0; round < 2; ++round) {
    first_runs = {};
    std::thread other;
    if (is_modify_first) {
      other = std::thread([&, runs = first_runs.get_future()] {
        runs.wait_for(patience);
        const auto by_second = connect(server);
        const Map copy = by_second->attach<std::string, std::string>(second_hash);
        note("outer", error_of([&] { by_second->send_event(second_hash, Event{{"a", "outer"}}); }));
      });
    }
    CHECK_NOTHROW(outer->send_event(first->hash(), Event{{"a", "outer"}}));
    if (other.joinable()) other.join();
    const std::lock_guard lock(mutex);
    CHECK(codes["event"] ==
          (is_modify_first ? make_error_code(ss::StateErrc::would_deadlock) : std::error_code()));
    CHECK(codes["modify"] ==
          (is_modify_first ? std::error_code() : make_error_code(ss::StateErrc::would_deadlock)));
    CHECK(codes["outer"] == std::error_code());
    codes.clear();
  }
  // No wait is left: the second map's hook may change the first map, and the first map's hook may send to the second.
  CHECK_FALSE(is_modify_waited_for());
  CHECK_NOTHROW(outer->send_event(second_hash, Event{{"a", "outer"}}));
  CHECK(codes["modify"] == std::error_code());
}

TEST_CASE("a remote that is stopped ends the blocking calls of all threads", "[tcp]") {
  std::promise<void> asked;
  std::promise<void> may_answer;
  std::promise<void> is_told;
  std::atomic<bool> was_told = false;
  auto options = server_options();
  options.authorizer = [&](const ss::Peer&, ss::Action action, const ss::MapHash&) {
    if (action == ss::Action::fetch) {
      asked.set_value();
      may_answer.get_future().wait_for(patience);
    }
    return true;
  };
  Service service(std::move(options));
  const auto remote = connect(*service.server);
  std::error_code code;
  std::thread waiting([&] { code = error_of([&] { (void)remote->hosted(); }); });
  CHECK(asked.get_future().wait_for(patience) == std::future_status::ready);
  remote->stop();
  waiting.join();
  CHECK(code == ss::StateErrc::stopped);
  CHECK(error_of([&] { (void)remote->hosted(); }) == ss::StateErrc::stopped);
  CHECK(error_of([&] { remote->send_event(service.hash, Event{{"a", "never"}}); }) == ss::StateErrc::stopped);
  CHECK(remote->status().reason == ss::StateErrc::stopped);
  remote->stop();
  may_answer.set_value();
  service.check_still_serves();
  // A replica shows on what it has, and says why nothing new comes.
  service.replica->on_status([&](const ss::LinkStatus& status) {
    if (status.reason == ss::StateErrc::stopped && !was_told.exchange(true)) is_told.set_value();
  });
  service.remote->stop();
  CHECK(is_told.get_future().wait_for(patience) == std::future_status::ready);
  CHECK(service.replica->status().state == ss::LinkState::failed);
  CHECK(service.replica->view().at("a") == "still here");
}

TEST_CASE("a server that was stopped takes no new certificate, and says so", "[tcp]") {
  const auto server = start_server();
  CHECK_NOTHROW(server->reload_tls());
  server->stop();
  const auto code_of = [](auto&& call) {
    try {
      call();
    } catch (const ss::StateError& error) {
      return error.code();
    }
    return std::error_code();
  };
  CHECK(code_of([&] { server->reload_tls(); }) == ss::StateErrc::stopped);
  CHECK(code_of([&] { server->reload_tls(server_options().tls); }) == ss::StateErrc::stopped);
  CHECK(code_of([&] { server->set_passwords({"another"}); }) == ss::StateErrc::stopped);
  CHECK(code_of([&] { server->recheck(); }) == ss::StateErrc::stopped);
  CHECK(code_of([&] { server->disconnect([](const ss::Peer&) { return true; }); }) == ss::StateErrc::stopped);
  CHECK(code_of([&] { server->start(); }) == ss::StateErrc::stopped);
}

TEST_CASE("a map of 200 MB reaches three replicas while a writer changes it", "[tcp][large]") {
  // With ThreadSanitizer a race shows with a tenth as well, and that build is many times slower.
  constexpr int keys = support::has_thread_sanitizer ? 200 : 2'000;
  constexpr std::size_t value_bytes = 100'000;
  const auto server = start_server();
  const auto key = [](int i) { return std::to_string(i); };
  const auto build = [&](const std::shared_ptr<Remote>& remote) {
    Map map(remote);
    for (int i = 0; i < keys; ++i) map.push(key(i), "");
    map.freeze(patience);
    return map;
  };
  const auto writer = connect(*server);
  const Map map = build(writer);
  std::vector<std::future<ss::Position>> answers;
  for (int i = 0; i < keys; ++i) {
    answers.push_back(writer->async_send_event(
        map.hash(), Event{{key(i), std::string(value_bytes, static_cast<char>('a' + i % 26))}},
        asio::use_future));
  }
  for (auto& answer : answers) answer.get();

  std::atomic<bool> is_done = false;
  std::thread changing([&] {
    for (int i = 0; !is_done; ++i) {
      writer->send_event(map.hash(),
                         Event{{key(i % keys), std::string(value_bytes, static_cast<char>('A' + i % 26))}});
    }
  });
  std::vector<std::shared_ptr<Remote>> remotes;
  std::vector<std::unique_ptr<Replica>> replicas;
  for (int i = 0; i < 3; ++i) {
    remotes.push_back(connect(*server));
    replicas.push_back(std::make_unique<Replica>(build(remotes.back())));
  }
  for (auto& replica : replicas) {
    CHECK(replica->wait_for(keys, 60s));
    const auto view = replica->view();
    for (int i = 0; i < keys; ++i) REQUIRE(view.at(key(i)).size() == value_bytes);  // nothing half there
  }
  is_done = true;
  changing.join();
  const ss::UpdateId last = writer->send_event(map.hash(), Event{{key(0), "the end"}});
  for (auto& replica : replicas) {
    CHECK(replica->wait_for(last, 60s));
    CHECK(replica->view().at(key(0)) == "the end");
  }
  const auto first = replicas.front()->view();
  for (auto& replica : replicas) {
    const auto view = replica->view();
    for (int i = 0; i < keys; ++i) REQUIRE(view.at(key(i)) == first.at(key(i)));
  }
}

TEST_CASE("servers, remotes, maps and replicas end in any order", "[tcp]") {
  SECTION("the server first") {
    Service service;
    service.server.reset();
    CHECK(service.replica->view().at("a") == "first a");
  }
  SECTION("the remote's last name first") {
    Service service;
    const ss::UpdateId id = service.remote->send_event(service.hash, Event{{"a", "kept alive"}});
    service.remote.reset();
    CHECK(service.replica->wait_for(id, patience));
    CHECK(service.replica->status().state == ss::LinkState::live);
  }
  SECTION("the replica inside its own callback") {
    Service service;
    std::promise<void> gone;
    service.replica->on_update([&](const auto&) {
      service.replica.reset();
      gone.set_value();
    });
    service.remote->send_event(service.hash, Event{{"a", "x"}});
    CHECK(gone.get_future().wait_for(patience) == std::future_status::ready);
  }
  SECTION("the remote inside its own status callback") {
    const auto server = start_server();
    auto remote = connect(*server);
    std::promise<void> gone;
    std::promise<void> ready;
    auto is_ready = ready.get_future().share();
    bool has_told = false;
    remote->on_status([&, is_ready](const ss::LinkStatus&) {
      is_ready.wait();
      if (std::exchange(has_told, true)) return;
      remote.reset();
      gone.set_value();
    });
    ready.set_value();
    server->stop();
    CHECK(gone.get_future().wait_for(patience) == std::future_status::ready);
  }
  SECTION("the server inside its own hook") {
    Server server(server_options());
    std::promise<void> stopped;
    server.add_hook([&](Map&, const Event&) {
      server.stop();
      stopped.set_value();
    });
    server.start();
    const auto remote = connect(server);
    Map map = small_map(remote);
    map.freeze(patience);
    auto future = remote->async_send_event(map.hash(), Event{{"a", "x"}}, asio::use_future);
    CHECK(stopped.get_future().wait_for(patience) == std::future_status::ready);
    server.stop();
  }
  SECTION("a server with a blocked sender") {
    Service service;
    auto future = service.remote->async_send_event(service.hash, Event{{"a", "x"}}, asio::use_future);
    service.server->stop();
    service.remote.reset();
    service.replica.reset();
    CHECK(future.wait_for(patience) == std::future_status::ready);
  }
}

namespace {

// Two of each: a text within its std::string, and one in a block of its own.
constexpr std::string_view secret_texts[] = {
    "first pass1", "a first password that is long enough to lie outside of its string",
    "second pas2", "a second password that is long enough to lie outside of its string",
    "third pass3", "a third password that is long enough to lie outside of its string",
    "fourth pas4", "a fourth password that is long enough to lie outside of its string",
    "fifth pass5", "a fifth password that is long enough to lie outside of its string",
};

std::string secret(std::size_t i) { return std::string(secret_texts[i]); }

/// A list that is made without copies that would be left behind.
std::vector<std::string> secrets(std::initializer_list<std::size_t> indices) {
  std::vector<std::string> list;
  list.reserve(indices.size());
  for (const std::size_t i : indices) list.emplace_back(secret_texts[i]);
  return list;
}

/// The lines of a PEM text that are full. OpenSSL's reader leaves the last one behind in memory of its own.
std::vector<std::string_view> inner_lines(std::string_view pem) {
  std::vector<std::string_view> lines;
  while (!pem.empty()) {
    const std::size_t end = (std::min)(pem.find('\n'), pem.size());
    const std::string_view line = pem.substr(0, end);
    if (line.size() == 64) lines.push_back(line);
    pem.remove_prefix((std::min)(end + 1, pem.size()));
  }
  return lines;
}

}  // namespace

TEST_CASE("what finds secrets in freed memory finds them") {
  if (!support::FreedSecrets::is_possible) return;
  const support::FreedSecrets freed({secret_texts[0], secret_texts[1]});
  {
    const auto short_one = std::make_unique<std::string>(secret_texts[0]);
    CHECK(freed.found() == 0);
  }
  CHECK(freed.found() == 1);
  { const std::string long_one(secret_texts[1]); }
  CHECK(freed.found() == 2);
  void* block = std::malloc(40);
  std::memcpy(block, secret_texts[0].data(), secret_texts[0].size());
  block = std::realloc(block, 4'000);
  CHECK(freed.found() == 3);
  std::memset(block, 0, 4'000);
  std::free(block);
  CHECK(freed.found() == 3);
}

TEST_CASE("passwords are wiped before their memory is given back") {
  if (!support::FreedSecrets::is_possible) return;
  const std::size_t kind = GENERATE(0U, 1U);  // short ones, long ones
  const support::FreedSecrets freed({std::begin(secret_texts), std::end(secret_texts)});
  {
    auto server =
        start_server({.endpoint = "127.0.0.1:0",
                      .tls = ss::tcp::ServerTls::from_pem(good_certificate().pem, good_certificate().key_pem),
                      .password = secret(kind),
                      .more_passwords = secrets({2 + kind, 4 + kind}),
                      .retired_passwords = secrets({6 + kind, 8 + kind})});
    CHECK(freed.found() == 0);
    const auto connect = [&](std::size_t password) {
      return std::make_shared<Remote>(
          ss::tcp::RemoteOptions{.endpoint = server->endpoint(),
                                 .tls = ss::tcp::ClientTls::from_pem(good_certificate().pem),
                                 .password = secret(password),
                                 .backoff = {.first = 10ms, .most = 200ms}});
    };
    for (const std::size_t password : {kind, 2 + kind}) {
      const auto remote = connect(password);
      CHECK(remote->hosted().empty());  // it has proven its password
    }
    CHECK(freed.found() == 0);
    const auto remote = connect(6 + kind);  // a retired one, which lets nobody in
    remote->set_password(secret(8 + kind));
    remote->set_password(secret(4 + kind));
    CHECK(remote->hosted().empty());
    server->set_passwords(secrets({6 + kind}), secrets({kind, 2 + kind}));
    server->set_passwords(secrets({8 + kind}));
    CHECK_THROWS_AS(server->set_passwords({}, secrets({kind})), ss::StateError);
    CHECK_THROWS_AS(Remote(ss::tcp::RemoteOptions{.endpoint = "no endpoint", .password = secret(kind)}),
                    ss::StateError);
    ss::Limits useless;
    useless.links = 0;
    CHECK_THROWS_AS(Remote(ss::tcp::RemoteOptions{.endpoint = server->endpoint(),
                                                  .tls = ss::tcp::ClientTls::from_pem(good_certificate().pem),
                                                  .password = secret(kind),
                                                  .limits = useless}),
                    ss::StateError);
    for (const std::size_t hook_threads : {0U, 1U}) {
      CHECK_THROWS_AS(Server(ss::tcp::ServerOptions{.endpoint = "127.0.0.1:0",
                                                    .password = secret(kind),
                                                    .more_passwords = secrets({2 + kind}),
                                                    .retired_passwords = secrets({4 + kind}),
                                                    .hook_threads = hook_threads,
                                                    .limits = useless}),
                      ss::StateError);
    }
    server->stop();
    CHECK_THROWS_AS(server->set_passwords(secrets({kind})), ss::StateError);
  }
  CHECK(freed.found() == 0);
  CHECK(freed.searched() > 1'000);
}

TEST_CASE("private keys are wiped before their memory is given back") {
  if (!support::FreedSecrets::is_possible) return;
  const support::Certificate& certificate = good_certificate();
  const auto key_lines = inner_lines(certificate.key_pem);
  REQUIRE_FALSE(key_lines.empty());
  char name[] = "/tmp/syncstate-key-XXXXXX";
  const int file = ::mkstemp(name);
  REQUIRE(file >= 0);
  REQUIRE(::write(file, certificate.key_pem.data(), certificate.key_pem.size()) ==
          static_cast<ssize_t>(certificate.key_pem.size()));
  ::close(file);
  char certificate_name[] = "/tmp/syncstate-certificate-XXXXXX";
  const int certificate_file = ::mkstemp(certificate_name);
  REQUIRE(::write(certificate_file, certificate.pem.data(), certificate.pem.size()) ==
          static_cast<ssize_t>(certificate.pem.size()));
  ::close(certificate_file);

  const support::FreedSecrets freed(key_lines);
  for (const bool from_file : {false, true}) {
    INFO("from a file: " << from_file);
    auto tls = from_file ? ss::tcp::ServerTls::from_files(certificate_name, name)
                         : ss::tcp::ServerTls::from_pem(certificate.pem, certificate.key_pem);
    auto server = start_server({.endpoint = "127.0.0.1:0", .tls = tls, .password = "a password"});
    tls = {};
    Remote remote(remote_options(server->endpoint()));
    CHECK(remote.hosted().empty());
    server.reset();
    CHECK(freed.found() == 0);
  }
  // An unusable one is wiped, too.
  CHECK_THROWS_AS(start_server({.endpoint = "127.0.0.1:0",
                                .tls = ss::tcp::ServerTls::from_pem(certificate.key_pem, certificate.key_pem),
                                .password = "a password"}),
                  ss::StateError);
  CHECK(freed.found() == 0);
  std::remove(name);
  std::remove(certificate_name);
}

}  // namespace service_test
