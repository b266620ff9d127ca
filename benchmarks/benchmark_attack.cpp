// What an honest client notices while others attack its server: over TLS on loopback, each in a process of its own.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "attack/flood.hpp"
#include "attack/parts.hpp"
#include "hostile/attacker.hpp"
#include "support/child_process.hpp"
#include "support/harness.hpp"
#include "support/statistics.hpp"

namespace {

using namespace benchmarks;

/// One kind of attack, which an attacker makes over and over.
struct Attack {
  std::string_view name;
  char word;        ///< that has the attacker begin
  int each_second;  ///< as often, if he can
};
constexpr std::array<Attack, 6> attacks{{{"connections", 'c', 2'000},
                                         {"half-open handshakes", 'o', 2'000},
                                         {"whole handshakes", 'h', 500},
                                         {"wrong proofs", 'p', 500},
                                         {"garbage", 'g', 2'000},
                                         {"bursts of 50 key updates", 'k', 200}}};

/// Attacks, from one address for each kind or from ever new ones, until he is told to stop.
class Attacker {
 public:
  Attacker(std::string server, bool has_many_addresses, std::atomic<std::uint64_t>& done)
      : server_(std::move(server)), has_many_addresses_(has_many_addresses), done_(&done) {}

  void run(ChildDuty& duty) {
    garbage_.resize(4'000);
    for (char& c : garbage_) c = static_cast<char>(std::rand());
    duty.listens_at("nowhere");
    auto word = duty.next_word();
    while (word) {
      const auto attack =
          std::find_if(attacks.begin(), attacks.end(), [&](const Attack& a) { return a.word == *word; });
      if (attack != attacks.end()) repeat(*attack, duty.end_handle());
      held_.clear();
      updating_.reset();
      word = duty.next_word();
    }
  }

 private:
  static constexpr std::size_t most_held = 1'000;

  /// In small portions, so that the pace is even; a word ends it, and so does a minute.
  void repeat(const Attack& attack, int words) {
    constexpr int portions_each_second = 100;
    const auto end = Clock::now() + 60s;
    for (auto next = Clock::now(); next < end; next += 1'000ms / portions_each_second) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(next - Clock::now());
      pollfd word{words, POLLIN, 0};
      if (::poll(&word, 1, std::max(0, static_cast<int>(left.count()))) != 0) return;
      for (int i = 0; i < attack.each_second / portions_each_second; ++i) once(attack);
    }
  }

  void once(const Attack& attack) {
    const std::size_t address = has_many_addresses_ ? ++number_ : static_cast<std::size_t>(attack.word);
    const std::string from = hostile::address_number(address);
    try {
      switch (attack.word) {
        case 'c': hold(hostile::connect_from(from, server_)); break;
        case 'o': {
          hostile::Attacker client(from, server_);
          client.peer().think();
          client.send_what_fits();
          hold(client.peer().take_socket());
          break;
        }
        case 'h': hostile::Attacker(from, server_).shake_hands(); break;
        case 'p': {
          hostile::Attacker client(from, server_);
          if (!client.log_in("guess")) client.goodbye();
          break;
        }
        case 'k': update_keys(from); break;
        default: hostile::send_raw(hostile::connect_from(from, server_), garbage_);
      }
    } catch (const std::system_error&) {  // refused or reset: so much for this one
    }
    ++*done_;
  }

  /// On one link for as long as the server lets it live.
  void update_keys(const std::string& from) {
    if (!updating_ || updating_->is_closed()) {
      updating_.reset();
      auto link = std::make_unique<hostile::Attacker>(from, server_);
      if (!link->shake_hands()) return;
      updating_ = std::move(link);
    }
    for (int i = 0; i < 50; ++i) {
      SSL_key_update(updating_->peer().ssl(), SSL_KEY_UPDATE_REQUESTED);
      SSL_do_handshake(updating_->peer().ssl());
    }
    updating_->send_what_fits();
  }

  void hold(ss::tcp::NativeSocket socket) {
    held_.push_back(std::move(socket));
    if (held_.size() > most_held) held_.pop_front();
  }

  std::string server_;
  bool has_many_addresses_;
  std::atomic<std::uint64_t>* done_;
  std::size_t number_ = 0;
  std::string garbage_;
  std::deque<ss::tcp::NativeSocket> held_;
  std::unique_ptr<hostile::Attacker> updating_;
};

/// How long after now a client's latency is as it was: until the first quarter of a second whose p99 is at most twice
/// `usual` begins.
double seconds_to_recover(Honest& honest, double usual) {
  const auto start = Clock::now();
  for (;;) {
    const auto begun = Clock::now();
    const bool is_usual = percentile(latencies(honest, 250ms), 0.99) <= 2 * usual;
    if (is_usual || begun - start > 20s) return seconds(begun - start);
  }
}

void measure(const Settings& settings, Report& report, bool has_many_addresses) {
  SharedCounter done;
  const ChildProcess server([](ChildDuty& duty) { serve_map(duty); });
  ChildProcess attacker(
      [&](ChildDuty& duty) { Attacker(server.endpoint(), has_many_addresses, done.get()).run(duty); });
  Honest honest(server);
  latencies(honest, settings.is_quick ? 10ms : 500ms);
  const double memory_before = server.resident_bytes();

  const std::size_t rounds = settings.count(5, 1);
  const Clock::duration turn = settings.is_quick ? 20ms : 1'000ms;
  std::vector<double> undisturbed;
  std::array<std::vector<double>, attacks.size()> disturbed;
  std::array<std::uint64_t, attacks.size()> made{};
  std::vector<double> recoveries;
  std::vector<double> newcomers;
  const auto let_in = [&] {
    const auto start = Clock::now();
    keep(connect_to(server)->attach<std::string, std::string>(honest.hash()));
    newcomers.push_back(seconds(Clock::now() - start) * 1e3);
  };
  for (std::size_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < attacks.size(); ++i) {
      const auto before = latencies(honest, turn);
      undisturbed.insert(undisturbed.end(), before.begin(), before.end());
      const std::uint64_t made_before = done.get();
      attacker.tell(attacks[i].word);
      const auto during = latencies(honest, turn);
      disturbed[i].insert(disturbed[i].end(), during.begin(), during.end());
      if (!has_many_addresses) let_in();
      attacker.tell('.');
      made[i] += done.get() - made_before;
      recoveries.push_back(seconds_to_recover(honest, percentile(undisturbed, 0.99)));
      if (has_many_addresses) let_in();
    }
  }
  const double usual = percentile(undisturbed, 0.99);
  report.add("undisturbed, p50", "µs", median(undisturbed));
  report.add("undisturbed, p99", "µs", usual);
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    const std::string name(attacks[i].name);
    report.add(name + ", made", "1/s",
               static_cast<double>(made[i]) / (static_cast<double>(rounds) * seconds(turn)));
    report.add(name + ", p50", "µs", median(disturbed[i]));
    report.add(name + ", p99", "µs", percentile(disturbed[i], 0.99));
    report.add(name + ", p99 : undisturbed", "", percentile(disturbed[i], 0.99) / usual,
               has_many_addresses ? "" : "<= 2");
  }
  report.add("p99 is at most twice what it was, after the attack's end", "s",
             *std::max_element(recoveries.begin(), recoveries.end()), "< 5");
  report.add(has_many_addresses ? "another client is let in, after the attack"
                                : "another client is let in, meanwhile",
             "ms, the longest", *std::max_element(newcomers.begin(), newcomers.end()));
  report.add("links lost by the honest client", "", static_cast<double>(honest.lost()), "0");
  report.add("server, resident, before", "KiB", memory_before / 1024);
  report.add("server, resident, at the peak", "KiB", server.peak_resident_bytes() / 1024);
  report.add("server, resident, after", "KiB", server.resident_bytes() / 1024);
}

void measure_one(const Settings& settings, Report& report) { measure(settings, report, false); }
void measure_many(const Settings& settings, Report& report) { measure(settings, report, true); }

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(
      argc, argv,
      {{"flood",
        "Event → answer of an honest client while 64 addresses flood its server, or another one; ECDSA",
        measure_flood_ecdsa, false, true},
       {"flood_rsa", "The same with an RSA certificate of 2,048 bits", measure_flood_rsa, false, true},
       {"one", "Event → answer of an honest client while one address attacks", measure_one},
       {"many", "Event → answer of an honest client while ever new addresses attack", measure_many}});
}
