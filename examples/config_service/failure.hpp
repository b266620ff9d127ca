// How the program ends: exit codes, and the exception that carries one to main().
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_FAILURE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_FAILURE_HPP

#include <stdexcept>
#include <string>
#include <syncstate/error.hpp>
#include <system_error>

namespace config_service {

/// Documented in --help: append, never renumber.
enum class ExitCode {
  success = 0,
  unexpected = 1,
  command_line = 2,
  file = 3,
  unreachable = 4,
  refused = 5,
  no_such_leaf = 6,
  which_map = 7,
  outcome_unknown = 8,
};

inline constexpr const char* exit_code_help =
    "Exit codes: 0 done; 2 wrong command line, or a value of `set` that is refused;\n"
    "  3 a file or the port to listen on can't be used, or the output can't be written (a change by `set` "
    "has been made then);\n"
    "  4 no server answers; 5 the server refuses us, or we its certificate; 6 no such leaf;\n"
    "  7 no map, several maps, or not the map asked for; 8 no answer came: a change may have been made or "
    "not;\n"
    "  1 anything else.\n"
    "`serve`, and `watch` without --count, end with 0 after SIGINT or SIGTERM also where their output could "
    "not be written:\n"
    "lines that are missing are counted, in the output when it can be written again, or on standard error at "
    "the end.";

/// What went wrong, in words for the one who typed the command.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  [[nodiscard]] ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// The exit code for an error of the library.
inline ExitCode exit_code_for(const std::error_code& error) {
  using syncstate::StateErrc;
  if (error == StateErrc::unavailable || error == StateErrc::stopped || error == StateErrc::peer_silent ||
      error == StateErrc::link_closed) {
    return ExitCode::unreachable;
  }
  if (error == StateErrc::unauthorized || error == StateErrc::forbidden || error == StateErrc::busy ||
      error == StateErrc::certificate_rejected || error == StateErrc::tls_failed ||
      error == StateErrc::version_mismatch || error == StateErrc::protocol_error) {
    return ExitCode::refused;
  }
  if (error == StateErrc::not_hosted || error == StateErrc::type_mismatch ||
      error == StateErrc::hash_mismatch) {
    return ExitCode::which_map;
  }
  if (error == StateErrc::outcome_unknown) return ExitCode::outcome_unknown;
  if (error == StateErrc::invalid_option) return ExitCode::command_line;
  if (error.category() == std::generic_category()) return ExitCode::file;  // the port to listen on
  return ExitCode::unexpected;
}

/// What may be done about an error; empty if that is plain.
inline std::string advice_for(const std::error_code& error) {
  using syncstate::StateErrc;
  if (error == StateErrc::unauthorized) return "Is --password-file (or --dir) the server's?";
  if (error == StateErrc::certificate_rejected) {
    return "Is --trust (or --dir) the server's, and is the certificate made for the host in --connect?";
  }
  if (error == StateErrc::unavailable) return "Is it running, and is --connect where it listens?";
  if (error == StateErrc::outcome_unknown) return "Look with `get` before you try again.";
  if (error == std::errc::address_in_use) return "--listen names another port; 0 is any that is free.";
  return {};
}

}  // namespace config_service

#endif
