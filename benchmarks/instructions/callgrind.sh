# shellcheck shell=bash
# What the scripts share that count instructions. Sourced, after cmake/environment.sh, in the root of the source tree.
#
# What is counted is valgrind's processor: the same on every x86-64 machine that has AVX2. Addresses are not scattered,
# the environment is empty, and the programs draw no random numbers.

work=build/instructions
mkdir -p "$work"

# build TREE TARGET: builds a program of the source tree in a folder of its own.
build() {
  (cd "$1" && cmake --preset release -B "$work" -D SYNCSTATE_BUILD_TESTS=OFF -D SYNCSTATE_BUILD_EXAMPLES=OFF &&
    cmake --build "$work" --parallel "$cpus" --target "$2") >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log" >&2; return 1; }
}

# count TREE TARGET: runs the program, and prints each line that it prints, behind the instructions counted for it.
count() {
  local out=$work/$2.callgrind part=0 line
  rm -f "$out" "$out".*
  env -i LD_BIND_NOW=1 setarch --addr-no-randomize "$(command -v valgrind)" --tool=callgrind \
    --callgrind-out-file="$out" --collect-atstart=no --toggle-collect=syncstate_counted \
    --dump-after=syncstate_counted "$1/$work/benchmarks/$2" >"$work/$2.cases" 2>"$work/valgrind.log" ||
    { tail -n 30 "$work/valgrind.log" >&2; return 1; }
  while read -r line; do
    part=$((part + 1))
    awk -v line="$line" '$1 == "totals:" { print $2, line }' "$out.$part"
  done <"$work/$2.cases"
}
