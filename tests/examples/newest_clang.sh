#!/usr/bin/env bash
# The examples with the newest Clang of Debian 12 and both standard libraries: each must compile without a warning. With
# libc++, which none of our other checks links, the first one is also run. Writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

cd "$root"
work=build/newest_clang
rm -rf "$work"
mkdir -p "$work"
# Asio 1.22 does not find the coroutines of newer Clangs by itself (see the README).
flags=(-pthread -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wold-style-cast -Wswitch-enum -Werror -Iinclude
  -DASIO_HAS_CO_AWAIT=1)

# Compiles example $1 with standard library $2 and standard $3; prints "ok" or what is wrong.
compile() {
  local name
  name=$(basename "$1" .cpp)_${2//+/x}
  if clang++-22 "-stdlib=$2" "-std=$3" "${flags[@]}" -fsyntax-only "$1" >"$work/$name.log" 2>&1; then
    echo ok >"$work/$name.verdict"
  else
    echo "FAILED: $1 with $2 -std=$3" | tee "$work/$name.verdict"
    head -n 20 "$work/$name.log"
  fi
}
# Linked statically: Debian has the headers and the archive of libc++ 22, but the shared library is that of libc++ 19.
run_first() {
  if clang++-22 -stdlib=libc++ -static-libstdc++ -std=c++20 "${flags[@]}" examples/01_getting_started.cpp \
    -o "$work/getting_started" -lssl -lcrypto >"$work/run.log" 2>&1 &&
    timeout 60 "$work/getting_started" >>"$work/run.log" 2>&1; then
    echo ok >"$work/run.verdict"
  else
    echo "FAILED: 01_getting_started, linked with libc++" | tee "$work/run.verdict"
    head -n 20 "$work/run.log"
  fi
}
next() { while (($(jobs -rp | wc -l) >= cpus)); do wait -n || true; done; }

run_first &
for example in examples/*.cpp; do
  for library in libstdc++ libc++; do
    standard=c++20
    [[ $library != libc++ ]] || standard=c++2b
    next
    compile "$example" "$library" "$standard" &
  done
done
wait

verdicts=("$work"/*.verdict)
passed=$(cat "${verdicts[@]}" | grep -cx ok || true)
failed=$((${#verdicts[@]} - passed))
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
