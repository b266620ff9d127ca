# shellcheck shell=bash disable=SC2034
# What every script of this repository starts with: where it is, the packages it needs, a compiler cache in build/.
# Sourced, in bash, under `set -euo pipefail`.
#
#   need_packages examples|tests|benchmarks|instructions|checks
#
# installs what is missing on Debian and Ubuntu; elsewhere says what is. `examples` is enough for the preset `examples`,
# `tests` for `dev` and the sanitizers, `benchmarks` adds the servers we are measured beside, `instructions` is for
# benchmarks/instructions, `checks` for all but these servers.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# nproc belongs to GNU's coreutils, getconf to every POSIX system.
cpus=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Every version formats a little differently, so we name ours.
clang_format=clang-format-16

# Only build/ is written, the compiler cache included. Whoever has one of their own keeps it.
export CCACHE_DIR=${CCACHE_DIR:-$root/build/.ccache}

have_command() { command -v "$1" >/dev/null; }

# Is there a header, for the compiler we use? __has_include costs nothing: the header is not read.
have_header() {
  have_command "${CXX:-g++}" &&
    printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$1" | "${CXX:-g++}" -x c++ -E - >/dev/null 2>&1
}

have_clang_sanitizers() {
  echo 'int main() {}' | clang++ -fsanitize=address,undefined -x c++ - -o /dev/null 2>/dev/null
}

# The newest Clang of Debian 12, with its own standard library.
have_newest_libcxx() {
  echo '#include <version>' | clang++-22 -stdlib=libc++ -x c++ -fsyntax-only - 2>/dev/null
}

# Prints the Debian names of what is missing for `$1`.
missing_packages() {
  have_command "${CXX:-g++}" || echo g++
  have_command cmake || echo cmake
  have_command ninja || echo ninja-build
  have_command openssl || echo openssl
  have_header asio/version.hpp || echo libasio-dev
  have_header openssl/ssl.h || echo libssl-dev
  have_header nlohmann/json.hpp || echo nlohmann-json3-dev
  have_header CLI/CLI.hpp || echo libcli11-dev
  if [[ $1 == instructions || $1 == checks ]]; then have_command valgrind || echo valgrind; fi
  [[ $1 == examples || $1 == instructions ]] && return
  if [[ $1 == benchmarks ]]; then
    have_command redis-server || echo redis-server
    # Debian keeps it where only root looks.
    have_command nats-server || [[ -x /usr/sbin/nats-server ]] || echo nats-server
  fi
  have_header catch2/catch.hpp || have_header catch2/catch_all.hpp || echo catch2
  [[ $1 == tests || $1 == benchmarks ]] && return
  have_command patch || echo patch
  have_command clang++ || echo clang
  have_clang_sanitizers || echo libclang-rt-dev
  have_command llvm-symbolizer || echo llvm
  have_command g++-11 || echo g++-11
  have_command clang++-22 || echo clang-22
  have_newest_libcxx || printf '%s\n' libc++-22-dev libc++abi-22-dev
  have_command "$clang_format" || echo "$clang_format"
}

need_packages() {
  local missing
  missing=$(missing_packages "$1" | xargs)
  [[ -z $missing ]] && return

  if ! have_command apt-get; then
    echo "Missing here, by their Debian names: $missing" >&2
    echo "Please install them with this system's package manager, then run this again." >&2
    return 1
  fi
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    if ! have_command sudo; then
      echo "Missing: $missing. Please run as root: apt-get install $missing" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  # Not needed, but faster with it.
  have_command ccache || missing+=" ccache"
  echo "Installing: $missing"
  "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -q </dev/null
  # shellcheck disable=SC2086 # a list of names
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -q -y \
    --no-install-recommends $missing </dev/null
}
