// `serve FILE`: hosts the leaves of a JSON file until a signal ends it.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SERVE_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_SERVE_HPP

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <string>
#include <syncstate/tcp/state_server.hpp>
#include <utility>

#include "console.hpp"
#include "credentials.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "password.hpp"
#include "printable.hpp"
#include "read_json.hpp"
#include "set_leaf.hpp"

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

/// Returns the log line for a change.
inline std::string change_line(const SetLeaf& change, const Json& before,
                               const syncstate::EventContext& from) {
  return printable(from.peer_address) + " sets " + pointer_text(change.pointer) + ": " + json_text(before) +
         " -> " + json_text(change.value);
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

/// Serves until SIGINT or SIGTERM. Failures of the output change neither that nor the exit code.
/// Errors: Failure and StateError while it has not begun to serve.
inline ExitCode serve(const ServeOptions& options) {
  const Credentials files =
      credentials_for_server(options.folder, options.certificate, options.key, options.password_file);
  // If the reader of the output goes, or a file reaches its limit, the service goes on.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);

  Map map = read_json(options.file);
  map.freeze();
  const auto hash = map.hash().hex();
  const auto keys = map.size();

  std::string key = read_private_file(files.key, Privacy::secret);
  const auto tls =
      syncstate::tcp::ServerTls::from_pem(read_private_file(files.certificate, Privacy::public_), key);
  OPENSSL_cleanse(key.data(), key.size());
  Console console;
  Server server(syncstate::tcp::ServerOptions{.endpoint = options.listen,
                                              .tls = tls,
                                              .password = read_server_password(files.password),
                                              .allow_uploads = false,
                                              .hook_threads = 1});
  server.add_hook([&out = console.out(), is_quiet = options.is_quiet](Map& state,
                                                                      const syncstate::Event<SetLeaf>& event,
                                                                      const syncstate::EventContext& from) {
    const SetLeaf& change = event.content;
    const Json& before = changed_leaf(state, change);
    const std::string line = is_quiet ? std::string() : change_line(change, before, from);
    state.set(change.pointer, change.value);
    if (!is_quiet) out.write(line);
  });
  server.host(std::move(map));

  asio::io_context context;
  // Until here a signal ends the program at once.
  asio::signal_set signals(context, SIGINT, SIGTERM);
  signals.async_wait([](std::error_code, int) {});
  start(server, files);

  const auto made = [](bool is_new) { return is_new ? " (made just now)" : ""; };
  console.out().write("serving   " + printable(options.file) + ", " + std::to_string(keys) +
                      (keys == 1 ? " key" : " keys"));
  console.out().write("hash      " + hash);
  console.out().write("trust     " + printable(files.certificate.path) + made(files.is_certificate_new));
  console.out().write("password  " + printable(files.password.path) + made(files.is_password_new));
  console.out().write("listening " + server.endpoint());
  context.run();
  server.stop();
  console.out().write("stopped");
  console.finish(patience);
  return ExitCode::success;
}

}  // namespace config_service

#endif
