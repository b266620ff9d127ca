// What a server session needs of a hosted map: its head, and diffs as bytes.
#ifndef SYNCSTATE_PROTOCOL_DIFF_SOURCE_HPP
#define SYNCSTATE_PROTOCOL_DIFF_SOURCE_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/types.hpp"

namespace syncstate::protocol {

/// The map's values as they were at one update id, kept by copying what changes afterwards.
class PinnedSnapshot {
 public:
  explicit PinnedSnapshot(UpdateId at) : at_(at) {}
  PinnedSnapshot(const PinnedSnapshot&) = delete;
  PinnedSnapshot& operator=(const PinnedSnapshot&) = delete;
  virtual ~PinnedSnapshot() = default;

  [[nodiscard]] UpdateId update_id() const { return at_; }

 private:
  UpdateId at_;
};

/// How far one pass over a diff too large for one frame has come. Of its bytes it may own those of the one value that
/// is on its way in parts, shared with all passes that are within the same value.
///
/// The pass names every key changed in (from, target], in ascending order of ordinals.
struct PassCursor {
  UpdateId from = 0;
  UpdateId target = 0;
  std::uint32_t ordinal = 0;                         ///< the next key to look at
  std::uint64_t offset = 0;                          ///< how much of that key's value went out already
  UpdateId value_changed_at = 0;                     ///< with an offset: the commit that value is of
  bool at_end = false;                               ///< the last call gave the last piece
  std::shared_ptr<const PinnedSnapshot> snapshot{};  ///< read from here instead of the head
  std::vector<std::uint32_t> window{};               ///< the source's: what comes next, the last one first
  bool is_dense = false;                             ///< the source's: every key is looked at
  bool is_last_window = false;                       ///< the source's: nothing comes after the window
  std::shared_ptr<void> encoding{};                  ///< the source's: of the value whose parts go out
};

/// What one call put into `out`.
enum class PassPiece {
  entries,     ///< entries, to be staged
  value_part,  ///< ordinal, total, offset and bytes of a part of one large value
  finished,    ///< nothing: the pass is over
  lost         ///< nothing: the log no longer reaches, or the snapshot was given up
};

/// How far an initial state has gone out.
struct InitialCursor {
  std::uint32_t next_key = 0;
  std::uint64_t offset = 0;  ///< how much of that key's entry went out already
  std::shared_ptr<const Bytes>
      entry{};  ///< the source's: with an offset, the whole entry, shared by all cursors within it
};

/// A map's initial state, encoded: what an upload or a fetch carries.
class InitialSource {
 public:
  InitialSource() = default;
  InitialSource(const InitialSource&) = delete;
  InitialSource& operator=(const InitialSource&) = delete;
  virtual ~InitialSource() = default;

  /// Appends a piece of at most `budget` bytes, laid out as `Upload` says, from the cursor on, and moves it. Returns
  /// false, and appends nothing, when nothing was left.
  /// Threads   : any; each cursor in one at a time.
  /// Complexity: O(budget), and its encoding for each entry larger than that, once for all cursors that are within the
  ///             entry at the time.
  virtual bool encode_initial(InitialCursor& cursor, std::size_t budget, Bytes& out) const = 0;

  /// The map that this is a part of; null where that is of no interest.
  [[nodiscard]] virtual const MapHash* map_hash() const { return nullptr; }
};

/// Diffs of one hosted map, encoded. The server core implements it; sessions pull from it.
///
/// Threads: every member from any thread.
class DiffSource : public InitialSource {
 public:
  /// Where the master stands now; the epoch never changes during a source's life.
  [[nodiscard]] virtual Position head() const = 0;

  /// Appends the entries of the merged diff from `from` to the head, if they take no more than `budget`
  /// bytes.
  ///
  /// Returns the update id they lead to; nothing, and `out` as it was, when they do not fit.
  /// Complexity: O(answer), and O(budget) when it does not fit.
  virtual std::optional<UpdateId> encode_merged(UpdateId from, std::size_t budget, Bytes& out) = 0;

  /// Appends the next piece of a pass over the keys changed in (from, target], as they are now.
  ///
  /// A key that was changed after `target` is left out: it comes with the next pass or the closing diff.
  /// Complexity: see the implementation; a whole pass is linear in what it names, or in the keys of the map where it
  ///             names a good part of them.
  virtual PassPiece encode_pass(PassCursor& cursor, std::size_t budget, Bytes& out) = 0;

  /// Appends the next piece of the exact diff (from, target] out of the log.
  virtual PassPiece encode_logged(PassCursor& cursor, std::size_t budget, Bytes& out) = 0;

  /// The newest update id not beyond `upto` that the log reaches from `from` on; `from` itself when it does
  /// not.
  [[nodiscard]] virtual UpdateId logged_upto(UpdateId from, UpdateId upto) const = 0;

  /// Keeps the state at the head readable for passes; or shares one that is pinned already and no older than
  /// that.
  ///
  /// Where too many are pinned the oldest is given up: passes over it are `lost`, and pin another.
  virtual std::shared_ptr<const PinnedSnapshot> pin_snapshot(UpdateId at_least) = 0;
};

}  // namespace syncstate::protocol

#endif
