// A std::function that also holds move-only callables (C++23 calls it std::move_only_function).
#ifndef SYNCSTATE_DETAIL_UNIQUE_FUNCTION_HPP
#define SYNCSTATE_DETAIL_UNIQUE_FUNCTION_HPP

#include <concepts>
#include <cstddef>
#include <functional>
#include <new>
#include <type_traits>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

template <class Signature>
class UniqueFunction;

/// Holds any callable once; empty after a move. A small one lies inside, and costs no allocation.
template <class R, class... Args>
class UniqueFunction<R(Args...)> {
 public:
  UniqueFunction() = default;

  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, UniqueFunction> &&
             std::is_invocable_r_v<R, std::decay_t<F>&, Args...>)
  UniqueFunction(F&& f) {
    using H = Holder<std::decay_t<F>>;
    if constexpr (is_small<H, std::decay_t<F>>) {
      holder_ = ::new (static_cast<void*>(inside_)) H(std::forward<F>(f));
    } else {
      holder_ = new H(std::forward<F>(f));
    }
  }

  UniqueFunction(UniqueFunction&& other) noexcept { take(other); }
  UniqueFunction& operator=(UniqueFunction&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~UniqueFunction() { reset(); }

  R operator()(Args... args) { return holder_->call(std::forward<Args>(args)...); }
  explicit operator bool() const noexcept { return holder_ != nullptr; }

 private:
  static constexpr std::size_t room = 56;

  template <class H, class F>
  static constexpr bool is_small =
      sizeof(H) <= room && alignof(H) <= alignof(void*) && std::is_nothrow_move_constructible_v<F>;

  struct Base {
    Base() = default;
    Base(const Base&) = delete;
    Base& operator=(const Base&) = delete;
    virtual ~Base() = default;
    virtual R call(Args... args) = 0;
    /// Makes one like this out of this, at `place`. Only of small ones.
    virtual Base* move_to(void* place) noexcept = 0;
  };
  template <class F>
  struct Holder final : Base {
    template <class G>
    explicit Holder(G&& g) : f(std::forward<G>(g)) {}
    R call(Args... args) override {
      if constexpr (std::is_void_v<R>) {
        std::invoke(f, std::forward<Args>(args)...);
      } else {
        return std::invoke(f, std::forward<Args>(args)...);
      }
    }
    Base* move_to([[maybe_unused]] void* place) noexcept override {
      if constexpr (is_small<Holder, F>) {
        return ::new (place) Holder(std::move(f));
      } else {
        return nullptr;  // never lies inside
      }
    }
    F f;
  };

  [[nodiscard]] bool is_inside() const {
    return static_cast<const void*>(holder_) == static_cast<const void*>(inside_);
  }

  /// Only while empty.
  void take(UniqueFunction& other) noexcept {
    if (!other.is_inside()) {
      holder_ = std::exchange(other.holder_, nullptr);
      return;
    }
    holder_ = other.holder_->move_to(inside_);
    other.reset();
  }

  void reset() noexcept {
    Base* const held = std::exchange(holder_, nullptr);  // its end may look at us
    if (static_cast<const void*>(held) == static_cast<const void*>(inside_)) {
      held->~Base();
    } else {
      delete held;
    }
  }

  Base* holder_ = nullptr;
  alignas(void*) std::byte inside_[room];
};

}  // namespace syncstate::detail

#endif
