// A shared library that is compiled with -fvisibility=hidden and opened by dlopen.
#include "plugin/interface.hpp"

namespace plugin_test {
namespace {

void set_in_diff(Diff& diff, int first, int last, int value) {
  for (int key = first; key >= last; --key) diff.set(key, value);
}
void set_in_modification(Modification& modification, int first, int last, int value) {
  for (int key = first; key >= last; --key) modification.set(key, value);
}
bool catches(void (*thrower)(), syncstate::StateErrc error) {
  try {
    thrower();
  } catch (const syncstate::StateError& caught) {
    return caught.code() == error && caught.detail() == "thrown by the program";
  }
  return false;
}

}  // namespace
}  // namespace plugin_test

extern "C" __attribute__((visibility("default"))) void plugin_functions(plugin_test::Functions& out) {
  using namespace plugin_test;
  out.make_error = [](syncstate::StateErrc error, std::error_code& code) { code = error; };
  out.is_error = [](const std::error_code& code, syncstate::StateErrc error) { return code == error; };
  out.is_ours = [](const std::error_category& category) { return syncstate::is_state_category(category); };
  out.throw_error = [](syncstate::StateErrc error) {
    throw syncstate::StateError(error, "thrown by the plugin");
  };
  out.catches = catches;
  out.address_of_category = []() -> const void* { return &syncstate::state_category(); };
  out.set_in_diff = set_in_diff;
  out.set_in_modification = set_in_modification;
  out.get_from_map = [](const Map& map, int key) { return map.get(key); };
  out.set_number = [](Numbers& numbers, std::uint64_t number, int value) { numbers[number] = value; };
}
