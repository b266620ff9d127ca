// Serves any JSON file as a configuration that other processes follow: each leaf is a key, and who changes
// one changes it everywhere within a moment. `config_service --help` tells the rest.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>

#include "config_service/client.hpp"
#include "config_service/commands.hpp"
#include "config_service/console.hpp"
#include "config_service/failure.hpp"
#include "config_service/printable.hpp"
#include "config_service/serve.hpp"
#include "config_service/watch.hpp"

using namespace config_service;

namespace {

constexpr const char* description =
    "Serves any JSON file as a configuration that other processes follow over TLS.\n"
    "\n"
    "Every leaf of the document (a scalar, or an empty container) has a JSON pointer (RFC 6901), such as\n"
    "/servers/0/port. A leaf may be set to any JSON value; which leaves there are is fixed by the file.\n"
    "The file is read once and never written: a server that is started anew begins with the file's values.\n"
    "\n"
    "Try:  config_service serve FILE                  in one terminal,\n"
    "      config_service watch                       in a second, and\n"
    "      config_service set /some/leaf '\"value\"'    in a third.";

constexpr const char* folder_help =
    "Folder of server.crt, server.key and password, made on first use of `serve`";

CLI::App* add_serve(CLI::App& app, ServeOptions& options) {
  CLI::App* const command =
      app.add_subcommand("serve", "Host the leaves of a JSON file until SIGINT or SIGTERM");
  command->add_option("FILE", options.file, "The JSON file")->required();
  command->add_option("--listen", options.listen, "HOST:PORT to listen on; port 0: any that is free")
      ->capture_default_str();
  command->add_option("--dir", options.folder, folder_help)->capture_default_str();
  command->add_option(
      "--cert", options.certificate,
      "PEM file of the server's certificate (and its chain) instead of the development certificate, "
      "which is for localhost only");
  command->add_option("--key", options.key, "PEM file of its private key");
  command->add_option("--password-file", options.password_file,
                      "File of the password that clients must know");
  command->add_flag("--quiet", options.is_quiet, "Print no line for each change");
  return command;
}

void add_client_options(CLI::App& command, ClientOptions& options) {
  command.add_option("--connect", options.connect, "HOST:PORT of the server")->capture_default_str();
  command.add_option("--dir", options.folder, folder_help)->capture_default_str();
  command.add_option("--trust", options.trust,
                     "PEM file of the server's certificate, or of who vouches for it");
  command.add_option("--password-file", options.password_file, "File of the password");
  command.add_option(
      "--hash", options.hash,
      "Which map, by the first digits of its hash; without it the only one hosted, for `status` all");
  command.add_option("--timeout", options.timeout_seconds, "Seconds to wait for the server")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 86'400.0));
}

/// `what` to do, with its errors told on stderr.
template <class F>
ExitCode report_errors(F what) {
  try {
    const ExitCode code = what();
    if (std::cout.flush() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
    std::cerr << "config_service: the output can't be written\n";
    return ExitCode::file;
  } catch (const Failure& failure) {
    std::cerr << "config_service: " << printable_lines(failure.what()) << "\n";
    return failure.code();
  } catch (const syncstate::StateError& error) {
    const std::string advice = advice_for(error.code());
    std::cerr << "config_service: " << printable(error.what()) << (advice.empty() ? "" : ". " + advice)
              << "\n";
    return exit_code_for(error.code());
  } catch (const std::exception& error) {
    std::cerr << "config_service: " << printable(error.what()) << "\n";
    return ExitCode::unexpected;
  }
}

/// Returns true if an argument looks as if it gave the password itself.
bool gives_password(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool is_option = argument.starts_with("--pass") || argument.starts_with("-p");
    if (is_option && argument != "--password-file" && !argument.starts_with("--password-file=")) return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  CLI::App app{description, "config_service"};
  app.require_subcommand(1);
  app.footer(exit_code_help);

  ServeOptions serve_options;
  WatchOptions watch_options;
  ClientOptions client;
  std::string pointer;
  std::string value;
  ExitCode code = ExitCode::success;
  const auto run = [&code](auto what) { code = report_errors(what); };

  add_serve(app, serve_options)->callback([&] { run([&] { return serve(serve_options); }); });

  CLI::App* command = app.add_subcommand("watch", "Print each change as it arrives, until SIGINT or SIGTERM");
  add_client_options(*command, watch_options.client);
  command->add_option("--count", watch_options.count, "End after so many changes");
  command->add_flag(
      "--every-step", watch_options.every_step,
      "See each commit, also those that were soon overwritten, as long as the server remembers them");
  command->callback([&] { run([&] { return watch(watch_options); }); });

  command = app.add_subcommand("get", "Print the value at a pointer, or all that lies below it");
  command->add_option("POINTER", pointer, "For example /servers/0/port; \"\" is the document")->required();
  add_client_options(*command, client);
  command->callback([&] { run([&] { return get(client, pointer); }); });

  command =
      app.add_subcommand("set", "Change a leaf, wait for the answer, print its update id and the round trip");
  command->add_option("POINTER", pointer, "The leaf, for example /servers/0/port")->required();
  command
      ->add_option("JSON", value,
                   "Its new value: any JSON, so strings in double quotes: '\"text\"'; - reads standard input")
      ->required();
  add_client_options(*command, client);
  command->callback([&] { run([&] { return set(client, pointer, value); }); });

  command = app.add_subcommand("dump", "Print the document as it is now");
  add_client_options(*command, client);
  command->callback([&] { run([&] { return dump(client); }); });

  command = app.add_subcommand("status", "Print the state of the link, and which maps the server hosts");
  add_client_options(*command, client);
  command->callback([&] { run([&] { return status(client); }); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream complaint;  // it repeats what was typed
    const bool is_help = app.exit(error, out, complaint) == 0;
    std::cout << printable_lines(out.str());
    if (is_help || !gives_password(argc, argv)) {
      std::cerr << printable_lines(complaint.str());
    } else {
      // The complaint would repeat it.
      std::cerr << "a password is not given on the command line, where other users of this machine see it: "
                   "--password-file names a file that holds it\n";
    }
    return static_cast<int>(is_help ? ExitCode::success : ExitCode::command_line);
  }
  return static_cast<int>(code);
}
