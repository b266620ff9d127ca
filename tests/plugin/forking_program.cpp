// A program knows in which process it is, also when a plugin that asked for that first is closed again. Called with the path
// of the plugin.
//
// The program exports its symbols, so both would share a static variable that is visible, and what one of them has registered
// for the other would go with it.
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "syncstate/threads/home_process.hpp"

int main(int argc, char** argv) {
  if (argc != 2) throw std::invalid_argument("needs the path of the plugin");
  void* const library = ::dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(::dlerror());
  const auto ask = reinterpret_cast<int (*)()>(::dlsym(library, "forking_plugin_process_id"));
  if (ask == nullptr) throw std::runtime_error("the plugin has no forking_plugin_process_id");
  if (ask() != ::getpid()) throw std::runtime_error("the plugin does not know its process");
  ::dlclose(library);

  const auto home = syncstate::detail::HomeProcess::here();
  const pid_t child = ::fork();
  if (child == 0) {
    const bool is_right = home.is_elsewhere() && syncstate::detail::process_id() == ::getpid();
    std::_Exit(is_right ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  const bool is_right = status == 0 && !home.is_elsewhere();
  std::puts(is_right ? "parent and child know where they are"
                     : "not so: parent and child know where they are");
  return is_right ? 0 : 1;
}
