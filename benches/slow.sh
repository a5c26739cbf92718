#!/usr/bin/env bash
# Thousands of slow clients (heads, bodies, readers) beside eight normal ones, in front of nginx and of Balancer in turn:
# how long the normal ones wait, and whether all are answered.
#
#   benches/slow.sh
#   SLOW=1000 ROUNDS=2 SLICE=5 BIN=target/release/balancer benches/slow.sh
#
# SLOW     slow clients (4000)
# ROUNDS   slices of each proxy; the medians are shown (3)
# SLICE    whole seconds of one slice (10)
# BIN      a Balancer to measure instead of building one (--release)
#
# Everything runs on loopback on ports that are free, and is ended with the script.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for program in nginx wrk python3 cargo; do
  command -v "$program" >/dev/null || { echo "slow.sh needs $program (Debian: apt-get install nginx wrk python3)"; exit 1; }
done
if [ -z "${BIN:-}" ]; then
  BIN=$(cargo build --release --locked --bin balancer --manifest-path "$root/Cargo.toml" --message-format json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/balancer\)".*/\1/p' | tail -n 1)
fi
export BIN
exec python3 "$root/benches/slow/run.py"
