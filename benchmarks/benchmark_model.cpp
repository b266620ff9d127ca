// The model and the replica, without any network: reading, committing, freezing.
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "support/harness.hpp"
#include "support/sample_map.hpp"
#include "support/statistics.hpp"
#include "syncstate/detail/model/map_access.hpp"
#include "syncstate/detail/remote/diff_assembler.hpp"
#include "syncstate/detail/server/hosted_map.hpp"
#include "syncstate/protocol/diff_source.hpp"
#include "syncstate/replica.hpp"
#include "syncstate/syncstate.hpp"

namespace {

using namespace benchmarks;
namespace ss = syncstate;
using Diff = ss::Diff<std::string, std::string>;
using Replica = ss::Replica<std::string, std::string>;

/// Numbers below `size`, each once, in random order.
std::vector<std::size_t> shuffled(std::size_t size) {
  std::vector<std::size_t> numbers(size);
  for (std::size_t i = 0; i < size; ++i) numbers[i] = i;
  std::shuffle(numbers.begin(), numbers.end(), std::mt19937_64(1));
  return numbers;
}

/// Calls `f(i)` `calls` times, with `i` going round below `size`; returns nanoseconds per call.
template <class F>
double time_calls(std::size_t calls, std::size_t size, F f) {
  const auto start = Clock::now();
  for (std::size_t call = 0, i = 0; call < calls; ++call) {
    f(i);
    if (++i == size) i = 0;
  }
  return seconds(Clock::now() - start) * 1e9 / static_cast<double>(calls);
}

/// A remote that brings the diffs it is given, on the thread that gives them.
class Feed {
 public:
  void init(const Map&) {}
  Diff fetch_updates(const Map& map, ss::UpdateId) {
    return Diff(map, map.epoch(), map.update_id(), map.update_id());
  }
  ss::Subscription follow(const Map&, std::shared_ptr<ss::DiffSink<std::string, std::string>> sink) {
    sink_ = std::move(sink);
    return ss::Subscription(std::make_shared<int>());
  }

  [[nodiscard]] const std::shared_ptr<ss::DiffSink<std::string, std::string>>& sink() const { return sink_; }

  void bring(Diff diff) {
    if (sink_->on_diff(std::move(diff))) throw std::runtime_error("the replica refused a diff");
  }

 private:
  std::shared_ptr<ss::DiffSink<std::string, std::string>> sink_;
};

void measure_lookups(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(100'000, 1'000);
  const std::size_t calls = settings.count(2'000'000, 1'000);
  const Map map = fill(Map(ss::Role::master), size);
  std::unordered_map<std::string, std::string> plain;
  for (std::size_t i = 0; i < size; ++i) plain.emplace(sample_key(i), sample_value(i));

  const std::vector<std::size_t> order = shuffled(size);
  std::vector<std::string> keys;
  std::vector<ss::Ordinal> ordinals;
  for (const std::size_t number : order) {
    keys.push_back(sample_key(number));
    ordinals.push_back(map.key(keys.back()));
  }

  const double by_key = time_calls(calls, size, [&](std::size_t i) { keep(*map.get(keys[i])); });
  const double by_hand = time_calls(calls, size, [&](std::size_t i) { keep(plain.find(keys[i])->second); });
  std::shared_mutex mutex;
  const double by_hand_locked = time_calls(calls, size, [&](std::size_t i) {
    const std::shared_lock lock(mutex);
    keep(plain.find(keys[i])->second);
  });
  const double by_ordinal = time_calls(calls, size, [&](std::size_t i) { keep(map[ordinals[i]]); });
  report.add("`map.get(key)`", "ns", by_key);
  report.add("`std::unordered_map::find(key)`, beside it", "ns", by_hand);
  report.add("the same under a `std::shared_mutex` that nobody else takes", "ns", by_hand_locked);
  report.add("`std::unordered_map::find(key)` / `map.get(key)`", "", by_hand / by_key, "≥ 3");
  report.add("`map[ordinal]`", "ns", by_ordinal, "≤ 2");
}

/// Reads a replica, perhaps while a thread brings it one diff of one change after the other.
double time_view_reads(std::size_t calls, std::size_t size, bool has_writer, double& diffs_per_second) {
  const auto feed = std::make_shared<Feed>();
  const Map map = fill(Map(feed), size);
  Replica replica{Map(map)};
  const std::vector<std::size_t> order = shuffled(size);
  std::vector<std::string> keys;
  for (const std::size_t number : order) keys.push_back(sample_key(number));

  std::atomic<bool> is_over{false};
  std::atomic<ss::UpdateId> applied{0};
  std::thread writer;
  if (has_writer) {
    writer = std::thread([&] {
      for (ss::UpdateId id = 0; !is_over; applied = ++id) {
        Diff diff(map, 1, id, id + 1);
        diff.set(keys[id % size], sample_value(id));
        feed->bring(std::move(diff));
      }
    });
    while (applied == 0) std::this_thread::yield();
  }
  const ss::UpdateId before = applied;
  const auto start = Clock::now();
  const double nanoseconds =
      time_calls(calls, size, [&](std::size_t i) { keep(replica.view().at(keys[i])); });
  diffs_per_second = static_cast<double>(applied - before) / seconds(Clock::now() - start);
  is_over = true;
  if (writer.joinable()) writer.join();
  return nanoseconds;
}

void measure_views(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(100'000, 1'000);
  const std::size_t calls = settings.count(2'000'000, 1'000);
  double diffs_per_second = 0;
  report.add("`replica.view().at(key)`", "ns", time_view_reads(calls, size, false, diffs_per_second));
  report.add("the same while a writer applies diffs without a pause", "ns",
             time_view_reads(calls, size, true, diffs_per_second));
  report.add("what that writer applies meanwhile", "diffs/s", diffs_per_second);
}

void measure_commits(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(100'000, 1'000);
  const std::size_t calls = settings.count(500'000, 1'000);
  Map map = fill(Map(ss::Role::master), size);
  std::vector<std::string> keys;
  for (const std::size_t number : shuffled(size)) keys.push_back(sample_key(number));
  const std::string value = sample_value(7);

  const double one = time_calls(calls, size, [&](std::size_t i) { map.set(keys[i], value); });
  report.add("`map.set(key, value)`, each a commit", "commits/s", 1e9 / one, "≥ 5,000,000");

  ss::StateMap<std::string, std::int64_t> numbers(ss::Role::master);
  for (std::size_t i = 0; i < size; ++i) numbers.push(sample_key(i), 0);
  numbers.freeze();
  const double number =
      time_calls(calls, size, [&](std::size_t i) { numbers.set(keys[i], static_cast<std::int64_t>(i)); });
  report.add("the same with a number for the value", "commits/s", 1e9 / number, "≥ 5,000,000");

  constexpr std::size_t batch = 100;
  const double many = time_calls(calls / batch, size / batch, [&](std::size_t i) {
    auto change = map.begin_modification();
    for (std::size_t k = 0; k < batch; ++k) change.set(keys[i * batch + k], value);
    change.commit();
  });
  report.add("`begin_modification`, 100 times `set`, `commit`", "changes/s", batch * 1e9 / many);
}

/// `map.diff(from, head)` that names `changed` of `size` keys, spread evenly.
double time_diff(std::size_t calls, std::size_t size, std::size_t changed) {
  Map map = fill(Map(ss::Role::master), size);
  std::vector<std::string> keys;
  for (const std::size_t number : shuffled(size)) keys.push_back(sample_key(number));
  for (const std::string& key : keys) map.set(key, sample_value(1));  // every key is in the recency list
  const ss::UpdateId from = map.update_id();
  for (std::size_t i = 0; i < changed; ++i) map.set(keys[i], sample_value(2));
  return time_calls(calls, 1, [&](std::size_t) { keep(map.diff(from, map.update_id())); });
}

void measure_diffs(const Settings& settings, Report& report) {
  for (const std::size_t size : {std::size_t{100}, std::size_t{10'000}, settings.count(1'000'000, 20'000)}) {
    report.add("`map.diff(from, head)` of 100 changed keys among " + write_figure(static_cast<double>(size)),
               "µs", time_diff(settings.count(10'000, 10), size, 100) / 1e3);
  }
  for (const std::size_t changed : {10, 1'000, 10'000, 100'000}) {
    const std::size_t size = settings.count(1'000'000, 100'000);
    report.add("of " + write_figure(static_cast<double>(changed)) + " among " +
                   write_figure(static_cast<double>(size)) + ", a key",
               "ns",
               time_diff(settings.count(1'000'000, 100'000) / changed, size, changed) /
                   static_cast<double>(changed));
  }
}

/// A transfer without the network in between: the server's pieces, what the client makes of them, and the
/// moment they show.
void time_join(std::size_t size, std::size_t changed, const std::string& what, Report& report) {
  Map master = fill(Map(ss::Role::master), size);
  {
    auto change = master.begin_modification();
    for (std::size_t i = 0; i < changed; ++i) {
      change.set(sample_key(i * (size / changed)), sample_value(size + i));
    }
    change.commit();
  }
  const ss::UpdateId head = master.update_id();
  const ss::Epoch epoch = master.epoch();
  ss::detail::HostedMap<std::string, std::string> hosted(std::move(master), ss::Limits{});

  const auto feed = std::make_shared<Feed>();
  Map map = fill(Map(feed), size);
  const auto frozen = ss::detail::MapAccess::frozen(map);
  Replica replica(std::move(map));
  ss::detail::SinkReceiver<std::string, std::string> receiver(frozen, feed->sink());

  const std::size_t budget = ss::Limits{}.piece_bytes;
  std::vector<ss::Bytes> pieces;
  ss::Bytes piece;
  ss::protocol::PassCursor cursor{.from = 0, .target = head};
  Clock::duration encoding_time{};
  for (;;) {
    const auto begin = Clock::now();
    const auto what_came = hosted.encode_pass(cursor, budget, piece);
    encoding_time += Clock::now() - begin;
    if (what_came != ss::protocol::PassPiece::entries) break;
    pieces.push_back(piece);
    piece.clear();
  }
  const double encoding = seconds(encoding_time);

  auto start = Clock::now();
  for (const ss::Bytes& bytes : pieces) receiver.stage(bytes);
  const double staging = seconds(Clock::now() - start);

  start = Clock::now();
  if (receiver.close({.epoch = epoch, .from = 0, .upto = head, .is_full = false}, {}))
    throw std::runtime_error("the replica refused the diff");
  const double showing = seconds(Clock::now() - start);
  if (replica.view().update_id() != head) throw std::runtime_error("the replica does not show the diff");

  report.add(what + ": encoding", "ms", encoding * 1e3);
  report.add(what + ": decoding and staging", "ms", staging * 1e3);
  report.add(what + ": applying and showing", "ms", showing * 1e3);
  report.add(what + ": all three", "ms", (encoding + staging + showing) * 1e3);
}

void measure_join(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(1'000'000, 10'000);
  time_join(size, size, "all keys", report);
  time_join(size, size / 100, "1 % of the keys", report);
}

/// What can't be avoided: to sort, and to hash all bytes once.
double time_sort_and_hash(const std::vector<std::size_t>& order) {
  std::vector<std::pair<std::string, std::string>> entries;
  entries.reserve(order.size());
  for (const std::size_t number : order) entries.emplace_back(sample_key(number), sample_value(number));

  const auto start = Clock::now();
  std::sort(entries.begin(), entries.end());
  constexpr std::size_t block = std::size_t{16} << 10;
  const std::unique_ptr<EVP_MD_CTX, decltype([](EVP_MD_CTX* c) { EVP_MD_CTX_free(c); })> sha(
      EVP_MD_CTX_new());
  EVP_DigestInit_ex(sha.get(), EVP_sha256(), nullptr);
  std::string bytes;
  const auto append = [&bytes](const std::string& text) {
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(text.size() >> shift));
    bytes += text;
  };
  for (const auto& [key, value] : entries) {
    append(key);
    append(value);
    if (bytes.size() < block) continue;
    EVP_DigestUpdate(sha.get(), bytes.data(), bytes.size());
    bytes.clear();
  }
  EVP_DigestUpdate(sha.get(), bytes.data(), bytes.size());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  EVP_DigestFinal_ex(sha.get(), digest.data(), nullptr);
  keep(digest);
  return seconds(Clock::now() - start);
}

void measure_freeze(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(1'000'000, 1'000);
  std::vector<std::size_t> ascending(size);
  for (std::size_t i = 0; i < size; ++i) ascending[i] = i;

  for (const bool is_shuffled : {false, true}) {
    const std::vector<std::size_t> order = is_shuffled ? shuffled(size) : ascending;
    const std::string how = is_shuffled ? " in random order" : " in ascending order";
    std::vector<std::pair<std::string, std::string>> entries;
    for (const std::size_t number : order) entries.emplace_back(sample_key(number), sample_value(number));

    Map map(ss::Role::master);
    auto start = Clock::now();
    for (auto& [key, value] : entries) map.push(std::move(key), std::move(value));
    const double pushing = seconds(Clock::now() - start);
    start = Clock::now();
    map.freeze();
    const double freezing = seconds(Clock::now() - start);
    keep(map);

    const double floor = time_sort_and_hash(order);
    report.add("`push` of 1,000,000 keys" + how, "ms", pushing * 1e3);
    report.add("`freeze` of them, pushed" + how, "ms", freezing * 1e3);
    report.add("`std::sort` and bare SHA-256 of the same bytes" + how, "ms", floor * 1e3);
    report.add("the ratio of these two, pushed" + how, "", freezing / floor);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(argc, argv,
                        {{"lookups", "Lookups, 100,000 string keys, random", measure_lookups},
                         {"views", "Reading a replica, 100,000 string keys, random", measure_views},
                         {"commits", "Commits without network, 100,000 string keys, random", measure_commits},
                         {"diffs", "Diffs up to the head, without network", measure_diffs},
                         {"join", "A replica joins with 1,000,000 keys, without network", measure_join},
                         {"freeze", "Freezing 1,000,000 string keys", measure_freeze}});
}
