// How maps and diffs are printed.
#ifndef SYNCSTATE_DETAIL_MODEL_PRINT_HPP
#define SYNCSTATE_DETAIL_MODEL_PRINT_HPP

#include <iosfwd>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

// <iosfwd> is enough here: whoever prints has included <ostream>.
template <class T>
concept Printable = requires(std::ostream& out, const T& value) { out << value; };

/// `{first: 1, second: 2}`
template <class Out, class Entries>
void print_entries(Out& out, const Entries& entries) {
  const char* separator = "";
  out << "{";
  for (const auto& [key, value] : entries) {
    out << separator << key << ": " << value;
    separator = ", ";
  }
  out << "}";
}

}  // namespace syncstate::detail

#endif
