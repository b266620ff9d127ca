// What the commands of a client have in common: the connection, the map, and good advice.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CLIENT_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_CLIENT_HPP

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <syncstate/codec.hpp>
#include <syncstate/tcp/state_remote.hpp>
#include <vector>

#include "credentials.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "password.hpp"
#include "printable.hpp"
#include "private_files.hpp"

namespace config_service {

struct ClientOptions {
  std::string connect = "127.0.0.1:7447";
  std::string folder = default_folder();
  std::string trust;
  std::string password_file;
  std::string hash;  ///< empty: the one map that the server hosts
  double timeout_seconds = 5;
};

using Remote = syncstate::tcp::TcpStateRemote;

/// Trusts the certificates in a file that was read already; an error names the file.
inline syncstate::tcp::ClientTls trusting(const PrivateFile& file, const std::string& pem) {
  const auto tls = syncstate::tcp::ClientTls::from_pem(pem);
  try {
    (void)syncstate::tcp::TlsContext(tls);
  } catch (const syncstate::StateError& error) {
    refuse_file(file.path, "can't be used: " + printable(error.detail()));
  }
  return tls;
}

inline std::shared_ptr<Remote> make_remote(const ClientOptions& options) {
  Descriptor folder;  // open only if a file of it is needed
  const auto file_of = [&](const std::string& named, const char* name) {
    const std::string path = named.empty() ? options.folder + "/" + name : named;
    std::error_code error;
    if (!fs::exists(path, error) && !fs::is_symlink(fs::symlink_status(path, error))) {
      throw Failure(ExitCode::file,
                    "there is no " + printable(path) +
                        ": `config_service serve` makes it on first use; for a server elsewhere copy "
                        "its certificate and password to this machine and name the files by --trust and "
                        "--password-file");
    }
    if (!named.empty()) return PrivateFile{named, -1, {}};
    if (!folder.is_open()) folder = open_private_folder(options.folder, false);
    return file_in(options.folder, folder, name);
  };
  const PrivateFile trust_file = file_of(options.trust, "server.crt");
  const PrivateFile password_file = file_of(options.password_file, "password");
  const std::string trusted = read_private_file(trust_file, Privacy::public_);
  const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::duration<double>(options.timeout_seconds));
  return std::make_shared<Remote>(syncstate::tcp::RemoteOptions{
      .endpoint = options.connect,
      .tls = trusting(trust_file, trusted),
      .password = read_password(password_file),
      .event_timeout = timeout,
      .request_timeout = 12 * timeout,  // `live` saw that it can be reached; a large document takes its time
      .backoff = {.first = std::chrono::milliseconds(100), .most = std::chrono::seconds(2)}});
}

inline std::string describe(const syncstate::LinkStatus& status) {
  std::string text(to_string(status.state));
  if (status.reason == syncstate::StateErrc::unavailable && !status.detail.empty()) {
    return text + ": " + printable(status.detail);
  }
  if (status.reason) text += ": " + status.reason.message();
  if (!status.detail.empty()) text += " (" + printable(status.detail) + ")";
  return text;
}

/// Waits until the server is reached and has let us in.
/// Errors: Failure, with the reason.
inline void wait_until_live(const std::shared_ptr<Remote>& remote, const ClientOptions& options) {
  struct Latest {
    std::mutex mutex;
    std::condition_variable changed;
    syncstate::LinkStatus status;
  };
  const auto latest = std::make_shared<Latest>();
  // The callback gets the current status first, so it misses nothing.
  remote->on_status([latest](const syncstate::LinkStatus& status) {
    const std::lock_guard lock(latest->mutex);
    latest->status = status;
    latest->changed.notify_all();
  });
  using syncstate::LinkState;
  const auto is_over = [](const syncstate::LinkStatus& s) {
    return s.state == LinkState::live || s.state == LinkState::failed;
  };
  std::unique_lock lock(latest->mutex);
  latest->changed.wait_for(lock, std::chrono::duration<double>(options.timeout_seconds),
                           [&] { return is_over(latest->status); });
  const syncstate::LinkStatus& status = latest->status;
  if (status.state == LinkState::live) return;

  const bool is_refused = status.state == LinkState::failed;
  const auto code = is_refused ? exit_code_for(status.reason) : ExitCode::unreachable;
  const auto advice =
      advice_for(is_refused ? status.reason : make_error_code(syncstate::StateErrc::unavailable));
  throw Failure(code, (is_refused ? "refused by " : "no server at ") + printable(options.connect) + "; " +
                          describe(status) + (advice.empty() ? "" : ". " + advice));
}

/// True for the maps of this program.
inline bool is_document(const syncstate::HostedMapInfo& map) {
  return map.key_type == syncstate::type_name<std::string>() &&
         map.value_type == syncstate::type_name<Json>();
}

inline std::string list_of(const std::vector<syncstate::HostedMapInfo>& maps) {
  std::string text;
  for (const auto& map : maps) {
    text += "\n  " + map.hash.hex() + "  " + std::to_string(map.keys) + " keys, " + printable(map.key_type) +
            " -> " + printable(map.value_type);
  }
  return text;
}

/// Why no map is the one that was asked for; the text ends with those that the server hosts.
inline Failure wrong_map(const std::string& why, const std::vector<syncstate::HostedMapInfo>& maps) {
  return Failure(ExitCode::which_map,
                 why + (maps.empty() ? "; it hosts none" : "; it hosts" + list_of(maps)));
}

/// Returns the maps whose hash begins as `--hash` says; without that option all for which `is_meant`.
/// Errors: Failure, if `--hash` fits none.
template <class Predicate>
std::vector<syncstate::HostedMapInfo> fitting_maps(const std::vector<syncstate::HostedMapInfo>& maps,
                                                   const ClientOptions& options, Predicate is_meant) {
  std::vector<syncstate::HostedMapInfo> fitting;
  for (const auto& map : maps) {
    const bool fits = options.hash.empty() ? is_meant(map) : map.hash.hex().starts_with(options.hash);
    if (fits) fitting.push_back(map);
  }
  if (fitting.empty() && !options.hash.empty()) {
    throw wrong_map("the server hosts no map with the hash " + printable(options.hash), maps);
  }
  return fitting;
}

/// The map asked for, at the head: the one with the hash given, or the only one there is.
/// Errors: Failure; StateError.
inline Map attach(const std::shared_ptr<Remote>& remote, const ClientOptions& options) {
  const auto maps = remote->hosted();
  const auto fitting = fitting_maps(maps, options, is_document);
  if (fitting.empty()) throw wrong_map("the server hosts no JSON document", maps);
  if (fitting.size() > 1 && options.hash.empty()) throw wrong_map("which document? Say --hash", maps);
  if (fitting.size() > 1) {
    throw wrong_map("several maps have a hash that begins with " + printable(options.hash), maps);
  }
  Map map = remote->attach<std::string, Json>(fitting.front().hash);
  map.sync();
  for (const auto& [key, value] : map) {
    // A server's key of a million slashes would make `dump` indent a million lines by as much.
    if (static_cast<std::size_t>(std::count(key.begin(), key.end(), '/')) > max_document_depth) {
      throw Failure(ExitCode::which_map, "the map " + map.hash().hex() +
                                             " is no JSON document: it is nested more than 1,000 deep");
    }
    if (is_pointer(key) || key.starts_with(object_mark)) continue;
    throw Failure(ExitCode::which_map, "the map " + map.hash().hex() + " is no JSON document: it has a key " +
                                           json_text(Json(key)));
  }
  return map;
}

/// How many letters must be changed, added or removed to make `b` of `a`; `most` + 1 if that are more than
/// `most`.
inline std::size_t distance(std::string_view a, std::string_view b, std::size_t most) {
  if (std::max(a.size(), b.size()) - std::min(a.size(), b.size()) > most) return most + 1;
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    std::size_t least = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
      least = std::min(least, row[j]);
    }
    if (least > most) return most + 1;
  }
  return std::min(row[b.size()], most + 1);
}

/// Why a pointer is no leaf, and which leaves may have been meant.
inline Failure no_leaf(const Map& map, const std::string& pointer) {
  constexpr std::size_t shown = 5;
  const auto fail = [&pointer](const std::string& why) {
    return Failure(ExitCode::no_such_leaf, pointer_text(pointer) + " is no leaf: " + why);
  };
  if (!pointer.empty() && pointer.front() != '/') {
    return fail("a pointer begins with /, as in " + pointer_text("/" + pointer));
  }
  std::size_t below = 0;
  std::string examples;
  std::vector<std::pair<std::size_t, std::string>> near;
  std::size_t most = std::clamp<std::size_t>(pointer.size() / 3, 1, 4);
  for (const auto& [key, value] : map) {
    if (!is_pointer(key)) continue;
    if (pointer.size() > key.size() && pointer.starts_with(key) && pointer[key.size()] == '/') {
      return fail(pointer_text(key) + " is one, with the value " + json_text(value));
    }
    if (key.starts_with(pointer + "/")) {
      if (below++ < shown) examples += "\n  " + pointer_text(key);
    } else if (const auto d = distance(pointer, key, most); d <= most) {
      near.emplace_back(d, key);
    }
  }
  if (below > 0) {
    return fail("it holds " + std::to_string(below) + (below == 1 ? " leaf:" : " leaves:") + examples +
                (below > shown ? "\n  ..." : ""));
  }
  if (near.empty()) return fail("nothing of this name is there; `config_service dump` shows everything");
  std::sort(near.begin(), near.end());
  for (std::size_t i = 0; i < std::min(near.size(), shown); ++i)
    examples += "\n  " + pointer_text(near[i].second);
  return fail("nothing of this name is there. Similar leaves:" + examples);
}

}  // namespace config_service

#endif
