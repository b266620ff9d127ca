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
(umask 077; echo "wrong password" >wrong)
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

echo "--- what is printed steers no terminal, and stays on its line"
# Keys and values with C0, C1, DEL, directional and invisible characters, line separators.
printf '%s' '{"k\u001b\u0007\u009b\u202e":"\u001b[31m\u007f\u0085\u009b31m\u200e\u200b\u202e\u2066\u2028\ufeff\u061c\udb40\udc41\n",' \
  '"plain":"größe 日本 🎲","b":[1]}' >odd.json
# No byte of a control character but line ends, and none of the characters above.
check_plain() {
  if LC_ALL=C grep -qP '[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f\xad]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf|\xf3\xa0' "$1"; then
    fail "raw control characters in $1: $(cat -v "$1")"
  fi
}
where=127.0.0.1:0
serve odd.json
client dump >dumped
check_plain dumped
grep -qF '\u202e' dumped || fail "not written out: $(cat -v dumped)"
grep -qF 'größe 日本 🎲' dumped || fail "written out what is plain: $(cat dumped)"
end TERM "$server"
where=127.0.0.1:0
serve dumped  # the same document, written out
client dump | cmp - dumped || fail "the dump is another document"
watch odd --count 2
wait_for odd.err "watching "
expect 0 "update 1" client set /plain "\"line\\nend \\u001b \\u202e \\u009b \\u007f\""
expect 0 "update 2" client set $'/k\x1b\x07\xc2\x9b\xe2\x80\xae' '"\u2029"'
code=0
wait "$watcher" || code=$?
[[ $code == 0 ]] || fail "watch ended with $code"
[[ $(wc -l <odd.out) == 2 ]] || fail "not a line for each change: $(cat -v odd.out)"
for file in odd.out odd.err serve.log; do check_plain "$file"; done
plain() {
  expect "$@"
  check_plain printed
}
plain 6 'u001b' client get $'/k\x1b\x07'
plain 6 'is no leaf' client get $'/\xe2\x80\xae\xc2\x9b\x7f'
plain 6 'is no leaf' client set $'/\xff\xfe\n' 1
plain 2 '\u001b' client set /plain $'\x1b[31m'
plain 2 '\u202e' service get /a $'--\xe2\x80\xae\x1b[31m'
plain 3 '\u001b' service serve $'missing\x1b[31m\n.json' --dir dir --listen 127.0.0.1:0
plain 3 '\u202e' service get /a --dir $'no\xe2\x80\xaesuch' --connect "$where"
plain 2 'host' service get /a --dir dir --connect $'a\x1b[31m:1'
plain 7 '\u001b' client get /plain --hash $'\x1b[31m'
printf '{"a": \x1b[31m}' >steers.json
plain 3 'steers.json:1' service serve steers.json --dir dir --listen 127.0.0.1:0
end TERM "$server"

echo "--- files that are private, whatever the umask"
modes() { stat -c %a "$@" | xargs; }
for mask in 000 022 077 0277; do
  rm -rf made
  (umask "$mask"; exec "$programs/config_service" serve odd.json --dir made/below --listen 127.0.0.1:0) >made.log 2>&1 &
  server=$!
  wait_for made.log "listening "
  end TERM "$server"
  [[ $(modes made/below made/below/server.key made/below/password made/below/server.crt) == "700 600 600 600" ]] ||
    fail "umask $mask: $(modes made/below made/below/*)"
  [[ $(modes made) == [1-7]00 ]] || fail "umask $mask: the parent is $(modes made)"
done
refused() { # <what is printed> <folder> [argument...]
  expect 3 "$1" service serve odd.json --dir "$2" --listen 127.0.0.1:0 "${@:3}"
}
dir=made/below
for mode in 640 604 620 602 644 666; do
  for file in server.key password; do
    chmod "$mode" $dir/$file
    refused "chmod 600 '$dir/$file'" $dir
    chmod 600 $dir/$file
  done
  cp $dir/password own_password
  chmod "$mode" own_password
  refused "chmod 600 'own_password'" $dir --password-file own_password
  expect 3 "chmod 600 'own_password'" service get /b/0 --dir $dir --password-file own_password --connect 127.0.0.1:1
done
chmod 604 $dir/password
expect 3 "chmod 600 '$dir/password'" service get /b/0 --dir $dir --connect 127.0.0.1:1
chmod 600 $dir/password
chmod 666 $dir/server.crt
refused "chmod 644 '$dir/server.crt'" $dir
expect 3 "chmod 644 '$dir/server.crt'" service get /b/0 --dir $dir --connect 127.0.0.1:1
chmod 644 $dir/server.crt
for mode in 777 770 707 1777; do
  chmod "$mode" $dir
  refused "chmod 700 '$dir'" $dir
  expect 3 "chmod 700 '$dir'" service get /b/0 --dir $dir --connect 127.0.0.1:1
done
chmod 700 $dir
ln -s below made/link
refused "symbolic link" made/link
refused "symbolic link" made/link/
refused "symbolic link" made/link/.
expect 3 "is no file" service get /b/0 --dir $dir --password-file /dev/zero --connect 127.0.0.1:1
mv $dir/password made/elsewhere
ln -s ../elsewhere $dir/password
refused "symbolic link" $dir
rm $dir/password
mkfifo -m 600 $dir/password
refused "is no file" $dir
rm $dir/password
mv made/elsewhere $dir/password
if [[ $(id -u) == 0 ]]; then  # only root makes files of other users
  for file in . server.key password server.crt; do
    chown 12345 $dir/$file
    refused "belongs to another user" $dir
    chown 0 $dir/$file
  done
  chown 12345 $dir/password
  expect 3 "belongs to another user" service get /b/0 --dir $dir --connect 127.0.0.1:1
  chown 0 $dir/password
fi

echo "--- passwords that are too short"
for password in a 1234567; do
  (umask 077; echo "$password" >short)
  refused "fewer than 8" $dir --password-file short
done
(umask 077; echo 12345678 >short)
where=127.0.0.1:0
serve odd.json --password-file short
expect 0 "1" service get /b/0 --dir dir --password-file short --connect "$where"
# A pipe has no place on a disk, and no mode to mind.
expect 0 "1" service get /b/0 --dir dir --password-file <(cat short) --connect "$where"
end TERM "$server"

echo "--- what is typed, and documents out of measure"
where=127.0.0.1:0
serve odd.json --password-file short
XDG_CONFIG_HOME=/$'\e[31m' plain 0 '\u001b' service get --help
for given in "--password hunter2hunter2" --password=hunter2hunter2 "-p hunter2hunter2"; do
  # shellcheck disable=SC2086 # words
  plain 2 "--password-file" client get /plain $given
  if grep -qF hunter2 printed; then fail "the password is printed: $(cat printed)"; fi
done
if grep -qF 12345678 serve.log; then fail "the password is printed"; fi
# The `chmod` that is printed helps, whatever the name is.
for name in "the password" "it's" $'-o\'d\e\n1\xff'; do
  cp short "./$name"
  chmod 666 "./$name"
  plain 3 "type  chmod 600 " client get /plain --password-file="$name"
  [[ $(wc -l <printed) == 1 ]] || fail "more than one line: $(cat printed)"
  eval "$(sed -n 's/.*type  //p' printed)"
  expect 0 "" client get /plain --password-file="$name"
done
# A pipe that has a name is held to the modes of a file.
mkfifo -m 666 pipe
cat short >pipe &
plain 3 "chmod 600 'pipe'" client get /plain --password-file pipe
wait $! || true
# A value so deep that a recursion over it would overflow the stack.
{ head -c 300000 /dev/zero | tr '\0' '['; head -c 300000 /dev/zero | tr '\0' ']'; } >deep.json
code=0
client set /plain - --password-file short <deep.json >printed 2>&1 || code=$?
if [[ $code != 2 ]] || ! grep -qF "nested more than 64 deep" printed; then
  fail "a deep value: $code, $(cut -c -300 printed)"
fi
expect 0 "" client get /plain --password-file short
plain 3 "larger than 256 MiB" service serve /dev/zero --dir dir --listen 127.0.0.1:0
end TERM "$server"

finish
