// Catch2 v2's main; v3 has it in a library, and of this file nothing is left.
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
