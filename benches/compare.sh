#!/usr/bin/env bash
# Balancer beside nginx and HAProxy (and Go's httputil.ReverseProxy where Go is installed), in front of the same
# backends, 2 workers or threads each, in short interleaved slices of wrk. Prints every configuration and, as ratios to
# nginx: CPU time and context switches per request, requests/s, p50, p99, resident size.
#
#   benches/compare.sh                         all rows
#   ENGINE=tiny_http ROWS=tiny64,refuse ROUNDS=5 SLICE=2 benches/compare.sh
#
# ENGINE   frontend.engine of Balancer (auto)
# WORKERS  frontend.workers of Balancer (null)
# ROWS     tiny64 tiny256 16k 1m upload refuse connect slow512 beside tls64 tls1m tlsfull tlsresumed storm h2_16x10 h2_256x4 mix mixalone stall ttfb idle10k, separated by commas
# ROUNDS   slices of each proxy in each row (6); the medians are shown
# SLICE    whole seconds of one slice (2)
# PROXIES  nginx,haproxy,balancer,go: which ones; nginx must be among them
# BIN      a Balancer to measure instead of building one
#
# Everything runs on loopback on ports that are free, and is ended with the script.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/begin.sh"
begin compare.sh nginx haproxy wrk python3
exec python3 "$root/benches/compare/run.py"
