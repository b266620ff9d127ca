#!/usr/bin/env bash
# Each header of ours alone, with the newest compiler and standard library that Debian 12 has; then all of them with its oldest
# compiler, after the macros of other libraries and without RTTI, and with what they need missing. Nothing but the syntax is
# checked. Prints the headers that fail, and counts. Needs clang++-22, libc++ and g++-11; writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

cd "$root"
work=build/headers
rm -rf "$work"
mkdir -p "$work"
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
strict=(-Wold-style-cast -Wswitch-enum -Wnull-dereference)
newest=(clang++-22 -std=c++2b -stdlib=libc++ -fsyntax-only -Iinclude "${warnings[@]}" "${strict[@]}")
usual=("${CXX:-g++}" -std=c++20 -fsyntax-only -Iinclude -Itests "${warnings[@]}" "${strict[@]}" -Wuseless-cast -Wlogical-op)
passed=0
failed=0

mapfile -t headers < <(cd include && find syncstate -name '*.hpp' | LC_ALL=C sort)
include_all() { printf '#include <%s>\n' "${headers[@]}"; }

# Says how the check $1 went; its output is in $work/$1.log.
verdict() {
  if [[ $2 == 0 ]]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1"
    head -n 30 "$work/$1.log"
  fi
}

# Runs a command as the check $1; it must succeed.
check() {
  local name=$1 status=0
  shift
  "$@" >"$work/$name.log" 2>&1 || status=$?
  verdict "$name" "$status"
}

# Compiles the headers $3 and on with the flags $2, and expects one error: that syncstate needs $1.
check_needs() {
  local needs=$1 flags=$2 header name good log
  shift 2
  for header in "$@"; do
    name="needs_${needs%% *}_${flags//[^a-zA-Z0-9]/_}_${header//\//_}"
    log=$work/$name.log
    good=1
    # shellcheck disable=SC2086 # a list of flags
    echo "#include <$header>" | "${CXX:-g++}" -x c++ -std=c++20 -fsyntax-only -Iinclude $flags - >"$log" 2>&1 || good=0
    # The second error is the one that ends the compilation.
    [[ $(grep -c 'error:' "$log") == 2 ]] && grep -q "error: #error \"syncstate needs $needs" "$log" || good=1
    verdict "$name" "$good"
  done
}

# One library's headers, which differ from OpenSSL's in the macros that tell which one they are.
other_openssl() {
  mkdir -p "$work/$1/openssl"
  printf '%s\n' "${@:2}" >"$work/$1/openssl/opensslv.h"
}

# In the background, as many at a time as there are processors.
(
  i=0
  for header in "${headers[@]}"; do
    while (($(jobs -rp | wc -l) >= cpus)); do wait -n || true; done
    i=$((i + 1))
    { echo "#include <$header>" | "${newest[@]}" -x c++ - >"$work/alone_$i.log" 2>&1 && touch "$work/alone_$i.ok"; } &
  done
  wait
)
for i in "${!headers[@]}"; do
  name=alone_$((i + 1))
  [[ -e $work/$name.ok ]] || echo "${headers[i]}, alone:"
  verdict "$name" "$([[ -e $work/$name.ok ]]; echo $?)"
done

{ echo '#include "headers/common_macros.hpp"'; include_all; } >"$work/after_macros.cpp"
check after_macros_without_rtti "${usual[@]}" -fno-rtti -DASIO_NO_TYPEID "$work/after_macros.cpp"
{ include_all; echo '#include "examples/04_struct_values_and_variant_events.cpp"'; } >"$work/oldest.cpp"
check oldest g++-11 -std=c++20 -fsyntax-only -I. -Iinclude "$work/oldest.cpp"

# What users include; for C++17 each header, because no other code of ours may come before that error.
public=(syncstate/{syncstate,tcp,inproc,codec_json,replica}.hpp syncstate/tcp/tls.hpp)
other_openssl libressl '#define LIBRESSL_VERSION_NUMBER 0x4000000fL' '#define OPENSSL_VERSION_NUMBER 0x20000000L'
other_openssl boringssl '#define OPENSSL_IS_BORINGSSL' '#define OPENSSL_VERSION_NUMBER 0x1010107f'
other_openssl aws_lc '#define OPENSSL_IS_AWSLC' '#define OPENSSL_VERSION_NUMBER 0x1010107f'
other_openssl newer_aws_lc '#define OPENSSL_IS_AWSLC' '#define OPENSSL_VERSION_NUMBER 0x30000000L'
other_openssl old '#define OPENSSL_VERSION_NUMBER 0x1010117fL'
check_needs "C++20" "-std=c++17" "${headers[@]}"
check_needs "exceptions" "-fno-exceptions" "${public[@]}"
for library in libressl boringssl aws_lc newer_aws_lc old; do
  check_needs "OpenSSL 3.0" "-I$work/$library" "${public[@]}"
done

echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
