// Catch2, v3 or v2, whichever is there, under one set of names.
#ifndef SYNCSTATE_TESTS_SUPPORT_CATCH_HPP
#define SYNCSTATE_TESTS_SUPPORT_CATCH_HPP

#include <string>

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;  // v2 has it outside of its namespace too
#else
#include <catch2/catch.hpp>
#endif

namespace syncstate::testing {

/// Matches a text that has `part` in it: `CHECK_THROWS_WITH(call(), contains_text("position"))`.
inline auto contains_text(const std::string& part) {
#if __has_include(<catch2/catch_all.hpp>)
  return Catch::Matchers::ContainsSubstring(part);
#else
  return Catch::Matchers::Contains(part);
#endif
}

}  // namespace syncstate::testing

#endif
