// What a remote needs of the typed side: maps to open, and whoever takes diffs, as bytes.
#ifndef SYNCSTATE_DETAIL_REMOTE_REMOTE_MAP_HPP
#define SYNCSTATE_DETAIL_REMOTE_REMOTE_MAP_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <system_error>

#include "syncstate/bytes.hpp"
#include "syncstate/executor.hpp"
#include "syncstate/map_hash.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/status.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Puts a fetched initial state together.
class StateCollector {
 public:
  StateCollector() = default;
  StateCollector(const StateCollector&) = delete;
  StateCollector& operator=(const StateCollector&) = delete;
  virtual ~StateCollector() = default;

  /// Errors: `decode_error`, `too_large`.
  virtual void feed(ByteView bytes) = 0;
  /// Everything came. Errors: `decode_error`, `hash_mismatch`.
  virtual void finish() = 0;
  /// The link is lost: it will come again from its beginning.
  virtual void drop() = 0;
  /// What is kept of it in memory, in bytes. Complexity: constant.
  [[nodiscard]] virtual std::size_t held_bytes() const = 0;
};

/// A frozen map as the remote sees it: its identity, and its initial state as long as a copy of it lives.
struct MapIdentity {
  MapHash hash;
  MapHash keys_hash;
  std::string key_type;
  std::string value_type;
  /// Null once no copy of the map lives any more.
  std::function<std::shared_ptr<const protocol::InitialSource>()> initial;
  /// Compares the fetched state of a map with the same keys; `describe` gets the first key that differs.
  std::function<std::unique_ptr<StateCollector>(const MapHash& other,
                                                std::function<void(std::string)> describe)>
      comparer;
};

/// Where a diff leads.
struct DiffHead {
  Epoch epoch = 0;
  UpdateId from = 0;
  UpdateId upto = 0;
  bool is_full = false;
};

/// Takes the diffs of one stream, encoded. Errors in the bytes are thrown, and end the session.
class DiffReceiver {
 public:
  DiffReceiver() = default;
  DiffReceiver(const DiffReceiver&) = delete;
  DiffReceiver& operator=(const DiffReceiver&) = delete;
  virtual ~DiffReceiver() = default;

  /// Keeps entries aside until the diff is whole.
  virtual void stage(ByteView entries) = 0;
  virtual void stage_value(std::uint64_t ordinal, ByteView value) = 0;
  /// The diff is whole: what was staged, then `entries`. An error says that it is not wanted.
  virtual std::error_code close(const DiffHead& head, ByteView entries) = 0;
  /// A diff of one key.
  virtual std::error_code step(const DiffHead& head, std::uint64_t ordinal, ByteView value) = 0;
  /// The link is lost: what was staged is worth nothing.
  virtual void drop_staged() = 0;
  /// What is staged takes so much memory, in bytes. Complexity: constant.
  [[nodiscard]] virtual std::size_t staged_bytes() const = 0;

  [[nodiscard]] virtual Position position() const = 0;
  [[nodiscard]] virtual bool every_step() const { return false; }
  virtual void on_current(TimePoint) {}
  virtual void on_status(const LinkStatus&) {}
};

}  // namespace syncstate::detail

#endif
