// The first of two files that include every header.
#include "everything.hpp"

const std::error_category* category_in_the_other_file();

int main() {
  // What is inline is also the same thing in both files.
  return &syncstate::state_category() == category_in_the_other_file() ? 0 : 1;
}
