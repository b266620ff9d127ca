// Costs that must not grow faster than promised: each is counted at a size and at eight times that size.
#ifndef SYNCSTATE_BENCHMARKS_INSTRUCTIONS_GROWTH_GROWTH_HPP
#define SYNCSTATE_BENCHMARKS_INSTRUCTIONS_GROWTH_GROWTH_HPP

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace benchmarks {

/// How the instructions of one operation may grow where its size grows eightfold.
enum class Growth {
  constant,     ///< at most 1.5 times as many
  logarithmic,  ///< at most 2.5 times as many
  linear,       ///< at most 10 times as many
  linearithmic  ///< at most 14 times as many
};

/// One promise about a cost.
///
/// Write one for each cost that a comment in the library states, in the file of its area beside this one:
///
/// ```cpp
/// const GrowthCase lookup{"get by key, n keys in the map", Growth::constant, 500, [](std::size_t n) {
///   auto map = std::make_shared<Map>(fill(Map(ss::Role::master), n));
///   return [map] { keep(*map->get(sample_key(7))); };
/// }};
/// ```
///
/// The constructor registers the case, so an object in a namespace is all there is to do.
class GrowthCase {
 public:
  using Operation = std::function<void()>;
  /// Builds a world of this size, and returns the operation to count in it. The world lives as long as the operation.
  /// Called several times; each operation is run once.
  using Prepare = std::function<Operation(std::size_t size)>;

  /// `name`: no two cases share one. `size`: the smaller of the two; small enough that valgrind, which is some fifty
  /// times slower than the processor, takes less than a second for both.
  GrowthCase(std::string name, Growth most, std::size_t size, Prepare prepare)
      : name_(std::move(name)), most_(most), size_(size), prepare_(std::move(prepare)) {
    all().push_back(this);
  }
  GrowthCase(const GrowthCase&) = delete;
  GrowthCase& operator=(const GrowthCase&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] Growth most() const { return most_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Operation prepare(std::size_t size) const { return prepare_(size); }

  /// Every case of the program, in no particular order.
  static std::vector<const GrowthCase*>& all() {
    static std::vector<const GrowthCase*> cases;
    return cases;
  }

 private:
  std::string name_;
  Growth most_;
  std::size_t size_;
  Prepare prepare_;
};

}  // namespace benchmarks

#endif
