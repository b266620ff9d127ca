#!/usr/bin/env bash
# The program in the README is the one that is built and run: examples/01_getting_started.cpp, letter by letter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

diff "$root/examples/01_getting_started.cpp" \
  <(awk '/^```cpp$/ && !seen { inside = 1; seen = 1; next } /^```$/ { inside = 0 } inside' "$root/README.md")
