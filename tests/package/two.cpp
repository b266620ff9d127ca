// The second of two files that include every header.
#include "everything.hpp"

const std::error_category* category_in_the_other_file();

const std::error_category* category_in_the_other_file() { return &syncstate::state_category(); }
