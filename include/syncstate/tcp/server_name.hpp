// What a client means by a host: the one name or address that the server's certificate must hold.
#ifndef SYNCSTATE_TCP_SERVER_NAME_HPP
#define SYNCSTATE_TCP_SERVER_NAME_HPP

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <string>
#include <string_view>

#include "syncstate/error.hpp"

namespace syncstate::tcp {

/// A host in the one form in which certificates hold it, whatever way it was typed.
///
/// Source: `endpoint.hpp` checks hosts with it, `tls_context.hpp` has certificates verified against it.
struct ServerName {
  /// A DNS name in lower case without a final dot, or an address as `inet_ntop` writes it, without brackets
  /// and zone. An address that is a v4 one mapped into v6 is the v4 one.
  std::string text;
  /// The address in network byte order, 4 or 16 bytes; empty for a DNS name.
  std::string address_bytes;

  [[nodiscard]] bool is_address() const { return !address_bytes.empty(); }

  friend bool operator==(const ServerName&, const ServerName&) = default;
};

namespace detail {

/// `text` in quotes, for an error: printable ASCII as it is, every other byte as `\xNN`.
inline std::string quoted_text(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string quoted = "'";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      quoted += c;
    } else {
      quoted += {'\\', 'x', digits[byte >> 4], digits[byte & 0xf]};
    }
  }
  return quoted + "'";
}

inline ServerName name_of_address(const in_addr& address) {
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &address, text.data(), text.size());
  return {text.data(), std::string(reinterpret_cast<const char*>(&address), sizeof address)};
}

inline ServerName name_of_address(const in6_addr& address) {
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    in_addr v4{};
    std::memcpy(&v4, std::begin(address.s6_addr) + 12, sizeof v4);
    return name_of_address(v4);
  }
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET6, &address, text.data(), text.size());
  return {text.data(), std::string(reinterpret_cast<const char*>(&address), sizeof address)};
}

/// Why `name`, without its final dot, is no DNS name; null if it is one.
inline const char* fault_of_dns_name(std::string_view name) {
  constexpr std::size_t most_name = 253;
  constexpr std::size_t most_label = 63;
  if (name.size() > most_name) return "a host name has at most 253 characters";
  std::size_t label = 0;
  for (const char c : name) {
    const bool is_alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (static_cast<unsigned char>(c) >= 0x80)
      return "a host name is ASCII: write an international one in its xn-- form";
    if (c != '.' && c != '-' && c != '_' && !is_alphanumeric) {
      return "a host name has letters, digits, '-', '_' and dots only";
    }
    // An empty label at the front would match every name below the rest.
    if (c == '.' && label == 0) return "a host name has no empty part between, or in front of, its dots";
    label = c == '.' ? 0 : label + 1;
    if (label > most_label) return "a part of a host name has at most 63 characters";
  }
  return label == 0 ? "a host name has no empty part between, or in front of, its dots" : nullptr;
}

}  // namespace detail

/// Reads a host as users type it: `example.org`, `example.org.`, `127.0.0.1`, `127.1`, `::1`, `[::1]`,
/// `fe80::1%eth0`, `::ffff:127.0.0.1`.
///
/// One final dot, brackets, the zone of a v6 address and upper case are no part of what is meant. What the
/// system's resolver takes for a v4 address (`127.1`, `0x7f.1`) is that address.
/// Errors: StateErrc::invalid_option for what is neither an address nor a host name: empty, with a dot in
///         front, with an empty part, with a NUL or any other character that no host name has.
inline ServerName parse_server_name(std::string_view typed) {
  const auto refuse = [typed](const char* why) -> ServerName {
    throw StateError(StateErrc::invalid_option, "host " + detail::quoted_text(typed) + ": " + why);
  };
  std::string_view host = typed;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return refuse("brackets are for v6 addresses");
  }
  const bool is_v6 = host.find(':') != std::string_view::npos;
  if (is_v6) {
    const auto percent = host.find('%');
    if (percent != std::string_view::npos && percent + 1 == host.size()) return refuse("the zone is empty");
    host = host.substr(0, percent);
  }
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.empty()) return refuse("it is empty");

  if (is_v6) {
    in6_addr address{};
    // A NUL would end the text for inet_pton.
    const bool has_nul = host.find('\0') != std::string_view::npos;
    if (has_nul || ::inet_pton(AF_INET6, std::string(host).c_str(), &address) != 1) {
      return refuse("it is no v6 address");
    }
    return detail::name_of_address(address);
  }
  if (const char* fault = detail::fault_of_dns_name(host)) return refuse(fault);
  std::string name(host);
  in_addr address{};
  if (::inet_aton(name.c_str(), &address) != 0) return detail::name_of_address(address);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return {std::move(name), {}};
}

}  // namespace syncstate::tcp

#endif
