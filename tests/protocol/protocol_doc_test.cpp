// Holds docs/protocol.md to what the library does: its examples, its kinds of messages, its error numbers.
#include <cctype>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "session_harness.hpp"
#include "support/catch.hpp"
#include "syncstate/syncstate.hpp"

namespace protocol_doc_test {

namespace {

using namespace syncstate;
using namespace syncstate::testing;
using wire::FrameKind;

const std::string& document() {
  static const std::string text = [] {
    std::ifstream file(std::string(SYNCSTATE_SOURCE_DIR) + "/docs/protocol.md", std::ios::binary);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  }();
  return text;
}

/// The bytes of every block that begins with "```hex NAME", by name; a # and what follows on its line is
/// comment.
std::multimap<std::string, std::string> hex_blocks() {
  std::multimap<std::string, std::string> blocks;
  std::istringstream lines(document());
  std::string line;
  std::string name;
  std::string digits;
  while (std::getline(lines, line)) {
    if (name.empty()) {
      if (line.rfind("```hex ", 0) == 0) name = line.substr(7);
    } else if (line == "```") {
      blocks.emplace(std::exchange(name, {}), std::exchange(digits, {}));
    } else {
      for (const char c : line.substr(0, line.find('#'))) {
        if (std::isspace(static_cast<unsigned char>(c)) == 0) digits += c;
      }
    }
  }
  return blocks;
}

/// Exhaustive: a new kind does not compile without its name here.
const char* name_of(FrameKind kind) {
  switch (kind) {
    case FrameKind::hello: return "hello";
    case FrameKind::welcome: return "welcome";
    case FrameKind::goodbye: return "goodbye";
    case FrameKind::heartbeat: return "heartbeat";
    case FrameKind::open: return "open";
    case FrameKind::upload: return "upload";
    case FrameKind::upload_end: return "upload_end";
    case FrameKind::close_channel: return "close_channel";
    case FrameKind::follow: return "follow";
    case FrameKind::unfollow: return "unfollow";
    case FrameKind::get_update_id: return "get_update_id";
    case FrameKind::get_diff: return "get_diff";
    case FrameKind::fetch: return "fetch";
    case FrameKind::list: return "list";
    case FrameKind::event_type: return "event_type";
    case FrameKind::event_part: return "event_part";
    case FrameKind::event: return "event";
    case FrameKind::opened: return "opened";
    case FrameKind::upload_wanted: return "upload_wanted";
    case FrameKind::refused: return "refused";
    case FrameKind::update_id: return "update_id";
    case FrameKind::state: return "state";
    case FrameKind::state_end: return "state_end";
    case FrameKind::hosted: return "hosted";
    case FrameKind::step: return "step";
    case FrameKind::diff: return "diff";
    case FrameKind::transfer: return "transfer";
    case FrameKind::value_part: return "value_part";
    case FrameKind::answer: return "answer";
    case FrameKind::answer_error: return "answer_error";
    case FrameKind::get_sender: return "get_sender";
    case FrameKind::sender: return "sender";
    case FrameKind::limits: return "limits";
  }
  return nullptr;
}

/// Exhaustive as well.
const char* name_of(StateErrc code) {
  switch (code) {
    case StateErrc::frozen: return "frozen";
    case StateErrc::unfrozen: return "unfrozen";
    case StateErrc::key_not_found: return "key_not_found";
    case StateErrc::duplicate_key: return "duplicate_key";
    case StateErrc::wrong_position: return "wrong_position";
    case StateErrc::wrong_epoch: return "wrong_epoch";
    case StateErrc::epoch_changed: return "epoch_changed";
    case StateErrc::in_transaction: return "in_transaction";
    case StateErrc::unauthorized: return "unauthorized";
    case StateErrc::forbidden: return "forbidden";
    case StateErrc::unavailable: return "unavailable";
    case StateErrc::outcome_unknown: return "outcome_unknown";
    case StateErrc::stopped: return "stopped";
    case StateErrc::busy: return "busy";
    case StateErrc::hash_mismatch: return "hash_mismatch";
    case StateErrc::type_mismatch: return "type_mismatch";
    case StateErrc::hook_failed: return "hook_failed";
    case StateErrc::init_failed: return "init_failed";
    case StateErrc::already_hosted: return "already_hosted";
    case StateErrc::too_large: return "too_large";
    case StateErrc::would_deadlock: return "would_deadlock";
    case StateErrc::decode_error: return "decode_error";
    case StateErrc::protocol_error: return "protocol_error";
    case StateErrc::version_mismatch: return "version_mismatch";
    case StateErrc::not_hosted: return "not_hosted";
    case StateErrc::peer_silent: return "peer_silent";
    case StateErrc::certificate_rejected: return "certificate_rejected";
    case StateErrc::tls_failed: return "tls_failed";
    case StateErrc::invalid_option: return "invalid_option";
    case StateErrc::already_started: return "already_started";
    case StateErrc::link_closed: return "link_closed";
    case StateErrc::not_encodable: return "not_encodable";
  }
  return nullptr;
}

/// The map that the examples are about: two keys, "0" and "1".
StateMap<std::string, std::string> example_map() {
  StateMap<std::string, std::string> map(Role::master);
  map.push("1", "Message 1");
  map.push("0", "Message 0");
  map.freeze(0s);
  return map;
}

constexpr std::string_view password = "HelloWorld";
constexpr Epoch epoch = 0x1122334455667788;
constexpr std::uint64_t sender = 0xA1A2A3A4A5A6A7A8;

Bytes example_binding() {
  Bytes binding;
  for (unsigned i = 0; i < 32; ++i) binding.push_back(static_cast<std::byte>(i));
  return binding;
}

/// What the document's examples are said to be.
class Examples {
 public:
  Examples() {
    const auto map = example_map();
    const MapHash hash = map.hash();
    const MapHash keys_hash = detail::MapAccess::frozen(map)->keys_hash();

    wire::Hello hello;
    hello.proof = wire::make_proof(password, wire::ProofRole::client, example_binding());
    add(hello);
    wire::Welcome welcome;
    welcome.proof = wire::make_proof(password, wire::ProofRole::server, example_binding());
    add(welcome);
    add(wire::ClientLimits{65'536, 1'000});
    add(wire::Goodbye{StateErrc::stopped, "the server stops"});
    Bytes beats;
    ByteWriter writer(beats);
    wire::HeartbeatEntry{1, 7}.encode(writer);
    wire::HeartbeatEntry{2, 300}.encode(writer);
    frames["heartbeat"] = to_hex(raw_frame(4, beats));

    wire::Open open;
    open.channel = 1;
    open.hash = hash;
    open.keys_hash = keys_hash;
    open.key_type = open.value_type = "string";
    open.mode = wire::FollowMode::merged;
    add(open);
    wire::Upload upload;
    upload.channel = 1;
    const Bytes initial = to_bytes(
        "\x01"
        "0\x09"
        "Message 0\x01"
        "1\x09"
        "Message 1");
    upload.bytes = initial;
    add(upload);
    add(wire::UploadEnd{1});
    add(wire::CloseChannel{1});
    wire::Follow follow;
    follow.channel = 1;
    follow.position = {epoch, 7};
    follow.mode = wire::FollowMode::every_step;
    add(follow);
    add(wire::Unfollow{1});
    add(wire::GetUpdateId{2, 1});
    add(wire::GetDiff{3, 1, {epoch, 7}, 9});
    add(wire::Fetch{4, hash, "string", "string"});
    add(wire::List{5});
    add(wire::GetSender{1, 0});
    add(wire::EventType{1, "<{string,string}>"});
    const Bytes event_bytes =
        to_bytes(std::string("\0\x01"
                             "1\x07"
                             "Updated",
                             11));
    wire::EventPart part;
    part.channel = 1;
    part.bytes = ByteView(event_bytes).first(4);
    add(part);
    wire::EventMessage event;
    event.channel = 1;
    event.number = 1;
    event.bytes = event_bytes;
    add(event);

    add(wire::Opened{1, {epoch, 7}});
    add(wire::SenderMessage{1, sender});
    add(wire::UploadWanted{1});
    add(wire::Refused{1, StateErrc::hash_mismatch, "the keys are the same", hash});
    add(wire::UpdateIdMessage{2, {epoch, 7}});
    wire::StatePiece piece;
    piece.request = 4;
    piece.bytes = initial;
    add(piece);
    add(wire::StateEnd{4});
    Bytes info;
    ByteWriter info_writer(info);
    wire::HostedMapInfo{hash, keys_hash, "string", "string", 2}.encode(info_writer);
    wire::Hosted hosted;
    hosted.request = 5;
    hosted.maps = info;
    add(hosted);
    wire::Step step;
    step.stream = 1;
    step.ordinal = 1;
    const Bytes value = to_bytes("Updated");
    step.value = value;
    add(step);
    Bytes entries;
    detail::append_entry(0, std::string("A"), entries);
    detail::append_entry(1, std::string("B"), entries);
    wire::DiffMessage diff;
    diff.stream = 1;
    diff.is_full = true;
    diff.epoch = epoch;
    diff.advance = 9;
    diff.entries = entries;
    add(diff);
    wire::Transfer transfer;
    transfer.stream = 1;
    transfer.entries = entries;
    add(transfer);
    wire::ValuePart value_part;
    value_part.stream = 1;
    value_part.ordinal = 1;
    value_part.total = 300'000;
    value_part.offset = 299'998;
    value_part.bytes = ByteView(value).first(2);
    add(value_part);
    add(wire::Answer{1, 1, 8});
    add(wire::AnswerError{1, 2, StateErrc::hook_failed, "no such lobby"});
  }

  std::map<std::string, std::string> frames;  ///< by name, in hexadecimal digits
  std::vector<std::string> not_decodable;     ///< those that do not come back as they were

 private:
  template <class Message>
  void add(const Message& message) {
    const Bytes frame = frame_of(message);
    const OwnedFrame read = split_frames(frame).at(0);
    const std::string name = name_of(Message::kind);
    if (read.kind != Message::kind || frame_of(wire::decode_body<Message>(read.body)) != frame) {
      not_decodable.push_back(name);
    }
    frames[name] = to_hex(frame);
  }
};

}  // namespace

TEST_CASE("the protocol's examples are what the library sends", "[protocol][docs]") {
  const Examples examples;
  CHECK(examples.not_decodable.empty());
  const auto blocks = hex_blocks();
  for (const auto& [name, frame] : examples.frames) {
    INFO("example " << name);
    CHECK(blocks.count(name) == 1);
    const auto found = blocks.find(name);
    if (found != blocks.end()) CHECK(found->second == frame);
  }
}

TEST_CASE("the protocol's document has every kind of message and its number", "[protocol][docs]") {
  const Examples examples;
  int kinds = 0;
  for (int number = 0; number < 256; ++number) {
    const char* name = name_of(static_cast<FrameKind>(number));
    if (name == nullptr) continue;
    ++kinds;
    INFO("kind " << number << " " << name);
    CHECK(examples.frames.count(name) == 1);
    CHECK_THAT(document(), contains_text("| " + std::to_string(number) + " | `" + name + "` |"));
  }
  CHECK(kinds == 33);
}

TEST_CASE("the protocol's document has every error and its number", "[protocol][docs]") {
  for (int number = 1; number < 1'000; ++number) {
    const auto code = static_cast<StateErrc>(number);
    if (state_category().message(number) == "unknown syncstate error") continue;
    REQUIRE(name_of(code) != nullptr);
    INFO("error " << number);
    CHECK_THAT(document(), contains_text("| " + std::to_string(number) + " | `" + name_of(code) + "` |"));
  }
}

TEST_CASE("the document's hashes are those of its bytes", "[protocol][docs]") {
  const auto blocks = hex_blocks();
  const auto map = example_map();
  Bytes input;
  Bytes keys;
  for (const auto& [key, value] : map) {
    for (Bytes* out : {&input, &keys}) {
      ByteWriter writer(*out);
      writer.put_u64_be(key.size());
      writer.put(key);
    }
    ByteWriter writer(input);
    writer.put_u64_be(value.size());
    writer.put(value);
  }
  REQUIRE(blocks.count("hash-input") == 1);
  CHECK(blocks.find("hash-input")->second == to_hex(input));
  CHECK_THAT(document(), contains_text(map.hash().hex()));
  CHECK_THAT(document(), contains_text(detail::MapAccess::frozen(map)->keys_hash().hex()));
}

namespace {

std::string text_of(const char* file) {
  std::ifstream in(std::string(SYNCSTATE_SOURCE_DIR) + file, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

/// 16,384
std::string written(std::size_t number) {
  std::string text = std::to_string(number);
  for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

/// 8 MiB, in the largest unit of which it is a multiple.
std::string written_bytes(std::size_t bytes) {
  std::size_t unit = 0;
  const char* const units[] = {" B", " KiB", " MiB", " GiB"};
  for (; unit < 3 && bytes % 1'024 == 0; ++unit) bytes /= 1'024;
  return written(bytes) + units[unit];
}

std::string written_time(std::chrono::milliseconds time) {
  const auto seconds = time.count() / 1'000;
  REQUIRE(seconds * 1'000 == time.count());
  return seconds % 60 == 0 ? std::to_string(seconds / 60) + " min" : std::to_string(seconds) + " s";
}

}  // namespace

TEST_CASE("the table of limits names every limit there is", "[protocol][docs]") {
  const std::string header = text_of("/include/syncstate/limits.hpp");
  const std::string table = text_of("/docs/security.md");
  const std::regex field("\\n  (?:std::(?:size_t|uint64_t|chrono::milliseconds)|unsigned) (\\w+)");
  int fields = 0;
  for (std::sregex_iterator at(header.begin(), header.end(), field), end; at != end; ++at) {
    INFO("limit " << (*at)[1]);
    CHECK_THAT(table, contains_text("`" + (*at)[1].str() + "`"));
    ++fields;
  }
  CHECK(fields >= 28);
}

TEST_CASE("the table of limits has the defaults", "[protocol][docs]") {
  const Limits d;
  const std::vector<std::pair<std::string, std::string>> defaults{
      {"authentication_time", written_time(d.authentication_time)},
      {"pending_links", written(d.pending_links)},
      {"links", written(d.links)},
      {"links_per_address", written(d.links_per_address)},
      {"failed_proofs_per_minute", written(d.failed_proofs_per_minute)},
      {"unproven_links_per_minute", written(d.unproven_links_per_minute)},
      {"addresses", written(d.addresses)},
      {"client_hello_bytes", written_bytes(d.client_hello_bytes)},
      {"certificate_chain_bytes", written_bytes(d.certificate_chain_bytes)},
      {"key_updates_per_minute", written(d.key_updates_per_minute)},
      {"link_bytes", written_bytes(d.link_bytes)},
      {"own_link_bytes", written_bytes(d.own_link_bytes)},
      {"all_link_bytes", written_bytes(d.all_link_bytes)},
      {"frame_bytes_before_authentication", written_bytes(d.frame_bytes_before_authentication)},
      {"frame_bytes", written_bytes(d.frame_bytes)},
      {"piece_bytes", written_bytes(d.piece_bytes)},
      {"maps", written(d.maps)},
      {"keys_per_map", written(d.keys_per_map >> 20) + " Mi"},
      {"map_bytes", written_bytes(d.map_bytes)},
      {"all_map_bytes", written_bytes(d.all_map_bytes)},
      {"upload_silence", written_time(d.upload_silence)},
      {"upload_patience", written_time(d.upload_patience)},
      {"upload_time", written_time(d.upload_time)},
      {"value_bytes", written_bytes(d.value_bytes)},
      {"staged_bytes", written_bytes(d.staged_bytes)},
      {"event_bytes", written_bytes(d.event_bytes)},
      {"events_in_flight", written(d.events_in_flight)},
      {"event_bytes_in_flight", written_bytes(d.event_bytes_in_flight)},
      {"all_event_bytes", written_bytes(d.all_event_bytes)},
      {"requests_in_flight", written(d.requests_in_flight)},
      {"answers_per_sender", written(d.answers_per_sender)},
      {"senders_per_map", written(d.senders_per_map)},
      {"answer_bytes_per_map", written_bytes(d.answer_bytes_per_map)},
      {"all_answer_bytes", written_bytes(d.all_answer_bytes)},
      {"heartbeat_every", written_time(d.heartbeat_every)},
      {"silence", written_time(d.silence)},
      {"transfer_rounds", std::to_string(d.transfer_rounds)},
  };
  const std::string header = text_of("/include/syncstate/limits.hpp");
  const std::regex field("\\n  (?:std::(?:size_t|uint64_t|chrono::milliseconds)|unsigned) (\\w+)");
  CHECK(std::distance(std::sregex_iterator(header.begin(), header.end(), field), {}) ==
        static_cast<std::ptrdiff_t>(defaults.size()));
  const std::string table = text_of("/docs/security.md");
  for (const auto& [name, value] : defaults) {
    INFO(name << " is " << value);
    // Its row, with the name in the first column and the value, not as a part of another number, in the second.
    const std::regex row("\\n\\| (?:`\\w+`, )*`" + name + "`(?:, `\\w+`)* \\| (?:[^|\\n]*[^|\\n0-9,.])?" +
                         value + "(?![0-9,]*[0-9])[^|\\n]*\\|");
    CHECK(std::regex_search(table, row));
  }
}

TEST_CASE("the sum over the limits is that of the defaults", "[protocol][docs]") {
  const Limits d;
  std::string text = text_of("/docs/security.md");
  text = text.substr(text.find("**The sum.**"));
  text = text.substr(0, text.find("\n## "));
  text = std::regex_replace(text, std::regex("\\n *"), " ");
  const auto mebibytes = [](std::size_t bytes) {
    REQUIRE(bytes % (1 << 20) == 0);
    return bytes >> 20;
  };
  const auto gibibytes = [](std::size_t bytes) {
    REQUIRE(bytes % (1 << 30) == 0);
    return bytes >> 30;
  };
  std::ostringstream link;
  link << mebibytes(d.link_bytes) << " + " << mebibytes(d.event_bytes_in_flight) << " + "
       << mebibytes(2 * d.frame_bytes) << " = "
       << mebibytes(d.link_bytes + d.event_bytes_in_flight + 2 * d.frame_bytes) << " MiB";
  CHECK_THAT(text, contains_text(link.str()));

  const std::size_t all_links = d.links * d.own_link_bytes + d.all_link_bytes + d.all_event_bytes;
  std::ostringstream links;
  links << gibibytes(d.links * d.own_link_bytes) << " + " << gibibytes(d.all_link_bytes) << " + "
        << gibibytes(d.all_event_bytes) << " = " << gibibytes(all_links) << " GiB, if all "
        << written(d.links) << " are used";
  CHECK_THAT(text, contains_text(links.str()));

  // What tests measure: tests/tcp/pending_memory_test.cpp and tests/protocol/account_test.cpp.
  const std::size_t below = d.links * (std::size_t{56 + 64} << 10);
  CHECK_THAT(text, contains_text("`links` × (56 + 64) KiB = " + written(mebibytes(below)) + " MiB"));
  const std::size_t addresses = (d.addresses + d.links) * 768;
  CHECK_THAT(text, contains_text("(`addresses` + `links`) × 0.75 KiB = " + written_bytes(addresses)));

  CHECK_THAT(text, contains_text("`all_map_bytes` = " + written_bytes(d.all_map_bytes)));
  CHECK_THAT(text, contains_text("`answer_bytes_per_map` = " + written_bytes(d.answer_bytes_per_map)));
  CHECK_THAT(text, contains_text("`all_answer_bytes` = " + written_bytes(d.all_answer_bytes)));

  const std::size_t all = all_links + below + addresses + d.all_map_bytes + d.all_answer_bytes;
  std::ostringstream sum;
  sum.precision(1);
  sum << std::fixed << "together " << static_cast<double>(all) / (1 << 30) << " GiB";
  CHECK_THAT(text, contains_text(sum.str()));
}

}  // namespace protocol_doc_test
