// What one link can make a server hold, by each kind of frame: no more than the account of a link says.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hostile/attacker.hpp"
#include "hostile/target.hpp"
#include "support/catch.hpp"

namespace hostile::memory_test {
namespace {

/// Sends frames and reads nothing, until all are sent or the server has closed.
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
  void finish() { attacker_.flush(); }
  [[nodiscard]] bool is_over() { return attacker_.peer().is_at_end; }

 private:
  Attacker attacker_;
  std::size_t offered_ = 0;
};

struct Kind {
  const char* name;
  std::function<void(Flood&, const Target&)> run;
};

std::string long_type(std::size_t number) {
  std::string type = std::to_string(number);
  type.resize(protocol::most_type_bytes, 't');
  return type;
}

constexpr protocol::ChannelId channels = 1'000;
constexpr std::size_t many = 20'000;

void open_all(Flood& flood, const Target& target, protocol::FollowMode mode = protocol::FollowMode::none) {
  for (protocol::ChannelId i = 1; i <= channels && !flood.is_over(); ++i) {
    flood.send(open_frame(i, target.home_hash(), mode));
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
         const ss::Bytes content(mebibyte - 100);
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
  const double account =
      static_cast<double>(limits.link_bytes + limits.event_bytes_in_flight + 2 * limits.frame_bytes);
  // The allocator's rounding, OpenSSL's buffers, and what honest clients make the server do meanwhile.
  const double allowance = 8 * mebibyte;
  for (const Kind& kind : kinds()) {
    INFO(kind.name);
    Target target;
    target.remember_memory();
    {
      Flood flood(target);
      kind.run(flood, target);
      flood.finish();
      target.check_still_serves();  // the link is open, if the server has not ended it
    }
    target.check_files_are_closed();
    target.check_still_serves();
    target.check_memory(kind.name, account + allowance);
  }
}

}  // namespace hostile::memory_test
