// The least a user may offer for each concept: whatever we ask beyond it does not compile.
#ifndef SYNCSTATE_TESTS_SUPPORT_ARCHETYPES_HPP
#define SYNCSTATE_TESTS_SUPPORT_ARCHETYPES_HPP

#include "syncstate/syncstate.hpp"

namespace syncstate::testing {

/// A key with an order and a codec, and nothing else: no default constructor, no ==.
class KeyArchetype {
 public:
  explicit KeyArchetype(std::uint64_t number) : number_(number) {}
  friend bool operator<(const KeyArchetype& a, const KeyArchetype& b) { return a.number_ < b.number_; }

 private:
  friend struct syncstate::Codec<KeyArchetype>;
  std::uint64_t number_;
};

/// A value with a codec, and nothing else: no default constructor, no ==, no order.
class ValueArchetype {
 public:
  explicit ValueArchetype(std::uint64_t number) : number_(number) {}
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  std::uint64_t number_;
};

/// Move-only, and takes two arguments.
struct HookArchetype {
  HookArchetype() = default;
  HookArchetype(HookArchetype&&) = default;
  HookArchetype& operator=(HookArchetype&&) = delete;
  template <class K, class V, class E>
  void operator()(StateMap<K, V>&, const Event<E>&) {}
};

/// Move-only, takes three arguments, and gives back something that nobody wants.
struct ContextHookArchetype {
  ContextHookArchetype() = default;
  ContextHookArchetype(ContextHookArchetype&&) = default;
  ContextHookArchetype& operator=(ContextHookArchetype&&) = delete;
  template <class K, class V, class E>
  int operator()(StateMap<K, V>&, const Event<E>&, const EventContext&) {
    return 1;
  }
};

/// Move-only.
struct InitHookArchetype {
  InitHookArchetype() = default;
  InitHookArchetype(InitHookArchetype&&) = default;
  InitHookArchetype& operator=(InitHookArchetype&&) = delete;
  template <class K, class V>
  void operator()(MasterHandle<K, V>) {}
};

/// Neither copied nor moved, and offers the two demands alone.
struct RemoteArchetype {
  RemoteArchetype() = default;
  RemoteArchetype(const RemoteArchetype&) = delete;
  RemoteArchetype& operator=(const RemoteArchetype&) = delete;
  template <class K, class V>
  void init(const StateMap<K, V>&) {}
  template <class K, class V>
  Diff<K, V> fetch_updates(const StateMap<K, V>& map, UpdateId) {
    return Diff<K, V>(map, map.epoch(), map.update_id(), map.update_id());
  }
};

struct EventBroadcasterArchetype {
  EventBroadcasterArchetype() = default;
  EventBroadcasterArchetype(const EventBroadcasterArchetype&) = delete;
  EventBroadcasterArchetype& operator=(const EventBroadcasterArchetype&) = delete;
  UpdateId send_event(const MapHash&, const SerializedEvent&) { return 0; }
};

}  // namespace syncstate::testing

template <>
struct syncstate::Codec<syncstate::testing::KeyArchetype> {
  static void encode(const testing::KeyArchetype& key, ByteWriter& out) { out.put_varint(key.number_); }
  static testing::KeyArchetype decode(ByteReader& in) { return testing::KeyArchetype(in.read_varint()); }
  static std::string type_name() { return "key_archetype"; }
};

template <>
struct syncstate::Codec<syncstate::testing::ValueArchetype> {
  static void encode(const testing::ValueArchetype& value, ByteWriter& out) {
    out.put_varint(value.number());
  }
  static testing::ValueArchetype decode(ByteReader& in) { return testing::ValueArchetype(in.read_varint()); }
  static std::string type_name() { return "value_archetype"; }
};

#endif
