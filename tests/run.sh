#!/usr/bin/env bash
# Installs what is missing (Debian, Ubuntu), builds everything and runs every test. Writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/environment.sh"

need_packages tests
cd "$root"
cmake --preset dev
cmake --build --preset dev --parallel "$cpus"
ctest --preset dev --parallel "$cpus"
