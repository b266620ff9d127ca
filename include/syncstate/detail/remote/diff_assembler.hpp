// Decodes the entries of diffs into typed changes, and stages those of transfers.
#ifndef SYNCSTATE_DETAIL_REMOTE_DIFF_ASSEMBLER_HPP
#define SYNCSTATE_DETAIL_REMOTE_DIFF_ASSEMBLER_HPP

#include <atomic>
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
    protocol::for_each_entry(entries,
                             [this](std::uint64_t ordinal, ByteView value) { stage_value(ordinal, value); });
  }

  void stage_value(std::uint64_t ordinal, ByteView value) override {
    if (ordinal >= frozen_->size()) ByteReader::fail("an ordinal beyond the last key");
    staged_.set(static_cast<std::uint32_t>(ordinal), decode_whole<V>(value));
  }

  std::error_code close(const DiffHead& head, ByteView entries) override {
    stage(entries);
    ChangeSet<V> changes = std::exchange(staged_, {});
    return take(
        MapAccess::make_diff(frozen_, head.epoch, head.from, head.upto, head.is_full, std::move(changes)));
  }

  std::error_code step(const DiffHead& head, std::uint64_t ordinal, ByteView value) override {
    staged_.clear();
    stage_value(ordinal, value);
    return close(head, {});
  }

  void drop_staged() override { staged_ = {}; }

 protected:
  virtual std::error_code take(Diff<K, V> diff) = 0;

 private:
  std::shared_ptr<const FrozenState<K, V>> frozen_;
  ChangeSet<V> staged_;  // one change a key, so a transfer of any length takes no more than the map
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
  void on_status(const Status& status) override {
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
