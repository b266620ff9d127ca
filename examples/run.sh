#!/usr/bin/env bash
# Installs what is missing (Debian, Ubuntu), builds the examples and shows the main job in separate processes: a master
# holds a configuration, two watchers follow it over TLS, changes are sent. Ends with 0 only if both watchers saw them.
# Writes to build/ only.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/environment.sh"

need_packages examples
cd "$root"
cmake --preset examples --log-level=WARNING
cmake --build --preset examples --parallel "$cpus"

config_service=$root/build/examples/examples/config_service
document=$root/examples/data/fleet.json
demo=$root/build/demo
rm -rf "$demo"
mkdir -p "$demo"
cd "$demo"
# shellcheck disable=SC2046 # a list of process ids
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

# Waits until the text $2 stands in the file $1, a minute at most.
wait_for() {
  timeout 60 grep -qFm1 -- "$2" <(exec tail -n +1 -F --pid=$$ "$1" 2>/dev/null) && return
  echo "'$2' did not come in $1, which says:" >&2
  cat "$1" >&2
  exit 1
}
# Prints a command as one would type it.
show() {
  local argument line='$'
  for argument in "$@"; do
    [[ $argument =~ ^[a-zA-Z0-9_/.:-]+$ ]] && line+=" $argument" || line+=" '$argument'"
  done
  printf '\n%s\n' "$line"
}
client() {
  show config_service "$@"
  "$config_service" "$1" --dir . --connect "$where" "${@:2}"
}

show config_service serve "${document#"$root/"}"
"$config_service" serve "$document" --dir . --listen 127.0.0.1:0 >master.log 2>&1 &
wait_for master.log "listening "
cat master.log
where=$(sed -n 's/^listening //p' master.log)

watchers=()
for i in 1 2; do
  # Without --every-step a watcher that is behind sees several updates as one.
  show config_service watch --every-step --count 4
  "$config_service" watch --dir . --connect "$where" --every-step --count 4 >"watcher$i.log" 2>"watcher$i.err" &
  watchers+=($!)
  wait_for "watcher$i.err" "watching "
  cat "watcher$i.err"
done

client get /features/new_checkout
client set /features/new_checkout/enabled true
client set /features/new_checkout/percent 5
client set /log/level '"debug"'
client set /maintenance/windows '[{"from": "2031-02-03T04:00Z", "minutes": 30}]'

cat >expected.log <<'END'
update 1  /features/new_checkout/enabled  false -> true
update 2  /features/new_checkout/percent  0 -> 5
update 3  /log/level  "info" -> "debug"
update 4  /maintenance/windows  [] -> [{"from":"2031-02-03T04:00Z","minutes":30}]
END
result=0
for i in 1 2; do
  # They end by themselves after four changes.
  timeout 60 tail --pid="${watchers[i - 1]}" -s 0.05 -f /dev/null || kill "${watchers[i - 1]}"
  wait "${watchers[i - 1]}" || result=1
  echo
  echo "What watcher $i saw:"
  cat "watcher$i.log"
  diff expected.log <(sed -E 's/^[^ ]+  //' "watcher$i.log") || result=1
done

client get /features/new_checkout
client status
echo
if ((result == 0)); then
  echo "Both watchers saw every change. Now yours: $config_service --help"
else
  echo "FAILED: a watcher saw something else than what was sent." >&2
fi
exit $result
