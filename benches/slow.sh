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
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
begin slow.sh nginx wrk python3
exec python3 "$root/benches/slow/run.py"
