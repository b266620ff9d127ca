// Decodes the entries of diffs into typed changes, and stages those of transfers.
#ifndef SYNCSTATE_DETAIL_REMOTE_DIFF_ASSEMBLER_HPP
#define SYNCSTATE_DETAIL_REMOTE_DIFF_ASSEMBLER_HPP

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "syncstate/codec.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/remote/remote_map.hpp"
#include "syncstate/diff.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/remote.hpp"

namespace syncstate::detail {

/// Makes a `Diff` of what comes on a stream, and gives it to whoever derives from this.
template <class K, class V>
class DiffAssembler : public DiffReceiver {
 public:
  explicit DiffAssembler(std::shared_ptr<const FrozenState<K, V>> frozen) : frozen_(std::move(frozen)) {}

  void stage(ByteView entries) override {
    const std::size_t before = staged_.size();
    protocol::for_each_entry(
        entries, [this](std::uint64_t ordinal, ByteView value) { this->stage_value(ordinal, value); });
    make_room(staged_.size() - before);
  }

  void stage_value(std::uint64_t ordinal, ByteView value) override {
    const std::uint32_t key = checked(ordinal);
    V decoded = decode_whole<V>(value);
    const std::size_t bytes = owned_bytes(decoded);
    const V* const replaced = staged_.find(key);
    const std::size_t freed = replaced != nullptr ? owned_bytes(*replaced) : 0;
    staged_.set(key, std::move(decoded));
    staged_owned_bytes_ += bytes - freed;
  }

  [[nodiscard]] std::size_t staged_bytes() const override {
    return staged_owned_bytes_ + staged_.own_bytes();
  }

  std::error_code close(const DiffHead& head, ByteView entries) override {
    add(entries);
    ChangeSet<V> changes = std::exchange(staged_, {});
    staged_owned_bytes_ = 0;
    return take(
        MapAccess::make_diff(frozen_, head.epoch, head.from, head.upto, head.is_full, std::move(changes)));
  }

  std::error_code step(const DiffHead& head, std::uint64_t ordinal, ByteView value) override {
    if (!staged_.empty()) drop_staged();
    const std::uint32_t key = checked(ordinal);
    ChangeSet<V> changes;  // not by way of `staged_`: most diffs are steps
    changes.set(key, decode_whole<V>(value));
    return take(
        MapAccess::make_diff(frozen_, head.epoch, head.from, head.upto, head.is_full, std::move(changes)));
  }

  void drop_staged() override {
    staged_ = {};
    staged_owned_bytes_ = 0;
  }

 protected:
  virtual std::error_code take(Diff<K, V> diff) = 0;

 private:
  /// If nothing was staged before, the entries must name each key once. Otherwise a later entry of a key holds its
  /// newer value.
  void add(ByteView entries) {
    const bool is_all = staged_.empty();
    std::size_t count = 0;
    protocol::for_each_entry(entries, [&](std::uint64_t ordinal, ByteView value) {
      add_one(ordinal, value);
      ++count;
    });
    if (is_all && staged_.size() != count) ByteReader::fail("a diff that names a key twice");
  }

  void add_one(std::uint64_t ordinal, ByteView value) {
    const std::uint32_t key = checked(ordinal);
    staged_.set(key, decode_whole<V>(value));
  }

  /// The ordinal of one of the map's keys.
  /// Errors: `decode_error` if there is no such key.
  [[nodiscard]] std::uint32_t checked(std::uint64_t ordinal) const {
    if (ordinal >= frozen_->size()) ByteReader::fail("an ordinal beyond the last key");
    return static_cast<std::uint32_t>(ordinal);
  }

  /// Of a transfer, whose entries ascend, one piece tells about how many are to come: then they need not be
  /// moved again and again. What is believed is a multiple of what has come, and never more than the map.
  void make_room(std::size_t of_last_piece) {
    const std::size_t have = staged_.size();
    if (staged_.capacity() - have >= of_last_piece || !staged_.is_sorted()) return;
    const std::size_t beyond = std::size_t{(staged_.end() - 1)->first} + 1;
    const double share = static_cast<double>(have) / static_cast<double>(beyond);
    const auto all = static_cast<std::size_t>(share * 1.05 * frozen_->size());
    staged_.reserve((std::min)({all, std::size_t{frozen_->size()}, most_room_factor * have}));
  }

  static constexpr std::size_t most_room_factor = 64;

  std::shared_ptr<const FrozenState<K, V>> frozen_;
  ChangeSet<V> staged_;                 // one change a key
  std::size_t staged_owned_bytes_ = 0;  // what the staged values own beyond themselves
};

/// Hands the diffs of a followed map to its sink.
template <class K, class V>
class SinkReceiver final : public DiffAssembler<K, V> {
 public:
  SinkReceiver(std::shared_ptr<const FrozenState<K, V>> frozen, std::shared_ptr<DiffSink<K, V>> sink)
      : DiffAssembler<K, V>(std::move(frozen)), sink_(std::move(sink)) {}

  /// The subscription is over; the remote hears of it later, on its executor. From any thread.
  void end() { has_ended_ = true; }

  [[nodiscard]] Position position() const override { return sink_->position(); }
  [[nodiscard]] bool every_step() const override { return sink_->every_step(); }
  void on_current(TimePoint when) override {
    if (!has_ended_) sink_->on_current(when);
  }
  void on_status(const LinkStatus& status) override {
    if (!has_ended_) sink_->on_status(status);
  }

 protected:
  std::error_code take(Diff<K, V> diff) override {
    if (has_ended_) return StateErrc::stopped;
    return sink_->on_diff(std::move(diff));
  }

 private:
  std::shared_ptr<DiffSink<K, V>> sink_;
  std::atomic<bool> has_ended_{false};
};

/// Keeps the one diff that a request asked for.
template <class K, class V>
class DiffCatcher final : public DiffAssembler<K, V> {
 public:
  DiffCatcher(std::shared_ptr<const FrozenState<K, V>> frozen, Position at)
      : DiffAssembler<K, V>(std::move(frozen)), at_(at) {}

  [[nodiscard]] Position position() const override { return at_; }
  /// What came; empty until it has.
  [[nodiscard]] std::optional<Diff<K, V>>& diff() { return diff_; }

 protected:
  std::error_code take(Diff<K, V> diff) override {
    diff_.emplace(std::move(diff));
    return {};
  }

 private:
  Position at_;
  std::optional<Diff<K, V>> diff_;
};

}  // namespace syncstate::detail

#endif
