#!/usr/bin/env bash
# Builds the fuzzers with AddressSanitizer and UndefinedBehaviorSanitizer and runs them, one after the other.
#
#   tests/fuzzing/run.sh [<seconds each>] [<target>...]     600 seconds of every target by default
#
# Starts from what build/fuzz/corpus/ holds of earlier runs and from tests/fuzzing/corpus/. An input that reaches code
# which none there reaches is added to the latter; one that breaks something goes to tests/fuzzing/regressions/, as
# small as it could be made, and this script ends with 1. Prints executions and coverage for each target.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

seconds=${1:-600}
targets=("${@:2}")
((${#targets[@]} > 0)) || targets=(codec cbor frame client_session server_session server_core)

# Long scripts are slow and say little that short ones don't.
declare -A longest=([codec]=1024 [cbor]=4096 [frame]=2048 [client_session]=512 [server_session]=512 [server_core]=512)

need_packages checks
cd "${root:?}"
cmake --preset fuzz
cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}"

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
common=(-rss_limit_mb=2048 -malloc_limit_mb=64 -timeout=20 -report_slow_units=60)
status=0
for target in "${targets[@]}"; do
  [[ -n ${longest[$target]:-} ]] || { echo "$target is no target: ${!longest[*]}" >&2; exit 2; }
  program=build/fuzz/tests/fuzzing/fuzz_$target
  work=build/fuzz/corpus/$target
  kept=tests/fuzzing/corpus/$target
  finds=tests/fuzzing/regressions/$target
  log=build/fuzz/$target.log
  mkdir -p "$work" "$kept" "$finds"

  touch "$log.began"
  # In scripts it is the value that decides, not how often a line was met.
  "$program" "${common[@]}" -max_total_time="$seconds" -max_len="${longest[$target]}" -len_control=0 \
    -use_value_profile=1 -artifact_prefix="$finds/" -print_final_stats=1 "$work" "$kept" >"$log" 2>&1 || status=1
  grep -E '^(SUMMARY|does not hold|==[0-9]+==ERROR)' "$log" || true
  sed -n 's/^stat::number_of_executed_units: */executions /p' "$log" | sed "s/^/$target: /"
  grep -E '^#[0-9]+.* cov: ' "$log" | tail -1 | sed -E "s/^#[0-9]+\s+\S+\s+/$target: /"

  while IFS= read -r find; do
    "$program" "${common[@]}" -minimize_crash=1 -max_total_time=60 -exact_artifact_path="$find.small" "$find" \
      >>"$log" 2>&1 || true
    [[ ! -f $find.small ]] || mv "$find.small" "$find"
    echo "$target: found $find"
  done < <(find "$finds" -type f -newer "$log.began")

  # By lines reached alone: how often and with which values would keep thousands.
  before=$(find "$kept" -type f | wc -l)
  "$program" "${common[@]}" -merge=1 -use_counters=0 -use_value_profile=0 "$kept" "$work" >>"$log" 2>&1 || status=1
  echo "$target: $(($(find "$kept" -type f | wc -l) - before)) inputs added to $kept"
  rmdir "$finds" 2>/dev/null || true
done
exit "$status"
