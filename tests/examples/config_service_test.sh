#!/usr/bin/env bash
# config_service in separate processes over real TLS: documents that come back as they were, changes that watchers
# see, kills and restarts, wrong input.
set -euo pipefail
# shellcheck source=tests/examples/support.bash
source "$(dirname "${BASH_SOURCE[0]}")/support.bash"

service() { "$programs/config_service" "$@"; }
client() { service "$1" --dir dir --connect "$where" "${@:2}"; }
# In the background; the process id is then $watcher, the output in $1.out and $1.err.
watch() {
  : >"$1.err"
  "$programs/config_service" watch --dir dir --connect "$where" "${@:2}" >"$1.out" 2>"$1.err" &
  watcher=$!
}

# Serves the file $1 on $where, or on a free port, which $where then is; the process id is then $server.
where=
serve() {
  : >serve.log
  "$programs/config_service" serve --dir dir --listen "${where:-127.0.0.1:0}" "$@" >serve.log 2>&1 &
  server=$!
  wait_for serve.log "listening "
  where=$(sed -n 's/^listening //p' serve.log)
}
# Ends process $2 with signal $1; prints its exit code.
end() {
  local code=0
  kill "-$1" "$2"
  wait "$2" 2>/dev/null || code=$?
  ended=$code
}

echo "--- documents come back as they were"
# Written as `dump` writes them, so that they can be compared byte by byte.
round_trip() {
  serve "$1"
  client dump >dumped || fail "can't dump $1"
  diff "$1" dumped || fail "came back differently: $1"
  end TERM "$server"
  [[ $ended == 0 ]] || fail "the server ended with $ended"
}
round_trip_text() {
  printf '%s\n' "$1" >document.json
  round_trip document.json
}
round_trip_text '{}'
round_trip_text '[]'
round_trip_text '17'
round_trip_text '"text"'
round_trip_text 'null'
round_trip_text $'[\n  0\n]'
round_trip_text $'{\n  "0": 1,\n  "name": 2\n}'
round_trip_text $'{\n  "0": 1,\n  "1": {\n    "0": [\n      {},\n      []\n    ]\n  }\n}'
round_trip_text $'{\n  "": {\n    "": 1\n  },\n  "/": 2,\n  "a/b": {\n    "~": 3,\n    "~1": 4\n  },\n  "object:": 5\n}'
round_trip_text $'{\n  "01": "no index",\n  "a": {},\n  "a b": [],\n  "a-b": 1,\n  "a.b": {\n    "c": 2\n  }\n}'
round_trip_text $'{\n  "größe": "→ 日本 🎲",\n  "quote\\"": "line\\nbreak",\n  "tab\\t": -1.5e+300\n}'
round_trip_text $'[\n  0,\n  1,\n  2,\n  3,\n  4,\n  5,\n  6,\n  7,\n  8,\n  9,\n  10,\n  [\n    11\n  ]\n]'
round_trip_text $'{\n  "big": 18446744073709551615,\n  "float": 1.0,\n  "small": -9223372036854775808\n}'
round_trip "$root/examples/data/fleet.json"

echo "--- files that are refused, with their line"
printf '{\n  "a": 1,\n  "b" 2\n}\n' >bad.json
expect 3 "bad.json:3: " service serve bad.json --dir dir --listen 127.0.0.1:0
printf '{"a": 1,\n"b": {"c": 1,\n"c": 2}}' >twice.json
expect 3 'twice.json:3: the name "c" stands twice in /b' service serve twice.json --dir dir --listen 127.0.0.1:0
printf '[%.0s' {1..100000} >deep.json
expect 3 "deep.json:1: nested more than 1,000 deep" service serve deep.json --dir dir --listen 127.0.0.1:0
printf '1e999' >number.json
expect 3 "number.json:1: " service serve number.json --dir dir --listen 127.0.0.1:0
: >empty.json
expect 3 "empty.json:1: " service serve empty.json --dir dir --listen 127.0.0.1:0
expect 3 "missing.json" service serve missing.json --dir dir --listen 127.0.0.1:0
expect 3 "can't be read" service serve . --dir dir --listen 127.0.0.1:0

echo "--- get, set, status"
serve "$root/examples/data/fleet.json"
expect 0 '"info"' client get /log/level
expect 0 '"sample_rate": 0.05' client get /log
expect 0 "update 1, answered in" client set /log/level '"debug"'
expect 0 '"debug"' client get /log/level
expect 0 "update 2, " client set /limits/requests_per_second -5
expect 0 "-5" client get /limits/requests_per_second
expect 0 "update 3, " client set /maintenance/windows '[{"from": 1}, []]'
expect 0 '"from": 1' client dump
expect 0 "update id  3" client status
expect 0 "string -> json" client status
expect 0 "link       live" service status --dir dir --connect "localhost:${where##*:}"
expect 2 "is no JSON" client set /log/level debug
printf '"%0100000d"' 7 >long.json
code=0
client set /fleet/name - <long.json >printed || code=$?
[[ $code == 0 ]] || fail "set from standard input ended with $code"
client get /fleet/name | cmp - <(cat long.json; echo) || fail "a long value"
printf '"%02000000d"' 7 >too_long.json
code=0
client set /fleet/name - <too_long.json 2>printed || code=$?
[[ $code == 1 ]] && grep -q "larger than the limit" printed || fail "an event of 2 MB: $code, $(cat printed)"
expect 6 "/log/level" client set /log/levle '"debug"'
expect 6 "it holds 3 leaves" client set /log 1
expect 6 'with the value "debug"' client set /log/level/deeper 1
expect 6 "nothing of this name" client get /nonsense
expect 6 "/log/level" client get log/level
expect 2 "POINTER is required" client get
expect 2 "JSON is required" client set /a
expect 2 "--nonsense" client get /a --nonsense
expect 0 "Exit codes" service --help
expect 0 "POINTER" service set --help

echo "--- whom we don't trust, and who does not trust us"
echo wrong >wrong
expect 5 "passwords of the two sides differ" client get /log/level --password-file wrong
expect 5 "passwords of the two sides differ" client watch --password-file wrong
expect 3 "there is no elsewhere/server.crt" service get /log/level --dir elsewhere --connect "$where"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.crt -days 2 \
  -subj /CN=other -addext subjectAltName=IP:127.0.0.1 2>/dev/null
expect 5 "certificate" client get /log/level --trust other.crt
expect 7 "no map with the hash 00" client get /log/level --hash 00
expect 3 "--listen names another port" service serve "$root/examples/data/fleet.json" --dir dir --listen "$where"
expect 0 '"debug"' client get /log/level
[[ $(stat -c %a dir/server.key dir/password | xargs) == "600 600" ]] || fail "secrets that others may read"

echo "--- watchers, each change once and in order, over a kill and a changed file"
expect 0 "update 5" client set /fleet/name 5
watch counting --every-step --count 2
counting=$watcher
watch steady --every-step
wait_for counting.err "watching "
wait_for steady.err "watching "
expect 0 "update 6" client set /log/level '"first"'
expect 0 "update 7" client set /log/sample_rate 1
expect 0 "update 8" client set /features/dark_mode '{"odd": "\n"}'
code=0
wait "$counting" || code=$?
[[ $code == 0 ]] || fail "watch --count ended with $code"
wait_for steady.out "update 8"
changes() { sed -E 's/^[0-9T:.-]+Z  //' "$1"; }
cat >wanted <<'END'
update 6  /log/level  "debug" -> "first"
update 7  /log/sample_rate  0.05 -> 1
update 8  /features/dark_mode  false -> {"odd":"\n"}
END
diff wanted <(changes steady.out) || fail "the watcher saw something else"
diff <(head -2 wanted) <(changes counting.out) || fail "the counting watcher saw something else"

end KILL "$server"
wait_for steady.err "stale: "
expect 4 "no server at" client get /log/level --timeout 0.3
serve "$root/examples/data/fleet.json"
wait_for steady.err "live again"
expect 0 "update 1" client set /log/level '"after"'
wait_for steady.out '-> "after"'
# What the restarted server no longer knows comes back to the file's value, in whatever order.
changes steady.out | grep -F "update 0  /features/dark_mode  {\"odd\":\"\\n\"} -> false" >/dev/null ||
  fail "not set back: $(cat steady.out)"
changes steady.out | tail -1 | diff <(echo 'update 1  /log/level  "info" -> "after"') - || fail "the change after it"

end KILL "$server"
sed 's/"dark_mode": false/"dark_mode": 7/' "$root/examples/data/fleet.json" >changed.json
serve changed.json
wait_for steady.err "hosts another document now"
wait_for steady.out 'update 0  /features/dark_mode  false -> 7'
expect 0 "update 1" client set /log/level '"last"'
wait_for steady.out '-> "last"'
end INT "$watcher"
[[ $ended == 0 ]] || fail "watch ended with $ended after SIGINT"

echo "--- certificate, key and password of one's own"
end TERM "$server"
serve "$root/examples/data/fleet.json" --cert other.crt --key other.key --password-file wrong
expect 0 '"info"' client get /log/level --trust other.crt --password-file wrong
expect 5 "" client get /log/level
expect 2 "belong together" service serve changed.json --cert other.crt
end INT "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended after SIGINT"

finish
