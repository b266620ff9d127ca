// The encodings of large values that are streamed in parts: one for all that stream the same value.
#ifndef SYNCSTATE_DETAIL_SERVER_LARGE_VALUES_HPP
#define SYNCSTATE_DETAIL_SERVER_LARGE_VALUES_HPP

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Which versions of which keys have an encoding larger than a piece, and the bytes of those that are being streamed.
///
/// The streams that are within a value own its encoding; this only knows it, so that another stream of the same value
/// shares it, and so that it ends with the version: a stream that stalls keeps nothing alive that the map itself no
/// longer holds. So encodings take no more than one for each large value in the map, its log and its snapshots.
/// Threads: the caller's lock.
class LargeValues {
 public:
  /// The encoding of one version of a value.
  struct Encoding {
    std::uint32_t ordinal = 0;
    UpdateId version = 0;
    bool is_ready = false;    // else somebody is at it
    bool is_revoked = false;  // the version is gone, or could not be encoded
    Bytes bytes;
  };

  [[nodiscard]] bool empty() const { return known_.empty(); }

  /// True if this version is known to be large.
  /// Complexity: O(log large values).
  [[nodiscard]] bool is_large(std::uint32_t ordinal, UpdateId version) const {
    return !known_.empty() && known_.contains({ordinal, version});
  }

  void note(std::uint32_t ordinal, UpdateId version) { known_.try_emplace({ordinal, version}); }
  void forget(std::uint32_t ordinal, UpdateId version) noexcept { known_.erase({ordinal, version}); }

  /// The encoding that streams share at present, or null.
  [[nodiscard]] std::shared_ptr<Encoding> find(std::uint32_t ordinal, UpdateId version) const {
    const auto found = known_.find({ordinal, version});
    if (found == known_.end()) return nullptr;
    auto encoding = found->second.encoding.lock();
    return encoding && !encoding->is_revoked ? encoding : nullptr;
  }

  /// An encoding that is not ready yet; the caller fills it.
  [[nodiscard]] std::shared_ptr<Encoding> begin(std::uint32_t ordinal, UpdateId version) {
    auto encoding = std::make_shared<Encoding>();
    encoding->ordinal = ordinal;
    encoding->version = version;
    const auto [known, is_new] = known_.try_emplace({ordinal, version});
    // Nobody noted it at its commit, which would have been superseded in its time.
    if (is_new) superseded_.push_back(known->first);
    known->second.is_superseded = known->second.is_superseded || is_new;
    known->second.encoding = encoding;
    return encoding;
  }

  /// Notes that a commit gives the key another version; after that `sweep` may find that the one before is gone.
  /// Complexity: O(log large values).
  void supersede(std::uint32_t ordinal, UpdateId by) {
    auto next = known_.lower_bound({ordinal, by});
    if (next == known_.begin()) return;
    auto& [key, known] = *std::prev(next);
    if (key.first != ordinal || known.is_superseded) return;
    superseded_.push_back(key);
    known.is_superseded = true;
  }

  /// Forgets the superseded versions for which `is_held(ordinal, version)` is false, and takes their bytes back. To be
  /// called after each commit: it looks at n of them at every n-th call only.
  /// Complexity: one look at a version for each call, amortized.
  template <class F>
  void sweep(F is_held) {
    if (++skipped_ < superseded_.size()) return;
    skipped_ = 0;
    std::erase_if(superseded_, [&](const Key& key) {
      if (is_held(key.first, key.second)) return false;
      if (const auto found = known_.find(key); found != known_.end()) {
        if (const auto encoding = found->second.encoding.lock()) revoke(*encoding);
        known_.erase(found);
      }
      return true;
    });
  }

  /// Takes the bytes back: of a version that is gone, or that could not be encoded.
  static void revoke(Encoding& encoding) noexcept {
    encoding.is_revoked = true;
    Bytes().swap(encoding.bytes);
  }

 private:
  using Key = std::pair<std::uint32_t, UpdateId>;

  struct Known {
    std::weak_ptr<Encoding> encoding{};
    bool is_superseded = false;
  };

  std::map<Key, Known> known_;
  std::vector<Key>
      superseded_;  // these still have their entry, as long as the log or a snapshot holds the version
  std::size_t skipped_ = 0;  // sweeps since the last one that looked at them
};

}  // namespace syncstate::detail

#endif
