// Structured bindings over any number of members up to 32: the members of an aggregate as a list.
#ifndef SYNCSTATE_CODEC_MEMBER_LIST_HPP
#define SYNCSTATE_CODEC_MEMBER_LIST_HPP

#include <cstddef>
#include <type_traits>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

// A structured binding names each member, so there must be one for every number of members. Each list below
// is the one before it and one more.
#define SYNCSTATE_NAMES_1 m1
#define SYNCSTATE_NAMES_2 SYNCSTATE_NAMES_1, m2
#define SYNCSTATE_NAMES_3 SYNCSTATE_NAMES_2, m3
#define SYNCSTATE_NAMES_4 SYNCSTATE_NAMES_3, m4
#define SYNCSTATE_NAMES_5 SYNCSTATE_NAMES_4, m5
#define SYNCSTATE_NAMES_6 SYNCSTATE_NAMES_5, m6
#define SYNCSTATE_NAMES_7 SYNCSTATE_NAMES_6, m7
#define SYNCSTATE_NAMES_8 SYNCSTATE_NAMES_7, m8
#define SYNCSTATE_NAMES_9 SYNCSTATE_NAMES_8, m9
#define SYNCSTATE_NAMES_10 SYNCSTATE_NAMES_9, m10
#define SYNCSTATE_NAMES_11 SYNCSTATE_NAMES_10, m11
#define SYNCSTATE_NAMES_12 SYNCSTATE_NAMES_11, m12
#define SYNCSTATE_NAMES_13 SYNCSTATE_NAMES_12, m13
#define SYNCSTATE_NAMES_14 SYNCSTATE_NAMES_13, m14
#define SYNCSTATE_NAMES_15 SYNCSTATE_NAMES_14, m15
#define SYNCSTATE_NAMES_16 SYNCSTATE_NAMES_15, m16
#define SYNCSTATE_NAMES_17 SYNCSTATE_NAMES_16, m17
#define SYNCSTATE_NAMES_18 SYNCSTATE_NAMES_17, m18
#define SYNCSTATE_NAMES_19 SYNCSTATE_NAMES_18, m19
#define SYNCSTATE_NAMES_20 SYNCSTATE_NAMES_19, m20
#define SYNCSTATE_NAMES_21 SYNCSTATE_NAMES_20, m21
#define SYNCSTATE_NAMES_22 SYNCSTATE_NAMES_21, m22
#define SYNCSTATE_NAMES_23 SYNCSTATE_NAMES_22, m23
#define SYNCSTATE_NAMES_24 SYNCSTATE_NAMES_23, m24
#define SYNCSTATE_NAMES_25 SYNCSTATE_NAMES_24, m25
#define SYNCSTATE_NAMES_26 SYNCSTATE_NAMES_25, m26
#define SYNCSTATE_NAMES_27 SYNCSTATE_NAMES_26, m27
#define SYNCSTATE_NAMES_28 SYNCSTATE_NAMES_27, m28
#define SYNCSTATE_NAMES_29 SYNCSTATE_NAMES_28, m29
#define SYNCSTATE_NAMES_30 SYNCSTATE_NAMES_29, m30
#define SYNCSTATE_NAMES_31 SYNCSTATE_NAMES_30, m31
#define SYNCSTATE_NAMES_32 SYNCSTATE_NAMES_31, m32

#define SYNCSTATE_TYPES_1 decltype(m1)
#define SYNCSTATE_TYPES_2 SYNCSTATE_TYPES_1, decltype(m2)
#define SYNCSTATE_TYPES_3 SYNCSTATE_TYPES_2, decltype(m3)
#define SYNCSTATE_TYPES_4 SYNCSTATE_TYPES_3, decltype(m4)
#define SYNCSTATE_TYPES_5 SYNCSTATE_TYPES_4, decltype(m5)
#define SYNCSTATE_TYPES_6 SYNCSTATE_TYPES_5, decltype(m6)
#define SYNCSTATE_TYPES_7 SYNCSTATE_TYPES_6, decltype(m7)
#define SYNCSTATE_TYPES_8 SYNCSTATE_TYPES_7, decltype(m8)
#define SYNCSTATE_TYPES_9 SYNCSTATE_TYPES_8, decltype(m9)
#define SYNCSTATE_TYPES_10 SYNCSTATE_TYPES_9, decltype(m10)
#define SYNCSTATE_TYPES_11 SYNCSTATE_TYPES_10, decltype(m11)
#define SYNCSTATE_TYPES_12 SYNCSTATE_TYPES_11, decltype(m12)
#define SYNCSTATE_TYPES_13 SYNCSTATE_TYPES_12, decltype(m13)
#define SYNCSTATE_TYPES_14 SYNCSTATE_TYPES_13, decltype(m14)
#define SYNCSTATE_TYPES_15 SYNCSTATE_TYPES_14, decltype(m15)
#define SYNCSTATE_TYPES_16 SYNCSTATE_TYPES_15, decltype(m16)
#define SYNCSTATE_TYPES_17 SYNCSTATE_TYPES_16, decltype(m17)
#define SYNCSTATE_TYPES_18 SYNCSTATE_TYPES_17, decltype(m18)
#define SYNCSTATE_TYPES_19 SYNCSTATE_TYPES_18, decltype(m19)
#define SYNCSTATE_TYPES_20 SYNCSTATE_TYPES_19, decltype(m20)
#define SYNCSTATE_TYPES_21 SYNCSTATE_TYPES_20, decltype(m21)
#define SYNCSTATE_TYPES_22 SYNCSTATE_TYPES_21, decltype(m22)
#define SYNCSTATE_TYPES_23 SYNCSTATE_TYPES_22, decltype(m23)
#define SYNCSTATE_TYPES_24 SYNCSTATE_TYPES_23, decltype(m24)
#define SYNCSTATE_TYPES_25 SYNCSTATE_TYPES_24, decltype(m25)
#define SYNCSTATE_TYPES_26 SYNCSTATE_TYPES_25, decltype(m26)
#define SYNCSTATE_TYPES_27 SYNCSTATE_TYPES_26, decltype(m27)
#define SYNCSTATE_TYPES_28 SYNCSTATE_TYPES_27, decltype(m28)
#define SYNCSTATE_TYPES_29 SYNCSTATE_TYPES_28, decltype(m29)
#define SYNCSTATE_TYPES_30 SYNCSTATE_TYPES_29, decltype(m30)
#define SYNCSTATE_TYPES_31 SYNCSTATE_TYPES_30, decltype(m31)
#define SYNCSTATE_TYPES_32 SYNCSTATE_TYPES_31, decltype(m32)

// clang-format off
#define SYNCSTATE_FOR_EACH_COUNT(DO) \
  DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) \
  DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15) DO(16) \
  DO(17) DO(18) DO(19) DO(20) DO(21) DO(22) DO(23) DO(24) \
  DO(25) DO(26) DO(27) DO(28) DO(29) DO(30) DO(31) DO(32)
// clang-format on

#if defined(__clang__)
// Clang 14 does not support structured bindings in a requires-expression. So a constant expression binds const
// references to the members of an object outside its lifetime. Binding to a bit-field reads the object, so the
// expression is not constant; binding to any other member reads nothing.
template <class T>
union Unread {
  constexpr Unread() : nothing{} {}
  constexpr ~Unread() {}
  char nothing;
  T value;
};
template <class T>
inline Unread<T> unread;

template <class... Members>
consteval bool refer_to(const Members&...) {
  return true;
}

template <std::size_t count, class T>
consteval bool refer_to_members() {
#define SYNCSTATE_REFER(n)                         \
  if constexpr (count == n) {                      \
    auto& [SYNCSTATE_NAMES_##n] = unread<T>.value; \
    return refer_to(SYNCSTATE_NAMES_##n);          \
  }
  SYNCSTATE_FOR_EACH_COUNT(SYNCSTATE_REFER)
#undef SYNCSTATE_REFER
}

template <std::size_t count, class T>
concept Referable = requires { typename std::bool_constant<refer_to_members<count, T>()>; };

#define SYNCSTATE_ARE_REFERABLE(n) Referable<n, T>
#else
template <class... Members>
void refer_to(Members&...);  // no bit-fields: they have no address

#define SYNCSTATE_ARE_REFERABLE(n) requires { refer_to(SYNCSTATE_NAMES_##n); }
#endif

/// The members' types as declared, and whether a reference can be had to each (to a bit-field it can't).
template <bool are_referable, class... Members>
struct MemberList {};

/// Declared types of the `count` members of T, as a MemberList. Only for use in `decltype`.
template <std::size_t count, class T>
constexpr auto list_members(T& value) {
  if constexpr (count == 0) {
    return MemberList<true>{};
  }
#define SYNCSTATE_LIST(n)                                      \
  if constexpr (count == n) {                                  \
    [[maybe_unused]] auto& [SYNCSTATE_NAMES_##n] = value;      \
    constexpr bool are_referable = SYNCSTATE_ARE_REFERABLE(n); \
    return MemberList<are_referable, SYNCSTATE_TYPES_##n>{};   \
  }
  SYNCSTATE_FOR_EACH_COUNT(SYNCSTATE_LIST)
#undef SYNCSTATE_LIST
}

/// Calls `f` with the `count` members of `value`, all at once.
template <std::size_t count, class T, class F>
decltype(auto) with_members([[maybe_unused]] const T& value, F&& f) {
  if constexpr (count == 0) {
    return f();
  }
#define SYNCSTATE_CALL(n)                      \
  if constexpr (count == n) {                  \
    const auto& [SYNCSTATE_NAMES_##n] = value; \
    return f(SYNCSTATE_NAMES_##n);             \
  }
  SYNCSTATE_FOR_EACH_COUNT(SYNCSTATE_CALL)
#undef SYNCSTATE_CALL
}

#undef SYNCSTATE_FOR_EACH_COUNT
#undef SYNCSTATE_ARE_REFERABLE
#undef SYNCSTATE_NAMES_1
#undef SYNCSTATE_NAMES_2
#undef SYNCSTATE_NAMES_3
#undef SYNCSTATE_NAMES_4
#undef SYNCSTATE_NAMES_5
#undef SYNCSTATE_NAMES_6
#undef SYNCSTATE_NAMES_7
#undef SYNCSTATE_NAMES_8
#undef SYNCSTATE_NAMES_9
#undef SYNCSTATE_NAMES_10
#undef SYNCSTATE_NAMES_11
#undef SYNCSTATE_NAMES_12
#undef SYNCSTATE_NAMES_13
#undef SYNCSTATE_NAMES_14
#undef SYNCSTATE_NAMES_15
#undef SYNCSTATE_NAMES_16
#undef SYNCSTATE_NAMES_17
#undef SYNCSTATE_NAMES_18
#undef SYNCSTATE_NAMES_19
#undef SYNCSTATE_NAMES_20
#undef SYNCSTATE_NAMES_21
#undef SYNCSTATE_NAMES_22
#undef SYNCSTATE_NAMES_23
#undef SYNCSTATE_NAMES_24
#undef SYNCSTATE_NAMES_25
#undef SYNCSTATE_NAMES_26
#undef SYNCSTATE_NAMES_27
#undef SYNCSTATE_NAMES_28
#undef SYNCSTATE_NAMES_29
#undef SYNCSTATE_NAMES_30
#undef SYNCSTATE_NAMES_31
#undef SYNCSTATE_NAMES_32
#undef SYNCSTATE_TYPES_1
#undef SYNCSTATE_TYPES_2
#undef SYNCSTATE_TYPES_3
#undef SYNCSTATE_TYPES_4
#undef SYNCSTATE_TYPES_5
#undef SYNCSTATE_TYPES_6
#undef SYNCSTATE_TYPES_7
#undef SYNCSTATE_TYPES_8
#undef SYNCSTATE_TYPES_9
#undef SYNCSTATE_TYPES_10
#undef SYNCSTATE_TYPES_11
#undef SYNCSTATE_TYPES_12
#undef SYNCSTATE_TYPES_13
#undef SYNCSTATE_TYPES_14
#undef SYNCSTATE_TYPES_15
#undef SYNCSTATE_TYPES_16
#undef SYNCSTATE_TYPES_17
#undef SYNCSTATE_TYPES_18
#undef SYNCSTATE_TYPES_19
#undef SYNCSTATE_TYPES_20
#undef SYNCSTATE_TYPES_21
#undef SYNCSTATE_TYPES_22
#undef SYNCSTATE_TYPES_23
#undef SYNCSTATE_TYPES_24
#undef SYNCSTATE_TYPES_25
#undef SYNCSTATE_TYPES_26
#undef SYNCSTATE_TYPES_27
#undef SYNCSTATE_TYPES_28
#undef SYNCSTATE_TYPES_29
#undef SYNCSTATE_TYPES_30
#undef SYNCSTATE_TYPES_31
#undef SYNCSTATE_TYPES_32

}  // namespace syncstate::detail

#endif
