// A std::function that also holds move-only callables (C++23 calls it std::move_only_function).
#ifndef SYNCSTATE_DETAIL_UNIQUE_FUNCTION_HPP
#define SYNCSTATE_DETAIL_UNIQUE_FUNCTION_HPP

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace syncstate::detail {

template <class Signature>
class UniqueFunction;

/// Holds any callable once; empty after a move.
template <class R, class... Args>
class UniqueFunction<R(Args...)> {
 public:
  UniqueFunction() = default;

  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, UniqueFunction> &&
             std::is_invocable_r_v<R, std::decay_t<F>&, Args...>)
  // Not make_unique: a unique_ptr type for every lambda is a third of what these cost to compile.
  UniqueFunction(F&& f) : holder_(new Holder<std::decay_t<F>>(std::forward<F>(f))) {}

  R operator()(Args... args) { return holder_->call(std::forward<Args>(args)...); }
  explicit operator bool() const noexcept { return holder_ != nullptr; }

 private:
  struct Base {
    Base() = default;
    Base(const Base&) = delete;
    Base& operator=(const Base&) = delete;
    virtual ~Base() = default;
    virtual R call(Args... args) = 0;
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
    F f;
  };

  std::unique_ptr<Base> holder_;
};

}  // namespace syncstate::detail

#endif
