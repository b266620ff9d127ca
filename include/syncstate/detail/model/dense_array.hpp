// A std::vector whose elements are always objects, for bool too.
#ifndef SYNCSTATE_DETAIL_MODEL_DENSE_ARRAY_HPP
#define SYNCSTATE_DETAIL_MODEL_DENSE_ARRAY_HPP

#include <concepts>
#include <cstddef>
#include <iterator>
#include <type_traits>
#include <vector>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// The little of std::vector that we need, with real `bool&`s: maps of flags hand out pointers to them.
class BoolArray {
  struct Cell {
    bool value;
  };

 public:
  class const_iterator {
   public:
    using value_type = bool;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::forward_iterator_tag;
    using pointer = const bool*;
    using reference = const bool&;

    const_iterator() = default;
    explicit const_iterator(const Cell* cell) : cell_(cell) {}
    reference operator*() const { return cell_->value; }
    const_iterator& operator++() {
      ++cell_;
      return *this;
    }
    const_iterator operator++(int) { return const_iterator(cell_++); }
    friend bool operator==(const_iterator, const_iterator) = default;

   private:
    const Cell* cell_ = nullptr;
  };

  BoolArray() = default;
  BoolArray(const std::vector<bool>& bits) {
    reserve(bits.size());
    for (const bool bit : bits) push_back(bit);
  }

  [[nodiscard]] std::size_t size() const { return cells_.size(); }
  [[nodiscard]] bool empty() const { return cells_.empty(); }
  [[nodiscard]] const bool& operator[](std::size_t i) const { return cells_[i].value; }
  [[nodiscard]] bool& operator[](std::size_t i) { return cells_[i].value; }
  [[nodiscard]] std::size_t capacity() const { return cells_.capacity(); }
  void reserve(std::size_t count) { cells_.reserve(count); }
  void push_back(bool value) { cells_.push_back(Cell{value}); }
  void pop_back() { cells_.pop_back(); }
  [[nodiscard]] const_iterator begin() const { return const_iterator(cells_.data()); }
  [[nodiscard]] const_iterator end() const { return const_iterator(cells_.data() + cells_.size()); }

 private:
  std::vector<Cell> cells_;
};

template <class T>
using DenseArray = std::conditional_t<std::same_as<T, bool>, BoolArray, std::vector<T>>;

}  // namespace syncstate::detail

#endif
