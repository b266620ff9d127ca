// One flow of diffs from a map to a peer: where the peer stands, and the next frame for it.
#ifndef SYNCSTATE_PROTOCOL_DIFF_STREAM_HPP
#define SYNCSTATE_PROTOCOL_DIFF_STREAM_HPP

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "syncstate/limits.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/protocol/messages.hpp"

namespace syncstate::protocol {

/// Makes the frames that lead a peer from a position to the head, whatever its age, one frame at a time.
///
/// Who is behind gets one merged diff; one that does not fit a frame goes in pieces (a transfer), of which
/// this keeps position, target and cursor, never bytes (docs/design.md).
class DiffStream {
 public:
  /// What a stream keeps between two frames besides itself, in bytes.
  static constexpr std::size_t kept_bytes = 512;

  /// Follows `source` from `at` on, in frames of `piece_bytes` besides their heads; without it, of
  /// `Limits::piece_bytes`. The caller has checked that `at` lies in the map's history. `limits` outlives the stream.
  DiffStream(ChannelId id, std::shared_ptr<DiffSource> source, Position at, FollowMode mode,
             const Limits& limits, std::optional<std::size_t> piece_bytes = {})
      : id_(id),
        source_(std::move(source)),
        at_(at),
        mode_(mode),
        limits_(&limits),
        piece_bytes_(piece_bytes.value_or(limits.piece_bytes)) {}

  /// Ends at `upto`, where the log reaches, else at the head; answers one `get_diff`.
  DiffStream(ChannelId id, std::shared_ptr<DiffSource> source, Position at, UpdateId upto,
             const Limits& limits, std::optional<std::size_t> piece_bytes = {})
      : DiffStream(id, std::move(source), at, FollowMode::merged, limits, piece_bytes) {
    upto_ = upto;
  }

  [[nodiscard]] ChannelId id() const { return id_; }
  [[nodiscard]] const DiffSource& source() const { return *source_; }
  /// Where the peer stands once everything produced so far has reached it.
  [[nodiscard]] Position at() const { return at_; }
  [[nodiscard]] Position head() const { return source_->head(); }
  [[nodiscard]] bool is_one_shot() const { return upto_.has_value(); }
  /// A one-shot stream has given its diff.
  [[nodiscard]] bool is_done() const { return done_; }

  /// True while a frame is due.
  [[nodiscard]] bool is_behind() const { return is_one_shot() ? !done_ : at_ != source_->head(); }

  /// Appends the next frame of some `piece_bytes` at most; false when none is due.
  bool produce(Bytes& out) {
    if (!is_behind()) return false;
    if (pass_) return produce_pass(out);
    const Position head = source_->head();
    const bool is_full = at_.epoch != 0 && at_.epoch != head.epoch;
    const UpdateId from = is_full ? 0 : at_.update_id;
    // Where the head is the very end that is wanted, the merged diff is the exact one too, and encoded once
    // for all.
    const auto end = exact_end(from, is_full);
    if (end && *end < head.update_id && start_logged(from, *end)) return produce_pass(out);
    return produce_merged(from, is_full, out);
  }

 private:
  struct Pass {
    PassCursor cursor;
    bool is_logged = false;
    bool is_full = false;
    unsigned round = 0;
  };

  /// Where the next diff is to end exactly; nothing where the head is as good.
  [[nodiscard]] std::optional<UpdateId> exact_end(UpdateId from, bool is_full) const {
    if (is_full) return std::nullopt;
    if (is_one_shot()) return *upto_ > from ? upto_ : std::nullopt;
    if (mode_ == FollowMode::every_step) return from + 1;
    return std::nullopt;
  }

  /// Starts on the diff (from, end] that the log keeps apart; false if it does not.
  bool start_logged(UpdateId from, UpdateId end) {
    if (source_->logged_upto(from, end) != end) return false;
    pass_.emplace(Pass{{.from = from, .target = end}, true, false, 0});
    return true;
  }

  bool produce_merged(UpdateId from, bool is_full, Bytes& out) {
    scratch_.clear();
    if (is_one_shot() && *upto_ <= from && !is_full) {
      close(from, is_full, {}, out);
      return true;
    }
    const auto end = exact_end(from, is_full);
    const auto upto = source_->encode_merged(from, piece_bytes_, scratch_);
    // The map may have moved on past that end since we looked; and a transfer to the head ends wherever that
    // is then.
    if (end && (!upto || *upto > *end) && start_logged(from, *end)) return produce_pass(out);
    if (upto) {
      close(*upto, is_full, scratch_, out);
      release_scratch();
      return true;
    }
    pass_.emplace(Pass{{.from = from, .target = source_->head().update_id}, false, is_full, 1});
    return produce_pass(out);
  }

  bool produce_pass(Bytes& out) {
    const std::size_t budget = piece_bytes_;
    for (;;) {
      scratch_.clear();
      PassCursor& cursor = pass_->cursor;
      const PassPiece piece = pass_->is_logged ? source_->encode_logged(cursor, budget, scratch_)
                                               : source_->encode_pass(cursor, budget, scratch_);
      switch (piece) {
        case PassPiece::entries:
          if (pass_->is_logged && cursor.at_end && pieces_sent_ == 0) {
            close(cursor.target, false, scratch_, out);
          } else {
            append_piece(FrameKind::transfer, out);
          }
          release_scratch();
          return true;
        case PassPiece::value_part:
          append_piece(FrameKind::value_part, out);
          release_scratch();
          return true;
        case PassPiece::lost: {
          // What was staged is older than what comes now, key by key.
          if (!pass_->is_logged) {
            start_pass(cursor.from, cursor.target);
            continue;
          }
          const UpdateId from = cursor.from;
          pass_.reset();
          return produce_merged(from, false, out);
        }
        case PassPiece::finished: break;
      }
      if (pass_->is_logged || cursor.snapshot) {
        close(cursor.target, pass_->is_full, {}, out);
        return true;
      }
      if (const auto upto = source_->encode_merged(cursor.target, budget, scratch_)) {
        close(*upto, pass_->is_full, scratch_, out);
        release_scratch();
        return true;
      }
      start_next_round();
    }
  }

  /// The keys that changed during the last pass do not fit a closing frame either.
  void start_next_round() {
    const UpdateId head = source_->head().update_id;
    const PassCursor last = std::exchange(pass_->cursor, {});
    start_pass(last.target, last.target);
    // A snapshot that was pinned before the last pass ended may be older than a change for which that pass
    // left a key out. There the key still is as it was within the pass: only looking from the pass's own
    // start on finds it.
    if (pass_->cursor.snapshot && pass_->cursor.target < head) pass_->cursor.from = last.from;
  }

  /// Looks for keys changed after `from`: at the head, or, after some rounds, in a snapshot no older than
  /// `at_least`.
  void start_pass(UpdateId from, UpdateId at_least) {
    PassCursor next{.from = from, .target = source_->head().update_id};
    if (pass_->round >= limits_->transfer_rounds) {
      next.snapshot = source_->pin_snapshot(at_least);
      next.target = next.snapshot->update_id();
    }
    ++pass_->round;
    pass_->cursor = std::move(next);
  }

  void append_piece(FrameKind kind, Bytes& out) {
    ++pieces_sent_;
    const std::size_t start = open_frame(out);
    ByteWriter writer(out);
    writer.put_u8(static_cast<std::uint8_t>(kind));
    writer.put_varint(id_);
    writer.put(ByteView(scratch_));
    close_frame(out, start);
  }

  /// The frame that moves the peer on to `upto`, with everything staged before.
  void close(UpdateId upto, bool is_full, ByteView entries, Bytes& out) {
    const Epoch epoch = source_->head().epoch;
    const UpdateId advance = is_full ? upto : upto - at_.update_id;
    if (!append_step(advance, is_full, epoch, entries, out)) {
      DiffMessage message;
      message.stream = id_;
      message.is_full = is_full;
      if (at_.epoch != epoch) message.epoch = epoch;
      message.advance = advance;
      message.entries = entries;
      append_frame(out, message);
    }
    at_ = Position{epoch, upto};
    pass_.reset();
    pieces_sent_ = 0;
    if (is_one_shot()) done_ = true;
  }

  /// One commit of one key has a shorter frame of its own.
  bool append_step(UpdateId advance, bool is_full, Epoch epoch, ByteView entries, Bytes& out) {
    if (advance != 1 || is_full || at_.epoch != epoch || pieces_sent_ != 0 || is_one_shot()) return false;
    ByteReader in(entries);
    if (in.is_at_end()) return false;
    Step step;
    step.stream = id_;
    step.ordinal = in.read_varint();
    step.value = in.read_sized();
    if (!in.is_at_end()) return false;
    append_frame(out, step);
    return true;
  }

  /// Large buffers are given back: a stream at rest costs its position.
  void release_scratch() {
    if (scratch_.capacity() > kept_bytes) Bytes().swap(scratch_);
  }

  ChannelId id_;
  std::shared_ptr<DiffSource> source_;
  Position at_;
  FollowMode mode_ = FollowMode::merged;
  std::optional<UpdateId> upto_;
  const Limits* limits_;
  std::size_t piece_bytes_;
  std::optional<Pass> pass_;
  std::size_t pieces_sent_ = 0;
  Bytes scratch_;
  bool done_ = false;
};

}  // namespace syncstate::protocol

#endif
