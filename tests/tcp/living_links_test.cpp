// What TLS tells an authorizer of a client, and how certificates and passwords are replaced at both ends while links live.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "syncstate/tcp.hpp"

namespace living_links_test {

namespace ss = syncstate;
using namespace std::chrono_literals;

namespace {

using Map = ss::StateMap<std::string, std::string>;
struct Set {
  std::string key;
  std::string value;
};
using Server = ss::tcp::TcpStateServer<std::string, std::string, Set>;
using Remote = ss::tcp::TcpStateRemote;

constexpr auto patience = 20s;  // a limit, not a pause

const support::Certificate& server_certificate() {
  static const support::Certificate certificate = support::make_certificate({});
  return certificate;
}

support::Certificate client_certificate(const support::Certificate& authority, const std::string& names) {
  return support::make_certificate(
      {.common_name = "a client", .alternative_names = names, .issuer = &authority, .is_authority = false});
}

ss::tcp::ServerTls server_tls() {
  return ss::tcp::ServerTls::from_pem(server_certificate().pem, server_certificate().key_pem);
}

ss::tcp::ClientTls client_tls(const support::Certificate& own) {
  return ss::tcp::ClientTls::from_pem(server_certificate().pem).with_certificate_pem(own.pem, own.key_pem);
}

ss::tcp::ServerOptions server_options() {
  return {.endpoint = "127.0.0.1:0", .tls = server_tls(), .password = "a password"};
}

std::shared_ptr<Remote> connect(const Server& server, ss::tcp::ClientTls tls,
                                std::string password = "a password") {
  return std::make_shared<Remote>(
      ss::tcp::RemoteOptions{.endpoint = server.endpoint(),
                             .tls = std::move(tls),
                             .password = std::move(password),
                             .backoff = {.first = 10ms, .most = 200ms, .unauthorized = 1h}});
}

/// Waits until this is true of the status of a remote or a replica; every change of the status has it looked at again.
template <class Source, class F>
bool wait(const std::shared_ptr<Source>& source, F is_reached) {
  struct Changes {
    std::mutex mutex;
    std::condition_variable condition;
    unsigned count = 0;
  };
  const auto changes = std::make_shared<Changes>();  // called back for as long as the source lives
  source->on_status([changes](const ss::LinkStatus&) {
    {
      const std::lock_guard lock(changes->mutex);
      ++changes->count;
    }
    changes->condition.notify_all();
  });
  const auto limit = std::chrono::steady_clock::now() + patience;
  std::unique_lock lock(changes->mutex);
  for (;;) {
    if (is_reached(source->status())) return true;
    const unsigned seen = changes->count;
    // A change from before the callback was known is not counted, so this also looks without one.
    changes->condition.wait_for(lock, 20ms, [&] { return changes->count != seen; });
    if (std::chrono::steady_clock::now() >= limit) return is_reached(source->status());
  }
}
bool waits_until_live(const std::shared_ptr<Remote>& remote) {
  return wait(remote, [](const ss::LinkStatus& status) { return status.state == ss::LinkState::live; });
}
bool waits_until_refused(const std::shared_ptr<Remote>& remote) {
  return wait(remote, [](const ss::LinkStatus& status) { return status.state == ss::LinkState::failed; });
}

std::error_code freeze_error(const std::shared_ptr<Remote>& remote) {
  Map map(remote);
  map.push("a", "first a");
  try {
    map.freeze(patience);
  } catch (const ss::StateError& error) {
    return error.code();
  }
  return {};
}

}  // namespace

TEST_CASE("an authorizer is told the names and the serial number of a client's certificate", "[tcp]") {
  const auto authority = support::make_certificate({.common_name = "the authority"});
  std::mutex mutex;
  ss::Peer told;
  auto options = server_options();
  options.tls = options.tls.require_client_certificates_pem(authority.pem);
  options.more_passwords = {"another password"};
  options.authorizer = [&](const ss::Peer& peer, ss::Action action, const ss::MapHash&) {
    const std::lock_guard lock(mutex);
    told = peer;
    switch (action) {
      case ss::Action::init:
      case ss::Action::follow:
      case ss::Action::fetch:
      case ss::Action::send_event: return true;
    }
    return false;
  };
  Server server(std::move(options));
  server.start();
  const auto own = client_certificate(
      authority, "DNS:client.example,IP:192.0.2.7,IP:2001:db8::7,URI:urn:a:client,email:client@example.org");
  const auto remote = connect(server, client_tls(own), "another password");
  CHECK_FALSE(freeze_error(remote));
  const std::lock_guard lock(mutex);
  CHECK(told.certificate_subject == "CN=a client");
  CHECK(told.certificate_names == std::vector<std::string>{"DNS:client.example", "IP:192.0.2.7",
                                                           "IP:2001:db8::7", "URI:urn:a:client",
                                                           "email:client@example.org"});
  CHECK(told.password_index == 1);
  const ss::tcp::detail::BioPtr bio(BIO_new_mem_buf(own.pem.data(), static_cast<int>(own.pem.size())));
  const ss::tcp::detail::X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  const ss::tcp::detail::BioPtr text(BIO_new(BIO_s_mem()));
  i2a_ASN1_INTEGER(text.get(), X509_get0_serialNumber(certificate.get()));
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  CHECK(told.certificate_serial == std::string(data, static_cast<std::size_t>(size)));
}

TEST_CASE("a remote does not take a certificate with more names than servers keep", "[tcp]") {
  const auto authority = support::make_certificate({.common_name = "the authority"});
  auto options = server_options();
  options.tls = options.tls.require_client_certificates_pem(authority.pem);
  Server server(std::move(options));
  server.start();
  const auto with_names = [&](int count) {
    std::string names;
    for (int i = 0; i < count; ++i) names += (i == 0 ? "DNS:n" : ",DNS:n") + std::to_string(i);
    return client_certificate(authority, names);
  };
  CHECK_FALSE(freeze_error(connect(server, client_tls(with_names(256)))));
  try {
    connect(server, client_tls(with_names(257)));
    FAIL("a certificate was taken that every server refuses");
  } catch (const ss::StateError& error) {
    CHECK(error.code() == ss::StateErrc::invalid_option);
    CHECK_THAT(error.detail(), ss::testing::contains_text("it holds 257 names: use one with at most 256"));
  }
}

TEST_CASE(
    "a remote takes another certificate while it runs, and a server throws out those of a former authority",
    "[tcp]") {
  const auto former = support::make_certificate({.common_name = "the former authority"});
  const auto next = support::make_certificate({.common_name = "the next authority"});
  auto options = server_options();
  options.tls = server_tls().require_client_certificates_pem(former.pem);
  Server server(std::move(options));
  server.start();
  const auto remote = connect(server, client_tls(client_certificate(former, "DNS:former")));
  REQUIRE_FALSE(freeze_error(remote));

  // What can't be used changes nothing.
  CHECK_THROWS_AS(remote->reload_tls(ss::tcp::ClientTls::from_pem("no certificate")), ss::StateError);
  CHECK_NOTHROW(remote->reload_tls());
  CHECK(remote->status().state == ss::LinkState::live);

  server.reload_tls(server_tls().require_client_certificates_pem(next.pem));
  CHECK(remote->status().state == ss::LinkState::live);  // on the old link
  const auto has_former_name = [](const ss::Peer& peer) {
    return std::find(peer.certificate_names.begin(), peer.certificate_names.end(), "DNS:former") !=
           peer.certificate_names.end();
  };
  CHECK(server.disconnect(has_former_name) == 1);
  REQUIRE(wait(remote, [](const ss::LinkStatus& status) { return status.state != ss::LinkState::live; }));
  remote->reload_tls(client_tls(client_certificate(next, "DNS:next")));
  REQUIRE(waits_until_live(remote));
  CHECK_FALSE(freeze_error(remote));
  CHECK(server.disconnect(has_former_name) == 0);
}

TEST_CASE("a remote and a server read their files again when they are told to", "[tcp]") {
  struct Folder {
    Folder() {
      std::string name = (std::filesystem::temp_directory_path() / "syncstate-XXXXXX").string();
      REQUIRE(::mkdtemp(name.data()) != nullptr);
      path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string write(const std::string& name, const std::string& content) const {
      std::ofstream(path / name, std::ios::binary) << content;
      return (path / name).string();
    }
    std::filesystem::path path;
  } const folder;
  const auto former = support::make_certificate({.common_name = "the former authority"});
  const auto next = support::make_certificate({.common_name = "the next authority"});
  const auto write_client = [&](const support::Certificate& authority, const std::string& names) {
    const auto own = client_certificate(authority, names);
    folder.write("client.crt", own.pem);
    folder.write("client.key", own.key_pem);
  };
  const std::string authorities = folder.write("authority.crt", former.pem);
  const std::string trusted = folder.write("server.crt", server_certificate().pem);
  write_client(former, "DNS:former");
  auto options = server_options();
  options.tls = server_tls().require_client_certificates(authorities);
  Server server(std::move(options));
  server.start();
  const auto remote =
      connect(server, ss::tcp::ClientTls::trusting_file(trusted).with_certificate(
                          (folder.path / "client.crt").string(), (folder.path / "client.key").string()));
  REQUIRE_FALSE(freeze_error(remote));

  folder.write("authority.crt", next.pem);
  server.reload_tls();
  write_client(next, "DNS:next");
  remote->reload_tls();
  CHECK(remote->status().state == ss::LinkState::live);  // on the old link
  const auto has_name = [](const std::string& name) {
    return [name](const ss::Peer& peer) {
      return std::find(peer.certificate_names.begin(), peer.certificate_names.end(), name) !=
             peer.certificate_names.end();
    };
  };
  const ss::TimePoint before = remote->status().since;
  CHECK(server.disconnect(has_name("DNS:former")) == 1);
  REQUIRE(wait(remote, [before](const ss::LinkStatus& status) {
    return status.state == ss::LinkState::live && status.since > before;
  }));
  CHECK(server.disconnect(has_name("DNS:next")) == 1);
}

TEST_CASE("a remote trusts another server certificate while it runs", "[tcp]") {
  Server server(server_options());
  server.start();
  const auto other = support::make_certificate({.common_name = "another server"});
  const auto remote = connect(server, ss::tcp::ClientTls::from_pem(other.pem));
  REQUIRE(waits_until_refused(remote));
  CHECK(remote->status().reason == ss::StateErrc::certificate_rejected);
  remote->reload_tls(ss::tcp::ClientTls::from_pem(server_certificate().pem));
  REQUIRE(waits_until_live(remote));
}

TEST_CASE("a remote takes another password while it runs, and tries it at once", "[tcp]") {
  Server server(server_options());
  server.start();
  const auto remote = connect(server, ss::tcp::ClientTls::from_pem(server_certificate().pem), "wrong");
  REQUIRE(waits_until_refused(remote));
  CHECK(remote->status().reason == ss::StateErrc::unauthorized);
  remote->set_password("a password");  // it would wait for half an hour else
  REQUIRE(waits_until_live(remote));
  // On a live link a new password is for the next connection.
  remote->set_password("the next one");
  CHECK_FALSE(freeze_error(remote));
  const ss::TimePoint former = remote->status().since;
  server.set_passwords({"the next one"}, {"a password"});
  CHECK(server.disconnect([](const ss::Peer& peer) { return peer.password_index == 0; }) == 1);
  REQUIRE(wait(remote, [former](const ss::LinkStatus& status) {
    return status.state == ss::LinkState::live && status.since > former;
  }));
}

TEST_CASE("recheck and disconnect reach links of every thread", "[tcp]") {
  auto options = server_options();
  options.io_threads = 3;
  std::atomic<bool> is_allowed = true;
  options.authorizer = [&](const ss::Peer&, ss::Action action, const ss::MapHash&) {
    switch (action) {
      case ss::Action::init:
      case ss::Action::fetch:
      case ss::Action::send_event: return true;
      case ss::Action::follow: return is_allowed.load();
    }
    return false;
  };
  Server server(std::move(options));
  server.start();
  std::vector<std::shared_ptr<Remote>> remotes;
  std::vector<std::shared_ptr<ss::Replica<std::string, std::string>>> replicas;
  for (int i = 0; i < 6; ++i) {
    remotes.push_back(connect(server, ss::tcp::ClientTls::from_pem(server_certificate().pem)));
    Map map(remotes.back());
    map.push("a", "first a");
    map.freeze(patience);
    replicas.push_back(std::make_shared<ss::Replica<std::string, std::string>>(std::move(map)));
  }
  const auto all_are = [&](ss::LinkState state) {
    return std::all_of(replicas.begin(), replicas.end(), [&](const auto& replica) {
      return wait(replica, [state](const ss::LinkStatus& status) { return status.state == state; });
    });
  };
  REQUIRE(all_are(ss::LinkState::live));
  is_allowed = false;
  server.recheck();
  CHECK(all_are(ss::LinkState::failed));
  for (const auto& replica : replicas) CHECK(replica->status().reason == ss::StateErrc::forbidden);
  is_allowed = true;
  CHECK(all_are(ss::LinkState::live));
  CHECK(server.disconnect([](const ss::Peer&) { return true; }) == 6);
  CHECK(all_are(ss::LinkState::live));
}

TEST_CASE("a remote tries every one of its more_endpoints", "[tcp]") {
  // Server number i hosts i maps, so that the list tells which one was reached.
  std::vector<std::unique_ptr<Server>> servers;
  for (int i = 0; i < 3; ++i) {
    servers.push_back(std::make_unique<Server>(server_options()));
    servers.back()->start();
    for (int maps = 0; maps <= i; ++maps) {
      Map map(ss::Role::master);
      map.push("a", std::to_string(maps));
      map.freeze();
      servers.back()->host(std::move(map));
    }
  }
  const auto remote = std::make_shared<Remote>(
      ss::tcp::RemoteOptions{.endpoint = servers[0]->endpoint(),
                             .more_endpoints = {servers[1]->endpoint(), servers[2]->endpoint()},
                             .tls = ss::tcp::ClientTls::from_pem(server_certificate().pem),
                             .password = "a password",
                             .request_timeout = patience,
                             .backoff = {.first = 10ms, .most = 200ms}});
  for (std::size_t i = 0; i < servers.size(); ++i) {
    INFO("endpoint " << i);
    CHECK(remote->hosted().size() == i + 1);
    CHECK(waits_until_live(remote));
    servers[i].reset();
  }
  CHECK(wait(remote, [](const ss::LinkStatus& status) { return status.state == ss::LinkState::stale; }));
}

}  // namespace living_links_test
