// A queue whose elements hold the pointer to the next one.
#ifndef SYNCSTATE_DETAIL_SERVER_OWNING_CHAIN_HPP
#define SYNCSTATE_DETAIL_SERVER_OWNING_CHAIN_HPP

#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// A queue of elements that point at each other: adding one allocates nothing, and an empty queue takes two pointers.
///
/// `Pointer` is a `std::unique_ptr` or `std::shared_ptr` to an element with a member `Pointer following`. An element is in
/// one chain at a time.
///
/// Complexity: O(1) for each member but the destructor, which does not recurse.
template <class Pointer>
class OwningChain {
 public:
  OwningChain() = default;
  OwningChain(OwningChain&& other) noexcept
      : first_(std::move(other.first_)), last_(std::exchange(other.last_, nullptr)) {}
  OwningChain& operator=(OwningChain&&) = delete;
  ~OwningChain() {
    while (first_) pop_front();
  }

  [[nodiscard]] bool is_empty() const { return !first_; }
  [[nodiscard]] typename Pointer::element_type& front() const { return *first_; }

  void push_back(Pointer element) {
    Pointer& place = first_ ? last_->following : first_;
    last_ = element.get();
    place = std::move(element);
  }

  void push_front(Pointer element) {
    if (!first_) last_ = element.get();
    element->following = std::move(first_);
    first_ = std::move(element);
  }

  /// Removes the first element and returns it. The chain must not be empty.
  Pointer pop_front() {
    Pointer element = std::move(first_);
    first_ = std::move(element->following);
    element->following = nullptr;
    if (!first_) last_ = nullptr;
    return element;
  }

  /// Moves all elements of `other` behind those of this chain.
  void append(OwningChain& other) {
    if (other.is_empty()) return;
    auto* const last = other.last_;
    push_back(std::move(other.first_));
    last_ = last;
    other.last_ = nullptr;
  }

 private:
  Pointer first_;
  typename Pointer::element_type* last_ = nullptr;
};

}  // namespace syncstate::detail

#endif
