#include "attack/flood.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "attack/parts.hpp"
#include "support/statistics.hpp"

namespace benchmarks {
namespace {

/// One kind of flood.
struct Flood {
  std::string_view name;
  char word;  ///< that has the attacker begin
};
constexpr std::array<Flood, 6> floods{{{"connections without a byte", 'c'},
                                       {"half-open handshakes", 'o'},
                                       {"replayed hello, X25519", 'x'},
                                       {"replayed hello, P-384", 'p'},
                                       {"replayed hello, ffdhe8192 first", 'f'},
                                       {"whole handshakes without a proof", 'h'}}};

constexpr int each_second = 2'000;
constexpr std::size_t addresses = 64;

/// Of the CPUs that this process may use, the first, and the last.
struct Cpus {
  int of_servers = 0;
  int of_clients = 0;
};
Cpus find_cpus() {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) throw std::runtime_error("sched_getaffinity");
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return {cpus.front(), cpus.back()};
}
void stay_on(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (::sched_setaffinity(0, sizeof one, &one) != 0) throw std::runtime_error("sched_setaffinity");
}

/// The bytes of a ClientHello with these groups, and a share of the first one.
std::string client_hello(const char* groups) {
  const auto context = harness::RawPeer::make_context(false);
  SSL_CTX_set1_groups_list(context.get(), groups);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  const ss::tcp::detail::SslPtr ssl(SSL_new(context.get()));
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), in, out);
  SSL_set_connect_state(ssl.get());
  SSL_do_handshake(ssl.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(out, &data);
  return {data, static_cast<std::size_t>(size)};
}

/// Floods a server until it is told to stop.
class Flooder {
 public:
  Flooder(std::string used, std::string unused, std::atomic<std::uint64_t>& done)
      : used_(std::move(used)), unused_(std::move(unused)), done_(&done) {}

  /// A word says which flood; an upper case one that it goes to the server that is used.
  void run(ChildDuty& duty) {
    duty.listens_at("nowhere");
    for (auto word = duty.next_word(); word; word = duty.next_word()) {
      if (*word == '.') continue;
      const bool is_used = *word >= 'A' && *word <= 'Z';
      repeat(is_used ? static_cast<char>(*word - 'A' + 'a') : *word, is_used ? used_ : unused_,
             duty.end_handle());
      held_.clear();
      shaking_.clear();
    }
  }

 private:
  static constexpr std::size_t most_held = 500;

  /// One by one, so that the pace is even, until a word comes.
  void repeat(char kind, const std::string& server, int words) {
    for (auto next = Clock::now();; next += std::chrono::nanoseconds(1s) / each_second) {
      const auto left = std::max(Clock::duration::zero(), next - Clock::now());
      const timespec limit{0, std::chrono::nanoseconds(left).count() % 1'000'000'000};
      pollfd word{words, POLLIN, 0};
      if (::ppoll(&word, 1, &limit, nullptr) != 0) return;
      once(kind, server);
    }
  }

  void once(char kind, const std::string& server) {
    const std::string from = "127.0.1." + std::to_string(1 + number_++ % addresses);
    try {
      switch (kind) {
        case 'o': {
          hostile::Attacker client(from, server);
          client.peer().think();
          client.send_what_fits();
          hold(client.peer().take_socket());
          break;
        }
        case 'h': shake_hands(from, server); return;
        default: {
          auto socket = hostile::connect_from(from, server);
          if (kind == 'x') hostile::send_raw(socket, x25519_);
          if (kind == 'p') hostile::send_raw(socket, p384_);
          if (kind == 'f') hostile::send_raw(socket, ffdhe_);
          hold(std::move(socket));
        }
      }
      ++*done_;
    } catch (const std::system_error&) {  // refused or reset
    }
  }

  /// Begins a handshake, and goes on with some of those that are under way.
  void shake_hands(const std::string& from, const std::string& server) {
    constexpr std::size_t most_under_way = 100;  // so many fit into the server's room for strangers
    if (shaking_.size() < most_under_way) {
      shaking_.push_back(std::make_unique<hostile::Attacker>(from, server));
      shaking_.back()->peer().think();
      shaking_.back()->send_what_fits();
    }
    for (int i = 0; i < 4 && !shaking_.empty(); ++i) {
      std::unique_ptr<hostile::Attacker> client = std::move(shaking_.front());
      shaking_.pop_front();
      const bool is_closed = client->is_closed();  // reads, and answers what it has read
      client->send_what_fits();
      if (client->peer().is_open()) {
        ++*done_;
      } else if (!is_closed) {
        shaking_.push_back(std::move(client));
      }
    }
  }

  void hold(ss::tcp::NativeSocket socket) {
    held_.push_back(std::move(socket));
    if (held_.size() > most_held) held_.pop_front();
  }

  std::string used_, unused_;
  std::atomic<std::uint64_t>* done_;
  std::size_t number_ = 0;
  const std::string x25519_ = client_hello("X25519");
  const std::string p384_ = client_hello("P-384");
  const std::string ffdhe_ = client_hello("ffdhe8192:X25519");
  std::deque<ss::tcp::NativeSocket> held_;
  std::deque<std::unique_ptr<hostile::Attacker>> shaking_;
};

/// What an honest client saw while one of the two servers was flooded.
struct Seen {
  std::vector<double> latencies;
  std::uint64_t connections = 0;
  double time = 0;
};

struct Measured {
  Seen undisturbed, disturbed;
  std::size_t lost = 0;
};

/// Fresh processes, so that no address has used up its credit.
void measure_once(const Flood& flood, const Identity& identity, Clock::duration time, Measured& measured) {
  const Cpus cpus = find_cpus();
  SharedCounter done;
  const auto serve = [&](ChildDuty& duty) {
    stay_on(cpus.of_servers);
    serve_map(duty, identity);
  };
  const ChildProcess used(serve);
  const ChildProcess unused(serve);
  ChildProcess attacker([&](ChildDuty& duty) {
    stay_on(cpus.of_clients);
    Flooder(used.endpoint(), unused.endpoint(), done.get()).run(duty);
  });
  stay_on(cpus.of_clients);
  Honest honest(used, identity);
  latencies(honest, time / 8);
  const auto run = [&](char word, Seen& seen) {
    attacker.tell(word);
    latencies(honest, time / 8);  // the flood has begun
    const std::uint64_t before = done.get();
    const auto start = Clock::now();
    const auto all = latencies(honest, time);
    seen.latencies.insert(seen.latencies.end(), all.begin(), all.end());
    seen.connections += done.get() - before;
    seen.time += seconds(Clock::now() - start);
    attacker.tell('.');
    latencies(honest, time / 8);
  };
  run(flood.word, measured.undisturbed);
  run(static_cast<char>(flood.word - 'a' + 'A'), measured.disturbed);
  measured.lost += honest.lost();
}

void measure_flood(const Settings& settings, Report& report, const Identity& identity, bool has_bar) {
  const std::size_t rounds = settings.count(3, 1);
  const Clock::duration time = settings.is_quick ? 40ms : 3'000ms;
  std::size_t lost = 0;
  for (const Flood& flood : floods) {
    Measured measured;
    for (std::size_t round = 0; round < rounds; ++round) measure_once(flood, identity, time, measured);
    const std::string name(flood.name);
    const Seen& before = measured.undisturbed;
    const Seen& during = measured.disturbed;
    report.add(name + ", made", "1/s", static_cast<double>(during.connections) / during.time);
    report.add(name + ", p50, the other server's", "µs", median(before.latencies));
    report.add(name + ", p50", "µs", median(during.latencies));
    report.add(name + ", p99, the other server's", "µs", percentile(before.latencies, 0.99));
    report.add(name + ", p99", "µs", percentile(during.latencies, 0.99));
    report.add(name + ", p99 : the other server's", "",
               percentile(during.latencies, 0.99) / percentile(before.latencies, 0.99),
               has_bar ? "<= 3" : "");
    lost += measured.lost;
  }
  report.add("links lost by the honest client", "", static_cast<double>(lost), "0");
}

/// Signs itself, and names 127.0.0.1.
Identity make_rsa_identity() {
  const auto check = [](bool is_good) {
    if (!is_good) throw std::runtime_error("OpenSSL made no certificate");
  };
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_RSA_gen(2'048), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  check(key && certificate);
  X509* const x = certificate.get();
  X509_set_version(x, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -3'600);
  X509_gmtime_adj(X509_getm_notAfter(x), 86'400);
  X509_set_pubkey(x, key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("benchmark"), -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(x));
  const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> names(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "IP:127.0.0.1"), X509_EXTENSION_free);
  check(names && X509_add_ext(x, names.get(), -1) == 1 && X509_sign(x, key.get(), EVP_sha256()) > 0);
  const auto as_pem = [&](auto write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), BIO_free);
    check(write(bio.get()) == 1);
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<std::size_t>(size));
  };
  return {as_pem([&](BIO* bio) { return PEM_write_bio_X509(bio, x); }), as_pem([&](BIO* bio) {
            return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

}  // namespace

void measure_flood_ecdsa(const Settings& settings, Report& report) {
  measure_flood(settings, report, Identity{}, true);
}
void measure_flood_rsa(const Settings& settings, Report& report) {
  measure_flood(settings, report, make_rsa_identity(), false);
}

}  // namespace benchmarks
