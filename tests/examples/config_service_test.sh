#!/usr/bin/env bash
# config_service in separate processes over real TLS: documents that come back as they were, changes that watchers
# see, kills and restarts, wrong input.
set -euo pipefail
# shellcheck source=tests/examples/support.bash
source "$(dirname "${BASH_SOURCE[0]}")/support.bash"
foreign_peer=$(cd "$start" && cd "$2" && pwd)/foreign_peer

# One that should have ended, or have been refused, does not stop the test for long.
service() { timeout -k 5 60 "$programs/config_service" "$@"; }
foreign() { timeout -k 5 60 "$foreign_peer" "$@"; }
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
# Waits until process $1 ends, or kills it after 20 s.
ends_in_time() {
  timeout 20 tail --pid="$1" -s 0.05 -f /dev/null && return
  kill -KILL "$1"
  return 1
}
# Ends process $2 with signal $1; its exit code is then $ended.
end() {
  local code=0
  kill "-$1" "$2"
  ends_in_time "$2" || fail "still there after SIG$1"
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

round_trip_text $'{\n  "a": [\n    0.1,\n    0.3,\n    40.842727,\n    1e+23,\n    1e+15,\n    123456789012345.0,\n    0.0001,\n    1e-05\n  ]\n}'
round_trip_text $'[\n  5e-324,\n  2.2250738585072014e-308,\n  1.7976931348623157e+308,\n  -1.2345678901234567e-308,\n  9.007199254740992e+15\n]'
# The same numbers, whatever way they are written.
hash_of() { sed -n 's/^hash      //p' serve.log; }
document=$root/tests/data/documents
serve "$document/numbers.json"
hash=$(hash_of)
client dump >dumped
diff - dumped <<'END' || fail "other numbers"
{
  "big": 1e+300,
  "half": 0.5,
  "i64": -9223372036854775808,
  "neg_zero": -0.0,
  "neg_zero_integer": -0.0,
  "shortest": 40.842727,
  "u64": 18446744073709551615
}
END
end TERM "$server"
serve dumped
[[ $(hash_of) == "$hash" ]] || fail "the dump is another document"
end TERM "$server"

echo "--- files that are refused, with line and column"
printf '{\n  "a": 1,\n  "b" 2\n}\n' >bad.json
expect 3 "bad.json:3:7: " service serve bad.json --dir dir --listen 127.0.0.1:0
for text in '9 {"a": 1,}' '6 {"a" true}' '10 {"a": 1, null: 2}' '10 {"a": 12 ]' '11 {"a": "b" "c"}' '8 [true, ]'; do
  printf '%s\n' "${text#* }" >bad.json
  expect 3 "bad.json:1:${text%% *}: " service serve bad.json --dir dir --listen 127.0.0.1:0
done
printf '{"a": 1,\n"b": {"c": 1,\n"c": 2}}' >twice.json
expect 3 'twice.json:3:1: the name "c" occurs twice in /b' service serve twice.json --dir dir --listen 127.0.0.1:0
printf '[%.0s' {1..100000} >deep.json
expect 3 "deep.json:1:1001: nested more than 1,000 deep" service serve deep.json --dir dir --listen 127.0.0.1:0
: >empty.json
expect 3 "empty.json:1:1: " service serve empty.json --dir dir --listen 127.0.0.1:0
expect 3 'bigint.json:1:8: the integer 12345678901234567890123 needs more than 64 bits' \
  service serve "$document/bigint.json" --dir dir --listen 127.0.0.1:0
expect 3 'tiny.json:1:10: the number 1e-400 would become 0.0' \
  service serve "$document/tiny.json" --dir dir --listen 127.0.0.1:0
expect 3 'nul.json:1:8: a NUL byte' service serve "$document/nul.json" --dir dir --listen 127.0.0.1:0
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
expect 6 'nonsense is no leaf: a pointer begins with /, as in /nonsense' client get nonsense
expect 7 "the server hosts no map with the hash ffffffffff; it hosts" client status --hash ffffffffff
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
plain 3 'steers.json:1:7: ' service serve steers.json --dir dir --listen 127.0.0.1:0
end TERM "$server"

echo "--- values of set that could not be kept as they are"
where=127.0.0.1:0
serve "$document/controls.json"
client dump >dumped
for file in dumped serve.log; do check_plain "$file"; done
grep -qF '"csi\u009b31m": "del\u007f nel\u0085 rlo\u202e"' dumped || fail "not written out: $(cat -v dumped)"
leaf=$'/csi\xc2\x9b31m'
watch controls --count 1
wait_for controls.err "watching "
expect 0 "update 1" client set "$leaf" "\"$(printf 'del\x7f nel\xc2\x85 rlo\xe2\x80\xae')\\r\\n\""
ends_in_time "$watcher" && wait "$watcher" || fail "watch did not end with 0"
for file in controls.out controls.err serve.log; do check_plain "$file"; done
plain 0 '\u202e' client get "$leaf"
plain 0 'link       live' client status
plain 6 'line\nfeed' client get $'/line\nfeet'
# As an argument, and on standard input.
refuse_value() { # <line:column: what is printed> <value>
  plain 2 "the value:$1" client set "$leaf" "$2"
  code=0
  printf '%s' "$2" | client set "$leaf" - >printed 2>&1 || code=$?
  [[ $code == 2 ]] || fail "exit code $code for $2 on standard input"
  grep -qF -- "standard input:$1" printed || fail "no '$1': $(cat printed)"
  check_plain printed
}
refuse_value '1:1: the integer 18446744073709551616 needs more than 64 bits' 18446744073709551616
refuse_value '1:2: the integer -9223372036854775809 needs more than 64 bits' '[-9223372036854775809]'
refuse_value '1:1: the integer 1000000000000000000000 ' 1000000000000000000000
refuse_value '1:1: the number 1e-999 would become 0.0' 1e-999
refuse_value '1:1: the number -1e-400 would become -0.0' -1e-400
refuse_value '1:1: the number 1e999 is beyond' 1e999
refuse_value '2:8: the number -1e999 is beyond' $'[0,\n"\\"]", -1e999]'
refuse_value '1:1: the number 9007199254740993.0 would become 9.007199254740992e+15' 9007199254740993.0
refuse_value '1:1: the number 0.1000000000000000055511151231257827 would become 0.1' 0.1000000000000000055511151231257827
refuse_value '2:12: the name "\"ö" occurs twice in an object' $'{"a": {"a": 1},\n "\\"ö": 1, "\\"\\u00f6": 2}'
refuse_value '1:65: nested more than 64 deep' "$(printf '[%.0s' {1..65})"
refuse_value '1:2: ' $'"\xff"'
refuse_value '1:1: ' ''
refuse_value '1:3: ' '1 2'
printf '{"a": 1}\0{"b": 2}' >nul
plain 2 "standard input:1:9: a NUL byte" bash -c '"$@" <nul' - "$programs/config_service" set "$leaf" - --dir dir \
  --connect "$where"
kept() { # <value> [<as it is printed>]
  expect 0 "update" client set "$leaf" "$1"
  [[ $(client get "$leaf") == "${2:-$1}" ]] || fail "$1 came back as $(client get "$leaf")"
}
kept 18446744073709551615
kept -9223372036854775808
kept -0 -0.0
kept -0.0
kept 0.0
kept 40.842727
kept 5e-324
kept 100e-2 1.0
kept 1.50E3 1500.0
deep=$(printf '[%.0s' {1..64})0$(printf ']%.0s' {1..64})
expect 0 "update" client set "$leaf" "$deep"
[[ $(client get "$leaf" | tr -d ' \n') == "$deep" ]] || fail "64 levels came back differently"
end TERM "$server"

echo "--- set reads its own standard input, from where it stands"
where=127.0.0.1:0
serve "$root/examples/data/fleet.json"
printf 'a line that was read before\n"second"\n' >two_lines
{ read -r _ && expect_input=$(client set /log/level -); } <two_lines
[[ $expect_input == "update 1"* ]] || fail "from within a file: $expect_input"
expect 0 '"second"' client get /log/level
# A socket, which can't be opened by a path.
socket_input() {
  perl -MSocket -e 'socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite $b, "\"third\""; shutdown $b, 1;
    open STDIN, "<&", $a or die; exec @ARGV' "$programs/config_service" "$@"
}
expect 0 "update 2" socket_input set /log/level - --dir dir --connect "$where"
expect 0 '"third"' client get /log/level
code=0
client set /log/level - <&- >printed 2>&1 || code=$?
if [[ $code != 3 ]] || ! grep -qF "standard input can't be read" printed; then fail "no input: $code, $(cat printed)"; fi
head -c 16777217 /dev/zero | tr '\0' ' ' >large
code=0
client set /log/level - <large >printed 2>&1 || code=$?
if [[ $code != 3 ]] || ! grep -qF "larger than 16 MiB" printed; then fail "a large input: $code, $(cat printed)"; fi
{ sh "$root/tests/data/documents/deep.sh" || true; } >nested.json
code=0
client set /log/level - <nested.json >printed 2>&1 || code=$?
if [[ $code != 2 ]] || ! grep -qF "standard input:1:65: nested more than 64 deep" printed; then
  fail "100,000 levels: $code, $(cut -c -300 printed)"
fi
expect 3 "nested.json:1:1001: nested more than 1,000 deep" service serve nested.json --dir dir --listen 127.0.0.1:0
end TERM "$server"

echo "--- a mark of the shape is no leaf"
echo '{"0": {"0": 1}}' >marked.json
where=127.0.0.1:0
serve marked.json
client dump >dumped
for mark in object: object:/0; do
  expect 6 "is no leaf" client set "$mark" '{"odd": 1}'
  expect 1 "is no leaf" foreign set "$where" dir/server.crt "$(<dir/password)" "$mark" number
done
client dump | diff dumped - || fail "a mark was set"

echo "--- a foreign client sends what no JSON can say"
for value in latin1 latin1_name; do
  expect 1 "must be UTF-8" foreign set "$where" dir/server.crt "$(<dir/password)" /0/0 "$value"
done
expect 1 "no infinity" foreign set "$where" dir/server.crt "$(<dir/password)" /0/0 infinity
expect 1 "no NaN" foreign set "$where" dir/server.crt "$(<dir/password)" /0/0 nan
expect 1 "no bytes" foreign set "$where" dir/server.crt "$(<dir/password)" /0/0 bytes
client dump | diff dumped - || fail "such a value was set"
expect 0 "update 1" foreign set "$where" dir/server.crt "$(<dir/password)" /0/0 deepest
expect 0 "[" client get /0/0
end TERM "$server"

echo "--- a foreign server"
foreign_serve() { # <what> [endpoint]
  : >foreign.log
  mkfifo alive
  foreign serve dir/server.crt dir/server.key "$(<dir/password)" "$@" >foreign.log 2>&1 <alive &
  server=$!
  exec 7>alive
  rm alive
  wait_for foreign.log ":"
  where=$(head -1 foreign.log)
}
foreign_end() {
  exec 7>&-
  ends_in_time "$server" && wait "$server" || fail "the foreign server ended with $?"
}
foreign_serve none
expect 7 "it hosts none" client get /a
expect 7 "it hosts none" client watch
expect 0 "maps       none" client status
foreign_end
foreign_serve many
expect 7 "Say --hash" client get /a
expect 7 "Say --hash" client watch
expect 7 "the server hosts no map with the hash x" client set /a 1 --hash x
client get /a >printed 2>&1 || true
digit=$(grep -oE '^  [0-9a-f]{64}' printed | cut -c 3 | sort | uniq -d | head -1)
expect 7 "several maps have a hash that begins with $digit" client dump --hash "$digit"
hash=$(grep -oE '^  [0-9a-f]{64}' printed | head -1)
expect 0 "" client get /a --hash "${hash:2:20}"
foreign_end
foreign_serve keys
expect 7 'is no JSON document: it has a key "no pointer"' client dump
foreign_end
foreign_serve levels
expect 7 "nested more than 1,000 deep" client dump
foreign_end
# What is no UTF-8 is printed all the same, and steers nothing.
foreign_serve latin1
plain 0 $'gr\xef\xbf\xbde\\u001b[31m' client get /a
plain 0 $'gr\xef\xbf\xbde\\u001b[31m' client dump
plain 6 $'is one, with the value "gr\xef\xbf\xbde' client set /a/b 1
foreign_end
foreign_serve names
plain 0 '\u202e": [' client dump
foreign_end
# A signal ends `watch` while it waits for what a server hosts.
where=127.0.0.1:0
serve "$root/examples/data/fleet.json"
watch attaching
wait_for attaching.err "watching "
end KILL "$server"
foreign_serve unlisted "$where"
wait_for foreign.log asked
end TERM "$watcher"
[[ $ended == 0 ]] || fail "watch ended with $ended while it waited for the server"
if grep -qF "is gone" attaching.err; then fail "said after the signal: $(cat attaching.err)"; fi
foreign_end
foreign_serve hanging
expect 8 'Look with `get` before you try again' client set /a 1 --timeout 2
foreign_end

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

echo "--- one of certificate and key is missing"
for file in server.crt server.key; do
  mv $dir/$file made/elsewhere
  refused "holds one of server.crt and server.key" $dir
  [[ ! -e $dir/$file ]] || fail "$file was made anew"
  mv made/elsewhere $dir/$file
done
expect 2 "belong together" service serve odd.json --dir $dir --cert $dir/server.crt --listen 127.0.0.1:0
expect 2 "belong together" service serve odd.json --dir $dir --key $dir/server.key --listen 127.0.0.1:0
expect 3 "no_such.crt can't be read" service serve odd.json --dir $dir --cert no_such.crt --key $dir/server.key \
  --listen 127.0.0.1:0
expect 3 "no_such.key can't be read" service serve odd.json --dir $dir --cert $dir/server.crt --key no_such.key \
  --listen 127.0.0.1:0

echo "--- password files as editors leave them"
password_file() {
  (umask 077; rm -f edited; printf '%b' "$1" >edited)
}
password_file '12345678\n'
where=127.0.0.1:0
serve odd.json --password-file edited
for same in 12345678 '12345678\n' '12345678\r\n' '12345678\r' '\xef\xbb\xbf12345678' '\xef\xbb\xbf12345678\r\n'; do
  password_file "$same"
  expect 0 "1" client get /b/0 --password-file edited
done
refuse_password() { # <what is printed> <contents>
  password_file "$2"
  plain 3 "edited $1" client get /b/0 --password-file edited
  plain 3 "edited $1" service serve odd.json --dir dir --password-file edited --listen 127.0.0.1:0
}
for empty in '' '\n' '\r\n' '\xef\xbb\xbf' '\xef\xbb\xbf\n'; do refuse_password "is empty" "$empty"; done
for blank in ' ' '\xc2\xa0' '\xe3\x80\x80'; do
  refuse_password "holds a blank after the password" "12345678$blank\n"
  refuse_password "holds a blank after the password" "12345678$blank"
  refuse_password "holds a blank before the password" "${blank}12345678\n"
done
refuse_password "holds a blank before the password" ' '
refuse_password 'holds a character that can'"'"'t be seen (\u0009)' '12345678\t\r\n'
refuse_password 'holds a character that can'"'"'t be seen (\u0000)' '1234\00005678\n'
refuse_password 'holds a character that can'"'"'t be seen (\ufeff)' '12345678\xef\xbb\xbf\n'
refuse_password 'holds a character that can'"'"'t be seen (\u200b)' '1234\xe2\x80\x8b5678\n'
for lines in '12345678\n\n' '12345678\r\n\r\n' '12345678\nabcdefgh\n' '12345678\n\r' '\n12345678\n' '12345678\r\r'; do
  refuse_password "holds more than one line" "$lines"
done
for utf16 in '\xff\xfe1\0002\0' '\xfe\xff\0001\0002'; do refuse_password "is UTF-16 text" "$utf16"; done
password_file '1234 5678\n'  # another password, but a password
expect 5 "differ" client get /b/0 --password-file edited
password_file 'gr\xfc\xdfe12345\n'
expect 5 "differ" client get /b/0 --password-file edited
end TERM "$server"

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

echo "--- a reader that stands still stops nothing"
# Larger than what a pipe and the queue take, together with the value before.
printf '"%0150000d"' 1 >value1
printf '"%0150000d"' 2 >value2
printf '"%0150000d"' 3 >value3
set_large() { # <how often>
  for ((i = 0; i < $1; ++i)); do
    client set /log/level - <"value$((i % 3 + 1))" >printed 2>&1 || fail "set, number $i: $(cat printed)"
  done
}
mkfifo still
exec 7<>still
fleet=$root/examples/data/fleet.json
"$programs/config_service" serve "$fleet" --dir dir --listen 127.0.0.1:0 >still 2>still.err &
server=$!
line=
until [[ $line == "listening "* ]]; do read -rt 60 line <&7 || fail "serve prints nothing"; done
where=${line#listening }
set_large 20
[[ $(client status) == *"update id  20"* ]] || fail "a change is missing: $(client status)"
# Read on: what is there comes, then how many are missing, then what comes now.
cat <&7 >late.log &
reader=$!
wait_for late.log "are missing here: they came faster than they were read"
client set /log/level '"the last one"' >/dev/null
wait_for late.log '"the last one"'
missing=$(awk '/^\([0-9]+ lines? .* missing here/ { sum += substr($1, 2) } END { print sum + 0 }' late.log)
(($(grep -c " sets /log/level" late.log) + missing == 21)) || fail "$missing lines are said to be missing: $(cut -c -80 late.log)"
# Stands still again, and the server ends all the same, in time.
kill "$reader"
wait "$reader" 2>/dev/null || true
set_large 20
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended while its reader stood still"
grep -qE "^config_service: [0-9]+ lines of the output were not written" still.err || fail "not told: $(cat still.err)"
exec 7<&-
rm still

# Both streams in a pipe that is full before the server begins.
mkfifo still
exec 7<>still
dd if=/dev/zero of=still oflag=nonblock bs=4096 2>dd.log && fail "a pipe without end"
"$programs/config_service" serve "$fleet" --dir dir --listen "$where" >still 2>&1 &
server=$!
expect 0 "update 1" client set /log/level 1 --timeout 60
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended in a full pipe"
exec 7<&-
rm still

serve "$fleet"
mkfifo still
exec 7<>still
"$programs/config_service" watch --every-step --dir dir --connect "$where" >still 2>still.err &
watcher=$!
wait_for still.err "watching "
set_large 30
end TERM "$watcher"
[[ $ended == 0 ]] || fail "watch ended with $ended while its reader stood still"
grep -qF "lines of the output were not written" still.err || fail "not told: $(cat still.err)"
# For a reader that is only slow, watch leaves no change out.
dd if=still of=/dev/null iflag=nonblock bs=65536 2>dd.log && fail "an end of what the one before has left"
"$programs/config_service" watch --every-step --count 30 --dir dir --connect "$where" >still 2>still.err &
watcher=$!
wait_for still.err "watching "
set_large 30
cat <&7 >late.log &
reader=$!
ends_in_time "$watcher" && wait "$watcher" || fail "watch did not end with 0"
wait_for late.log "update 60  "
[[ $(grep -c "  /log/level  " late.log) == 30 ]] || fail "changes are missing: $(cut -c -80 late.log)"
kill "$reader"
wait "$reader" 2>/dev/null || true
exec 7<&-
rm still
end TERM "$server"

echo "--- output that can't be written for a while"
"$programs/config_service" serve "$fleet" --dir dir --listen "$where" >/dev/full 2>full.err &
server=$!
wait_for full.err "the output can't be written: No space left on device"
expect 0 "update 1" client set /log/level '"unseen"'
expect 0 '"unseen"' client get /log/level
expect 3 "the output can't be written" bash -c '"$@" >/dev/full' - "$programs/config_service" dump --dir dir --connect "$where"
"$programs/config_service" watch --dir dir --connect "$where" >/dev/full 2>watch.err &
watcher=$!
wait_for watch.err "watching "
"$programs/config_service" watch --count 1 --dir dir --connect "$where" >/dev/full 2>count.err &
counting=$!
wait_for count.err "watching "
expect 0 "update 2" client set /log/level 2
ends_in_time "$counting" || fail "watch --count did not end"
code=0
wait "$counting" || code=$?
[[ $code == 3 ]] || fail "watch --count ended with $code, and printed nothing"
wait_for watch.err "the output can't be written: No space left on device"
end TERM "$watcher"
[[ $ended == 0 ]] || fail "watch ended with $ended on a full disk"
grep -qF "1 line of the output was not written: No space left on device" watch.err || fail "not told: $(cat watch.err)"
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended on a full disk"
grep -qF "8 lines of the output were not written: No space left on device" full.err || fail "not told: $(cat full.err)"

# A file that has reached its limit, until it is emptied.
: >limited.log
(ulimit -f 8; exec "$programs/config_service" serve "$fleet" --dir dir --listen "$where" >>limited.log 2>limited.err) &
server=$!
wait_for limited.log "listening "
expect 0 "update 1" client set /log/level "$(printf '"%05000d"' 7)"
expect 0 "update 2" client set /log/level 2
wait_for limited.err "the output can't be written: File too large"
: >limited.log
expect 0 "update 3" client set /log/level 3
wait_for limited.log "sets /log/level: 2 -> 3"
printf '\n(1 line is missing here: File too large)\n127.0.0.1 sets /log/level: 2 -> 3\n' >wanted
diff wanted limited.log || fail "a file that was full"
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended after a write that failed"

# A pipe whose reader goes, until another one comes.
mkfifo reopened
"$programs/config_service" serve "$fleet" --dir dir --listen "$where" >reopened 2>reopened.err &
server=$!
exec 7<reopened
line=
until [[ $line == "listening "* ]]; do read -rt 60 line <&7 || fail "serve prints nothing"; done
exec 7<&-
expect 0 "update 1" client set /log/level 1
wait_for reopened.err "the output can't be written: Broken pipe"
expect 0 "update 2" client set /log/level 2
exec 7<reopened
expect 0 "update 3" client set /log/level 3
read -rt 60 line <&7
[[ $line =~ ^\([12]\ lines?\ (is|are)\ missing\ here:\ Broken\ pipe\)$ ]] || fail "not told: $line"
until [[ $line == *"sets /log/level: 2 -> 3" ]]; do read -rt 60 line <&7 || fail "lost after the pipe was opened anew"; done
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended after a closed pipe"
exec 7<&-

# Started without any of the three: no other file takes their places.
"$programs/config_service" serve "$fleet" --dir dir --listen "$where" <&- >&- 2>&- &
server=$!
expect 0 "update 1" client set /log/level 1 --timeout 60
expect 3 "" bash -c '"$@" >&-' - "$programs/config_service" dump --dir dir --connect "$where"
end TERM "$server"
[[ $ended == 0 ]] || fail "serve ended with $ended without standard streams"

finish
