#!/usr/bin/env bash
# Builds the benchmarks optimized, and prints every figure in Markdown tables: syncstate beside bare TLS, Redis and NATS.
#
#   benchmarks/run.sh               everything: some 25 minutes
#   benchmarks/run.sh --quick       only to see that it works; the figures mean nothing
#   benchmarks/run.sh --runs N      how often each case is run, in turn with the others; 5 if not said
#   benchmarks/run.sh --case NAME   only this one; any number of times
#   benchmarks/run.sh --write       puts the tables into docs/performance.md, too
#
# Nothing else should run meanwhile: on a busy machine only the ratios say anything. Servers and clients are on this
# machine. Where Redis or NATS can't be installed, their columns say so. Writes to build/, and with --write to docs/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/environment.sh"

programs=(benchmark_model benchmark_tcp benchmark_attack)
page=docs/performance.md
bars=build/benchmark_bars.md

quick=false
write=false
cases=()
options=()
while (($# > 0)); do
  case $1 in
    --quick) quick=true options+=("$1") ;;
    --runs) options+=("$1" "${2:?how many?}"); shift ;;
    --case) cases+=("${2:?which?}"); shift ;;
    --write) write=true ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift
done

describe_machine() {
  local compiler=${CXX:-g++} asio load=$1
  asio=$(echo '#include <asio/version.hpp>
ASIO_VERSION' | "$compiler" -x c++ -E -P - | tail -1)
  echo "$(uname -sr) on $cpus × $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -1)," \
    "$("$compiler" --version | head -1), $(openssl version | cut -d ' ' -f 1,2), Asio" \
    "$((asio / 100000)).$((asio / 100 % 1000)).$((asio % 100))," \
    "$(redis-server --version 2>/dev/null | sed 's/^Redis server v=\([^ ]*\).*/Redis \1/' || echo 'no Redis')," \
    "$(PATH=$PATH:/usr/sbin nats-server --version 2>/dev/null | sed 's/^nats-server: v/NATS /' || echo 'no NATS');" \
    "load before: $load"
}

# Runs the cases asked for that $1 knows, all if none was named.
run_program() {
  local program=build/release/benchmarks/$1 known name chosen=()
  known=$("$program" --help | tail -1) || true
  for name in ${cases[@]+"${cases[@]}"}; do
    [[ " $known " != *" $name "* ]] || chosen+=(--case "$name")
  done
  ((${#cases[@]} == 0 || ${#chosen[@]} > 0)) || return 0
  local to_bars=(--bars "$bars")
  [[ $1 != benchmark_attack ]] || to_bars=()  # what it asks for of itself is none
  "$program" ${to_bars[@]+"${to_bars[@]}"} ${options[@]+"${options[@]}"} ${chosen[@]+"${chosen[@]}"}
}

# Prints a row: the CPU seconds of compiling $4 with the flag $3, $2 times.
compile_time() {
  local what=$1 runs=$2 flag=$3 file=$4 expected=${5:-} seconds
  seconds=$(for ((run = 0; run < runs; ++run)); do
    TIMEFORMAT='%U %S'
    { time "${CXX:-g++}" -std=c++20 "$flag" -Iinclude -c "$file" -o /dev/null; } 2>&1
  done | awk '{ print $1 + $2 }' | sort -n)
  awk -v what="$what, \`$flag\`" -v expected="$expected" '{ s[NR] = $1 }
    END { printf "| %s | s | %.2f | %.2f | %.2f | %s |\n", what, s[int((NR + 1) / 2)], s[1], s[NR], expected }' <<<"$seconds"
}

measure_compiling() {
  local several=5 few=3
  if $quick; then several=1 few=1; fi
  echo
  echo "### Compiling one file, CPU time"
  echo
  echo "| | unit | median | min | max | asked for |"
  echo "| --- | --- | ---: | ---: | ---: | --- |"
  compile_time "a map, its diffs, printing" "$several" -O0 benchmarks/compile_time/model.cpp "< 2"
  compile_time "a map, its diffs, printing" "$several" -O2 benchmarks/compile_time/model.cpp
  compile_time "a remote of one's own and a replica" "$several" -O0 examples/03_own_remote.cpp
  compile_time "server, remote and replica over TLS" "$few" -O0 examples/01_getting_started.cpp
  $quick || compile_time "server, remote and replica over TLS" "$few" -O2 examples/01_getting_started.cpp
}

measure_all() {
  local program
  describe_machine "$load"
  for program in "${programs[@]}"; do run_program "$program"; done
  ((${#cases[@]} > 0)) || measure_compiling
  echo
  echo "### Bars"
  echo
  echo "| | median | min | max | asked for | |"
  echo "| --- | ---: | ---: | ---: | --- | --- |"
  cat "$bars"
}

need_packages benchmarks >&2 || { echo "Going on without what is missing." >&2; need_packages tests >&2; }
cd "$root"
load=$(cut -d ' ' -f 1 /proc/loadavg)
cmake --preset release >&2
cmake --build --preset release --parallel "$cpus" --target "${programs[@]}" >&2

# The servers' folders go there: with this script, if they don't go with their servers.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
: >"$bars"

if $write; then
  measure_all | tee build/benchmark_figures.md
  { sed '/^<!-- figures -->$/q' "$page" && echo && cat build/benchmark_figures.md; } >build/benchmark_page.md
  cp build/benchmark_page.md "$page"
else
  measure_all
fi
