#!/usr/bin/env bash
# Balancing with one bad backend of three, beside nginx and HAProxy, in two parts:
#
# slow: one backend is ten times slower than the others. wrk, closed loop, in short interleaved slices over nginx (least_conn),
#       HAProxy (leastconn and random(2)) and Balancer's strategies. Medians of requests/s, p50, p99; p99 as a ratio to the best
#       of the others in the same turn; the share of requests that the slow one got.
# hang: one backend takes 30 s for everything. An open loop of RATE requests a second, under each of Balancer's strategies: the
#       p99 of what the other two answer, before and while it hangs, and whatever was not answered 200. Exits with 1
#       when a p99 more than doubled or a request was lost.
#
#   benches/strategies.sh                       both parts
#   BIN=target/debug/balancer PARTS=hang RATE=100 benches/strategies.sh
#
# BIN          a Balancer to measure instead of building one (--release)
# PARTS        slow,hang
# CONNECTIONS  of wrk, one table each (16,48)
# ROUNDS       slices of each (6), SLICE: whole seconds of one (2)
# RATE         requests a second of the open loop (300), SPAN: seconds before and while it hangs (8)
#
# A backend serves eight requests at once, with exponential service times of 5 ms in the mean, and queues the rest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
begin strategies.sh nginx haproxy wrk python3
exec python3 "$root/benches/strategies/run.py"
