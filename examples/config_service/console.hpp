// Standard output and standard error of the commands that run until a signal ends them.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CONSOLE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CONSOLE_HPP

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "line_writer.hpp"

namespace config_service {

/// Opens the standard streams that the program was started without, so that no file that it opens later takes their
/// place. Using these streams fails, as it would without this.
inline void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) < 0) (void)::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

/// How long the program waits at its end for a reader of its output that does not read.
inline constexpr std::chrono::milliseconds patience{1'000};

/// Standard output and standard error, each written on a thread of its own.
///
/// Threads: any.
class Console {
 public:
  [[nodiscard]] LineWriter& out() { return out_; }
  [[nodiscard]] LineWriter& err() { return *err_; }

  /// Writes what is queued, for at most `limit` each if there is one. Says on standard error how many lines of the
  /// output are missing. Returns true if none are.
  bool finish(std::optional<std::chrono::milliseconds> limit) {
    const LineWriter::Missing missing = out_.finish(limit);
    if (missing.untold > 0) {
      err_->write("config_service: " + std::to_string(missing.untold) +
                  (missing.untold == 1 ? " line of the output was not written: "
                                       : " lines of the output were not written: ") +
                  (missing.why.empty() ? "nobody reads them" : missing.why));
    }
    (void)err_->finish(limit);
    return missing.lines == 0;
  }

 private:
  std::shared_ptr<LineWriter> err_ = std::make_shared<LineWriter>(STDERR_FILENO);
  LineWriter out_{STDOUT_FILENO, [err = err_](const std::string& why) {
                    err->write("config_service: the output can't be written: " + why +
                               "; lines are lost, and counted, until it can");
                  }};
};

}  // namespace config_service

#endif
