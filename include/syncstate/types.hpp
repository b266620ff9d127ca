// The small value types everything else speaks in: update ids, epochs, positions, ordinals.
#ifndef SYNCSTATE_TYPES_HPP
#define SYNCSTATE_TYPES_HPP

#include <compare>
#include <concepts>
#include <cstdint>

#include "syncstate/detail/requirements.hpp"

namespace syncstate {

/// Counts commits on the master: 0 is the initial state, every commit adds exactly 1.
using UpdateId = std::uint64_t;

/// Random number of one master's life of one map; 0 means "none yet".
using Epoch = std::uint64_t;

/// A state's place in history: one life of the master, and the commit within it.
///
/// An update id says nothing without its epoch: a restarted master counts from 0 again. So what waits for an answer's
/// effect (`Replica::wait_for`, `StateMap::set_update_id`) takes the position that the answer gave.
///
/// A position converts to its update id, for code that keeps only that. `==` compares two positions. Two things that
/// the conversion would allow do not compile: an order of positions, because epochs have none, and `==` of a position
/// with a number, which would ignore the epoch. To compare update ids, use `update_id`.
struct Position {
  Epoch epoch = 0;
  UpdateId update_id = 0;

  // NOLINTNEXTLINE(google-explicit-constructor): implicit on purpose, see above
  constexpr operator UpdateId() const noexcept { return update_id; }

  friend constexpr bool operator==(const Position&, const Position&) = default;
  friend constexpr std::strong_ordering operator<=>(const Position&, const Position&) = delete;
  template <class N>
    requires(std::convertible_to<const N&, UpdateId> && !std::same_as<N, Position>)
  friend constexpr bool operator==(const Position&, const N&) = delete;
};

/// What a map is: the one copy that hooks may change, or a copy that follows.
enum class Role { master, replica };

/// What a replica does with the history of a restarted master (another epoch).
enum class EpochPolicy {
  accept,  ///< take the new master's full diff, and go on from there
  hold     ///< keep the last state and report `epoch_changed`
};

/// A key's index in ascending key order; both sides share it from `freeze` on.
///
/// Obtained from `map.key(k)`; good for every map and view with the same key set.
class Ordinal {
 public:
  constexpr Ordinal() = default;
  constexpr explicit Ordinal(std::uint32_t index) : index_(index) {}

  /// The position of the key among all keys in ascending order, from 0.
  [[nodiscard]] constexpr std::uint32_t index() const { return index_; }

  friend constexpr auto operator<=>(const Ordinal&, const Ordinal&) = default;

 private:
  std::uint32_t index_ = 0;
};

}  // namespace syncstate

#endif
