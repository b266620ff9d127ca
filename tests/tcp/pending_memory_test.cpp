// What a client that has not proven itself makes a server's link hold, counted with what OpenSSL takes.
#include <malloc.h>
#include <openssl/crypto.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/counted_new.hpp"
#include "tcp/link_harness.hpp"

namespace pending_memory_test {

namespace {

using namespace harness;
using ss::testing::live_bytes;

// OpenSSL's memory counts as `live_bytes`, too. Takes effect only before OpenSSL's first allocation.
void* take(std::size_t size, const char*, int) { return ss::testing::count_memory(std::malloc(size)); }
void give_back(void* memory, const char*, int) { ss::testing::free_counted(memory); }
void* take_again(void* memory, std::size_t size, const char*, int) {
  if (memory != nullptr)
    live_bytes -= static_cast<std::ptrdiff_t>(::malloc_usable_size(memory) + sizeof(void*));
  return ss::testing::count_memory(std::realloc(memory, size));
}
const bool counts_openssl = CRYPTO_set_mem_functions(take, take_again, give_back) == 1;

// A whole ClientHello as an ordinary client sends it.
std::string client_hello() {
  SocketPair pair = connected_pair();
  RawPeer peer(std::move(pair.client), false);
  peer.think();
  peer.flush();
  std::string bytes(4096, '\0');
  const ssize_t size = ::recv(pair.server.get(), bytes.data(), bytes.size(), 0);
  REQUIRE(size > 61);
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

// The same bytes of the handshake in records of one byte each.
std::string in_many_records(std::string_view hello) {
  std::string bytes;
  for (const char byte : hello.substr(5)) bytes += std::string("\26\3\1\0\1", 5) + byte;
  return bytes;
}

struct Pending {
  explicit Pending(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      SocketPair pair = connected_pair();
      clients.push_back(std::move(pair.client));
      owners.push_back(std::make_shared<Owner>());
      links.push_back(TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), context,
                                           "10.0.0.1"));
      links.back()->start(owners.back());
    }
    run();
  }
  void send(std::string_view bytes) {
    for (const NativeSocket& client : clients) {
      REQUIRE(::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
              static_cast<ssize_t>(bytes.size()));
    }
    run();
  }
  void run() {
    io.restart();
    while (io.poll() > 0) {
    }
  }

  const TlsContext context = server_context();
  asio::io_context io;
  std::vector<NativeSocket> clients;
  std::vector<std::shared_ptr<Owner>> owners;
  std::vector<std::shared_ptr<TlsLink>> links;
};

/// A server's link whose handshake with a client is done.
struct Proven : Pending {
  Proven() : Pending(0) {
    link->start(owner);
    REQUIRE(run_until([&] { return owner->opened == 1 && peer.is_open(); }));
  }
  template <class F>
  bool run_until(F is_done) {
    return harness::run_until(io, is_done, [&] {
      peer.take();
      peer.flush();
    });
  }

  SocketPair pair = connected_pair();
  RawPeer peer{std::move(pair.client), false};
  std::shared_ptr<Owner> owner = std::make_shared<Owner>();
  std::shared_ptr<TlsLink> link =
      TlsLink::make_server(ss::tcp::adopt(io.get_executor(), std::move(pair.server)), context, "10.0.0.1");
};

}  // namespace

TEST_CASE("half a ClientHello costs its bytes, and no memory of OpenSSL's") {
  REQUIRE(counts_openssl);
  const std::string hello = client_hello();
  const std::string sent =
      GENERATE_COPY(hello.substr(0, 1), hello.substr(0, 61), hello.substr(0, hello.size() - 1),
                    in_many_records(hello).substr(0, 600));
  constexpr std::size_t count = 127;
  Pending t(count);
  const std::ptrdiff_t before = live_bytes;
  t.send(sent);
  for (const auto& owner : t.owners) CHECK(owner->closed == 0);
  // The bytes may lie in a buffer of twice their size.
  CHECK(live_bytes - before <= static_cast<std::ptrdiff_t>(count * (2 * sent.size() + 256)));
}

TEST_CASE("a link costs less than 4 KiB before its ClientHello, and less than 56 KiB before its Finished") {
  const std::string hello = client_hello();
  constexpr std::size_t count = 127;
  {
    Pending warm(1);
    warm.send(hello);
  }
  const std::ptrdiff_t before = live_bytes;
  Pending t(count);
  const std::ptrdiff_t connected = live_bytes - before;
  CHECK(connected <= static_cast<std::ptrdiff_t>(count * 4096));
  t.send(hello);
  for (const auto& owner : t.owners) CHECK(owner->closed == 0);
  const std::ptrdiff_t waiting = live_bytes - before;
  CHECK(waiting > static_cast<std::ptrdiff_t>(count * 8192));  // the memory is counted
  CHECK(waiting <= static_cast<std::ptrdiff_t>(count * (56 << 10)));
}

TEST_CASE("a server's link keeps OpenSSL's buffers only once its client has proven itself") {
  Proven t;
  const auto hears = [&] {
    const std::size_t heard = t.owner->received.size();
    t.peer.write("x");
    return t.run_until([&] { return t.owner->received.size() > heard; });
  };
  REQUIRE(hears());
  const std::ptrdiff_t before = live_bytes;
  REQUIRE(hears());
  CHECK(live_bytes - before < 4096);
  t.link->move_on([] {});
  REQUIRE(hears());
  CHECK(live_bytes - before > 16'000);
}

TEST_CASE("a link whose client does not read keeps one record that is sealed, and the rest of a piece") {
  Proven t;
  t.link->move_on([] {});
  // A whole piece is read: the room for one that the thread keeps for all links is there.
  const std::size_t piece = t.owner->frame_bytes;
  t.owner->outbox.assign(piece, 'x');
  t.link->wake();
  REQUIRE(t.run_until([&] { return t.peer.received.size() == piece; }));
  t.owner->outbox.assign(std::size_t{64} << 20, 'x');
  const std::ptrdiff_t before = live_bytes;
  t.link->wake();
  t.run();
  REQUIRE(!t.owner->outbox.empty());  // the kernel takes no more
  const std::ptrdiff_t taken = live_bytes - before;
  // The account of the link is charged for the piece, see `ServerSession::produce`.
  CHECK(taken > 0);
  CHECK(taken <= static_cast<std::ptrdiff_t>(piece) + (20 << 10));
}

TEST_CASE("what begins with anything else than a handshake is refused with its first byte") {
  const char first = GENERATE('G', '\x17', '\x14', '\x15', '\x80', '\0');
  Pending t(1);
  t.send({&first, 1});
  CHECK(t.owners[0]->closed == 1);
  CHECK(t.owners[0]->reason == ss::StateErrc::tls_failed);
  CHECK_THAT(t.owners[0]->detail, ss::testing::contains_text("does not speak TLS"));
}

TEST_CASE("a ClientHello in records without end is refused") {
  Pending t(1);
  std::string sent;
  for (std::size_t i = 0; i < 2 * ss::tcp::TlsLinkOptions().client_hello_bytes / 5 + 1; ++i)
    sent += std::string("\26\3\1\0\0", 5);  // empty ones
  t.send(sent);
  CHECK(t.owners[0]->closed == 1);
  CHECK(t.owners[0]->reason == ss::StateErrc::tls_failed);
  CHECK_THAT(t.owners[0]->detail, ss::testing::contains_text("in very many records"));
}

}  // namespace pending_memory_test
