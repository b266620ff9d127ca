// Which keys changed last: the index that replaces a log.
#ifndef SYNCSTATE_DETAIL_MODEL_RECENCY_LIST_HPP
#define SYNCSTATE_DETAIL_MODEL_RECENCY_LIST_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "syncstate/types.hpp"

namespace syncstate::detail {

/// Ordinals in a doubly linked list, ordered by the update id that changed them last, the newest first.
///
/// Keys that never changed are not in it, and nothing is allocated before the first one does.
/// Invariant: going from the front to the back, `changed_at` never rises, and is never 0.
class RecencyList {
 public:
  static constexpr std::uint32_t npos = 0xFFFFFFFF;

  /// Makes room for all keys; after this nothing here throws.
  void prepare(std::uint32_t key_count) {
    if (nodes_.size() < key_count) nodes_.resize(key_count);
  }

  /// The key was changed by `id`, which is not older than anything here. O(1).
  void touch(std::uint32_t ordinal, UpdateId id) noexcept {
    Node& node = nodes_[ordinal];
    if (newest_ != ordinal) {
      if (node.changed_at == 0) {
        ++size_;
      } else {
        nodes_[node.newer].older = node.older;
        if (node.older != npos) nodes_[node.older].newer = node.newer;
      }
      node.older = newest_;
      if (newest_ != npos) nodes_[newest_].newer = ordinal;
      newest_ = ordinal;
    }
    node.changed_at = id;
  }

  /// The update id that changed the key last; 0 if none did.
  [[nodiscard]] UpdateId changed_at(std::uint32_t ordinal) const {
    return nodes_.empty() ? 0 : nodes_[ordinal].changed_at;
  }

  /// The key that changed last, or `npos`.
  [[nodiscard]] std::uint32_t newest() const { return newest_; }
  /// The key that changed last before this one did, or `npos`.
  [[nodiscard]] std::uint32_t older(std::uint32_t ordinal) const { return nodes_[ordinal].older; }
  /// How many keys have ever changed.
  [[nodiscard]] std::uint32_t size() const { return size_; }

  /// No key has changed. O(size).
  void clear() noexcept {
    while (newest_ != npos) {
      Node& node = nodes_[newest_];
      newest_ = node.older;
      node = Node{};
    }
    size_ = 0;
  }

 private:
  struct Node {
    UpdateId changed_at = 0;
    std::uint32_t newer = npos;  // means nothing for the newest one
    std::uint32_t older = npos;
  };

  std::vector<Node> nodes_;
  std::uint32_t newest_ = npos;
  std::uint32_t size_ = 0;
};

}  // namespace syncstate::detail

#endif
