// Reads an open file, pipe, socket or device to its end.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_FILE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_READ_FILE_HPP

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "failure.hpp"

namespace config_service {

/// Returns what is left to read; `name` is for messages.
/// Errors: Failure; also if there are more than `most` bytes.
inline std::string read_to_end(int file, const std::string& name, std::size_t most) {
  std::string text;
  std::size_t size = 0;
  for (;;) {
    if (text.size() - size < 4'096) text.resize(std::max<std::size_t>(2 * size, 8'192));
    const ssize_t got = ::read(file, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) {
      pollfd readable{file, POLLIN, 0};
      ::poll(&readable, 1, -1);
      continue;
    }
    if (got < 0) throw Failure(ExitCode::file, name + " can't be read: " + std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
    if (size > most) {
      throw Failure(ExitCode::file, name + " is larger than " + std::to_string(most >> 20U) + " MiB");
    }
  }
  text.resize(size);
  return text;
}

}  // namespace config_service

#endif
