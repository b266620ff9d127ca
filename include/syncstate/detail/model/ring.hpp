// A queue in one block of memory.
#ifndef SYNCSTATE_DETAIL_MODEL_RING_HPP
#define SYNCSTATE_DETAIL_MODEL_RING_HPP

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>
#include <vector>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// What goes in at the back comes out at the front. Allocates only to grow, which std::deque does again and
/// again.
template <class T>
class Ring {
 public:
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return slots_[place(i)]; }
  [[nodiscard]] T& operator[](std::size_t i) { return slots_[place(i)]; }
  [[nodiscard]] const T& front() const { return (*this)[0]; }
  [[nodiscard]] T& front() { return (*this)[0]; }
  [[nodiscard]] const T& back() const { return (*this)[size_ - 1]; }

  /// May throw before anything has changed, never later (given that moving a T does not).
  void push_back(T value) {
    if (size_ == capacity_) grow();
    slots_[place(size_)] = std::move(value);
    ++size_;
  }

  /// What is popped is not destroyed, but for what was moved out of it before.
  void pop_front() noexcept {
    assert(size_ > 0);
    first_ = place(1);
    --size_;
  }

  void clear() noexcept {
    slots_.clear();
    capacity_ = 0;
    first_ = 0;
    size_ = 0;
  }

 private:
  [[nodiscard]] std::size_t place(std::size_t i) const { return (first_ + i) & (capacity_ - 1); }

  void grow() {
    std::vector<T> larger(std::max<std::size_t>(8, 2 * capacity_));
    for (std::size_t i = 0; i < size_; ++i) larger[i] = std::move((*this)[i]);
    slots_ = std::move(larger);
    capacity_ = slots_.size();
    first_ = 0;
  }

  std::vector<T> slots_;
  std::size_t capacity_ = 0;  // slots_.size(), without a division: a power of two, or 0
  std::size_t first_ = 0;
  std::size_t size_ = 0;
};

}  // namespace syncstate::detail

#endif
