#!/usr/bin/env bash
# Builds the benchmarks optimized and prints every figure, in Markdown tables. `--quick` and `--runs N` go to the
# programs. Nothing else should run meanwhile: on a busy machine only the ratios say anything. Writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/environment.sh"

need_packages tests >&2
cd "$root"
load=$(cut -d ' ' -f 1 /proc/loadavg)
cmake --preset release >&2
cmake --build --preset release --parallel "$cpus" --target benchmark_model benchmark_tcp benchmark_attack >&2

compiler=${CXX:-g++}
asio=$(echo '#include <asio/version.hpp>
ASIO_VERSION' | "$compiler" -x c++ -E -P - | tail -1)
echo "$(uname -sr) on $cpus × $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1)," \
  "$("$compiler" --version | head -1), $(openssl version | cut -d ' ' -f 1,2), Asio" \
  "$((asio / 100000)).$((asio / 100 % 1000)).$((asio % 100)); load before: $load"

build/release/benchmarks/benchmark_model "$@"
build/release/benchmarks/benchmark_tcp "$@"
build/release/benchmarks/benchmark_attack "$@"

# Prints a row: the CPU seconds of compiling $4 with the flag $3, $2 times.
compile_time() {
  local what=$1 runs=$2 flag=$3 file=$4 expected=${5:-} seconds
  seconds=$(for ((run = 0; run < runs; ++run)); do
    TIMEFORMAT='%U %S'
    { time "$compiler" -std=c++20 "$flag" -Iinclude -c "$file" -o /dev/null; } 2>&1
  done | awk '{ print $1 + $2 }' | sort -n)
  awk -v what="$what, \`$flag\`" -v expected="$expected" '{ s[NR] = $1 }
    END { printf "| %s | s | %.2f | %.2f | %.2f | %s |\n", what, s[int((NR + 1) / 2)], s[1], s[NR], expected }' <<<"$seconds"
}

several=5
few=3
[[ " $* " != *" --quick "* ]] || several=1 few=1
echo
echo "### Compiling one file, CPU time"
echo
echo "| | unit | median | min | max | expected |"
echo "| --- | --- | ---: | ---: | ---: | --- |"
compile_time "a map, its diffs, printing" "$several" -O0 benchmarks/compile_time/model.cpp "< 2"
compile_time "a map, its diffs, printing" "$several" -O2 benchmarks/compile_time/model.cpp
compile_time "a remote of one's own and a replica" "$several" -O0 examples/03_own_remote.cpp
compile_time "server, remote and replica over TLS" "$few" -O0 examples/01_getting_started.cpp
[[ $several == 1 ]] || compile_time "server, remote and replica over TLS" "$few" -O2 examples/01_getting_started.cpp
