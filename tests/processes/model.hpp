// What the processes of these tests agree on: the events, what they do to the state, and how a state is summed up.
//
// The master's hook, the replicas' checks and the driver's reckoning all use this file; none of it is the library's.
#ifndef SYNCSTATE_TESTS_PROCESSES_MODEL_HPP
#define SYNCSTATE_TESTS_PROCESSES_MODEL_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace processes {

constexpr unsigned slots = 2;  ///< senders at one time; a restarted one takes its predecessor's slot
constexpr unsigned blobs = 3;

/// What an event is about.
enum class Kind : std::uint8_t {
  count,  ///< counts itself
  blob,   ///< counts itself and replaces a large value, so that diffs come in pieces
  slow,   ///< counts itself after a while
  fail,   ///< its hook throws after it has set values, which must not be kept
  pass,   ///< sets nothing, so it makes no commit
  note    ///< sets one key and nothing else, the smallest commit there is
};

/// The content of an event. The name belongs to one process, so (sender, number) never comes twice.
struct Act {
  std::string sender;
  std::uint64_t number = 0;
  std::uint32_t slot = 0;
  Kind kind = Kind::count;
  std::uint32_t size = 0;  ///< of the large value
};

inline std::uint64_t hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

inline std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15U + b;
  x ^= x >> 29U;
  x *= 0xbf58476d1ce4e5b9U;
  return x ^ (x >> 32U);
}

/// What one key adds to the digest of a state. Sums don't depend on an order, so one can be kept up to date.
inline std::uint64_t digest_part(std::string_view key, std::string_view value) {
  return mixed(hash_of(key), hash_of(value));
}

template <class Entries>
std::uint64_t digest_of(const Entries& entries) {
  std::uint64_t digest = 0;
  for (const auto& [key, value] : entries) digest += digest_part(key, value);
  return digest;
}

/// A large value, different for each event.
inline std::string blob_text(const Act& act) {
  const std::string word = act.sender + "/" + std::to_string(act.number) + " ";
  std::string text;
  text.reserve(act.size + word.size());
  while (text.size() < act.size) text += word;
  text.resize(act.size);
  return text;
}

inline std::string key(const char* name, unsigned index) { return name + std::to_string(index); }

/// The initial state. Larger than one frame takes, so that bringing it to a new master can be interrupted.
inline std::map<std::string, std::string> initial_state() {
  std::map<std::string, std::string> state;
  state["base"] = blob_text(Act{.sender = "base", .size = 150'000});
  state["total"] = "0";
  state["total again"] = "0";
  state["disorder"] = "";
  for (unsigned i = 0; i < slots; ++i) {
    state[key("count", i)] = "0";
    state[key("last", i)] = "";
    state[key("sum", i)] = "0";
    state[key("note", i)] = "";
  }
  for (unsigned i = 0; i < blobs; ++i) {
    state[key("blob", i)] = "";
    state[key("blob hash", i)] = std::to_string(hash_of(""));
  }
  return state;
}

template <class Get, class Set>
void add_one(const std::string& name, Get get, Set set) {
  set(name, std::to_string(std::stoull(get(name)) + 1));
}

/// What the first hook does for an event: `get(key)` reads the state, `set(key, value)` changes it.
/// What is lost, runs twice or runs out of order leaves its mark in the state for ever.
template <class Get, class Set>
void apply_first(const Act& act, Get get, Set set) {
  const std::string now = act.sender + " " + std::to_string(act.number);
  if (act.kind == Kind::note) return set(key("note", act.slot), now);
  add_one(key("count", act.slot), get, set);
  add_one("total", get, set);

  const std::string last = get(key("last", act.slot));
  const std::size_t space = last.find(' ');
  if (space != std::string::npos && last.substr(0, space) == act.sender &&
      std::stoull(last.substr(space + 1)) >= act.number) {
    set("disorder", now + " after " + last);
  }
  set(key("last", act.slot), now);
  const std::string sum = key("sum", act.slot);
  set(sum, std::to_string(mixed(std::stoull(get(sum)), hash_of(now))));

  if (act.kind == Kind::blob) {
    const auto index = static_cast<unsigned>(act.number % blobs);
    const std::string text = blob_text(act);
    set(key("blob", index), text);
    set(key("blob hash", index), std::to_string(hash_of(text)));
  }
}

/// What the second hook does, in the same commit.
template <class Get, class Set>
void apply_second(const Act& act, Get get, Set set) {
  if (act.kind != Kind::note) add_one("total again", get, set);
}

/// Says what is wrong with a state that claims to be whole; empty if nothing is. `get(key)` reads it.
template <class Get>
std::string fault_of(Get get) {
  const std::string total = get("total");
  std::uint64_t counted = 0;
  for (unsigned i = 0; i < slots; ++i) counted += std::stoull(get(key("count", i)));
  if (total != get("total again") || std::to_string(counted) != total) {
    return "the total is " + total + ", again " + std::string(get("total again")) + ", counted " +
           std::to_string(counted);
  }
  for (unsigned i = 0; i < blobs; ++i) {
    if (std::to_string(hash_of(get(key("blob", i)))) != get(key("blob hash", i))) {
      return key("blob", i) + " is not what its hash says";
    }
  }
  if (const std::string disorder = get("disorder"); !disorder.empty()) return "out of order: " + disorder;
  return {};
}

/// A state that keeps its digest: what the driver expects a master's to be.
class Model {
 public:
  Model() : state_(initial_state()), digest_(digest_of(state_)) {}

  void run(const Act& act) {
    const auto get = [this](const std::string& name) { return state_.at(name); };
    const auto set = [this](const std::string& name, std::string value) {
      std::string& now = state_.at(name);
      digest_ -= digest_part(name, now);
      now = std::move(value);
      digest_ += digest_part(name, now);
    };
    apply_first(act, get, set);
    apply_second(act, get, set);
  }

  [[nodiscard]] std::uint64_t digest() const { return digest_; }

 private:
  std::map<std::string, std::string> state_;
  std::uint64_t digest_;
};

}  // namespace processes

#endif
