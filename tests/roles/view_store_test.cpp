// The copies of a replica's values under readers that come at any moment.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
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
  static inline std::function<void()> writer;
};

}  // namespace

template <>
struct syncstate::Codec<Copied> {
  static void encode(const Copied& v, ss::ByteWriter& out) { out.put_varint(static_cast<unsigned>(v.value)); }
  static Copied decode(ss::ByteReader& in) { return Copied(static_cast<int>(in.read_varint())); }
  static std::string type_name() { return "copied"; }
};

TEST_CASE(
    "whole states: a reader that was overtaken does not take the copy that the writer has begun to change") {
  const auto frozen =
      ss::detail::FrozenState<int, Copied>::make({0, 1, 2, 3}, {Copied(0), Copied(0), Copied(0), Copied(0)});
  ss::detail::ViewStore<int, Copied, WriterInBetween> store(frozen, {},
                                                            [](std::uint32_t) { return Copied(0); });
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

TEST_CASE("whole states: a reader between the writer's steps never sees a copy that is being changed") {
  constexpr int keys = 4;
  constexpr std::uint64_t steps = 50'000;
  Store store(make_frozen(keys), {}, [](std::uint32_t) { return std::uint64_t{0}; });
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> mixtures{0};
  std::atomic<std::uint64_t> steps_back{0};
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
        last = id;
      }
    });
  }
  for (std::uint64_t id = 1; id <= steps; ++id) store.apply(all_to(keys, id), {1, id});
  done = true;
  for (auto& reader : readers) reader.join();
  CHECK(mixtures == 0);
  CHECK(steps_back == 0);
  CHECK(store.view().update_id() == steps);
}

TEST_CASE("a view pins one copy, and copies beyond need are given back") {
  constexpr int keys = 100;
  Store store(make_frozen(keys), {}, [](std::uint32_t) { return std::uint64_t{0}; });
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
