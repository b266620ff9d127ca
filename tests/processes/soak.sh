#!/usr/bin/env bash
# A master, four replicas and two senders under steady load, whose connections are cut one after the other and come
# back: do memory or descriptors of any of the processes grow? See `soak` in chaos.cpp.
#
#   bash tests/processes/soak.sh [seconds=600] [--seed N]
#
# Fails if the median of resident memory (without pages of files) in the last quarter of the time is more than
# `allowed_kib` (chaos.cpp) above that of the second quarter, if a process ends with more descriptors than it began
# with, or if an event went without its answer. The first quarter is left out: tables fill up to their limits, such as
# the log of diffs and the last 1,024 answers that are kept for each sender.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

seconds=600
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
need_packages tests
cd "$root"
cmake --preset dev
cmake --build --preset dev --parallel "$cpus" --target chaos state_process
exec build/dev/tests/chaos --soak --seconds "$seconds" "$@"
