// A shared library that asks for the id of the process before the program that opens it does.
#include "syncstate/threads/home_process.hpp"

extern "C" int forking_plugin_process_id() { return syncstate::detail::process_id(); }
