#!/usr/bin/env bash
# The main job: one SQL text over a file, then over the same rows as a stream, and the comparison of both results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/highwater/target}
programs=$CARGO_TARGET_DIR/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Building (a first build takes some minutes)"
cargo build --package highwater --package integration-tests --bins --locked
highwater=$programs/highwater

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

say "Bounded: 508,239 flights from Parquet; hours with 20 departures or more and a mean delay of 90 minutes or more"
"$highwater" run examples/flights.sql --set "tables.hours.path=$results/bounded"

say "Streamed: the same SQL; the rows arrive as a live stream, up to ten minutes out of order"
"$highwater" run examples/flights.sql --set "tables.hours.path=$results/streamed" \
  --set tables.flights.connector=replay --set tables.flights.replay.disorder=10min

say "Every hour of both, row by row"
"$programs/compare" "$results/bounded" "$results/streamed"
