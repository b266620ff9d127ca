#!/usr/bin/env bash
# Counts the instructions of small cases under callgrind, and fails where one takes over 3 % more than its baseline.
# Unlike times, counts come out the same on a busy machine.
#
#   benchmarks/instructions/run.sh             compares with baseline/ for this compiler, C library and OpenSSL; where
#                                              there is none, with the parent commit, which is built for that
#   benchmarks/instructions/run.sh --update    writes the baseline
#
# Writes to build/ only, but for --update.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../cmake/environment.sh"

most_percent=3

update=false
case ${1:-} in
  '') ;;
  --update) update=true ;;
  *) sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

need_packages instructions >&2
cd "$root"
source benchmarks/instructions/callgrind.sh

# What the counts depend on besides our own code.
versions() {
  local compiler=${CXX:-g++} name=gcc
  ! "$compiler" --version | grep -q clang || name=clang
  echo "$name-$("$compiler" -dumpfullversion -dumpversion | head -1)_$(getconf GNU_LIBC_VERSION | tr ' ' -)_openssl-$(
    openssl version | cut -d ' ' -f 2)"
}

# Prints the cases of the source tree $1: name, instructions an operation.
counts() {
  count "$1" count_instructions | awk '{ printf "%s %.1f\n", $2, $1 / $3 }'
}

# The parent commit, or the last one where something is not committed yet; nothing where git does not have it.
other_commit() {
  local other=HEAD^
  git diff --quiet HEAD -- include benchmarks 2>/dev/null || other=HEAD
  git rev-parse --quiet --verify "$other^{commit}" 2>/dev/null || true
}

# Counts the cases of commit $1.
counts_of_commit() {
  local tree=$work/parent
  git worktree remove --force "$tree" 2>/dev/null || true
  git worktree prune
  git worktree add --quiet --detach --force "$tree" "$1" >&2 || return
  trap 'git worktree remove --force "'"$tree"'"' RETURN
  [[ -e $tree/benchmarks/instructions/count_instructions.cpp ]] || return 0
  build "$tree" count_instructions && counts "$tree"
}

build . count_instructions
counts . >"$work/now"
baseline=benchmarks/instructions/baseline/$(versions).txt
if "$update"; then
  cp "$work/now" "$baseline"
  cat "$baseline"
  echo "written to $baseline" >&2
  exit
fi

if [[ -e $baseline ]]; then
  what=$baseline
  cp "$baseline" "$work/before"
else
  other=$(other_commit)
  what="commit ${other:0:7}"
  : >"$work/before"
  if [[ -n $other ]]; then
    counts_of_commit "$other" >"$work/before"
  fi
  [[ -s $work/before ]] || what="nothing: there is neither $baseline nor an earlier commit with this program"
fi
echo "compared with $what"
is_baseline=$([[ $what == "$baseline" ]] && echo 1 || echo 0)
awk -v most="$most_percent" -v is_baseline="$is_baseline" '
  NR == FNR && FILENAME ~ /before$/ { before[$1] = $2; next }
  {
    verdict = ""
    is_good = 1
    if (!($1 in before)) {
      verdict = is_baseline ? "FAILED: not in the baseline; run with --update" : "nothing to compare it with"
      is_good = !is_baseline
    } else {
      percent = (before[$1] > 0 ? $2 / before[$1] - 1 : 0) * 100
      verdict = sprintf("%+.1f %%", percent)
      if (percent > most) {
        verdict = verdict " FAILED: more than " most " %"
        is_good = 0
      } else if (percent < -most) {
        verdict = verdict (is_baseline ? ": better, update the baseline" : ": better")
      }
      delete before[$1]
    }
    printf "%-34s %12.1f   %s\n", $1, $2, verdict
    is_good ? ++passed : ++failed
  }
  END {
    for (name in before) {
      printf "%-34s %12s   %s\n", name, "-", is_baseline ? "FAILED: is no case any more; run with --update" : "is gone"
      if (is_baseline) ++failed
    }
    printf "%d passed, %d failed\n", passed, failed
    exit failed > 0
  }' "$work/before" "$work/now"
