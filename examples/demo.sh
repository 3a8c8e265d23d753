#!/usr/bin/env bash
# The main job: one SQL text over a file, then over the same rows as a stream, in one process and as a job of the service, and the
# comparison of the results.
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
server=
end() {
  # Jobs outlive their server, by design; Ctrl-C may come while one runs.
  if [[ -n ${HIGHWATER_SERVER:-} ]]; then
    for run in $(highwater runs list -o name --state pending --state starting --state running --state restarting --state stopping 2>/dev/null); do
      highwater stop "$run" --now --wait >/dev/null 2>&1 || true
    done
  fi
  if [[ -n $server ]]; then
    kill "$server" 2>/dev/null && wait "$server" || true
  fi
  rm -rf "$results"
}
trap end EXIT
trap 'exit 130' INT TERM

say "Bounded: 508,239 flights from Parquet; hours with 20 departures or more and a mean delay of 90 minutes or more"
show highwater run examples/flights.sql --set "tables.hours.path=$results/bounded"

say "Streamed: the same SQL; the rows arrive as a live stream, up to ten minutes out of order"
show highwater run examples/flights.sql --set "tables.hours.path=$results/streamed" \
  --set tables.flights.connector=replay --set tables.flights.replay.disorder=10min

say "Every hour of both, row by row"
"$programs/compare" "$results/bounded" "$results/streamed"

say "Served: the same SQL as a job of a server, over REST; its results are views that can be asked"
# In a group of its own: Ctrl-C is for this script, which still needs the server to stop its jobs.
set -m
"$programs/highwater" serve --listen 127.0.0.1:0 --data "$results/data" --allow-root examples \
  >"$results/address" 2>"$results/server.log" &
server=$!
set +m
until grep -q listening "$results/address"; do
  kill -0 "$server" || { cat "$results/server.log" >&2; exit 1; }
  sleep 0.05
done
HIGHWATER_SERVER=$(sed 's/listening on //' "$results/address")
export HIGHWATER_SERVER

show highwater submit examples/flights.sql --wait \
  --set tables.flights.connector=replay --set tables.flights.replay.disorder=10min \
  --set tables.hours.connector=view --set tables.worst_hours.connector=view
show highwater view worst_hours --order-by "mean_delay desc" --limit 5
show highwater sql -e "SELECT origin, COUNT(*) AS bad_hours FROM worst_hours GROUP BY origin ORDER BY bad_hours DESC, origin LIMIT 3"

say "Every hour of the view and of the file"
highwater view hours --limit 100000 -o json >"$results/view.jsonl"
"$programs/compare" "$results/bounded" "$results/view.jsonl"
