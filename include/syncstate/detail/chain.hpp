// A doubly linked list whose links lie in its elements.
#ifndef SYNCSTATE_DETAIL_CHAIN_HPP
#define SYNCSTATE_DETAIL_CHAIN_HPP

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// An element's place in a `Chain`.
template <class T>
struct ChainPlace {
  T* before = nullptr;
  T* behind = nullptr;
  bool is_taken = false;
};

/// Elements in the order in which they were added, linked by their member `Place`. It owns none of them: an element is
/// removed before it dies.
///
/// Complexity: O(1) each, without an allocation.
template <class T, ChainPlace<T> T::*Place>
class Chain {
 public:
  Chain() = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  [[nodiscard]] bool empty() const { return first_ == nullptr; }
  [[nodiscard]] T* first() const { return first_; }
  [[nodiscard]] T* last() const { return last_; }
  [[nodiscard]] static T* next(const T& element) { return (element.*Place).behind; }

  /// Does nothing if the element is in the chain.
  void push_back(T& element) {
    ChainPlace<T>& place = element.*Place;
    if (place.is_taken) return;
    place = {last_, nullptr, true};
    (last_ != nullptr ? (last_->*Place).behind : first_) = &element;
    last_ = &element;
  }

  /// Does nothing if the element is not in the chain.
  void remove(T& element) {
    ChainPlace<T>& place = element.*Place;
    if (!place.is_taken) return;
    (place.before != nullptr ? (place.before->*Place).behind : first_) = place.behind;
    (place.behind != nullptr ? (place.behind->*Place).before : last_) = place.before;
    place = {};
  }

 private:
  T* first_ = nullptr;
  T* last_ = nullptr;
};

}  // namespace syncstate::detail

#endif
