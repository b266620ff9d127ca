// Handshakes do not hold up links that are through: they run elsewhere, or in turns, and their links move on.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "hostile/attacker.hpp"
#include "support/catch.hpp"
#include "syncstate/syncstate.hpp"
#include "syncstate/tcp.hpp"
#include "tcp/link_harness.hpp"

#include <asio/post.hpp>

namespace handshake_lane_test {

namespace {

using namespace harness;
using ss::StateErrc;
using ss::StateError;
using ss::tcp::AsioExecutor;
using ss::tcp::IoThread;
using ss::tcp::TlsLinkOptions;
using ss::tcp::TurnQueue;
namespace data = ss::tcp::test_data;

struct Set {
  std::string key, value;
};
using Map = ss::StateMap<std::string, std::string>;
using Event = ss::Event<Set>;
using Server = ss::tcp::TcpStateServer<std::string, std::string, Set>;
using Remote = ss::tcp::TcpStateRemote;

// A server's context that calls `on_hello` for each handshake, on the thread that does it.
struct WatchedContext {
  explicit WatchedContext(std::function<void()> f) : on_hello(std::move(f)) {
    SSL_CTX_set_client_hello_cb(
        context.get(),
        [](SSL*, int*, void* self) {
          static_cast<WatchedContext*>(self)->on_hello();
          return SSL_CLIENT_HELLO_SUCCESS;
        },
        this);
  }
  std::function<void()> on_hello;
  std::shared_ptr<SSL_CTX> context = RawPeer::make_context(true);
};

std::shared_ptr<Remote> connect(const std::string& endpoint) {
  return std::make_shared<Remote>(ss::tcp::RemoteOptions{.endpoint = endpoint,
                                                         .tls = ClientTls::from_pem(data::certificate_pem),
                                                         .password = std::string(hostile::password),
                                                         .event_timeout = 30s});
}

ss::tcp::ServerOptions server_options(const WatchedContext& watched) {
  return {.endpoint = "127.0.0.1:0",
          .tls = ServerTls::from_context(watched.context.get()),
          .password = std::string(hostile::password)};
}

Map small_map(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  map.push("a", "-");
  map.freeze(30s);
  return map;
}

// A server's link that moves from the context `entry` to the thread `next` with the first bytes it reads, and
// a raw client.
struct Moving {
  explicit Moving(std::shared_ptr<TurnQueue> turns = nullptr) {
    next->start();
    SocketPair pair = connected_pair();
    peer = std::make_unique<RawPeer>(std::move(pair.client), false);
    TlsLinkOptions options;
    options.next_executor = next->executor();
    options.turns = std::move(turns);
    link = TlsLink::make_server(ss::tcp::adopt(entry.get_executor(), std::move(pair.server)),
                                server_context(), "10.0.0.1", options);
    owner->when_bytes = [this] {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      received = owner->received;
      if (has_moved && std::this_thread::get_id() == first) ++heard_too_late;
      if (std::exchange(has_moved, true)) {
        owner->outbox += "answer";
        link->wake();
        return;
      }
      link->move_on([this] {
        const std::lock_guard arrival_lock(mutex);
        arrived_on = std::this_thread::get_id();
      });
    };
    owner->when_closed = [this] {
      const std::lock_guard lock(mutex);
      closed_on = std::this_thread::get_id();
    };
    link->start(owner);
  }
  ~Moving() {
    link.reset();
    next.reset();
  }
  bool open() {
    return run_until(
        entry, [&] { return owner->opened == 1 && peer->is_open(); }, [&] { exchange(); });
  }
  void exchange() {
    peer->take();
    while (peer->flush()) {
    }
  }
  // What the thread `next` has seen so far.
  template <class F>
  auto locked(F f) {
    const std::lock_guard lock(mutex);
    return f();
  }

  asio::io_context entry;
  std::unique_ptr<IoThread> next = std::make_unique<IoThread>(ss::detail::ThreadKind::io);
  std::unique_ptr<RawPeer> peer;
  std::shared_ptr<TlsLink> link;
  std::mutex mutex;
  bool has_moved = false;
  int heard_too_late = 0;  // on the thread that the link has left
  const std::thread::id first = std::this_thread::get_id();
  std::set<std::thread::id> threads;
  std::thread::id arrived_on, closed_on;
  std::string received;
  std::shared_ptr<Owner> owner = std::make_shared<Owner>();
};

}  // namespace

TEST_CASE(
    "a link that moves on loses no byte, neither those OpenSSL has read ahead nor those that come later") {
  const std::size_t record = GENERATE(1u, 700u, 16'000u);
  Moving t;
  REQUIRE(t.open());
  // All in the kernel before the link reads the first record; most of it lies in OpenSSL when it moves.
  const std::string text = pattern(record * 40);
  for (std::size_t at = 0; at < text.size(); at += record) {
    t.peer->write(std::string_view(text).substr(at, record));
  }
  REQUIRE(run_until(
      t.entry, [&] { return t.locked([&] { return t.received.size() >= text.size(); }); },
      [&] { t.exchange(); }));
  CHECK(t.received == text);
  t.peer->write("later");
  REQUIRE(run_until(
      t.entry, [&] { return t.locked([&] { return t.received.size() >= text.size() + 5; }); },
      [&] { t.exchange(); }));
  REQUIRE(run_until(
      t.entry, [&] { return !t.peer->received.empty(); }, [&] { t.exchange(); }));
  CHECK_THAT(t.peer->received, ss::testing::contains_text("answer"));
  t.peer->close();
  REQUIRE(run_until(
      t.entry, [&] { return t.locked([&] { return t.closed_on != std::thread::id(); }); }, [] {}));
  t.locked([&] {
    CHECK(t.arrived_on != std::this_thread::get_id());
    CHECK(t.closed_on == t.arrived_on);
    CHECK(t.heard_too_late == 0);
    CHECK(t.threads == std::set<std::thread::id>{std::this_thread::get_id(), t.arrived_on});
    return 0;
  });
}

TEST_CASE("a link whose next thread has gone is released, and closes its connection") {
  Moving t;
  REQUIRE(t.open());
  t.next->stop();
  t.peer->write("move");
  REQUIRE(run_until(
      t.entry, [&] { return t.peer->is_at_end; }, [&] { t.exchange(); }));
  CHECK(t.has_moved);
  t.owner->when_bytes = {};
  CHECK(t.owner.use_count() == 1);  // nobody holds it any more
}

TEST_CASE("a link may move on inside its context when the next executor is a strand of it") {
  asio::io_context io;
  SocketPair pair = connected_pair();
  RawPeer peer(std::move(pair.client), false);
  const auto first = AsioExecutor::on_strand(io.get_executor());
  TlsLinkOptions options;
  options.next_executor = AsioExecutor::on_strand(io.get_executor());
  options.turns = TurnQueue::make(first->asio_executor());
  const auto owner = std::make_shared<Owner>();
  const auto link = TlsLink::make_server(ss::tcp::adopt(first->asio_executor(), std::move(pair.server)),
                                         server_context(), "10.0.0.1", options, first);
  bool has_moved = false;
  std::vector<bool> on_next;
  owner->when_bytes = [&] {
    on_next.push_back(options.next_executor->runs_here());
    if (!std::exchange(has_moved, true))
      link->move_on([&] { on_next.push_back(options.next_executor->runs_here()); });
  };
  link->start(owner);
  const auto exchange = [&] {
    peer.take();
    peer.flush();
  };
  REQUIRE(run_until(
      io, [&] { return owner->opened == 1 && peer.is_open(); }, exchange));
  peer.write("one");
  REQUIRE(run_until(
      io, [&] { return on_next.size() == 2; }, exchange));
  peer.write("two");
  REQUIRE(run_until(
      io, [&] { return owner->received == "onetwo"; }, exchange));
  CHECK(on_next == std::vector<bool>{false, true, true});
  link->abort();
  REQUIRE(run_until(io, [&] { return owner->closed == 1; }));
}

TEST_CASE("between two steps of handshakes everything else that is ready runs") {
  asio::io_context io;
  std::vector<char> order;
  WatchedContext watched([&] { order.push_back('h'); });
  const TlsContext tls(ServerTls::from_context(watched.context.get()));
  TlsLinkOptions options;
  options.turns = TurnQueue::make(io.get_executor());
  struct Stranger {
    std::unique_ptr<RawPeer> peer;
    std::shared_ptr<TlsLink> link;
  };
  std::vector<Stranger> strangers;
  constexpr std::size_t count = 20;
  for (std::size_t i = 0; i < count; ++i) {
    SocketPair pair = connected_pair();
    auto peer = std::make_unique<RawPeer>(std::move(pair.client), false);
    peer->think();
    peer->flush();  // its ClientHello waits in the kernel
    auto link = TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), tls,
                                     "10.0.0.1", options);
    link->start(std::make_shared<Owner>());
    strangers.push_back({std::move(peer), std::move(link)});
  }
  const auto hellos = [&] { return std::count(order.begin(), order.end(), 'h'); };
  std::function<void()> other = [&] {
    order.push_back('o');
    if (hellos() < static_cast<std::ptrdiff_t>(count)) asio::post(io, other);
  };
  asio::post(io, other);
  REQUIRE(run_until(io, [&] { return hellos() == static_cast<std::ptrdiff_t>(count); }));
  CHECK(std::adjacent_find(order.begin(), order.end(), [](char a, char b) { return a == 'h' && b == 'h'; }) ==
        order.end());
}

TEST_CASE("a queue of turns begins by itself, and begins again when it was empty") {
  asio::io_context io;
  const auto queue = TurnQueue::make(io.get_executor());
  std::string order;
  for (const char* const round : {"ab", "abcd"}) {
    order.clear();
    for (const char* name = round; *name != '\0'; ++name) queue->post([&order, name] { order += *name; });
    io.restart();
    io.poll();  // never waits: what has not begun now never does
    CHECK(order == round);
  }
}

TEST_CASE("a server on a context of the user's own gives handshakes turns there") {
  asio::io_context io;
  std::string order;
  WatchedContext watched([&] { order += 'h'; });
  Server server(io, server_options(watched));
  server.start();
  order.clear();  // `start` tried one
  constexpr std::size_t count = 10;
  std::vector<std::unique_ptr<hostile::Attacker>> strangers;
  for (std::size_t i = 0; i < count; ++i) {
    strangers.push_back(std::make_unique<hostile::Attacker>("127.0.0.2", server.endpoint()));
    strangers.back()->peer().think();
    strangers.back()->send_what_fits();
  }
  const auto hellos = [&] { return static_cast<std::size_t>(std::count(order.begin(), order.end(), 'h')); };
  std::function<void()> other = [&] {
    order += 'o';
    if (hellos() < count) asio::post(io, other);
  };
  asio::post(io, other);
  REQUIRE(run_until(io, [&] { return hellos() == count; }));
  CHECK(order.find("hh") == std::string::npos);
}

TEST_CASE("tasks that wait for their turn are destroyed with their context") {
  const auto token = std::make_shared<int>(0);
  std::shared_ptr<TurnQueue> queue;
  {
    asio::io_context io;
    queue = TurnQueue::make(io.get_executor());
    for (int i = 0; i < 3; ++i) queue->post([token, queue] {});
    io.run_one();
    CHECK(token.use_count() == 3);
  }
  CHECK(token.use_count() == 1);
  CHECK(queue.use_count() == 1);
}

TEST_CASE("a handshake that takes its time holds up no link that is through") {
  std::mutex mutex;
  std::set<std::thread::id> handshakes;
  std::set<std::thread::id> authorizations;
  std::promise<void> is_held, may_go_on;
  std::atomic<bool> holds{false};
  WatchedContext watched([&] {
    {
      const std::lock_guard lock(mutex);
      handshakes.insert(std::this_thread::get_id());
    }
    if (!holds.exchange(false)) return;
    is_held.set_value();
    may_go_on.get_future().wait();
  });
  auto options = server_options(watched);
  options.authorizer = [&](const ss::Peer&, ss::Action, const ss::MapHash&) {
    const std::lock_guard lock(mutex);
    authorizations.insert(std::this_thread::get_id());
    return true;
  };
  Server server(std::move(options));
  server.add_hook([](Map& map, const Event& event) { map.set(event.content.key, event.content.value); });
  server.start();
  {
    const std::lock_guard lock(mutex);
    handshakes.clear();  // `start` tried one on this thread
  }
  const auto remote = connect(server.endpoint());
  const Map map = small_map(remote);

  holds = true;
  hostile::Attacker stranger("127.0.0.2", server.endpoint());
  stranger.peer().think();
  stranger.send_what_fits();
  REQUIRE(is_held.get_future().wait_for(30s) == std::future_status::ready);
  for (int i = 0; i < 20; ++i) CHECK_NOTHROW(remote->send_event(map.hash(), Event{{"a", std::to_string(i)}}));
  CHECK(server.link_count() == 2);
  may_go_on.set_value();

  const auto another = connect(server.endpoint());
  CHECK_NOTHROW(another->send_event(small_map(another).hash(), Event{{"a", "x"}}));
  const std::lock_guard lock(mutex);
  CHECK(handshakes.size() == 1);
  for (const auto& thread : authorizations) CHECK(handshakes.count(thread) == 0);
}

TEST_CASE("several handshake threads share the strangers, and a server without any is refused") {
  std::mutex mutex;
  std::set<std::thread::id> handshakes;
  WatchedContext watched([&] {
    const std::lock_guard lock(mutex);
    handshakes.insert(std::this_thread::get_id());
  });
  auto options = server_options(watched);
  options.handshake_threads = 3;
  Server server(options);
  server.start();
  {
    const std::lock_guard lock(mutex);
    handshakes.clear();  // `start` tried one on this thread
  }
  for (int i = 0; i < 6; ++i) CHECK_NOTHROW(small_map(connect(server.endpoint())));
  {
    const std::lock_guard lock(mutex);
    CHECK(handshakes.size() == 3);
  }
  options.handshake_threads = 0;
  CHECK_THROWS_AS(Server(options), StateError);
}

TEST_CASE(
    "on a context of the user's own, clients get through and strangers are let go when the server stops") {
  const int threads = GENERATE(1, 2);
  WatchedContext watched([] {});
  asio::io_context io;
  auto work = std::make_optional(asio::make_work_guard(io));
  std::vector<std::thread> runners;
  for (int i = 0; i < threads; ++i) runners.emplace_back([&] { io.run(); });
  {
    Server server(io, server_options(watched));
    server.add_hook([](Map& map, const Event& event) { map.set(event.content.key, event.content.value); });
    server.start();
    const auto remote = connect(server.endpoint());
    const Map map = small_map(remote);
    std::vector<std::unique_ptr<hostile::Attacker>> strangers;
    for (int i = 0; i < 50; ++i) {
      strangers.push_back(std::make_unique<hostile::Attacker>("127.0.0.3", server.endpoint()));
      strangers.back()->peer().think();
      strangers.back()->send_what_fits();
      if (i % 5 == 0) CHECK_NOTHROW(remote->send_event(map.hash(), Event{{"a", std::to_string(i)}}));
    }
  }
  work.reset();
  for (auto& runner : runners) runner.join();
}

}  // namespace handshake_lane_test
