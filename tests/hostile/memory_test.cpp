// What one link can make a server hold, by each kind of frame: no more than the account of a link says.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hostile/attacker.hpp"
#include "hostile/target.hpp"
#include "support/catch.hpp"

namespace hostile::memory_test {
namespace {

/// Sends frames and reads nothing, unless it is told to, until all are sent or the server has closed.
class Flood {
 public:
  explicit Flood(const Target& target) : attacker_("127.0.0.2", target.endpoint()) {
    REQUIRE(attacker_.log_in());
    attacker_.reads = false;
  }

  template <class Message>
  void send(const Message& message) {
    attacker_.offer_frame(message);
    if (++offered_ % 16 == 0) attacker_.flush();
  }
  void send_bytes(ss::ByteView bytes) { attacker_.send_bytes(bytes); }
  /// Reads from now on, until such a message came; none once the server has closed.
  template <class Message>
  std::optional<Message> wait_for() {
    read();
    return attacker_.wait_for<Message>();
  }
  /// Reads from now on what comes, while it sends.
  void read() { attacker_.reads = true; }
  void finish() { attacker_.flush(); }
  [[nodiscard]] bool is_over() { return attacker_.peer().is_at_end; }

 private:
  Attacker attacker_;
  std::size_t offered_ = 0;
};

struct Kind {
  const char* name;
  std::function<void(Flood&, const Target&)> run;
  bool is_upload = false;
  bool is_run = false;  ///< the map that is changed keeps the last diffs
};

/// What all initial states together may take in the tests of uploads.
constexpr std::size_t all_map_bytes = std::size_t{16} << 20;

std::string long_type(std::size_t number) {
  std::string type = std::to_string(number);
  type.resize(protocol::most_type_bytes, 't');
  return type;
}

constexpr protocol::ChannelId channels = 1'000;
constexpr std::size_t many = 20'000;
constexpr std::size_t mebibyte_bytes = std::size_t{1} << 20;

void open_all(Flood& flood, const Target& target, protocol::FollowMode mode = protocol::FollowMode::none) {
  for (protocol::ChannelId i = 1; i <= channels && !flood.is_over(); ++i) {
    flood.send(open_frame(i, target.home_hash(), mode));
  }
}

void send_upload(Flood& flood, protocol::ChannelId channel, ss::ByteView bytes) {
  protocol::Upload upload;
  upload.channel = channel;
  upload.bytes = bytes;
  flood.send(upload);
}

/// Gets a sender on a channel that is opened.
void open_for_events(Flood& flood, protocol::ChannelId channel, const ss::MapHash& hash) {
  flood.send(open_frame(channel, hash));
  flood.send(protocol::GetSender{channel, 0});
  flood.send(protocol::EventType{channel, ss::type_name<Set>()});
}

/// Sends an event this many times on a channel that is open for events.
void send_events(Flood& flood, protocol::ChannelId channel, const Event& event, std::uint64_t count) {
  const ss::Bytes content = event.serialize();
  for (std::uint64_t i = 1; i <= count && !flood.is_over(); ++i)
    flood.send(protocol::EventMessage{channel, i, content});
}

/// Sends an event this many times to the map that the server always hosts.
void send_home(Flood& flood, const Target& target, const Event& event, std::uint64_t count) {
  open_for_events(flood, 1, target.home_hash());
  flood.read();
  send_events(flood, 1, event, count);
}

/// Sends events for a map in whose hooks the first of them waits.
void send_to_waiting_hooks(Flood& flood, std::size_t value_bytes) {
  const InitialState held = initial_state({{"held", "the hook waits"}});
  flood.send(open_frame(1, held.map.hash()));
  REQUIRE(flood.wait_for<protocol::UploadWanted>());
  send_upload(flood, 1, held.bytes);
  flood.send(protocol::UploadEnd{1});
  REQUIRE(flood.wait_for<protocol::Opened>());
  open_for_events(flood, 2, held.map.hash());
  send_events(flood, 2, Event{{"held", std::string(value_bytes, 'x')}}, many);
}

/// Sends initial states, each in frames of `frame`, for as long as the server wants any.
void send_uploads(Flood& flood, const std::function<ss::Bytes(std::size_t)>& frame, std::size_t frames) {
  for (protocol::ChannelId i = 1; i <= 5 && !flood.is_over(); ++i) {
    flood.send(open_frame(i, made_up_hash(i)));
    const bool is_wanted = flood.wait_for<protocol::UploadWanted>().has_value();
    REQUIRE((is_wanted || i > 1));
    if (!is_wanted) return;  // what came behind a refusal ended the session
    for (std::size_t number = 0; number < frames && !flood.is_over(); ++number) {
      const ss::Bytes bytes = frame(number);
      send_upload(flood, i, bytes);
    }
  }
}

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all{
      {"open, of maps that nobody has",
       [](Flood& flood, const Target&) {
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) {
           flood.send(open_frame(i, made_up_hash(i)));
         }
       }},
      {"open, with types of 4 KiB",
       [](Flood& flood, const Target&) {
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) {
           protocol::Open open = open_frame(i, made_up_hash(1));
           open.key_type = open.value_type = long_type(i);
           flood.send(open);
         }
       }},
      {"open, and followed",
       [](Flood& flood, const Target& target) { open_all(flood, target, protocol::FollowMode::every_step); }},
      {"close, behind each open",
       [](Flood& flood, const Target& target) {
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) {
           flood.send(open_frame(i, target.home_hash()));
           flood.send(protocol::CloseChannel{i});
         }
       }},
      {"event_type, of a MiB on each channel",
       [](Flood& flood, const Target& target) {
         open_all(flood, target);
         flood.read();
         for (protocol::ChannelId i = 1; i <= channels && !flood.is_over(); ++i) {
           flood.send(protocol::EventType{i, std::to_string(i) + std::string(std::size_t{1'000} << 10, 't')});
         }
       }},
      {"event_type, of 4 KiB on each channel",
       [](Flood& flood, const Target& target) {
         open_all(flood, target);
         for (protocol::ChannelId i = 1; i <= channels && !flood.is_over(); ++i) {
           flood.send(protocol::EventType{i, long_type(i)});
         }
       }},
      {"event_part, on each channel",
       [](Flood& flood, const Target& target) {
         open_all(flood, target);
         const ss::Bytes bytes(1'040);
         for (std::size_t i = 0; i < many && !flood.is_over(); ++i) {
           flood.send(protocol::EventPart{1 + i % channels, bytes});
         }
       }},
      {"event, of a MiB, while hooks wait",
       [](Flood& flood, const Target&) { send_to_waiting_hooks(flood, mebibyte_bytes - 200); }},
      {"event, of few bytes, while hooks wait",
       [](Flood& flood, const Target&) { send_to_waiting_hooks(flood, 1); }},
      {"event, of a MiB, that runs at once",
       [](Flood& flood, const Target& target) {
         // Another key than the one that honest clients set: these events may run after theirs.
         send_home(flood, target, Event{{"b", std::string(mebibyte_bytes - 200, 'x')}}, 100);
       },
       false, true},
      {"event, that fails with a long text",
       [](Flood& flood, const Target& target) {
         send_home(flood, target, Event{{std::string(100'000, 'x'), ""}}, 1'000);
       }},
      {"upload, of values that are not whole",
       [](Flood& flood, const Target&) {
         send_uploads(
             flood,
             [](std::size_t number) {
               ss::Bytes bytes;
               ss::ByteWriter out(bytes);
               if (number == 0) {
                 out.put_sized(std::string_view("key"));
                 out.put_varint(std::uint64_t{16} << 20);
               }
               bytes.resize(mebibyte_bytes - 100);
               return bytes;
             },
             15);
       },
       true},
      {"upload, of very many small entries",
       [](Flood& flood, const Target&) {
         send_uploads(
             flood,
             [](std::size_t number) {
               ss::Bytes bytes;
               ss::ByteWriter out(bytes);
               for (std::size_t i = 0; bytes.size() < mebibyte_bytes - 100; ++i) {
                 const std::size_t key = (number << 20) + i;
                 const char digits[] = {static_cast<char>(key >> 16), static_cast<char>(key >> 8),
                                        static_cast<char>(key)};
                 out.put_sized(std::string_view(digits, 3));
                 out.put_sized(std::string_view());
               }
               return bytes;
             },
             4);
       },
       true},
      {"get_update_id",
       [](Flood& flood, const Target& target) {
         open_all(flood, target);
         for (protocol::ChannelId i = channels + 1; i <= 5 * many && !flood.is_over(); ++i) {
           flood.send(protocol::GetUpdateId{i, 1 + i % channels});
         }
       }},
      {"get_diff",
       [](Flood& flood, const Target& target) {
         open_all(flood, target);
         for (protocol::ChannelId i = channels + 1; i <= many && !flood.is_over(); ++i) {
           flood.send(protocol::GetDiff{i, 1 + i % channels, ss::Position{}, 0});
         }
       }},
      {"fetch",
       [](Flood& flood, const Target& target) {
         const std::string type = ss::type_name<std::string>();
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) {
           flood.send(protocol::Fetch{i, target.home_hash(), type, type});
         }
       }},
      {"fetch, with types of 4 KiB",
       [](Flood& flood, const Target& target) {
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) {
           const std::string type = long_type(i);
           flood.send(protocol::Fetch{i, target.home_hash(), type, type});
         }
       }},
      {"list",
       [](Flood& flood, const Target&) {
         for (protocol::ChannelId i = 1; i <= many && !flood.is_over(); ++i) flood.send(protocol::List{i});
       }},
      {"half a frame of any kind, a byte to a record at its end",
       [](Flood& flood, const Target&) {
         const ss::Bytes content(mebibyte_bytes - 100);
         ss::Bytes frame;
         protocol::append_frame(frame, protocol::EventPart{1, content});
         frame.resize(frame.size() - 1);
         flood.send_bytes(ss::ByteView(frame).first(frame.size() - 1'000));
         for (const std::byte& byte : ss::ByteView(frame).last(1'000)) flood.send_bytes({&byte, 1});
       }},
  };
  return all;
}

}  // namespace

TEST_CASE("hostile: whatever a link sends, the server's memory grows by no more than a link's account") {
  const ss::Limits limits;
  TargetOptions for_uploads;
  for_uploads.limits.all_map_bytes = all_map_bytes;
  const double account =
      static_cast<double>(limits.link_bytes + limits.event_bytes_in_flight + 2 * limits.frame_bytes);
  // The allocator's rounding, OpenSSL's buffers, and what honest clients make the server do meanwhile.
  const double allowance = 8 * mebibyte;
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    Target target(kind.is_upload ? for_uploads : TargetOptions{});
    target.remember_memory();
    {
      Flood flood(target);
      kind.run(flood, target);
      flood.finish();
      target.check_still_serves();  // the link is open, if the server has not ended it
    }
    target.check_files_are_closed();
    target.check_still_serves();
    const double log = kind.is_run ? static_cast<double>(ss::MapOptions{}.log_bytes) : 0;
    const double most = kind.is_upload ? static_cast<double>(all_map_bytes) : account + log;
    target.check_memory(kind.name, most + allowance);
  }
}

}  // namespace hostile::memory_test
