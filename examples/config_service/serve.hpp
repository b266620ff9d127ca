// `serve FILE`: hosts the leaves of a JSON file until a signal ends it.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SERVE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SERVE_HPP

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <iostream>
#include <stdexcept>
#include <string>
#include <syncstate/tcp/state_server.hpp>
#include <utility>

#include "credentials.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "read_json.hpp"

namespace config_service {

struct ServeOptions {
  std::string file;
  std::string listen = "127.0.0.1:7447";
  std::string folder = default_folder();
  std::string certificate;
  std::string key;
  std::string password_file;
  bool is_quiet = false;
};

using Server = syncstate::tcp::TcpStateServer<std::string, Json, SetLeaf>;

/// The hook: sets the leaf, or says why not, which reaches the sender.
inline void apply(Map& map, const SetLeaf& change, const syncstate::EventContext& from, bool is_quiet) {
  const Json* const before = is_pointer(change.pointer) ? map.get(change.pointer) : nullptr;
  if (before == nullptr)
    throw std::runtime_error(pointer_text(change.pointer) + " is no leaf of this document");
  if (!is_quiet) {
    const std::string line = printable(from.peer_address) + " sets " + pointer_text(change.pointer) + ": " +
                             json_text(*before) + " -> " + json_text(change.value) + "\n";
    std::cout << line << std::flush;
  }
  map.set(change.pointer, change.value);
}

/// Starts it; an error names the files that are in use.
inline void start(Server& server, const Credentials& files) {
  try {
    server.start();
  } catch (const syncstate::StateError& error) {
    if (error.code() != syncstate::StateErrc::invalid_option) throw;
    throw Failure(ExitCode::command_line, printable(error.detail()) + " (certificate " +
                                              printable(files.certificate.path) + ", key " +
                                              printable(files.key.path) + ")");
  }
}

inline ExitCode serve(const ServeOptions& options) {
  const Credentials files =
      credentials_for_server(options.folder, options.certificate, options.key, options.password_file);
  std::signal(SIGPIPE, SIG_IGN);  // who reads our output may go; the service stays
  asio::io_context context;
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([](std::error_code, int) {});

  Map map = read_json(options.file);
  map.freeze();
  const auto hash = map.hash().hex();
  const auto keys = map.size();

  std::string key = read_private_file(files.key, Privacy::secret);
  const auto tls =
      syncstate::tcp::ServerTls::from_pem(read_private_file(files.certificate, Privacy::public_), key);
  OPENSSL_cleanse(key.data(), key.size());
  Server server(syncstate::tcp::ServerOptions{.endpoint = options.listen,
                                              .tls = tls,
                                              .password = read_server_password(files.password),
                                              .allow_uploads = false,
                                              .hook_threads = 1});
  server.add_hook([is_quiet = options.is_quiet](Map& state, const syncstate::Event<SetLeaf>& event,
                                                const syncstate::EventContext& from) {
    apply(state, event.content, from, is_quiet);
  });
  server.host(std::move(map));
  start(server, files);

  const auto made = [](bool is_new) { return is_new ? " (made just now)" : ""; };
  std::cout << "serving   " << printable(options.file) << ", " << keys
            << (keys == 1 ? " key\n" : " keys\n")  //
            << "hash      " << hash << "\n"
            << "trust     " << printable(files.certificate.path) << made(files.is_certificate_new) << "\n"
            << "password  " << printable(files.password.path) << made(files.is_password_new) << "\n"
            << "listening " << server.endpoint() << std::endl;
  context.run();
  std::cout << "stopped" << std::endl;
  return ExitCode::success;
}

}  // namespace config_service

#endif
