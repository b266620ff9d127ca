#!/usr/bin/env bash
# Does each test of a guarantee fail when the guarantee is broken? Applies every patch beside this file to a copy of
# the headers, builds the one test file that should notice, and expects it to be red there and green without the
# patch. Names as arguments run only those: tests/mutations/run.sh 03_whole_states
#
# A patch is `git diff` output below two lines that say what it breaks and who notices:
#
#   # guarantee: 3
#   # test: test_guarantees whole states: a view never mixes*
#
# that is a test program, and the rest of the line as its Catch2 filter (a name, perhaps with *, or a [tag]); or
#
#   # test: simulation
#
# which must notice within the seeds that the tests run (tests/CMakeLists.txt).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

cd "$root"
shopt -s nullglob
work=build/mutations
# Copied headers are always new, and no less trustworthy for it.
export CCACHE_SLOPPINESS=include_file_ctime,include_file_mtime
# Clang compiles these files in two thirds of GCC's time. Asio 1.22 must be told that it may use coroutines there.
compile=(clang++ -std=c++20 -O0 -g0 -pthread -Itests -DASIO_HAS_CO_AWAIT=1
  "-DSYNCSTATE_TEST_DATA_DIR=\"$root/tests/data\"" "-DSYNCSTATE_SOURCE_DIR=\"$root\"")
if have_command ccache; then
  compile=(ccache "${compile[@]}")
fi
libraries=(-lssl -lcrypto)
have_header catch2/catch_all.hpp && libraries+=(-lCatch2Main -lCatch2)
run_seconds=600
simulation_seeds=2000
ulimit -c 0

header() { sed -n "s/^# $2: *//p;/^diff \|^--- /q" "$1" | head -1; }

# The test files of program $1 that filter $2 selects tests in.
sources_of() {
  local folder=tests/${1#test_} text=$2
  text=${text%\*}
  text=${text#\*}
  grep -lF -- "$text" "$folder"/*_test.cpp || printf '%s\n' "$folder"/*_test.cpp
}

# Prints what came of the patch $1, "ok" first if all is well.
verdict() {
  local patch=$1 name program filter sources dir status=0
  name=$(basename "$patch" .patch)
  dir=$work/$name
  read -r program filter <<<"$(header "$patch" test)"
  [[ $(header "$patch" guarantee) =~ ^[0-9]+$ && -n $program && ( -n $filter || $program == simulation ) ]] ||
    { echo "has no '# guarantee: N' and '# test: program filter' lines"; return; }

  # Of the simulation all seeds are green in the tests; here a few, for this very build.
  local green=(--seeds 20) red=(--seeds "$simulation_seeds") all_passed='20 seeds from 1'
  if [[ $program != simulation ]]; then
    green=("$filter")
    red=("$filter")
    all_passed='All tests passed'
  fi
  timeout "$run_seconds" "build/dev/tests/$program" "${green[@]}" >"$dir.green.log" 2>&1 || status=$?
  ((status == 0)) && grep -q "$all_passed" "$dir.green.log" ||
    { echo "is not green without the patch, or selects nothing: $dir.green.log"; return; }

  rm -rf "$dir"
  mkdir -p "$dir"
  cp -rp include "$dir"
  patch -p1 --no-backup-if-mismatch -d "$dir" <"$patch" >"$dir.build.log" 2>&1 ||
    { echo "does not apply: $dir.build.log"; return; }

  local objects=() source
  if [[ $program == simulation ]]; then
    sources=(tests/simulation/simulation.cpp)
  else
    mapfile -t sources < <(sources_of "$program" "$filter")
    objects=("$work/catch_main.o")
  fi
  for source in "${sources[@]}"; do
    objects+=("$dir/$(basename "$source" .cpp).o")
    "${compile[@]}" -include-pch "$work/third_party.pch" -I"$dir/include" -c "$source" -o "${objects[-1]}" >>"$dir.build.log" 2>&1 ||
      { echo "does not build: $dir.build.log"; return; }
  done
  clang++ "${objects[@]}" -o "$dir/mutant" "${libraries[@]}" -pthread >>"$dir.build.log" 2>&1 ||
    { echo "does not link: $dir.build.log"; return; }

  status=0
  timeout "$run_seconds" "$dir/mutant" "${red[@]}" >"$dir.red.log" 2>&1 || status=$?
  if ((status == 0)); then
    echo "goes unnoticed: $dir.red.log"
  elif ((status == 124)); then
    echo "hangs, where the test should say what is wrong: $dir.red.log"
  else
    local how='red as it should be'
    [[ $program != simulation ]] || how=$(sed -n 's/^\(seed [0-9]*\):.*WRONG: /\1: /p' "$dir.red.log" | head -1)
    echo "ok: guarantee $(header "$patch" guarantee), ${how:-it crashed}"
  fi
}

patches=(tests/mutations/*.patch)
if (($# > 0)); then
  patches=("${@/%/.patch}")
  patches=("${patches[@]/#/tests/mutations/}")
fi

mkdir -p "$work"
programs=$(for patch in "${patches[@]}"; do header "$patch" test | cut -d' ' -f1; done | sort -u)
cmake --preset dev >"$work/dev.log"
# shellcheck disable=SC2086 # a list of names
[[ -z $programs ]] || cmake --build --preset dev --parallel "$cpus" --target $programs >>"$work/dev.log" ||
  { tail -n 30 "$work/dev.log"; exit 1; }
"${compile[@]}" -c tests/support/catch_main.cpp -o "$work/catch_main.o"
"${compile[@]}" -x c++-header tests/mutations/third_party.hpp -o "$work/third_party.pch"

rm -f "$work"/*.verdict
for patch in "${patches[@]}"; do
  while (($(jobs -rp | wc -l) >= cpus)); do wait -n || true; done
  (
    name=$(basename "$patch" .patch)
    verdict "$patch" >"$work/$name.verdict"
    echo "$name: $(cat "$work/$name.verdict")"
  ) &
done
wait

verdicts=("$work"/*.verdict)
passed=0
((${#verdicts[@]} == 0)) || passed=$(cat "${verdicts[@]}" | grep -c '^ok' || true)
failed=$((${#patches[@]} - passed))
if (($# == 0)); then
  for guarantee in {1..10}; do
    grep -qx "# guarantee: $guarantee" /dev/null "${patches[@]}" ||
      { echo "guarantee $guarantee: no patch breaks it" && failed=$((failed + 1)); }
  done
fi
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
