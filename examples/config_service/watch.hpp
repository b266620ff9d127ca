// `watch`: follows a document, over restarts of the server too, and prints each change as it arrives.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_WATCH_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_WATCH_HPP

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <syncstate/replica.hpp>
#include <syncstate/status.hpp>
#include <utility>

#include "change_printer.hpp"
#include "client.hpp"
#include "console.hpp"
#include "document.hpp"
#include "failure.hpp"
#include "on_signal.hpp"
#include "printable.hpp"

namespace config_service {

struct WatchOptions {
  ClientOptions client;
  std::uint64_t count = 0;  ///< end after so many changes; 0: never
  bool every_step = false;
};

/// Threads: changes are printed on the replica's thread, as they come, at the pace of their reader; everything else
///          runs on the thread of `run`.
class Watch {
 public:
  explicit Watch(const WatchOptions& options) : options_(options) {}

  /// Returns after a signal, or when enough changes were printed.
  /// Errors: Failure and StateError while it has not begun to watch; Failure if some of the changes counted are missing
  ///         in the output.
  ExitCode run() {
    remote_ = make_remote(options_.client);
    wait_until_live(remote_, options_.client);
    follow(attach(remote_, options_.client));
    {
      // Before and after this block a signal ends the program at once.
      const OnSignal on_signal([this] { end(); });
      const auto stay = asio::make_work_guard(context_);
      context_.run();
    }
    replica_.reset();
    const bool is_done = !is_signalled_ && printer_->is_done();
    const bool is_whole = console_.finish(is_done ? std::nullopt : std::optional(patience));
    if (is_done && !is_whole) throw Failure(ExitCode::file, "the output can't be written");
    return ExitCode::success;
  }

 private:
  void follow(Map map) {
    replica_.reset();  // waits for its callbacks
    is_live_ = false;
    replica_ = std::make_unique<Replica>(std::move(map),
                                         syncstate::ReplicaOptions{.every_step = options_.every_step});
    if (!printer_) printer_.emplace(console_, replica_->view(), options_.count);
    replica_->on_update([this, replica = replica_.get()](const Diff& diff, const View& before) {
      printer_->advance(*replica, &diff, &before);
      if (printer_->is_done()) context_.stop();
    });
    replica_->on_status(
        [this, replica = replica_.get()](const syncstate::LinkStatus&) { hear_status(replica); });
    // What came before the callback was there.
    printer_->advance(*replica_);
    if (printer_->is_done()) context_.stop();
  }

  void hear_status(const Replica* from) {
    asio::post(context_, [this, from] {
      if (from == replica_.get()) status_changed(replica_->status());
    });
  }

  void status_changed(const syncstate::LinkStatus& status) {
    using syncstate::LinkState;
    if (last_status_ == status) return;
    last_status_ = status;
    if (status.state == LinkState::live) {
      if (!is_live_) {
        say("watching " + replica_->hash().hex() + " at " + printable(options_.client.connect) + ": " +
            std::to_string(replica_->view().size()) + " keys, update id " +
            std::to_string(replica_->update_id()));
      } else {
        say("live again");
      }
      is_live_ = true;
      return;
    }
    if (status.state == LinkState::connecting && !status.reason) return;
    say(describe(status));
    const bool is_gone = status.reason == syncstate::StateErrc::not_hosted ||
                         status.reason == syncstate::StateErrc::hash_mismatch;
    if (status.state == LinkState::failed && is_gone) change_document();
  }

  /// The server is there, but not our map: its file has changed.
  void change_document() {
    if (!options_.client.hash.empty()) {
      say("the server hosts another document now: its file has changed. Waiting for " +
          printable(options_.client.hash) + "; without --hash the new one would be watched");
      return;
    }
    try {
      Map map = attach(remote_, options_.client);
      say("the server hosts another document now: its file has changed. Going on with that one");
      follow(std::move(map));
    } catch (const std::exception& error) {
      if (is_signalled_) return;
      say(std::string("the document that we watched is gone: ") + error.what());
      retry_.expires_after(std::chrono::seconds(1));
      retry_.async_wait([this](std::error_code cancelled) {
        if (!cancelled && (!replica_ || replica_->status().state != syncstate::LinkState::live))
          change_document();
      });
    }
  }

  /// Ends `run`, also while a callback waits for the reader of the output, or `attach` for the server.
  void end() {
    is_signalled_ = true;
    remote_->stop();
    console_.out().give_up();
    context_.stop();
  }

  void say(const std::string& text) { console_.err().write(printable_lines(text)); }

  WatchOptions options_;
  Console console_;
  asio::io_context context_;
  asio::steady_timer retry_{context_};
  std::shared_ptr<Remote> remote_;
  std::optional<ChangePrinter> printer_;
  std::unique_ptr<Replica> replica_;  // last: its callbacks use what is above
  std::optional<syncstate::LinkStatus> last_status_;
  bool is_live_ = false;
  std::atomic<bool> is_signalled_ = false;
};

inline ExitCode watch(const WatchOptions& options) { return Watch(options).run(); }

}  // namespace config_service

#endif
