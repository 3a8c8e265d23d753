#!/usr/bin/env bash
# Builds what is released and its peer, both in the `dist` profile, and measures them: `make bench [ARGUMENTS="--only tumble"]`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/highwater
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
cargo build --profile dist --locked --package highwater --package integration-tests --bins
# Apart: the peer must not choose features for the program.
cargo build --profile dist --locked --package benches --features benches/datafusion
mkdir -p "$cache/bench"
"$CARGO_TARGET_DIR/dist/benches" --highwater "$CARGO_TARGET_DIR/dist/highwater" --gen "$CARGO_TARGET_DIR/dist/gen" \
  --cache "$cache/bench" --report docs "$@"
