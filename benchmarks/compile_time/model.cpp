// What a file costs that uses the model and nothing else: timed by run.sh.
#include <iostream>
#include <string>

#include "syncstate/syncstate.hpp"

namespace ss = syncstate;
using Map = ss::StateMap<std::string, std::string>;

int main() {
  Map master(ss::Role::master);
  Map copy(ss::Role::replica);
  for (Map* map : {&master, &copy}) {
    map->push("colour", "green");
    map->push("speed", "slow");
    map->freeze();
  }
  master.set("speed", "fast");
  master.begin_modification().set("colour", "red").set("speed", "slow").commit();
  copy.apply(master.diff(copy.update_id(), master.update_id()));
  for (const auto& [key, value] : copy) std::cout << key << ": " << value << '\n';
  return copy.at("colour") == "red" && copy.hash() == master.hash() ? 0 : 1;
}
