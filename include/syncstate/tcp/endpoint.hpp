// "host:port" as text and as a value.
#ifndef SYNCSTATE_TCP_ENDPOINT_HPP
#define SYNCSTATE_TCP_ENDPOINT_HPP

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include "syncstate/error.hpp"
#include "syncstate/tcp/server_name.hpp"

namespace syncstate::tcp {

/// Where a server listens or is found: a name or a numeric address, and a port.
struct Endpoint {
  std::string host;  ///< as typed, without brackets; `parse_server_name` tells what is meant
  std::uint16_t port = 0;

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

/// Reads `"host:port"` or `"[v6 address]:port"`.
/// Errors: StateErrc::invalid_option, with the text and what is wrong with it: also for a host that is neither
///         an address nor a host name, see `parse_server_name`.
inline Endpoint parse_endpoint(std::string_view text) {
  const auto refuse = [text](const char* why) -> Endpoint {
    throw StateError(StateErrc::invalid_option, "endpoint " + detail::quoted_text(text) + ": " + why +
                                                    "; expected \"host:port\" or \"[v6 address]:port\"");
  };
  std::string_view host;
  std::string_view port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return refuse("the bracket is not closed");
    host = text.substr(1, end - 1);
    if (text.substr(end + 1, 1) != ":") return refuse("no port");
    port = text.substr(end + 2);
  } else {
    const auto colon = text.find(':');
    if (colon == std::string_view::npos) return refuse("no port");
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.find(':') != std::string_view::npos) return refuse("a v6 address needs brackets");
  }
  if (host.empty()) return refuse("no host");
  if (host.find_first_of("[]") != std::string_view::npos) return refuse("a bracket inside of the host");
  const std::size_t percent = host.find('%');
  if (percent != std::string_view::npos) {
    // What the system calls a zone is up to it, but no text that could pass for something else.
    for (const char c : host.substr(percent + 1)) {
      if (c <= ' ' || c == 0x7f || c == '/' || c == '%') return refuse("not a zone");
    }
  }
  try {
    (void)parse_server_name(host);
  } catch (const StateError& error) {
    return refuse(error.detail().c_str());
  }

  Endpoint endpoint{std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), endpoint.port);
  if (error != std::errc{} || end != port.data() + port.size()) return refuse("the port is not 0 to 65535");
  return endpoint;
}

/// The text `parse_endpoint` reads.
inline std::string to_string(const Endpoint& endpoint) {
  const bool is_v6 = endpoint.host.find(':') != std::string::npos;
  return (is_v6 ? "[" + endpoint.host + "]" : endpoint.host) + ":" + std::to_string(endpoint.port);
}

}  // namespace syncstate::tcp

#endif
