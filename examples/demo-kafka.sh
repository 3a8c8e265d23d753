#!/usr/bin/env bash
# The same SQL over a file, and over a topic of a real Kafka broker that this starts and stops; jobs of a server write and read the topic.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/highwater/target}
programs=$CARGO_TARGET_DIR/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug
# Nobody's but the one that is started here: its jobs are stopped at the end.
unset HIGHWATER_SERVER HIGHWATER_KEY
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows a command as it would be typed, and runs it.
show() {
  local word line=
  for word in "$@"; do
    if [[ $word == *[\ \(\;]* ]]; then word="\"$word\""; fi
    line+=" $word"
  done
  printf '\033[2m$%s\033[0m\n' "${line//$results/\$results}" >&2
  "$@"
}
highwater() { "$programs/highwater" "$@"; }

say "Building (a first build takes some minutes)"
cargo build --package highwater --package integration-tests --bins --locked

results=$(mktemp -d)
server= broker=
end() {
  # Jobs outlive their server, by design; Ctrl-C may come while one runs.
  if [[ -n ${HIGHWATER_SERVER:-} ]]; then
    for run in $(highwater runs list -o name --state pending --state starting --state running --state restarting --state stopping 2>/dev/null); do
      highwater stop "$run" --now --wait >/dev/null 2>&1 || true
    done
  fi
  for pid in $server $broker; do
    kill "$pid" 2>/dev/null && wait "$pid" || true
  done
  rm -rf "$results"
}
trap end EXIT
trap 'exit 130' INT TERM
# Waits for the line that a program writes when it is ready.
ready() { # FILE PID
  until [[ -s $1 ]]; do
    kill -0 "$2" || { cat "$results"/*.log >&2; exit 1; }
    sleep 0.05
  done
}

say "Bounded: 508,239 flights from Parquet"
show highwater run examples/flights.sql --set "tables.hours.path=$results/bounded"

say "A Kafka broker with a topic of four partitions, and a server"
# In groups of their own: Ctrl-C is for this script, which still needs the server to stop its jobs.
set -m
"$programs/broker" flights 4 >"$results/broker" 2>"$results/broker.log" &
broker=$!
"$programs/highwater" serve --listen 127.0.0.1:0 --data "$results/data" --allow-root examples \
  >"$results/address" 2>"$results/server.log" &
server=$!
set +m
ready "$results/address" "$server"
ready "$results/broker" "$broker"
HIGHWATER_SERVER=$(sed 's/listening on //' "$results/address")
export HIGHWATER_SERVER
kafka=$(cat "$results/broker")

say "Files to Kafka: the flights go into the topic, up to ten minutes out of order"
show highwater submit examples/flights-to-kafka.sql --wait --set "tables.topic.properties.bootstrap.servers=$kafka"

say "Streamed: the same SQL reads the topic; its results are views"
show highwater submit examples/flights.sql --name streamed \
  --set tables.flights.connector=kafka --set tables.flights.topic=flights --set tables.flights.format=json \
  --set "tables.flights.properties.bootstrap.servers=$kafka" \
  --set tables.hours.connector=view --set tables.worst_hours.connector=view
until highwater runs get streamed -o json | grep -q '"rows_in":508239,'; do
  kill -0 "$server" || { cat "$results/server.log" >&2; exit 1; }
  highwater runs list --job streamed --state failed -o name | grep -q run_ && { highwater runs get streamed >&2; exit 1; }
  sleep 0.5
done
show highwater runs list --job streamed

say "Drained: the topic counts as ended, and open windows fire"
show highwater stop streamed --drain --wait
show highwater view worst_hours --order-by "mean_delay desc" --limit 5

say "Every hour of both, row by row"
highwater view hours --limit 100000 -o json >"$results/streamed.jsonl"
"$programs/compare" "$results/bounded" "$results/streamed.jsonl"
