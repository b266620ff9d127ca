// The codec of aggregates: what a type without a codec of its own falls back to.
#ifndef SYNCSTATE_CODEC_AGGREGATES_HPP
#define SYNCSTATE_CODEC_AGGREGATES_HPP

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include "syncstate/codec/compounds.hpp"
#include "syncstate/codec/member_count.hpp"
#include "syncstate/codec/member_list.hpp"
#include "syncstate/codec/memory.hpp"
#include "syncstate/codec/rules.hpp"

namespace syncstate {

namespace detail {

template <class T>
concept Unordered = requires {
  typename T::hasher;
  typename T::key_equal;
};

/// The rule that the shape of T breaks, as far as it can be told without looking at its members.
template <class T>
consteval Rule shape_rule() {
  if constexpr (Unordered<T>) {
    return Rule::unordered;
  } else if constexpr (std::is_union_v<T>) {
    return Rule::is_union;
  } else if constexpr (!std::is_class_v<T> || !std::is_aggregate_v<T>) {
    return Rule::no_codec;
  } else if constexpr (HasBase<T>) {
    return Rule::has_base;
  } else {
    constexpr std::size_t count = count_initializers<T, AnyInitializer, max_members>();
    if constexpr (count == uncountable) {
      return count_initializers<T, AnyReference, max_members>() == uncountable ? Rule::uncountable
                                                                               : Rule::has_reference;
    } else if constexpr (count > max_members) {
      return Rule::too_many_members;
    } else {
      return has_long_array<T, count>() ? Rule::has_c_array : Rule::none;
    }
  }
}

/// What there is to know about an aggregate; of any other type, which rule says that it is none.
template <class T, Rule shape = shape_rule<T>()>
struct Aggregate {
  static constexpr Rule rule = shape;
  using Members = Types<>;
};

template <class T>
struct Aggregate<T, Rule::none> {
  static constexpr std::size_t count = count_initializers<T, AnyInitializer, max_members>();

  template <bool are_referable, class... Ms>
  static consteval Rule rule_of_list(MemberList<are_referable, Ms...>) {
    if ((std::is_reference_v<Ms> || ...)) return Rule::has_reference;
    if ((std::is_array_v<Ms> || ...)) return Rule::has_c_array;
    return are_referable ? Rule::none : Rule::has_bit_field;
  }
  template <bool are_referable, class... Ms>
  static Types<std::remove_cv_t<Ms>...> types_of_list(MemberList<are_referable, Ms...>);

  using List = decltype(list_members<count>(std::declval<T&>()));
  static constexpr Rule rule = rule_of_list(List{});
  using Members = decltype(types_of_list(List{}));
};

}  // namespace detail

/// The members in their order, nothing between them.
///
/// An aggregate has public members only, at most 32, each encodable; no bases, C arrays, bit-fields or
/// references; and does not contain itself. A `static_assert` names the rule that a type breaks.
template <class T>
struct Codec {
 private:
  using Traits = detail::Aggregate<T>;

 public:
  using Parts = typename Traits::Members;
  static constexpr detail::Rule rule = Traits::rule;
  static constexpr bool is_sequence = false;
  static constexpr bool is_key = true;
  static constexpr bool owns_memory = false;
  static consteval std::size_t min_bytes() { return detail::min_bytes_of_all(Parts{}); }

  static std::size_t size(const T& value) {
    static_assert(detail::Explain<T>::is_done);
    if constexpr (rule == detail::Rule::none) {
      return detail::with_members<Traits::count>(value, []<class... Ms>(const Ms&... members) {
        return (std::size_t{0} + ... + detail::encoded_size<Ms>(members));
      });
    } else {
      return 0;
    }
  }

  static std::size_t owned_bytes(const T& value) {
    if constexpr (rule == detail::Rule::none) {
      return detail::with_members<Traits::count>(value, []<class... Ms>(const Ms&... members) {
        return (std::size_t{0} + ... + detail::owned_bytes<Ms>(members));
      });
    } else {
      return 0;
    }
  }

  static void encode(const T& value, [[maybe_unused]] ByteWriter& out) {
    static_assert(detail::Explain<T>::is_done);
    if constexpr (rule == detail::Rule::none) {
      detail::with_members<Traits::count>(
          value, [&]<class... Ms>(const Ms&... members) { (Codec<Ms>::encode(members, out), ...); });
    }
  }

  static T decode([[maybe_unused]] ByteReader& in) {
    static_assert(detail::Explain<T>::is_done);
    if constexpr (rule == detail::Rule::none) return decode_members(in, Parts{});
  }

  static std::string type_name() {
    static_assert(detail::Explain<T>::is_done);
    return name_of(Parts{});
  }

 private:
  template <class... Ms>
  static T decode_members([[maybe_unused]] ByteReader& in, detail::Types<Ms...>) {
    return T{Codec<Ms>::decode(in)...};  // braces: from left to right
  }

  template <class... Ms>
  static std::string name_of(detail::Types<Ms...>) {
    return "{" + detail::names_between<Ms...>(",") + "}";
  }
};

}  // namespace syncstate

#endif
