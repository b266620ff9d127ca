# What the tests of the example programs share. Sourced, in bash, under `set -euo pipefail`, with the folder of the
# programs as $1. Writes to a folder of its own in there, which goes when the test ends, with all that it started.

start=$PWD
programs=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "$programs/test.XXXXXX")
failures=0
cleanup() {
  local started
  started=$(jobs -p)
  # shellcheck disable=SC2086 # a list of process ids
  [[ -z $started ]] || kill -9 $started 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# Waits until the text $2 stands in the file $1, a minute at most.
wait_for() {
  timeout 60 grep -qFm1 -- "$2" <(exec tail -n +1 -F --pid=$$ "$1" 2>/dev/null) && return
  fail "'$2' did not come in $1, which says: $(cat "$1")"
  exit 1
}

# Runs a command, which must end with the exit code $1, and with the text $2 in what it prints; "" is in everything.
expect() {
  local code=0
  "${@:3}" >printed 2>&1 </dev/null || code=$?
  [[ $code == "$1" ]] || fail "exit code $code, not $1: ${*:3}: $(cat printed)"
  grep -qF -- "$2" printed || fail "no '$2' from ${*:3}: $(cat printed)"
}

finish() {
  ((failures == 0)) || exit 1
  echo passed
}
