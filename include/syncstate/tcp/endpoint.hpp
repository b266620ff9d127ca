// "host:port" as text and as a value.
#ifndef SYNCSTATE_TCP_ENDPOINT_HPP
#define SYNCSTATE_TCP_ENDPOINT_HPP

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include "syncstate/error.hpp"

namespace syncstate::tcp {

/// Where a server listens or is found: a name or a numeric address, and a port.
struct Endpoint {
  std::string host;  ///< without brackets
  std::uint16_t port = 0;

  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

/// Reads `"host:port"` or `"[v6 address]:port"`.
/// Errors: StateErrc::invalid_option, with the text and what is wrong with it.
inline Endpoint parse_endpoint(std::string_view text) {
  const auto refuse = [text](const char* why) -> Endpoint {
    throw StateError(StateErrc::invalid_option, "endpoint '" + std::string(text) + "': " + why +
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
  for (const char c : host) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '/' || c == '[' || c == ']') return refuse("not a host");
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
