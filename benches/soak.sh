#!/usr/bin/env bash
# A soak: one fault after another under steady load, for MINUTES. Every few seconds a line with requests, lost requests,
# resident size and descriptors; at the end a verdict.
#
#   benches/soak.sh 30
#   BIN=target/debug/balancer CLIENTS=32 SEED=7 benches/soak.sh 3
#
# Lost is a request that another backend could have served: a GET or PUT without a whole 200. Not lost are requests that can't
# be sent twice (POST, and bodies too large to be kept, once something was sent) and answers that their backend cut after
# they had begun; both are counted.
# The exit status is 0 only if nothing was lost and, after a warm-up of a third of the time, resident size and
# descriptors of the last third are within 5 % of those of the first.
#
# BIN      a Balancer to try instead of building one (--release)
# BACKEND  the test_backend beside it
# CLIENTS  connections with requests at any time (64)
# PAUSE    seconds between two requests of a client (0.01)
# SEED     of the order of the faults (random, printed)
# ENGINE   frontend.engine (auto)
# TABLE    a file for all samples, tab separated
#
# Faults: a backend killed, stopped, answering garbage, resetting before and inside its answer, accepting and never
# answering, closing kept connections at random, answering 500 in bursts; the database locked; reloads; clients that reset, that
# read slowly, that come in hundreds and say nothing. Everything runs on loopback on free ports, and ends with the script.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
[[ "${1:-}" =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "soak.sh MINUTES (see its head)"; exit 2; }
begin soak.sh python3
BACKEND=$(realpath "${BACKEND:-$(dirname "$BIN")/test_backend}")
export BACKEND
exec python3 "$root/benches/soak/run.py" "$1"
