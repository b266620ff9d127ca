// Drives a master, four replicas and two senders, all of them processes of their own over TLS, and does to them what
// happens to processes: kills and restarts them, stops them for a while, and cuts, stalls, delays and crumbles their
// connections. In the end everything heals, and then what all of them said must fit together.
//
//   chaos [--seconds N] [--seed N] [--silence MS] [--netns] [--verbose]
//   chaos --soak [--seconds N | --cuts N] [--seed N]      steady load, connections cut now and then; what grows?
//
// All chance comes from the seed, which is printed. Every client reaches the master through a proxy in this process;
// with --netns every other one goes straight to the master in a network namespace of ours, whose cable is pulled and
// loses packets.
//
// What is checked: ledger.hpp (each event against the journal of the masters, each state shown against the states that
// were), state_process.cpp (`violation`), and here: that everything is well again within a limit after the faults are
// over, that processes end when told to, and only then.
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "processes/child.hpp"
#include "processes/fault_proxy.hpp"
#include "processes/ledger.hpp"
#include "processes/loop.hpp"
#include "processes/model.hpp"
#include "processes/network.hpp"
#include "support/certificates.hpp"

using namespace std::chrono_literals;
using std::chrono::milliseconds;
namespace processes {
namespace {

constexpr auto patience = 90s;  // a limit, not a pause: for what must come once all is well

struct Settings {
  std::string program;
  std::uint64_t seed = 0;
  std::chrono::seconds time{25};
  milliseconds silence{15'000};
  unsigned cuts = 0;
  bool is_soak = false;
  bool wants_netns = false;
  bool is_verbose = false;
};

class Chance {
 public:
  explicit Chance(std::uint64_t seed) : rng_(seed) {}

  template <class Integer>
  Integer between(Integer least, Integer most) {
    return std::uniform_int_distribution<Integer>(least, most)(rng_);
  }
  milliseconds between(milliseconds least, milliseconds most) {
    return milliseconds(between(least.count(), most.count()));
  }
  bool percent(int chance) { return between(1, 100) <= chance; }
  /// How long until the next of events that come `mean` apart on average.
  milliseconds wait(milliseconds mean) {
    const double time = std::exponential_distribution<double>(1.0)(rng_) * static_cast<double>(mean.count());
    return milliseconds(static_cast<long>(time));
  }
  template <class Range>
  void shuffle(Range& range) {
    std::shuffle(range.begin(), range.end(), rng_);
  }
  Way way() { return percent(50) ? Way::to_server : Way::to_client; }
  Cut cut() { return static_cast<Cut>(between(0, 3)); }

 private:
  std::mt19937_64 rng_;
};

enum class Role : std::uint8_t { master, replica, sender };
constexpr std::array<std::string_view, 3> role_names{"master", "replica", "sender"};

/// A part in the play, and the process that has it now.
struct Actor {
  Role role;
  unsigned slot;
  std::unique_ptr<FaultProxy> proxy{};  // null for the master, and for clients that go straight to it
  std::unique_ptr<Child> child{};
  unsigned incarnation = 0;
  std::string process{};  // its name: "replica 2, 5th"
  bool is_ready = false;
  bool is_stopped = false;
  bool is_quitting = false;
  bool is_killed = false;

  std::size_t life = 0;  // of a master

  std::uint64_t sent =
      0;  // of a sender: events asked for, fates told, and those that say that it did not run well
  std::uint64_t fates = 0;
  std::uint64_t misses = 0;

  std::uint64_t epoch = 0;  // what a replica, or a dump, said last
  std::uint64_t id = 0;
  std::uint64_t sightings = 0;
  bool has_answered = false;  // the last question

  [[nodiscard]] std::string name() const {
    return std::string(role_names[static_cast<std::size_t>(role)]) + " " + std::to_string(slot);
  }
  [[nodiscard]] bool is_well() const {
    return child && is_ready && !is_stopped && !is_quitting && !is_killed;
  }
};

enum class Action : std::uint8_t {
  kill_master,
  kill_replica,
  kill_sender,
  kill_in_transfer,
  quit_master,
  quit_client,
  stop,
  stop_long,
  cut,
  cut_midway,
  stall,
  stall_long,
  delay,
  crumble,
  refuse,
  swallow,
  burst,
  late_answers,
  dump,
  pull,
  drop,
  drop_long,
  lose_some
};

struct Card {
  Action action;
  const char* name;
  unsigned copies;
  bool needs_network;
};

constexpr std::array<Card, 23> cards{{
    {Action::kill_master, "kill master", 3, false},
    {Action::kill_replica, "kill replica", 5, false},
    {Action::kill_sender, "kill sender", 4, false},
    {Action::kill_in_transfer, "kill master amid a transfer", 3, false},
    {Action::quit_master, "end master", 1, false},
    {Action::quit_client, "end client", 2, false},
    {Action::stop, "stop", 6, false},
    {Action::stop_long, "stop beyond the silence", 1, false},
    {Action::cut, "cut", 6, false},
    {Action::cut_midway, "cut midway", 12, false},
    {Action::stall, "stall", 4, false},
    {Action::stall_long, "stall beyond the silence", 1, false},
    {Action::delay, "delay", 3, false},
    {Action::crumble, "crumble", 3, false},
    {Action::refuse, "refuse", 2, false},
    {Action::swallow, "swallow", 2, false},
    {Action::burst, "burst", 4, false},
    {Action::late_answers, "answer too late", 3, false},
    {Action::dump, "dump", 5, false},
    {Action::pull, "pull the cable", 4, true},
    {Action::drop, "drop all packets one way", 4, true},
    {Action::drop_long, "drop all packets beyond the silence", 1, true},
    {Action::lose_some, "lose some packets", 4, true},
}};

std::string hex(std::string_view bytes) {
  std::ostringstream text;
  for (const char byte : bytes) {
    text << std::hex << std::setw(2) << std::setfill('0')
         << static_cast<unsigned>(static_cast<unsigned char>(byte));
  }
  return text.str();
}

/// What a process takes of the system.
struct Usage {
  std::size_t kib = 0;  ///< resident, without pages of files: those come and go as the kernel likes
  std::size_t descriptors = 0;
};

Usage usage_of(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  Usage usage;
  std::size_t all_pages = 0;
  std::size_t resident_pages = 0;
  std::size_t shared_pages = 0;
  std::ifstream(folder + "/statm") >> all_pages >> resident_pages >> shared_pages;
  usage.kib = (resident_pages - shared_pages) * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) / 1024;
  if (DIR* const entries = ::opendir((folder + "/fd").c_str())) {
    while (const dirent* const entry = ::readdir(entries)) {
      if (entry->d_name[0] != '.') ++usage.descriptors;
    }
    ::closedir(entries);
  }
  return usage;
}

class Driver {
 public:
  explicit Driver(Settings settings) : settings_(std::move(settings)), chance_(settings_.seed) {
    if (settings_.wants_netns) {
      std::string why_not;
      network_ = Network::make(why_not);
      if (!network_) {
        std::cout << "no network namespaces here, only the proxies: " << why_not << std::endl;
      } else if (!network_->can_drop()) {
        std::cout << "nft drops no packets here: only the cable is pulled" << std::endl;
      }
    }
    certificate_ = support::make_certificate(
        {.alternative_names = std::string("IP:127.0.0.1,IP:") + Network::master_host});
    add(Role::master, 0);
    for (unsigned i = 0; i < 4; ++i) add(Role::replica, i);
    for (unsigned i = 0; i < slots; ++i) add(Role::sender, i);
  }

  /// Returns whether all was well.
  bool run() {
    for (Actor& actor : actors_) start(actor);
    keep_sending();
    if (!loop_.run_until([&] { return is_lively() || has_failed(); }, patience)) {
      ledger_.complain("not everyone got to work");
    }
    if (!has_failed()) settings_.is_soak ? soak() : rage();
    if (!has_failed()) settle();
    if (!has_failed()) end_all();
    return report();
  }

 private:
  // The processes.

  void add(Role role, unsigned slot) {
    actors_.push_back(Actor{.role = role, .slot = slot});
    const bool is_direct = network_ && slot % 2 == 1;
    if (role == Role::master || is_direct) return;
    actors_.back().proxy = std::make_unique<FaultProxy>(loop_, master_address_);
  }

  Actor& master() { return actors_.front(); }

  void start(Actor& actor) {
    ++actor.incarnation;
    actor.process = actor.name() + " #" + std::to_string(actor.incarnation);
    actor.is_ready = actor.is_stopped = actor.is_quitting = actor.is_killed = actor.has_answered = false;
    actor.sent = actor.fates = actor.misses = 0;
    actor.epoch = actor.id = 0;
    const std::string role(role_names[static_cast<std::size_t>(actor.role)]);
    std::vector<std::string> words{settings_.program, role,
                                   "silence=" + std::to_string(settings_.silence.count()),
                                   "heartbeat=" + std::to_string(settings_.silence.count() / 3)};
    std::string pem = "pem " + hex(certificate_.pem);
    int network = -1;
    if (actor.role == Role::master) {
      actor.life = ledger_.begin_life();
      words.push_back(network_ ? std::string("listen=") + Network::master_host + ":" +
                                     std::to_string(Network::master_port)
                               : "listen=127.0.0.1:0");
      pem += " " + hex(certificate_.key_pem);
      if (network_) network = network_->master();
    } else {
      words.push_back(actor.proxy ? "connect=127.0.0.1:" + std::to_string(actor.proxy->port())
                                  : std::string("connect=") + Network::master_host + ":" +
                                        std::to_string(Network::master_port));
    }
    if (actor.role == Role::replica && actor.slot % 4 >= 2) words.push_back("every_step=1");
    if (actor.role == Role::sender) {
      words.push_back("name=" + sender_name(actor));
      words.push_back("slot=" + std::to_string(actor.slot));
      words.push_back("seed=" + std::to_string(chance_.between<std::uint64_t>(1, 1U << 30U)));
      words.push_back("timeout=" + std::to_string(event_timeout().count()));
      // Large values of random sizes come to rest at one amount of memory only slowly.
      if (settings_.is_soak) words.push_back("steady=1");
      if (actor.slot == 0) words.push_back("follow=1");
    }
    actor.child = std::make_unique<Child>(
        loop_, words, network,
        Child::Callbacks{[this, &actor](std::string_view line) { line_came(actor, std::string(line)); },
                         [this, &actor](int status) { ended(actor, status); }});
    actor.child->tell(pem);
  }

  static std::string sender_name(const Actor& actor) {
    return std::to_string(actor.slot) + "." + std::to_string(actor.incarnation);
  }

  void line_came(Actor& actor, const std::string& line) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "violation") return ledger_.complain(actor.process + ": " + line);
    if (what == "note") return note(actor.process + ": " + line);
    if (what == "ready") {
      actor.is_ready = true;
      return;
    }
    switch (actor.role) {
      case Role::master: return master_said(actor, what, words);
      case Role::replica: return replica_said(actor, what, words);
      case Role::sender: return sender_said(actor, what, words);
    }
  }

  void master_said(Actor& actor, const std::string& what, std::istringstream& words) {
    std::uint64_t epoch = 0;
    std::uint64_t id = 0;
    if (what == "listening") {
      std::string endpoint;
      words >> endpoint;
      const std::size_t colon = endpoint.rfind(':');
      master_address_ = {endpoint.substr(0, colon),
                         static_cast<std::uint16_t>(std::stoi(endpoint.substr(colon + 1)))};
      for (Actor& client : actors_) {
        if (client.proxy) client.proxy->set_server(master_address_);
      }
      actor.is_ready = true;
    } else if (what == "epoch") {
      words >> epoch;
      ledger_.hosted(actor.life, epoch);
    } else if (what == "ran") {
      Act act;
      unsigned kind = 0;
      words >> epoch >> id >> act.sender >> act.number >> act.slot >> kind >> act.size;
      act.kind = static_cast<Kind>(kind);
      ledger_.ran(actor.life, epoch, id, std::move(act));
    } else if (what == "threw" || what == "passed") {
      std::string sender;
      std::uint64_t number = 0;
      words >> epoch;
      if (what == "passed") words >> id;
      words >> sender >> number;
      if (what == "passed") {
        ledger_.passed(actor.life, epoch, id, sender, number);
      } else {
        ledger_.threw(actor.life, epoch, sender, number);
      }
    } else if (what == "head") {
      std::uint64_t digest = 0;
      words >> actor.epoch >> actor.id >> digest;
      actor.has_answered = true;
      if (actor.epoch != 0) {
        ledger_.seen(actor.process + ", dump " + std::to_string(++dumps_), actor.epoch, actor.id, digest);
      }
    } else {
      ledger_.complain(actor.process + " said " + what);
    }
    if (!words) ledger_.complain(actor.process + " left something out of a line: " + what);
  }

  void replica_said(Actor& actor, const std::string& what, std::istringstream& words) {
    std::uint64_t digest = 0;
    words >> actor.epoch >> actor.id >> digest;
    if (!words || (what != "seen" && what != "at"))
      return ledger_.complain(actor.process + " said " + words.str());
    ++actor.sightings;
    if (what == "seen") return ledger_.seen(actor.process, actor.epoch, actor.id, digest);
    actor.has_answered = true;
    if (actor.epoch != 0) ledger_.seen(actor.process + ", asked at the end", actor.epoch, actor.id, digest);
  }

  void sender_said(Actor& actor, const std::string& what, std::istringstream& words) {
    const std::string name = sender_name(actor);
    std::uint64_t number = 0;
    words >> number;
    ++actor.fates;
    if (what == "answered") {
      std::uint64_t id = 0;
      Position shown;
      words >> id;
      const bool is_shown = !words.eof();
      if (is_shown) words >> shown.epoch >> shown.id;
      ledger_.answered(name, number, id, is_shown ? std::optional(shown) : std::nullopt);
    } else if (what == "failed") {
      ledger_.fate(name, number, Fate::failed);
    } else if (what == "unknown") {
      ++actor.misses;
      ledger_.fate(name, number, Fate::unknown);
    } else if (what == "refused") {
      std::string reason;
      std::getline(words >> std::ws, reason);
      ++actor.misses;
      ++refusals_[reason];
      ledger_.fate(name, number, Fate::refused);
      return;
    } else {
      ledger_.complain(actor.process + " said " + what);
    }
    if (!words) ledger_.complain(actor.process + " left something out of a line: " + what);
  }

  void ended(Actor& actor, int status) {
    const bool is_as_told = (actor.is_killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
                            (actor.is_quitting && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (!is_as_told) {
      ledger_.complain(actor.process + " ended with " +
                       (WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                            : "exit code " + std::to_string(WEXITSTATUS(status))) +
                       (actor.is_quitting ? ", told to quit" : ", by itself"));
    }
    actor.child.reset();
    if (is_ending_) return;
    // Sometimes at once, sometimes after everybody has noticed.
    const milliseconds wait = chance_.percent(30) ? 0ms : chance_.between(0ms, 1'000ms);
    loop_.after(wait, [this, &actor] {
      if (!actor.child && !is_ending_) start(actor);
    });
  }

  void kill(Actor& actor) {
    actor.is_killed = true;
    actor.child->signal(SIGKILL);
  }

  void quit(Actor& actor) {
    actor.is_quitting = true;
    actor.child->tell("quit");
    loop_.after(30s, [this, &actor, incarnation = actor.incarnation] {
      if (actor.child && actor.incarnation == incarnation && !actor.is_killed) {
        ledger_.complain(actor.process + " does not end");
      }
    });
  }

  void stop_for(Actor& actor, milliseconds time) {
    actor.is_stopped = true;
    actor.child->signal(SIGSTOP);
    loop_.after(time, [this, &actor, incarnation = actor.incarnation] {
      if (actor.incarnation == incarnation) go_on(actor);
    });
  }

  void go_on(Actor& actor) {
    if (actor.child) actor.child->signal(SIGCONT);
    actor.is_stopped = false;
  }

  // The load.

  void ask_for(Actor& sender, unsigned count) {
    sender.sent += count;
    sender.child->tell("send " + std::to_string(count));
  }

  /// Some events every few milliseconds, unless too many wait already.
  void keep_sending() {
    if (is_quiet_) return;
    for (Actor& actor : actors_) {
      if (actor.role != Role::sender || !actor.is_well() || actor.sent - actor.fates > 400) continue;
      ask_for(actor, settings_.is_soak ? 3U : chance_.between(1U, 6U));
    }
    loop_.after(20ms, [this] { keep_sending(); });
  }

  bool is_lively() {
    return std::all_of(actors_.begin(), actors_.end(), [](const Actor& actor) {
      return actor.is_ready && (actor.role != Role::replica || actor.sightings > 0) &&
             (actor.role != Role::sender || actor.fates > actor.misses);
    });
  }

  [[nodiscard]] bool has_failed() const { return ledger_.has_complaints(); }

  // The faults.

  /// Plays for the given time, and at least once through all cards.
  void rage() {
    const TimePoint end = Clock::now() + settings_.time;
    unsigned decks = 0;
    std::vector<const Card*> deck;
    bool is_due = true;
    while (Clock::now() < end || decks < 2) {
      if (deck.empty()) {
        if (++decks > 1 && Clock::now() >= end) break;
        for (const Card& card : cards) {
          if (card.needs_network && !network_) continue;
          if (card.needs_network && card.action != Action::pull && !network_->can_drop()) continue;
          deck.insert(deck.end(), card.copies, &card);
        }
        chance_.shuffle(deck);
      }
      if (is_due) {
        is_due = false;
        play(*deck.back());
        deck.pop_back();
        loop_.after(chance_.wait(250ms), [&is_due] { is_due = true; });
      }
      loop_.run_until([&] { return is_due || has_failed(); }, patience);
      if (has_failed()) return;
    }
    // What was scheduled refers to is_due, and is over before we leave.
    loop_.run_until([&] { return is_due; }, patience);
  }

  template <class F>
  Actor* choose(F is_fit) {
    std::vector<Actor*> fit;
    for (Actor& actor : actors_) {
      if (is_fit(actor)) fit.push_back(&actor);
    }
    return fit.empty() ? nullptr : fit[chance_.between<std::size_t>(0, fit.size() - 1)];
  }

  Actor* choose_alive(Role role) {
    return choose(
        [role](const Actor& actor) { return actor.role == role && actor.child && !actor.is_killed; });
  }

  Actor* choose_well(Role role) {
    return choose([role](const Actor& actor) { return actor.role == role && actor.is_well(); });
  }

  /// Short enough for events to miss it; but in a soak a cut must not cost an event its answer, only time.
  milliseconds event_timeout() const { return settings_.is_soak ? 60s : settings_.silence * 2 / 3; }
  milliseconds short_time() { return chance_.wait(300ms) + 1ms; }
  milliseconds beyond_silence() { return settings_.silence + chance_.between(0ms, settings_.silence / 2); }

  void play(const Card& card) {
    Actor* actor = nullptr;
    FaultProxy* proxy = nullptr;
    std::string detail;
    switch (card.action) {
      case Action::kill_master: actor = choose_alive(Role::master); break;
      case Action::kill_replica: actor = choose_alive(Role::replica); break;
      case Action::kill_sender: actor = choose_alive(Role::sender); break;
      case Action::kill_in_transfer:
        actor = choose([](const Actor& each) {
          return each.role == Role::replica && each.proxy && each.child && !each.is_killed;
        });
        break;
      case Action::late_answers:
        actor = choose(
            [](const Actor& each) { return each.role == Role::sender && each.proxy && each.is_well(); });
        break;
      case Action::quit_master: actor = choose_well(Role::master); break;
      case Action::quit_client:
        actor = choose([](const Actor& each) { return each.role != Role::master && each.is_well(); });
        break;
      case Action::stop:
      case Action::stop_long: actor = choose([](const Actor& each) { return each.is_well(); }); break;
      case Action::burst: actor = choose_well(Role::sender); break;
      case Action::dump: actor = choose_well(Role::master); break;
      case Action::pull:
      case Action::drop:
      case Action::drop_long:
      case Action::lose_some: break;
      default:
        actor = choose([](const Actor& each) { return each.proxy != nullptr; });
        proxy = actor->proxy.get();
    }
    if (actor == nullptr && !card.needs_network) return note(std::string(card.name) + ": nobody there");
    const TimePoint now = Clock::now();
    const milliseconds time = short_time();
    switch (card.action) {
      case Action::kill_master:
      case Action::kill_replica:
      case Action::kill_sender: kill(*actor); break;
      case Action::kill_in_transfer:
        // A new replica is sent everything, in pieces.
        kill(*actor);
        actor->proxy->cut_after(Way::to_client, chance_.between<std::size_t>(5'000, 200'000), Cut::reset,
                                [this] {
                                  if (!is_quiet_ && master().child && !master().is_killed) kill(master());
                                });
        break;
      case Action::late_answers:
        ask_for(*actor, 30);
        actor->proxy->stall(Way::to_client, now + event_timeout() * 5 / 4);
        break;
      case Action::quit_master:
      case Action::quit_client: quit(*actor); break;
      case Action::stop: stop_for(*actor, time); break;
      case Action::stop_long: stop_for(*actor, beyond_silence()); break;
      case Action::cut: proxy->cut_now(chance_.cut()); break;
      case Action::cut_midway: {
        // Few bytes end in a handshake or a heartbeat, many in a diff, a burst of events or an upload.
        const std::size_t bytes = chance_.between<std::size_t>(0, 1U << chance_.between(4U, 17U));
        proxy->cut_after(chance_.way(), bytes, chance_.cut());
        if (chance_.percent(50)) proxy->cut_now(Cut::reset);  // then the bytes are those of a new connection
        detail = " after " + std::to_string(bytes) + " bytes";
        break;
      }
      case Action::stall: stall(*proxy, now + time); break;
      case Action::stall_long: stall(*proxy, now + beyond_silence()); break;
      case Action::delay: proxy->delay(chance_.way(), chance_.between(1ms, 300ms), now + 4 * time); break;
      case Action::crumble:
        proxy->crumble(chance_.way(), chance_.between<std::size_t>(1, 100), now + 2 * time);
        break;
      case Action::refuse:
        proxy->refuse(now + time);
        proxy->cut_now(Cut::close);
        break;
      case Action::swallow:
        proxy->swallow(now + time);
        proxy->cut_now(Cut::close);
        break;
      case Action::burst: ask_for(*actor, chance_.between(300U, 1'500U)); break;
      case Action::dump: actor->child->tell("dump"); break;
      case Action::pull:
        network_->pull();
        loop_.after(time, [this] { network_->plug(); });
        break;
      case Action::drop: drop_packets(100, time); break;
      case Action::drop_long: drop_packets(100, beyond_silence()); break;
      case Action::lose_some: drop_packets(chance_.between(5U, 60U), 4 * time); break;
    }
    ++played_[card.name];
    note(std::string(card.name) + (actor != nullptr ? ": " + actor->process : "") + detail);
  }

  void stall(FaultProxy& proxy, TimePoint until) {
    const int which = chance_.between(1, 3);
    if ((which & 1) != 0) proxy.stall(Way::to_server, until);
    if ((which & 2) != 0) proxy.stall(Way::to_client, until);
  }

  void drop_packets(unsigned percent, milliseconds time) {
    network_->drop(chance_.percent(50) ? "iifname" : "oifname", percent);
    loop_.after(time, [this] { network_->drop_nothing(); });
  }

  // Afterwards.

  bool wait_until_well(const char* what, milliseconds limit = patience) {
    const bool is_well = loop_.run_until(
        [&] {
          return has_failed() || std::all_of(actors_.begin(), actors_.end(), [&](const Actor& actor) {
                   return actor.is_well() && actor.fates == actor.sent;
                 });
        },
        limit);
    if (!is_well) ledger_.complain(what);
    return is_well && !has_failed();
  }

  /// Every fault is over: soon everybody must be at the same state.
  void settle() {
    note("heal");
    is_quiet_ = true;
    if (network_) {
      network_->plug();
      network_->drop_nothing();
    }
    for (Actor& actor : actors_) {
      if (actor.proxy) actor.proxy->heal();
      go_on(actor);
    }
    if (!wait_until_well("some events never had a fate, or a process did not come back")) return;

    const TimePoint limit = Clock::now() + patience;
    for (bool is_all_answered = false; !is_all_answered;) {
      if (Clock::now() > limit) return ledger_.complain("after all was well, events were not answered");
      for (Actor& actor : actors_) {
        actor.misses = 0;
        if (actor.role == Role::sender) ask_for(actor, 50);
      }
      if (!wait_until_well("some events never had a fate, though all was well")) return;
      is_all_answered =
          std::all_of(actors_.begin(), actors_.end(), [](const Actor& actor) { return actor.misses == 0; });
    }

    if (!ask(master(), "dump")) return;
    const bool is_equal = loop_.run_until(
        [&] {
          return has_failed() || std::all_of(actors_.begin(), actors_.end(), [&](const Actor& actor) {
                   return actor.role != Role::replica || is_at_head(actor);
                 });
        },
        patience);
    for (Actor& actor : actors_) {
      if (actor.role != Role::replica || !ask(actor, "where")) continue;
      if (!is_equal || !is_at_head(actor)) {
        ledger_.complain(actor.process + " is at " + std::to_string(actor.id) + " of epoch " +
                         std::to_string(actor.epoch) + ", the master at " + std::to_string(master().id) +
                         " of " + std::to_string(master().epoch));
      }
    }
  }

  bool is_at_head(const Actor& actor) { return actor.epoch == master().epoch && actor.id == master().id; }

  bool ask(Actor& actor, const char* question) {
    actor.has_answered = false;
    actor.child->tell(question);
    const bool has_answered = loop_.run_until([&] { return actor.has_answered || has_failed(); }, patience);
    if (!has_answered) ledger_.complain(actor.process + " does not say " + question);
    return has_answered && !has_failed();
  }

  void end_all() {
    is_ending_ = true;
    for (Actor& actor : actors_) quit(actor);
    const auto is_over = [&] {
      return has_failed() ||
             std::all_of(actors_.begin(), actors_.end(), [](const Actor& actor) { return !actor.child; });
    };
    if (!loop_.run_until(is_over, patience)) ledger_.complain("not every process ended");
  }

  // The soak.

  /// How much of a process's memory may come and go: arenas that fill, and the state's own large values.
  static constexpr std::size_t allowed_kib = 1'536;

  struct Samples {
    std::vector<Usage> usages;
    std::size_t first_descriptors = 0;
  };

  static std::size_t median(std::vector<Usage>::const_iterator begin, std::vector<Usage>::const_iterator end,
                            std::size_t Usage::*which) {
    std::vector<std::size_t> values;
    for (; begin != end; ++begin) values.push_back((*begin).*which);
    std::sort(values.begin(), values.end());
    return values.empty() ? 0 : values[values.size() / 2];
  }

  /// Cuts one client's connection after the other, and waits until it is back.
  void soak() {
    const TimePoint end = Clock::now() + settings_.time;
    std::map<const Actor*, Samples> samples;
    for (const Actor& actor : actors_)
      samples[&actor].first_descriptors = usage_of(actor.child->pid()).descriptors;
    const auto sample = [&] {
      for (const Actor& actor : actors_) {
        if (actor.child) samples[&actor].usages.push_back(usage_of(actor.child->pid()));
      }
    };
    TimePoint next_sample = Clock::now();
    unsigned cuts = 0;
    for (std::size_t next = 0; settings_.cuts > 0 ? cuts < settings_.cuts : Clock::now() < end; ++next) {
      Actor& actor = actors_[next % actors_.size()];
      if (!actor.proxy) continue;
      ++cuts;
      actor.proxy->cut_now(cuts % 2 == 0 ? Cut::reset : Cut::close);
      // One sighting, or answer, may have been on its way; after ten there is a new connection.
      const std::uint64_t sightings = actor.sightings;
      const std::uint64_t fates = actor.fates;
      const auto is_back = [&] {
        return has_failed() || actor.sightings > sightings + 10 || actor.fates > fates + 10;
      };
      if (!loop_.run_until(is_back, patience)) ledger_.complain(actor.process + " did not come back");
      if (has_failed()) return;
      if (settings_.cuts == 0) loop_.run_until([&] { return has_failed(); }, 100ms);  // a steady pace
      if (Clock::now() >= next_sample) {
        sample();
        next_sample = Clock::now() + 1s;
      }
    }
    std::cout << cuts << " cuts" << std::endl;
    if (const std::size_t lost = ledger_.count(Fate::refused) + ledger_.count(Fate::unknown); lost > 0) {
      ledger_.complain(std::to_string(lost) + " events were not answered, though only connections were lost");
    }
    for (const auto& [actor, of] : samples) judge(*actor, of);
  }

  void judge(const Actor& actor, const Samples& of) {
    // The last connection that was cut may still be there for a moment.
    std::size_t descriptors = 0;
    const bool is_as_before = loop_.run_until(
        [&] { return (descriptors = usage_of(actor.child->pid()).descriptors) <= of.first_descriptors; },
        20s);
    std::ostringstream line;
    line << actor.name() << ": descriptors " << of.first_descriptors << " at the start, " << descriptors
         << " at the end";
    if (!is_as_before) {
      ledger_.complain(actor.name() + " has more descriptors: " + std::to_string(of.first_descriptors) +
                       " before, " + std::to_string(descriptors) + " afterwards");
    }
    if (settings_.cuts == 0 && of.usages.size() >= 40) {
      const auto quarter = static_cast<std::ptrdiff_t>(of.usages.size() / 4);
      const auto begin = of.usages.begin();
      const std::size_t early = median(begin + quarter, begin + 2 * quarter, &Usage::kib);
      const std::size_t late = median(begin + 3 * quarter, of.usages.end(), &Usage::kib);
      line << "; resident " << of.usages.front().kib << " KiB at first, " << early
           << " KiB in the second quarter, " << late << " KiB in the last";
      if (late > early + allowed_kib) {
        ledger_.complain(actor.name() + " grew from " + std::to_string(early) + " KiB to " +
                         std::to_string(late) + " KiB");
      }
    }
    std::cout << line.str() << std::endl;
  }

  // The report.

  void note(const std::string& text) {
    std::ostringstream line;
    line << std::fixed << std::setprecision(3) << std::setw(9)
         << std::chrono::duration<double>(Clock::now() - began_).count() << "  " << text;
    if (settings_.is_verbose) std::cout << line.str() << std::endl;
    notes_.push_back(line.str());
    if (notes_.size() > 80) notes_.pop_front();
  }

  bool report() {
    auto complaints = ledger_.verdict();
    if (complaints.empty() && !settings_.is_soak) {
      // A run in which nothing happened proves nothing.
      if (ledger_.count(Fate::answered) < 200) complaints.push_back("fewer than 200 events were answered");
      if (ledger_.answers_shown() < 50)
        complaints.push_back("fewer than 50 answers came to a sender that follows");
      if (ledger_.epochs() < 3) complaints.push_back("fewer than 3 masters");
      if (ledger_.sightings() < 200) complaints.push_back("fewer than 200 states were shown");
    }
    std::cout << "seed " << settings_.seed << ":";
    for (const auto& [name, count] : played_) std::cout << " " << name << " " << count << ",";
    unsigned cuts = 0;
    for (const Actor& actor : actors_) cuts += actor.proxy ? actor.proxy->cuts() : 0;
    std::cout << "\n"
              << cuts << " connections cut, refused or swallowed; " << ledger_.epochs() << " epochs; "
              << ledger_.runs() << " events run; " << ledger_.sightings()
              << " states shown and compared; senders were told:";
    for (const Fate fate : {Fate::answered, Fate::failed, Fate::refused, Fate::unknown}) {
      std::cout << " " << fate_names[static_cast<std::size_t>(fate)] << " " << ledger_.count(fate) << ",";
    }
    for (const auto& [reason, count] : refusals_) std::cout << " (" << reason << ": " << count << ")";
    std::cout << std::endl;
    if (complaints.empty()) return true;
    std::cout << "\nthe last that was done:\n";
    for (const std::string& line : notes_) std::cout << line << "\n";
    std::cout << "\nwhat is wrong:\n";
    for (const std::string& complaint : complaints) std::cout << "  " << complaint << "\n";
    std::cout << std::flush;
    return false;
  }

  Settings settings_;
  Chance chance_;
  Loop loop_;
  std::unique_ptr<Network> network_;
  support::Certificate certificate_;
  Address master_address_;
  Ledger ledger_;
  std::deque<Actor> actors_;  // the master first; they don't move
  bool is_quiet_ = false;
  bool is_ending_ = false;
  unsigned dumps_ = 0;
  TimePoint began_ = Clock::now();
  std::map<std::string, unsigned> played_;
  std::map<std::string, unsigned> refusals_;
  std::deque<std::string> notes_;
};

Settings read_settings(const std::vector<std::string>& words) {
  Settings settings;
  const std::string& self = words.front();
  settings.program = self.substr(0, self.rfind('/') + 1) + "state_process";
  settings.seed = (std::uint64_t{std::random_device()()} << 16U) ^ std::random_device()();
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto number = [&]() -> std::uint64_t {
      if (i + 1 == words.size()) throw std::runtime_error(word + " needs a number");
      return std::stoull(words[++i]);
    };
    if (word == "--seconds") {
      settings.time = std::chrono::seconds(number());
    } else if (word == "--seed") {
      settings.seed = number();
    } else if (word == "--silence") {
      settings.silence = milliseconds(number());
    } else if (word == "--cuts") {
      settings.cuts = static_cast<unsigned>(number());
    } else if (word == "--soak") {
      settings.is_soak = true;
    } else if (word == "--netns") {
      settings.wants_netns = true;
    } else if (word == "--verbose") {
      settings.is_verbose = true;
    } else {
      throw std::runtime_error("unknown: " + word);
    }
  }
  return settings;
}

}  // namespace
}  // namespace processes

int main(int argc, char** argv) {
  try {
    const auto settings = processes::read_settings({argv, argv + argc});
    std::cout << "seed " << settings.seed << std::endl;
    processes::Driver driver(settings);
    return driver.run() ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception& error) {
    std::cout << "chaos: " << error.what() << std::endl;
    return EXIT_FAILURE;
  }
}
