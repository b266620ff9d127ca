// Reads password files: one line of visible text.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PASSWORD_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PASSWORD_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <syncstate/protocol/peer_text.hpp>

#include "printable.hpp"
#include "private_files.hpp"

namespace config_service {

/// Names an invisible part of a password, which an editor may have left there; empty if there is none.
inline std::string invisible_part(std::string_view password) {
  namespace utf8 = syncstate::protocol::utf8;
  const auto is_blank = [](std::uint32_t code) {
    return code == ' ' || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) ||
           code == 0x202f || code == 0x205f || code == 0x3000;
  };
  bool is_first = true;
  while (!password.empty()) {
    const auto [code, bytes] = utf8::read(password);
    const std::string_view character = password.substr(0, bytes);
    password.remove_prefix(bytes);
    if (code == '\n' || code == '\r') return "more than one line";
    if (is_blank(code) && is_first) return "a blank before the password";
    if (is_blank(code) && password.empty()) return "a blank after the password";
    // Bytes of another encoding are allowed: the two sides compare them as they are.
    if (code != utf8::invalid && printable(character) != character) {
      return "a character that can't be seen (" + printable(character) + ")";
    }
    is_first = false;
  }
  return {};
}

/// Returns the password in a file: its contents without the line end and the byte order mark that editors add. Nothing
/// else is dropped: invisible characters are refused, because the other side may read them in another way.
/// Errors: Failure for such a file, for an empty one, and for one that others may read or change.
inline std::string read_password(const PrivateFile& file) {
  std::string password = read_private_file(file, Privacy::secret);
  if (password.starts_with("\xff\xfe") || password.starts_with("\xfe\xff")) {
    refuse_file(file.path, "is UTF-16 text: save it as UTF-8, or as plain ASCII");
  }
  if (password.starts_with("\xef\xbb\xbf")) password.erase(0, 3);
  if (password.ends_with('\n')) password.pop_back();
  if (password.ends_with('\r')) password.pop_back();
  if (password.empty()) refuse_file(file.path, "is empty: a password file holds the password");
  if (const std::string part = invisible_part(password); !part.empty()) {
    refuse_file(file.path, "holds " + part + ": it must hold one line, the password and nothing else");
  }
  return password;
}

/// Reads the server's own password, which must not be guessed.
/// Errors: Failure, also for a password of fewer than 8 bytes.
inline std::string read_server_password(const PrivateFile& file) {
  constexpr std::size_t least = 8;
  std::string password = read_password(file);
  if (password.size() < least) {
    refuse_file(file.path, "holds a password of " + std::to_string(password.size()) +
                               (password.size() == 1 ? " byte" : " bytes") +
                               ", and fewer than 8 are guessed soon: type  openssl rand -hex 24 >" +
                               shell_quoted(file.path));
  }
  return password;
}

}  // namespace config_service

#endif
