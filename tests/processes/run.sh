#!/usr/bin/env bash
# Kills, stops and cuts off real processes over TLS for a while, and checks what they say: the long form of the test
# processes_short, with the library's own 5 s heartbeats and 15 s of silence. See chaos.cpp.
#
#   bash tests/processes/run.sh [seconds=300] [--netns] [--seed N] [--verbose]
#
# --netns puts the master into a network namespace of its own, pulls the cable and loses packets. It needs root or user
# namespaces, `ip` and, to lose packets, `nft`; what is missing is said and done without. Nothing is left behind.
# A failure prints what was done last and what is wrong; its seed plays the same faults again, though the processes
# themselves never run twice alike.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

seconds=300
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
need_packages tests
cd "$root"
cmake --preset dev
cmake --build --preset dev --parallel "$cpus" --target chaos state_process
exec build/dev/tests/chaos --seconds "$seconds" "$@"
