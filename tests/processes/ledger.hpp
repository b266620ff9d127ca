// What every process said, and whether it can all be true.
#ifndef SYNCSTATE_TESTS_PROCESSES_LEDGER_HPP
#define SYNCSTATE_TESTS_PROCESSES_LEDGER_HPP

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "processes/model.hpp"

namespace processes {

/// What a sender learned of an event.
enum class Fate : std::uint8_t {
  none,      ///< nothing: it died before
  answered,  ///< it ran, and committed as an update id
  failed,    ///< it ran, and its hook threw
  refused,   ///< it certainly did not run
  unknown    ///< it may have run
};
constexpr std::array<std::string_view, 5> fate_names{"without a fate", "answered", "failed", "refused",
                                                     "unknown"};

struct Position {
  std::uint64_t epoch = 0;
  std::uint64_t id = 0;
};

/// Keeps what masters ran, what senders were told and what replicas showed; `verdict` compares them.
///
/// Lives are numbered from 0, in the order in which masters were started; there is one master at a time.
class Ledger {
 public:
  /// A new master runs from now on. Returns its life.
  std::size_t begin_life() {
    lives_.emplace_back();
    return lives_.size() - 1;
  }

  // What a master says.

  void hosted(std::size_t life, std::uint64_t epoch) {
    if (lives_.at(life).epoch != 0) complain("a master took the map in twice");
    lives_[life].epoch = epoch;
    if (!life_of_.emplace(epoch, life).second) complain("two masters have one epoch");
  }
  void ran(std::size_t life, std::uint64_t epoch, std::uint64_t id, Act act) {
    note_run(life, epoch, act.sender, act.number, Run{life, id, Outcome::committed});
    lives_.at(life).commits.push_back({id, std::move(act)});
  }
  void threw(std::size_t life, std::uint64_t epoch, const std::string& sender, std::uint64_t number) {
    note_run(life, epoch, sender, number, Run{life, 0, Outcome::threw});
  }
  void passed(std::size_t life, std::uint64_t epoch, std::uint64_t head, const std::string& sender,
              std::uint64_t number) {
    if (lives_.at(life).commits.size() != head) {
      complain("life " + std::to_string(life) + ": a hook was shown a head of " + std::to_string(head) +
               " after " + std::to_string(lives_[life].commits.size()) + " commits");
    }
    note_run(life, epoch, sender, number, Run{life, head, Outcome::passed});
  }

  // What clients say. A replica's lines come in their order; `process` names one process.

  void fate(const std::string& sender, std::uint64_t number, Fate fate) {
    Event& event = senders_[sender][number];
    if (event.fate != Fate::none) complain(name_of(sender, number) + ": a second fate");
    event.fate = fate;
    ++fates_[static_cast<std::size_t>(fate)];
  }
  /// `shown` is what the sender's own replica showed when it was answered, if it has one.
  void answered(const std::string& sender, std::uint64_t number, std::uint64_t id,
                std::optional<Position> shown) {
    fate(sender, number, Fate::answered);
    Event& event = senders_[sender][number];
    event.answer = id;
    event.shown = shown;
    if (shown) ++answers_shown_;
  }

  void seen(const std::string& process, std::uint64_t epoch, std::uint64_t id, std::uint64_t digest) {
    seen_[process].push_back({{epoch, id}, digest});
  }

  /// Something that must never be, from whoever noticed.
  void complain(std::string what) {
    if (complaints_.size() < most_complaints) complaints_.push_back(std::move(what));
  }
  [[nodiscard]] bool has_complaints() const { return !complaints_.empty(); }

  [[nodiscard]] std::size_t count(Fate fate) const { return fates_[static_cast<std::size_t>(fate)]; }
  /// Answers that came with what their sender's replica showed by then.
  [[nodiscard]] std::size_t answers_shown() const { return answers_shown_; }
  [[nodiscard]] std::size_t runs() const { return runs_; }
  [[nodiscard]] std::size_t sightings() const {
    std::size_t all = 0;
    for (const auto& [process, sightings] : seen_) all += sightings.size();
    return all;
  }
  [[nodiscard]] std::size_t epochs() const { return life_of_.size(); }

  /// What can't be true of all this; empty if it can.
  std::vector<std::string> verdict() {
    for (std::size_t life = 0; life < lives_.size(); ++life) check_commits(life);
    for (const auto& [sender, events] : senders_) {
      for (const auto& [number, event] : events) check_event(sender, number, event);
    }
    for (const auto& [process, sightings] : seen_) check_sightings(process, sightings);
    return std::exchange(complaints_, {});
  }

 private:
  static constexpr std::size_t most_complaints = 40;

  enum class Outcome : std::uint8_t { committed, threw, passed };

  /// Once through a master's hooks.
  struct Run {
    std::size_t life;
    std::uint64_t id;  // it commits as, or the head where it made no commit
    Outcome outcome;
  };

  struct Event {
    std::vector<Run> runs{};
    Fate fate = Fate::none;
    std::uint64_t answer = 0;
    std::optional<Position> shown{};
  };

  struct Commit {
    std::uint64_t id;
    Act act;
  };

  struct Life {
    std::uint64_t epoch = 0;
    std::vector<Commit> commits{};
    std::map<std::string, std::uint64_t> last_numbers{};
    std::vector<std::uint64_t> digests{};  // of the state at each update id
  };

  struct Sighting {
    Position at;
    std::uint64_t digest;
  };

  static std::string name_of(const std::string& sender, std::uint64_t number) {
    return "event " + std::to_string(number) + " of sender " + sender;
  }

  void note_run(std::size_t life, std::uint64_t epoch, const std::string& sender, std::uint64_t number,
                Run run) {
    ++runs_;
    if (lives_.at(life).epoch != epoch) complain(name_of(sender, number) + " ran in an epoch not heard of");
    senders_[sender][number].runs.push_back(run);
    std::uint64_t& last = lives_[life].last_numbers[sender];
    if (number <= last) {
      complain(name_of(sender, number) + " ran after number " + std::to_string(last) + " in life " +
               std::to_string(life));
    }
    last = number;
  }

  /// One commit, one update id: and with them what the state was at each.
  void check_commits(std::size_t life) {
    Model model;
    Life& of = lives_[life];
    of.digests.assign(1, model.digest());
    for (const Commit& commit : of.commits) {
      if (commit.id != of.digests.size()) {
        complain("life " + std::to_string(life) + ": update id " + std::to_string(commit.id) + " where " +
                 std::to_string(of.digests.size()) + " was due");
        return;
      }
      model.run(commit.act);
      of.digests.push_back(model.digest());
    }
  }

  void check_event(const std::string& sender, std::uint64_t number, const Event& event) {
    const std::string name = name_of(sender, number);
    if (event.runs.size() > 1) complain(name + " ran " + std::to_string(event.runs.size()) + " times");
    switch (event.fate) {
      case Fate::none:
      case Fate::unknown: return;
      case Fate::refused:
        if (!event.runs.empty()) complain(name + " was refused, and yet ran");
        return;
      case Fate::failed:
        if (event.runs.empty() || event.runs.front().outcome != Outcome::threw) {
          complain(name + " is said to have thrown, and did not");
        }
        return;
      case Fate::answered: break;
    }
    if (event.runs.empty()) return complain(name + " was answered, and never ran");
    const Run& run = event.runs.front();
    if (run.outcome == Outcome::threw || run.id != event.answer) {
      return complain(name + " was answered with " + std::to_string(event.answer) + ", and ran as " +
                      (run.outcome == Outcome::threw ? "one that threw" : std::to_string(run.id)));
    }
    if (!event.shown || run.outcome != Outcome::committed) return;
    // On a link that follows the map the answer comes after the diff.
    const auto shown = life_of_.find(event.shown->epoch);
    if (shown == life_of_.end() || shown->second < run.life ||
        (shown->second == run.life && event.shown->id < run.id)) {
      complain(name + " was answered with " + std::to_string(run.id) + " of life " +
               std::to_string(run.life) + " where " + std::to_string(event.shown->id) + " of " +
               (shown == life_of_.end() ? "no life" : "life " + std::to_string(shown->second)) +
               " was shown");
    }
  }

  /// A replica shows states that were, and never an older one than before.
  void check_sightings(const std::string& process, const std::vector<Sighting>& sightings) {
    std::optional<std::pair<std::size_t, std::uint64_t>> last;
    for (const auto& [at, digest] : sightings) {
      const std::string where = process + " at " + std::to_string(at.id);
      const auto found = life_of_.find(at.epoch);
      if (found == life_of_.end()) return complain(where + " showed an epoch that never was");
      const std::size_t life = found->second;
      if (last && std::pair(life, at.id) <= *last) {
        complain(where + " of life " + std::to_string(life) + " went back, from " +
                 std::to_string(last->second) + " of life " + std::to_string(last->first));
      }
      last = {life, at.id};
      if (at.id >= lives_[life].digests.size()) {
        complain(where + " of life " + std::to_string(life) + " was ahead of its master");
      } else if (lives_[life].digests[at.id] != digest) {
        complain(where + " of life " + std::to_string(life) + " showed a state that never was");
      }
    }
  }

  std::vector<Life> lives_;
  std::map<std::uint64_t, std::size_t> life_of_;  // by epoch
  std::map<std::string, std::unordered_map<std::uint64_t, Event>> senders_;
  std::map<std::string, std::vector<Sighting>> seen_;
  std::array<std::size_t, 5> fates_{};
  std::size_t runs_ = 0;
  std::size_t answers_shown_ = 0;
  std::vector<std::string> complaints_;
};

}  // namespace processes

#endif
