// A queue that takes no memory while nothing was ever in it.
#ifndef SYNCSTATE_DETAIL_LAZY_QUEUE_HPP
#define SYNCSTATE_DETAIL_LAZY_QUEUE_HPP

#include <cassert>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Elements in the order they came, taken from the front, as in a `std::deque`: that takes 576 bytes for none.
///
/// Memory    : one allocation, up to twice as large as its elements; none before the first element. When the last
///             element goes, room for more than `kept_capacity` is given back.
/// Complexity: O(1), amortized for `push_back`.
template <class T>
class LazyQueue {
  static_assert(std::is_nothrow_move_constructible_v<T>);

 public:
  static constexpr std::size_t kept_capacity = 4;

  LazyQueue() = default;
  LazyQueue(LazyQueue&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        capacity_(std::exchange(other.capacity_, 0)),
        begin_(std::exchange(other.begin_, 0)),
        size_(std::exchange(other.size_, 0)) {}
  LazyQueue& operator=(LazyQueue&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    std::swap(begin_, other.begin_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~LazyQueue() {
    clear();
    release();
  }

  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] T& front() { return *at(0); }
  [[nodiscard]] T& back() { return *at(size_ - 1); }
  [[nodiscard]] T& operator[](std::size_t i) { return *at(i); }
  [[nodiscard]] const T& operator[](std::size_t i) const { return *at(i); }

  void push_back(T value) {
    if (size_ == capacity_) grow();
    std::construct_at(at(size_), std::move(value));
    ++size_;
  }
  void pop_front() {
    assert(size_ > 0);
    std::destroy_at(at(0));
    begin_ = (begin_ + 1) & (capacity_ - 1);
    if (--size_ == 0 && capacity_ > kept_capacity) release();
  }
  void clear() {
    while (size_ > 0) pop_front();
  }

  /// The bytes that its elements take here, with the room for more; not what they point at.
  [[nodiscard]] std::size_t memory_bytes() const { return capacity_ * sizeof(T); }

 private:
  // A power of two, so that a mask wraps around.
  static constexpr std::size_t first_capacity = 2;

  [[nodiscard]] T* at(std::size_t i) const { return data_ + ((begin_ + i) & (capacity_ - 1)); }

  void grow() {
    const std::size_t capacity = capacity_ == 0 ? first_capacity : 2 * capacity_;
    T* const data = std::allocator<T>().allocate(capacity);
    for (std::size_t i = 0; i < size_; ++i) {
      std::construct_at(data + i, std::move(*at(i)));
      std::destroy_at(at(i));
    }
    if (data_ != nullptr) std::allocator<T>().deallocate(data_, capacity_);
    data_ = data;
    capacity_ = capacity;
    begin_ = 0;
  }

  void release() {
    if (data_ != nullptr) std::allocator<T>().deallocate(data_, capacity_);
    data_ = nullptr;
    capacity_ = 0;
    begin_ = 0;
  }

  T* data_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t size_ = 0;
};

}  // namespace syncstate::detail

#endif
