// The encodings of an initial state's large entries that are sent in parts: one for all that send the same entry.
#ifndef SYNCSTATE_DETAIL_WIRE_LARGE_ENTRIES_HPP
#define SYNCSTATE_DETAIL_WIRE_LARGE_ENTRIES_HPP

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>

#include "syncstate/bytes.hpp"

namespace syncstate::detail {

/// Knows which entries of an initial state are larger than a piece, and the encodings of those that are being sent.
///
/// The cursors that are within an entry own its encoding together; it ends with the last of them. `FrozenSource` notes an
/// entry when it first finds that it is large, and from then on asks here before it encodes the entry.
/// Threads: any.
/// Memory : one encoding for each large entry that is being sent, and some 100 bytes for each large entry.
class LargeEntries {
 public:
  using Encoding = std::shared_ptr<const Bytes>;

  /// What `next_from` returns where no large entry is known.
  static constexpr std::uint32_t none = (std::numeric_limits<std::uint32_t>::max)();

  /// Returns the first ordinal, from `ordinal` on, whose entry is known to be large.
  /// Complexity: O(log large entries).
  [[nodiscard]] std::uint32_t next_from(std::uint32_t ordinal) const {
    const std::lock_guard lock(mutex_);
    const auto next = entries_.lower_bound(ordinal);
    return next == entries_.end() ? none : next->first;
  }

  /// Returns the encoding of a large entry: the one that others send at present, else what `make()` returns.
  ///
  /// Notes that the entry is large. `make` is called by one thread at a time for each entry; the other threads that want
  /// this entry wait for it, those that want another entry do not.
  /// Errors: what `make` throws; the next call makes the encoding again.
  template <class F>
  [[nodiscard]] Encoding share(std::uint32_t ordinal, F make) {
    Entry& entry = note(ordinal);
    const std::lock_guard lock(entry.mutex);
    if (Encoding known = entry.encoding.lock()) return known;
    Encoding made = std::make_shared<const Bytes>(make());
    entry.encoding = made;
    return made;
  }

 private:
  struct Entry {
    std::mutex mutex;
    std::weak_ptr<const Bytes> encoding;
  };

  /// Returns the entry's place, which stays where it is.
  Entry& note(std::uint32_t ordinal) {
    const std::lock_guard lock(mutex_);
    return entries_[ordinal];
  }

  mutable std::mutex mutex_;
  std::map<std::uint32_t, Entry> entries_;  // by ordinal
};

}  // namespace syncstate::detail

#endif
