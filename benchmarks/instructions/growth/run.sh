#!/usr/bin/env bash
# Counts the instructions of each growth case at its size and at eight times that, and fails where they grow by more
# than the case allows (growth.hpp). Counts, unlike times, come out the same on a busy machine. Writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../../cmake/environment.sh"

need_packages instructions >&2
cd "$root"
source benchmarks/instructions/callgrind.sh

build . count_growth
count . count_growth >"$work/growth"
awk '
  NR % 2 == 1 { few = $1; next }
  {
    instructions = $1; most = $3
    name = $0
    sub(/^[0-9]+ [0-9]+ [0-9.]+ /, "", name)
    times = few > 0 ? instructions / few : 0
    is_good = few > 0 && times <= most
    printf "%-64s %12d %12d   x %.1f%s\n", name, few, instructions, times, is_good ? "" : " FAILED: more than " most
    is_good ? ++passed : ++failed
  }
  END {
    if (passed + failed == 0) { print "no case was counted"; failed = 1 }
    printf "%d passed, %d failed\n", passed, failed
    exit failed > 0
  }' "$work/growth"
