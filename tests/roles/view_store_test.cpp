// The copies of a replica's values under readers that come at any moment.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "syncstate/bytes.hpp"
#include "syncstate/codec.hpp"
#include "syncstate/detail/model/change_set.hpp"
#include "syncstate/detail/model/frozen_state.hpp"
#include "syncstate/detail/replica/view_store.hpp"
#include "syncstate/types.hpp"
#include "syncstate/view.hpp"

namespace view_store_test {

namespace ss = syncstate;
using Store = ss::detail::ViewStore<int, std::uint64_t>;
using View = ss::View<int, std::uint64_t>;

namespace {

std::shared_ptr<const ss::detail::FrozenState<int, std::uint64_t>> make_frozen(int keys) {
  std::vector<int> names;
  for (int i = 0; i < keys; ++i) names.push_back(i);
  return ss::detail::FrozenState<int, std::uint64_t>::make(
      names, std::vector<std::uint64_t>(static_cast<std::size_t>(keys), 0));
}

/// Every key has the update id for its value.
ss::detail::ChangeSet<std::uint64_t> all_to(int keys, std::uint64_t value) {
  ss::detail::ChangeSet<std::uint64_t> changes;
  for (int i = 0; i < keys; ++i) changes.set(static_cast<std::uint32_t>(i), value);
  return changes;
}

}  // namespace

namespace {

/// An int whose copies can be made to fail.
struct Copied {
  explicit Copied(int v) : value(v) {}
  Copied(const Copied& other) : value(other.value) { count(); }
  Copied(Copied&&) noexcept = default;
  Copied& operator=(const Copied& other) {
    count();
    value = other.value;
    return *this;
  }
  Copied& operator=(Copied&&) noexcept = default;
  ~Copied() = default;

  static void count() {
    if (left > 0 && --left == 0) throw std::bad_alloc();
  }
  int value;
  static inline int left = 0;  // the copy that brings it to 0 throws
};

/// Puts the writer between the steps of the reader, once.
struct WriterInBetween {
  static void between_steps() noexcept {
    const auto run = std::exchange(writer, nullptr);
    if (run) run();
  }
  static void between_sums() noexcept {}
  static inline std::function<void()> writer;
};

/// Puts a reader between those whom the writer has seen go and those whom it has seen come, once.
struct ReaderInBetween {
  static void between_steps() noexcept {}
  static void between_sums() noexcept {
    const auto run = std::exchange(reader, nullptr);
    if (run) run();
  }
  static inline std::function<void()> reader;
};

/// Knows how many of it there are.
struct Counted {
  explicit Counted(int v) : value(v) { ++alive; }
  Counted(const Counted& other) : value(other.value) { ++alive; }
  Counted(Counted&& other) noexcept : value(other.value) { ++alive; }
  Counted& operator=(const Counted&) = default;
  Counted& operator=(Counted&&) noexcept = default;
  ~Counted() { --alive; }

  int value;
  static inline std::atomic<int> alive{0};
};

}  // namespace

}  // namespace view_store_test

template <>
struct syncstate::Codec<view_store_test::Copied> {
  static void encode(const view_store_test::Copied& v, ByteWriter& out) {
    out.put_varint(static_cast<unsigned>(v.value));
  }
  static view_store_test::Copied decode(ByteReader& in) {
    return view_store_test::Copied(static_cast<int>(in.read_varint()));
  }
  static std::string type_name() { return "copied"; }
};

namespace view_store_test {

TEST_CASE(
    "whole states: a reader that was overtaken does not take the copy that the writer has begun to change") {
  const auto frozen =
      ss::detail::FrozenState<int, Copied>::make({0, 1, 2, 3}, {Copied(0), Copied(0), Copied(0), Copied(0)});
  ss::detail::ViewStore<int, Copied, WriterInBetween> store(frozen, {}, std::vector<Copied>(4, Copied(0)));
  const auto apply = [&store](int value) {
    ss::detail::ChangeSet<Copied> changes;
    for (std::uint32_t i = 0; i < 4; ++i) changes.set(i, Copied(value));
    store.apply(changes, {1, static_cast<ss::UpdateId>(value)});
  };
  apply(1);
  apply(2);
  bool is_interrupted = false;
  WriterInBetween::writer = [&] {
    apply(3);
    ss::detail::ChangeSet<Copied> changes;
    for (std::uint32_t i = 0; i < 4; ++i) changes.set(i, Copied(4));
    Copied::left = 4 + 2;  // in the midst of the copy that the reader has seen shown
    try {
      store.apply(changes, {1, 4});
    } catch (const std::bad_alloc&) {
      is_interrupted = true;
    }
    Copied::left = 0;
  };
  const auto view = store.view();
  CHECK(is_interrupted);
  CHECK(view.update_id() == 3);
  for (int key = 0; key < 4; ++key) CHECK(view.at(key).value == 3);

  ss::detail::ChangeSet<Copied> other;  // nothing of what failed comes to light with the next diff
  other.set(3, Copied(5));
  store.apply(other, {1, 5});
  for (int key = 0; key < 3; ++key) CHECK(store.view().at(key).value == 3);
  CHECK(store.view().at(3).value == 5);
}

}  // namespace view_store_test

template <>
struct syncstate::Codec<view_store_test::Counted> {
  static void encode(const view_store_test::Counted& v, ByteWriter& out) {
    out.put_varint(static_cast<unsigned>(v.value));
  }
  static view_store_test::Counted decode(ByteReader& in) {
    return view_store_test::Counted(static_cast<int>(in.read_varint()));
  }
  static std::string type_name() { return "counted"; }
};

namespace view_store_test {

TEST_CASE("whole states: a copy of a view that goes keeps the writer away as well") {
  // On this thread or on others: readers are counted apart.
  const bool is_elsewhere = GENERATE(false, true);
  using Interrupted = ss::detail::ViewStore<int, std::uint64_t, ReaderInBetween>;
  constexpr int keys = 4;
  Interrupted store(make_frozen(keys), {}, std::vector<std::uint64_t>(keys));
  store.apply(all_to(keys, 1), {1, 1});
  std::optional<View> first = store.view();
  std::optional<View> second;
  store.apply(all_to(keys, 2), {1, 2});
  ReaderInBetween::reader = [&] {
    const auto hand_over = [&] {
      second = *first;
      first.reset();
    };
    is_elsewhere ? std::thread(hand_over).join() : hand_over();
  };
  store.apply(all_to(keys, 3), {1, 3});  // looks for a slot, and the reader comes in between
  store.apply(all_to(keys, 4), {1, 4});
  REQUIRE(second.has_value());
  CHECK(second->update_id() == 1);
  for (int key = 0; key < keys; ++key) CHECK(second->at(key) == 1);
}

TEST_CASE("views outlive the store, whoever drops them last, and nothing is left of them") {
  Counted::alive = 0;
  {
    constexpr int keys = 3;
    auto frozen =
        ss::detail::FrozenState<int, Counted>::make({0, 1, 2}, {Counted(0), Counted(0), Counted(0)});
    auto store = std::make_unique<ss::detail::ViewStore<int, Counted>>(
        frozen, ss::Position{}, std::vector<Counted>(keys, Counted(0)));
    std::vector<ss::View<int, Counted>> views;
    for (int step = 1; step <= 3; ++step) {
      views.push_back(store->view());
      views.push_back(views.back());
      ss::detail::ChangeSet<Counted> changes;
      changes.set(0, Counted(step));
      store->apply(changes, {1, static_cast<ss::UpdateId>(step)});
    }
    std::thread([&] { views.erase(views.begin()); }).join();
    store.reset();
    CHECK(Counted::alive == 3 * keys + keys);  // of each slot that is held, and the initial values

    std::optional<ss::View<int, Counted>> copy = views.front();  // made when the store is gone
    for (int step = 0; step < 3; ++step) CHECK(views[static_cast<std::size_t>(2 * step)].at(0).value == step);
    std::thread([held = std::move(views)]() mutable { held.clear(); }).join();
    CHECK(Counted::alive == keys + keys);
    CHECK(copy->at(0).value == 0);
    copy.reset();
    CHECK(Counted::alive == keys);
  }
  CHECK(Counted::alive == 0);
}

TEST_CASE("views that are copied and dropped on several threads while the store ends") {
  for (int round = 0; round < 200; ++round) {
    auto store = std::make_unique<Store>(make_frozen(2), ss::Position{}, std::vector<std::uint64_t>(2, 7));
    std::vector<std::thread> readers;
    std::atomic<int> wrong{0};
    for (int r = 0; r < 3; ++r) {
      readers.emplace_back([&wrong, view = store->view()]() mutable {
        for (int i = 0; i < 50; ++i) {
          View other = view;
          if (other.at(1) != 7) ++wrong;
          view = std::move(other);
        }
      });
    }
    store.reset();
    for (auto& reader : readers) reader.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE("whole states: a reader between the writer's steps never sees a copy that is being changed") {
  constexpr int keys = 4;
  constexpr std::uint64_t steps = 50'000;
  Store store(make_frozen(keys), {}, std::vector<std::uint64_t>(keys));
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> mixtures{0};
  std::atomic<std::uint64_t> steps_back{0};
  std::atomic<std::uint64_t> seen{0};
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&] {
      std::uint64_t last = 0;
      while (!done) {
        const View view = store.view();
        const std::uint64_t id = view.update_id();
        for (std::uint32_t i = keys; i-- > 0;) {
          if (view[ss::Ordinal(i)] != id) ++mixtures;
        }
        if (view.update_id() != id) ++mixtures;
        if (id < last) ++steps_back;
        if (id > last) ++seen;
        last = id;
      }
    });
  }
  std::uint64_t id = 0;
  while (id < steps || seen < 1'000) {  // threads may start late
    ++id;
    store.apply(all_to(keys, id), {1, id});
  }
  done = true;
  for (auto& reader : readers) reader.join();
  CHECK(mixtures == 0);
  CHECK(steps_back == 0);
  CHECK(store.view().update_id() == id);
}

TEST_CASE("whole states: a view is one state on whatever thread it is copied and dropped") {
  constexpr int keys = 4;
  constexpr std::uint64_t steps = 20'000;
  Store store(make_frozen(keys), {}, std::vector<std::uint64_t>(keys));
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> mixtures{0};
  std::atomic<std::uint64_t> seen{0};
  std::mutex mutex;
  std::optional<View> passed;  // from one reader to the other
  std::vector<std::thread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&] {
      while (!done) {
        std::optional<View> view = store.view();
        {
          const std::lock_guard lock(mutex);
          std::swap(view, passed);
        }
        if (!view) continue;
        const View copy = *view;
        view.reset();
        ++seen;
        for (std::uint32_t i = 0; i < keys; ++i) {
          if (copy[ss::Ordinal(i)] != copy.update_id()) ++mixtures;
        }
      }
    });
  }
  for (std::uint64_t id = 1; id <= steps || seen < 5'000; ++id) store.apply(all_to(keys, id), {1, id});
  done = true;
  for (auto& reader : readers) reader.join();
  CHECK(mixtures == 0);
}

TEST_CASE("values that are taken along: all, some, and some that fall back") {
  const auto frozen =
      ss::detail::FrozenState<int, Copied>::make({0, 1, 2, 3}, {Copied(9), Copied(9), Copied(9), Copied(9)});
  ss::detail::ViewStore<int, Copied> store(frozen, {}, std::vector<Copied>(4, Copied(9)));
  const auto values = [](const auto& view) {
    std::vector<int> all;
    for (int key = 0; key < 4; ++key) all.push_back(view.at(key).value);
    return all;
  };
  const auto changes_to = [](std::vector<std::pair<std::uint32_t, int>> pairs) {
    ss::detail::ChangeSet<Copied> changes;
    for (const auto& [ordinal, value] : pairs) changes.set(ordinal, Copied(value));
    return changes;
  };
  Copied::left = 1;  // nothing is copied where nothing stays
  store.apply(changes_to({{0, 1}, {1, 2}, {2, 3}, {3, 4}}), {}, {1, 1});
  Copied::left = 0;
  const auto first = store.view();
  CHECK(values(first) == std::vector{1, 2, 3, 4});
  store.apply(changes_to({{2, 30}}), {}, {1, 2});
  CHECK(values(store.view()) == std::vector{1, 2, 30, 4});
  store.apply(changes_to({{3, 5}}), {2}, {1, 3});
  CHECK(values(store.view()) == std::vector{1, 2, 9, 5});
  store.apply(changes_to({{3, 7}}), {}, {1, 4});  // to the copy that knows nothing of what fell back yet
  CHECK(values(store.view()) == std::vector{1, 2, 9, 7});
  store.apply(changes_to({{3, 4}, {2, 3}, {1, 2}, {0, 1}}), {}, {1, 5});
  store.apply(changes_to({{3, 8}}), {}, {1, 6});
  CHECK(values(store.view()) == std::vector{1, 2, 3, 8});
  CHECK(values(first) == std::vector{1, 2, 3, 4});

  auto taken = changes_to({{1, 11}, {2, 12}});
  for (int failures = 1;; ++failures) {
    Copied::left = failures;
    try {
      store.apply(std::move(taken), {0}, {1, 7});
      break;
    } catch (const std::bad_alloc&) {
      CHECK(values(store.view()) == std::vector{1, 2, 3, 8});
      CHECK(taken.size() == 2);
    }
  }
  Copied::left = 0;
  CHECK(values(store.view()) == std::vector{9, 11, 12, 8});
}

TEST_CASE("a view pins one copy, and copies beyond need are given back") {
  constexpr int keys = 100;
  Store store(make_frozen(keys), {}, std::vector<std::uint64_t>(keys));
  std::uint64_t id = 0;
  const auto apply = [&](int times) {
    for (int i = 0; i < times; ++i) {
      ++id;
      store.apply(all_to(3, id), {1, id});
    }
  };
  CHECK(store.copies() == 1);
  apply(10);
  CHECK(store.copies() == 2);
  std::optional<View> kept = store.view();
  apply(100);
  CHECK(store.copies() == 3);
  CHECK(kept->at(0) == 10);
  CHECK(kept->at(50) == 0);
  kept.reset();
  apply(100);
  CHECK(store.copies() == 2);

  std::vector<View> many;
  for (int i = 0; i < 10; ++i) {
    many.push_back(store.view());
    apply(1);
  }
  CHECK(store.copies() >= 11);  // each pins one, as it must
  many.clear();
  apply(30);
  CHECK(store.copies() == 2);
}

}  // namespace view_store_test
