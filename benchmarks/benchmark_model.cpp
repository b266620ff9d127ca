// The model and the replica, without any network: reading, committing, freezing.
#include <openssl/evp.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
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

/// What this thread has used, whoever else wants the processor.
double thread_cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// A replica that threads read while another brings it diffs of one change each.
class ReadReplica {
 public:
  explicit ReadReplica(std::size_t size)
      : feed_(std::make_shared<Feed>()), map_(fill(Map(feed_), size)), replica_(Map(map_)) {
    for (const std::size_t number : shuffled(size)) keys_.push_back(sample_key(number));
  }

  [[nodiscard]] const Map& map() const { return map_; }
  [[nodiscard]] const Replica& replica() const { return replica_; }
  [[nodiscard]] const std::vector<std::string>& keys() const { return keys_; }

  /// Nanoseconds of CPU time that `read(key)` takes, by each of `readers` threads, while diffs come
  /// `diffs_per_second` times a second (0: none, infinity: without a pause). Sets what came of that.
  template <class F>
  double time_reads(std::size_t readers, std::size_t calls, double& diffs_per_second, F read) {
    std::atomic<std::size_t> reading{readers};
    std::vector<double> cpu_seconds(readers);
    std::vector<std::thread> threads;
    const ss::UpdateId before = id_;
    const auto start = Clock::now();
    for (std::size_t r = 0; r < readers; ++r) {
      threads.emplace_back([&, r] {
        const double begin = thread_cpu_seconds();
        for (std::size_t call = 0, i = r * keys_.size() / readers; call < calls; ++call) {
          read(keys_[i]);
          if (++i == keys_.size()) i = 0;
        }
        cpu_seconds[r] = thread_cpu_seconds() - begin;
        --reading;
      });
    }
    while (diffs_per_second > 0 && reading > 0) {
      const double due = static_cast<double>(id_ - before) / diffs_per_second;
      if (seconds(Clock::now() - start) < due) {
        // Not by spinning: the readers may need all processors.
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        continue;
      }
      Diff diff(map_, 1, id_, id_ + 1);
      diff.set(keys_[id_ % keys_.size()], sample_value(id_));
      feed_->bring(std::move(diff));
      ++id_;
    }
    for (std::thread& thread : threads) thread.join();
    diffs_per_second = static_cast<double>(id_ - before) / seconds(Clock::now() - start);
    return std::accumulate(cpu_seconds.begin(), cpu_seconds.end(), 0.0) * 1e9 /
           static_cast<double>(readers * calls);
  }

 private:
  std::shared_ptr<Feed> feed_;
  Map map_;
  Replica replica_;
  std::vector<std::string> keys_;
  ss::UpdateId id_ = 0;
};

void measure_views(const Settings& settings, Report& report) {
  const std::size_t calls = settings.count(3'000'000, 1'000);
  ReadReplica world(settings.count(100'000, 1'000));
  const auto by_map = [&](const std::string& key) { keep(*world.map().get(key)); };
  const auto by_view = [&](const std::string& key) { keep(*world.replica().view().get(key)); };

  double none = 0;
  const double plain = world.time_reads(1, calls, none, by_map);
  report.add("`map.get(key)` of a map that nobody changes, by 1 thread", "ns", plain);
  report.add("the same by 2 threads", "ns", world.time_reads(2, calls, none, by_map));
  double alone = 0;
  for (const std::size_t readers : {1u, 2u}) {
    for (const double wanted : {0.0, 100'000.0, std::numeric_limits<double>::infinity()}) {
      double diffs_per_second = wanted;
      const double read = world.time_reads(readers, calls, diffs_per_second, by_view);
      const std::string who = std::to_string(readers) + (readers == 1 ? " thread" : " threads");
      const std::string meanwhile = wanted == 0         ? "no diffs"
                                    : wanted == 100'000 ? "100,000 diffs/s"
                                                        : "diffs without a pause";
      const std::string name = "`replica.view().get(key)` by " + who + ", " + meanwhile;
      report.add(name, "ns", read);
      if (wanted == 100'000) {
        if (readers == 1) alone = read;
        report.add("what came of these", "diffs/s", diffs_per_second);
        report.add("that / `map.get(key)`, by " + who, "", read / plain, "≤ 2");
        if (readers == 2) report.add("by 2 threads / by 1 thread", "", read / alone, "≤ 1");
      }
    }
  }
}

void measure_commits(const Settings& settings, Report& report) {
  const std::size_t size = settings.count(100'000, 1'000);
  const std::size_t calls = settings.count(2'000'000, 1'000);
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
  for (const std::size_t changed : {10u, 1'000u, 10'000u, 100'000u}) {
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
    report.add("the ratio of these two, pushed" + how, "", freezing / floor, "≤ 1.5");
  }
}

}  // namespace

int main(int argc, char** argv) {
  return run_benchmarks(
      argc, argv,
      {{"lookups", "Lookups, 100,000 string keys, random", measure_lookups},
       {"views", "Reading a replica, 100,000 string keys, random, CPU time a thread", measure_views},
       {"commits", "Commits without network, 100,000 string keys, random", measure_commits},
       {"diffs", "Diffs up to the head, without network", measure_diffs},
       {"join", "A replica joins with 1,000,000 keys, without network", measure_join},
       {"freeze", "Freezing 1,000,000 string keys", measure_freeze}});
}
